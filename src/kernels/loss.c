/* loss - doors of log-sum-exp, the loss, the optimizer and selection over a vocabulary */
#include "kernels/kernels_private.h"

/* ---- loss: one row an item, a row is a vocabulary ---- */
void lse_forward(real *lse, const real *x, int64_t n_row, int64_t n, struct pool *pool)
{
    struct loss_job job = {.lse = lse, .x = x, .n = n};
    range_run(pool, kernels.lse_rows, &job, n_row, n < 4096 ? 4 : 1);
}

real lse_divided(const real *x, real divisor, int64_t n)
{
    real lse;
    struct loss_job job = {.lse = &lse, .x = x, .n = n, .divisor = divisor == 1 ? 0 : divisor};
    kernels.lse_rows(&job, 0, 1);
    return lse;
}

void cross_entropy(real *loss, real *dx, const real *x, const int32_t *targets, real scale, int64_t n_row, int64_t n,
                   struct pool *pool)
{
    struct loss_job job = {.loss = loss, .dx = dx, .x = x, .targets = targets, .scale = scale, .n = n};
    range_run(pool, kernels.loss_rows, &job, n_row, n < 4096 ? 4 : 1);
}

/* ---- optimizer ---- */
void adamw_step(real *param, real *m, real *v, const real *grad, const struct adamw *how, int64_t count,
                struct pool *pool)
{
    /* Constants in double, rounded once: bias corrections 1 - beta^step and what follows from them. */
    double correction1 = 1 - fn_pow((double)how->beta1, (double)how->step);
    double correction2 = 1 - fn_pow((double)how->beta2, (double)how->step);
    struct adamw_job job = {
        .param = param,
        .m = m,
        .v = v,
        .grad = grad,
        .grad_scale = how->grad_scale,
        .keep1 = (real)(1 - (double)how->beta1),
        .keep2 = (real)(1 - (double)how->beta2),
        .beta2 = how->beta2,
        .step_size = (real)((double)how->lr / correction1),
        .v_scale = (real)(1 / sqrt(correction2)),
        .eps = how->eps,
        .decay = (real)(1 - (double)how->lr * (double)how->weight_decay),
    };
    range_run(pool, kernels.adamw_range, &job, count, 8192);
}

double sum_squares(const real *x, int64_t count, struct pool *pool)
{
    enum { AT_ONCE = 512 };
    double sums[AT_ONCE], total = 0;
    for (int64_t i = 0; i < count; i += (int64_t)AT_ONCE * SQUARES_CHUNK) {
        int64_t n = count - i < (int64_t)AT_ONCE * SQUARES_CHUNK ? count - i : (int64_t)AT_ONCE * SQUARES_CHUNK;
        int64_t n_chunk = (n + SQUARES_CHUNK - 1) / SQUARES_CHUNK;
        struct squares_job job = {x + i, n, sums};
        range_run(pool, kernels.squares_chunks, &job, n_chunk, 1);
        for (int64_t c = 0; c < n_chunk; c++)
            total += sums[c];
    }
    return total;
}

/* ---- selection ---- */
/* By logit descending, then id ascending; NaN after everything. */
static bool is_better(struct candidate a, struct candidate b)
{
    bool nan_a = a.logit != a.logit, nan_b = b.logit != b.logit;
    if (nan_a != nan_b)
        return nan_b;
    return a.logit > b.logit || ((nan_a || a.logit == b.logit) && a.id < b.id);
}

/* heap[0] is the worst of the n kept; sinks the candidate at i to its place. */
static void heap_sink(struct candidate *heap, int n, int i)
{
    struct candidate c = heap[i];
    for (int child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && is_better(heap[child], heap[child + 1]))
            child++;
        if (!is_better(c, heap[child]))
            break;
        heap[i] = heap[child];
    }
    heap[i] = c;
}

/* A heap becomes a list, the best first. */
static void heap_unwind(struct candidate *heap, int k)
{
    for (int i = k - 1; i > 0; i--) { /* the worst goes last */
        struct candidate worst = heap[0];
        heap[0] = heap[i];
        heap[i] = worst;
        heap_sink(heap, i, 0);
    }
}

