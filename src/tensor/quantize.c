#include "tensor/quantize.h"

#include <math.h>

#include "base/mem.h"
#include "tensor/block.h"

bool quantize_offers(enum dtype t)
{
    return fit_scheme(t) || t == DT_F32 || t == DT_F16 || t == DT_BF16;
}

struct row_result {
    struct quantize_sums sums;
    int64_t bad; /* column that cannot be stored, or -1 */
};
struct rows {
    const struct quantize_job *job;
    const struct dtype_row *d;
    struct row_result *results; /* [n_row] */
};

/* A block, and what it says afterwards; the first column that is not stored as a finite number, or -1. */
static int block_store(struct quantize_sums *sums, uint8_t *out, const struct rows *r, const float *x,
                       const float *importance)
{
    static const float alike[FIT_COUNT] = {0}; /* all zero counts as all one */
    float back[FIT_COUNT];
    enum dtype t = r->job->type;
    int n = r->d->block;
    for (int j = 0; j < n; j++)
        if (!isfinite(x[j]))
            return j;
    if (fit_scheme(t)) {
        struct fit f;
        fit_block(&f, t, x, importance ? importance : alike);
        block_pack(out, t, &f);
    } else {
        enum status st = dtype_from_f32(out, t, x, (size_t)n, NULL);
        (void)st; /* plain types are written without fail */
    }
    dtype_to_f32(back, t, out, (size_t)n);
    for (int j = 0; j < n; j++) {
        if (!isfinite(back[j]))
            return j;
        double e = (double)x[j] - (double)back[j];
        sums->error += e * e;
        sums->energy += (double)x[j] * (double)x[j];
    }
    return -1;
}

static void row_store(void *ctx, int item, int thread)
{
    (void)thread;
    const struct rows *r = ctx;
    const struct quantize_job *job = r->job;
    int64_t block = r->d->block;
    struct row_result result = {.bad = -1};
    const float *x = job->in + item * job->n;
    uint8_t *out = (uint8_t *)job->out + (size_t)item * (size_t)(job->n / block) * (size_t)r->d->bytes;
    for (int64_t k = 0; k < job->n && result.bad < 0; k += block, out += r->d->bytes) {
        int bad = block_store(&result.sums, out, r, x + k, job->importance ? job->importance + k : NULL);
        result.bad = bad < 0 ? -1 : k + bad;
    }
    r->results[item] = result;
}

enum status quantize_rows(const struct quantize_job *job, struct quantize_sums *sums, struct pool *pool,
                          struct error *err)
{
    struct rows r = {.job = job, .d = dtype_row(job->type)};
    if (!quantize_offers(job->type))
        return fail(err, ST_UNSUPPORTED, "numbers cannot be written as %s", r.d->name);
    if (job->n % r.d->block || job->n_row > INT32_MAX)
        return fail(err, ST_INVALID, "rows of %lld are no whole blocks of %s (%d)", (long long)job->n, r.d->name,
                    r.d->block);
    r.results = mem_alloc_zero((size_t)job->n_row, sizeof *r.results);
    if (!r.results)
        return fail_nomem(err, "quantize");
    pool_run(pool, row_store, &r, (int)job->n_row);
    enum status st = ST_OK;
    for (int64_t i = 0; i < job->n_row && st == ST_OK; i++) {
        int64_t bad = r.results[i].bad;
        if (bad >= 0)
            st = fail(err, ST_INVALID, "row %lld, column %lld is %g, which %s cannot hold", (long long)i,
                      (long long)bad, (double)job->in[i * job->n + bad], r.d->name);
        sums->error += r.results[i].sums.error;
        sums->energy += r.results[i].sums.energy;
    }
    mem_free(r.results);
    return st;
}
