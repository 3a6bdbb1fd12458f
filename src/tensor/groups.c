/* groups - numbers are taken in units of a power of two, so that no sum overflows; four sums side by side, added in one
 * order, so that any vector width gives the same bits */
#include "tensor/groups.h"

#include <math.h>

#include "base/mem.h"

enum { LEVELS = 16, RANGES = 17, TURNS = 2 };

typedef float quad __attribute__((vector_size(16)));
typedef int32_t mask __attribute__((vector_size(16)));

struct fit { /* of one group */
    const float *x, *w;
    int64_t n;
    float scale;
    int zero;
    float error;
};

static float sum_of(quad a)
{
    return (a[0] + a[1]) + (a[2] + a[3]);
}

/* level - zero of each number under 1 / scale. */
static inline quad centred(const float *x, float inverse, int zero)
{
    const float whole = 12582912.0f; /* 1.5 * 2^23: adding and taking it away rounds to the nearest integer */
    quad low = -(float)zero + (quad){0}, high = (float)(LEVELS - 1 - zero) + (quad){0};
    quad y = {x[0] * inverse, x[1] * inverse, x[2] * inverse, x[3] * inverse};
    mask below = y<low, above = y> high;
    y = (quad)(((mask)y & ~(below | above)) | ((mask)low & below) | ((mask)high & above));
    return (y + whole) - whole;
}

/* Levels under a scale, and the scale that suits them best; kept when it leaves less than any before. */
static float consider(struct fit *f, float scale, int zero, float energy)
{
    quad qx = {0}, qq = {0};
    float inverse = 1 / scale;
    for (int64_t j = 0; j < f->n; j += 4) {
        quad q = centred(f->x + j, inverse, zero);
        quad x = {f->x[j], f->x[j + 1], f->x[j + 2], f->x[j + 3]};
        quad w = f->w ? (quad){f->w[j], f->w[j + 1], f->w[j + 2], f->w[j + 3]} : (quad){1, 1, 1, 1};
        quad wq = w * q;
        qx += wq * x;
        qq += wq * q;
    }
    float a = sum_of(qx), b = sum_of(qq);
    if (!(a > 0 && b > 0))
        return scale;
    float error = energy - a * a / b;
    if (error < f->error) {
        f->error = error;
        f->scale = a / b;
        f->zero = zero;
    }
    return a / b;
}

static void fit_group(struct fit *f, bool symmetric)
{
    float low = 0, high = 0, energy = 0;
    for (int64_t j = 0; j < f->n; j++) {
        low = f->x[j] < low ? f->x[j] : low;
        high = f->x[j] > high ? f->x[j] : high;
        energy += (f->w ? f->w[j] : 1) * f->x[j] * f->x[j];
    }
    f->scale = 1;
    f->zero = LEVELS / 2;
    f->error = INFINITY;
    float whole = symmetric ? fmaxf(-low / (LEVELS / 2), high / (LEVELS / 2 - 1)) : (high - low) / (LEVELS - 1);
    if (!(whole > 0))
        return;
    f->scale = whole; /* what is left when nothing leaves less */
    int middle = symmetric ? LEVELS / 2 : (int)(-low / whole + 0.5f), around = symmetric ? 0 : 1;
    for (int zero = middle - around; zero <= middle + around; zero++)
        /* steps so small that a grid of sixteen levels is found whatever part of it is used */
        for (int i = 0; i < RANGES && zero >= 0 && zero < LEVELS; i++) {
            float scale = whole * (1.2f - 0.0375f * (float)i);
            for (int turn = 0; turn < TURNS; turn++)
                scale = consider(f, scale, zero, energy);
        }
}

/* ---- rows ---- */
struct row_result {
    struct quantize_sums sums;
    int64_t bad; /* column that cannot be stored, or -1 */
};
struct rows {
    const struct groups_job *job;
    struct row_result *results;
    float *scratch; /* [threads, group] */
};