int top_k_select(struct candidate *out, const float *x, int64_t n, int k)
{
    if (k > n)
        k = (int)n;
    if (k <= 0)
        return 0;
    for (int i = 0; i < k; i++)
        out[i] = (struct candidate){i, x[i]};
    for (int i = k / 2 - 1; i >= 0; i--)
        heap_sink(out, k, i);
    for (int64_t i = k; i < n; i++) {
        if (out[0].logit == out[0].logit) /* an equal logit with a higher id never enters: strictly above is enough */
            i = kernels.find_above(x, i, n, out[0].logit);
        if (i < n && is_better((struct candidate){(int32_t)i, x[i]}, out[0])) {
            out[0] = (struct candidate){(int32_t)i, x[i]};
            heap_sink(out, k, 0);
        }
    }
    heap_unwind(out, k);
    return k;
}

int32_t argmax(const float *x, int64_t n)
{
    int64_t best = -1;
    for (int64_t i = kernels.find_above(x, 0, n, -INFINITY); i < n; i = kernels.find_above(x, i + 1, n, x[i]))
        best = i;
    for (int64_t i = 0; best < 0 && i < n; i++) /* nothing above -inf: the first that is no NaN */
        if (x[i] == x[i])
            best = i;
    return (int32_t)best;
}

/* ---- the same, given the maxima of blocks ---- */
static int64_t block_end(int64_t b, int64_t n)
{
    return (b + 1) * ROW_BLOCK < n ? (b + 1) * ROW_BLOCK : n;
}

bool row_maxima(float *maxima, const float *x, int64_t n)
{
    return kernels.row_maxima(maxima, x, n);
}

int64_t row_collect(struct candidate *out, const float *x, const float *maxima, int64_t n, float low, float high)
{
    int64_t count = 0;
    for (int64_t b = 0; b < row_blocks(n); b++)
        if (maxima[b] >= low)
            count += kernels.collect_from(out + count, x, b * ROW_BLOCK, block_end(b, n), low, high);
    return count;
}

double row_mass(const float *x, const float *maxima, int64_t n, const struct row_mass *m)
{
    double sum = 0;
    for (int64_t b = 0; b < row_blocks(n); b++)
        if (maxima[b] >= m->low)
            sum += kernels.mass_between(x, b * ROW_BLOCK, block_end(b, n), m);
    return sum;
}

int32_t row_argmax(const float *x, const float *maxima, int64_t n)
{
    int32_t block = argmax(maxima, row_blocks(n)); /* the first of equals */
    struct candidate found[ROW_BLOCK];
    kernels.collect_from(found, x, (int64_t)block * ROW_BLOCK, block_end(block, n), maxima[block], INFINITY);
    return found[0].id;
}

/* The k-th largest maximum bounds the k-th largest element from below: each of k blocks has one that is no smaller. */
int row_top_k(struct candidate *out, const float *x, const float *maxima, int64_t n, int k)
{
    int64_t n_block = row_blocks(n);
    if (k <= 0 || k > n_block)
        return top_k_select(out, x, n, k);
    top_k_select(out, maxima, n_block, k);
    float limit = out[k - 1].logit;
    int kept = 0;
    for (int64_t b = 0; b < n_block; b++) {
        struct candidate found[ROW_BLOCK];
        int64_t n_found = 0;
        if (maxima[b] >= limit)
            n_found = kernels.collect_from(found, x, b * ROW_BLOCK, block_end(b, n), limit, INFINITY);
        for (int64_t i = 0; i < n_found; i++) {
            if (kept < k) {
                out[kept++] = found[i];
                for (int j = k / 2 - 1; kept == k && j >= 0; j--)
                    heap_sink(out, k, j);
            } else if (is_better(found[i], out[0])) {
                out[0] = found[i];
                heap_sink(out, k, 0);
            }
        }
    }
    heap_unwind(out, k);
    return k;
}
