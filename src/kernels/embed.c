/* embed - rows of the embedding gathered from panels, and their gradients put back into panels */
#include "kernels/kernels_private.h"

struct embed_job {
    real *out;
    const struct weight *w;
    const int32_t *ids;
};

static void forward_item(void *ctx, int item, int thread)
{
    (void)thread;
    const struct embed_job *job = ctx;
    weight_get_row(job->out + item * job->w->n_in, job->w, job->ids[item]);
}

void embed_forward(real *out, const struct weight *w, const int32_t *ids, int64_t n_row, struct pool *pool)
{
    struct embed_job job = {out, w, ids};
    pool_run(pool, forward_item, &job, (int)n_row);
}

struct embed_grad {
    real *dw;
    const real *dy;
    const int32_t *ids;
    int64_t n_row, n;
    int n_item;
};

/* Split by columns: every item walks all tokens in order, so a token that occurs twice is added in order. */
static void backward_item(void *ctx, int item, int thread)
{
    (void)thread;
    const struct embed_grad *g = ctx;
    int64_t k0 = g->n * item / g->n_item, k1 = g->n * (item + 1) / g->n_item;
    for (int64_t r = 0; r < g->n_row; r++) {
        int64_t id = g->ids[r];
        real *dw = g->dw + id / LANES * LANES * g->n + id % LANES;
        for (int64_t k = k0; k < k1; k++)
            dw[k * LANES] += g->dy[r * g->n + k];
    }
}

void embed_backward(real *dw_panels, const real *dy, const int32_t *ids, int64_t n_row, int64_t n_vocab, int64_t n,
                    struct pool *pool)
{
    (void)n_vocab;
    struct embed_grad g = {dw_panels, dy, ids, n_row, n, 4 * pool_threads(pool)};
    pool_run(pool, backward_item, &g, g.n_item);
}
