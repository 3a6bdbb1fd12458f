/* linear_backward_ref - the definition of the transposed products' bits, on the same panels as the forward */
#include "kernels/kernels_private.h"

/* dx = dy W: lane j takes outputs n = j (mod 16) ascending, then the tree (docs/numerics.md section 2). */
void linear_input__ref(const struct linear_input_job *job, int64_t row0, int64_t row1, int64_t k0, int64_t k1)
{
    int64_t n_in = job->w->n_in, n_out = job->w->n_out;
    for (int64_t r = row0; r < row1; r++)
        for (int64_t k = k0; k < k1; k++) {
            real lane[LANES] = {0};
            for (int64_t n = 0; n < n_out; n++) {
                const real *w = panel_at(job->w, n / LANES);
                lane[n % LANES] = FMA(job->dy[r * n_out + n], w[k * LANES + n % LANES], lane[n % LANES]);
            }
            real sum = lanes_sum(lane);
            real *dx = &job->dx[r * n_in + k];
            *dx = job->accumulate ? *dx + sum : sum;
        }
}

/* dw += dy^T x: one accumulator an element, tokens ascending. */
void linear_weight__ref(const struct linear_weight_job *job, int64_t panel0, int64_t panel1, int64_t k0, int64_t k1)
{
    for (int64_t p = panel0; p < panel1; p++)
        for (int64_t k = k0; k < k1; k++) {
            real *dw = job->dw + (p * job->n_in + k) * LANES;
            for (int64_t n = p * LANES; n < (p + 1) * LANES && n < job->n_out; n++) {
                real acc = dw[n % LANES];
                for (int64_t t = 0; t < job->n_row; t++)
                    acc = FMA(job->dy[t * job->n_out + n], job->x[t * job->n_in + k], acc);
                dw[n % LANES] = acc;
            }
        }
}