/* The largest magnitude's power of two, so that everything lies below 2; 0: a number that is not finite. */
static float unit_of(const float *x, int64_t n, int64_t *bad)
{
    float most = 0;
    int exponent;
    for (int64_t j = 0; j < n; j++) {
        if (!isfinite(x[j])) {
            *bad = j;
            return 0;
        }
        most = fmaxf(most, fabsf(x[j]));
    }
    frexpf(most, &exponent);
    return ldexpf(1, exponent < -125 ? -125 : exponent - 1);
}

/* The first column that cannot be stored, or -1. */
static int64_t store_group(const struct groups_job *job, struct quantize_sums *sums, float *scratch, int64_t row,
                           int64_t g)
{
    const float *x = job->in + row * job->n + g * job->group;
    uint8_t *level = job->levels + row * job->n + g * job->group;
    int64_t bad = -1, at = row * (job->n / job->group) + g;
    float unit = unit_of(x, job->group, &bad);
    if (bad >= 0)
        return bad;
    for (int64_t j = 0; j < job->group; j++)
        scratch[j] = x[j] / unit;
    struct fit f = {.x = scratch, .w = job->importance ? job->importance + g * job->group : NULL, .n = job->group};
    fit_group(&f, job->symmetric);
    job->scales[at] = f32_to_f16(f.scale * unit);
    job->zeros[at] = (uint8_t)f.zero;
    float scale = f16_to_f32(job->scales[at]), inverse = scale > 0 ? 1 / scale : 0;
    if (!isfinite(scale))
        return 0;
    for (int64_t j = 0; j < job->group; j++) {
        float q = rintf(x[j] * (isfinite(inverse) ? inverse : 0)) + (float)f.zero;
        level[j] = (uint8_t)(q < 0 ? 0 : q > LEVELS - 1 ? LEVELS - 1 : q);
        double e = (double)x[j] - (double)(scale * (float)(level[j] - f.zero));
        sums->error += e * e;
        sums->energy += (double)x[j] * (double)x[j];
    }
    return -1;
}

static void row_store(void *ctx, int item, int thread)
{
    const struct rows *r = ctx;
    const struct groups_job *job = r->job;
    struct row_result result = {.bad = -1};
    for (int64_t g = 0; g < job->n / job->group && result.bad < 0; g++) {
        int64_t bad = store_group(job, &result.sums, r->scratch + thread * job->group, item, g);
        result.bad = bad < 0 ? -1 : g * job->group + bad;
    }
    r->results[item] = result;
}

enum status quantize_groups(const struct groups_job *job, struct quantize_sums *sums, struct pool *pool,
                            struct error *err)
{
    struct rows r = {.job = job};
    if (job->group < 4 || job->group % 4 || job->n % job->group || job->n_row > INT32_MAX)
        return fail(err, ST_INVALID, "rows of %lld are no whole groups of %lld", (long long)job->n,
                    (long long)job->group);
    r.results = mem_alloc_zero((size_t)job->n_row, sizeof *r.results);
    r.scratch = mem_alloc((size_t)pool_threads(pool) * (size_t)job->group * sizeof *r.scratch);
    enum status st = r.results && r.scratch ? ST_OK : fail_nomem(err, "quantize");
    if (st == ST_OK)
        pool_run(pool, row_store, &r, (int)job->n_row);
    for (int64_t i = 0; i < job->n_row && st == ST_OK; i++) {
        int64_t bad = r.results[i].bad;
        if (bad >= 0)
            st = fail(err, ST_INVALID, "row %lld, column %lld is %g, which groups of 4 bits cannot hold", (long long)i,
                      (long long)bad, (double)job->in[i * job->n + bad]);
        sums->error += r.results[i].sums.error;
        sums->energy += r.results[i].sums.energy;
    }
    mem_free(r.results);
    mem_free(r.scratch);
    return st;
}
