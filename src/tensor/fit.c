/* fit - sixteen candidates side by side, one a lane: no sum runs across lanes, so that any vector width gives the same
 * bits. Numbers are taken in units of a power of two, so that the largest lies in 1 .. 2 and no sum overflows. */
#include "tensor/fit.h"

#include <math.h>

#include "tensor/block.h"

enum { LANES = 16, COARSE = 2 };

static const int8_t fp4_ascending[15] = {-12, -8, -6, -4, -3, -2, -1, 0, 1, 2, 3, 4, 6, 8, 12};

static const struct fit_scheme schemes[DT_COUNT] = {
    /* clang-format off */
    [DT_Q4_0]   = {1, 32, .low = -8, .high = 7},
    [DT_Q5_0]   = {1, 32, .low = -16, .high = 15},
    [DT_Q8_0]   = {1, 32, .low = -127, .high = 127},
    [DT_Q4_1]   = {1, 32, .low = 0, .high = 15, .offset = true},
    [DT_Q5_1]   = {1, 32, .low = 0, .high = 31, .offset = true},
    [DT_Q2_K]   = {16, 16, .low = 0, .high = 3, .scale_low = 0, .scale_high = 15, .min_high = 15},
    [DT_Q3_K]   = {16, 16, .low = -4, .high = 3, .scale_low = -32, .scale_high = 31},
    [DT_Q4_K]   = {8, 32, .low = 0, .high = 15, .scale_low = 0, .scale_high = 63, .min_high = 63},
    [DT_Q5_K]   = {8, 32, .low = 0, .high = 31, .scale_low = 0, .scale_high = 63, .min_high = 63},
    [DT_Q6_K]   = {16, 16, .low = -32, .high = 31, .scale_low = -128, .scale_high = 127},
    [DT_IQ4_NL] = {1, 32, .values = iq4_values, .n_value = 16},
    [DT_IQ4_XS] = {8, 32, .scale_low = -32, .scale_high = 31, .values = iq4_values, .n_value = 16},
    [DT_MXFP4]  = {1, 32, .power = true, .values = fp4_ascending, .n_value = 15},
    /* clang-format on */
};

const struct fit_scheme *fit_scheme(enum dtype t)
{
    return schemes[t].groups ? &schemes[t] : NULL;
}

/* A block being fitted. */
struct work {
    const struct fit_scheme *s;
    float unit;                 /* what 1 here is outside: a power of two */
    float low, high;            /* least and greatest value of a level */
    float middle[15], step[15]; /* of a table: borders between neighbours, and their distances */
    float x[FIT_COUNT], w[FIT_COUNT];
};

/* Four at a time: what every processor here has. */
typedef float quad __attribute__((vector_size(16)));
typedef int32_t mask __attribute__((vector_size(16)));
struct lanes {
    union {
        float at[LANES];
        quad part[LANES / 4];
    };
};

/* Candidates: value = level * scale - min; inverse is 1 / scale, or 0. */
struct candidates {
    struct lanes scale, inverse, min;
};

static float inverse_of(float scale)
{
    return fabsf(scale) > 1e-30f ? 1.0f / scale : 0.0f;
}

/* The value of the level nearest to each y. */
static inline quad nearest(quad y, const struct work *k)
{
    quad q = k->low + (quad){0};
    if (k->s->values) {
        for (int i = 0; i < k->s->n_value - 1; i++) {
            quad step = k->step[i] + (quad){0};
            q += (quad)((mask)step & (y > k->middle[i]));
        }
        return q;
    }
    const float whole = 12582912.0f; /* 1.5 * 2^23: adding and taking it away rounds to the nearest integer */
    quad high = k->high + (quad){0};
    mask below = y<q, above = y> high;
    y = (quad)(((mask)y & ~(below | above)) | ((mask)q & below) | ((mask)high & above));
    return (y + whole) - whole;
}

/* ---- least squares over candidates ---- */
struct sums {
    struct lanes qx, q, qq;
    float w, x, xx;
};

static void sums_of(struct sums *out, const struct work *k, int at, const struct candidates *c)
{
    const float *x = k->x + at, *w = k->w + at;
    *out = (struct sums){0};
    for (int j = 0; j < k->s->size; j++) {
        out->w += w[j];
        out->x += w[j] * x[j];
        out->xx += w[j] * x[j] * x[j];
    }
    for (int i = 0; i < LANES / 4; i++) {
        quad min = c->min.part[i], inverse = c->inverse.part[i], qx = {0}, q = {0}, qq = {0};
        for (int j = 0; j < k->s->size; j++) {
            quad level = nearest((x[j] + min) * inverse, k), wq = w[j] * level;
            qx += wq * x[j];
            q += wq;
            qq += wq * level;
        }
        out->qx.part[i] = qx;
        out->q.part[i] = q;
        out->qq.part[i] = qq;
    }
}

struct group_fit {
    float scale, min, error;
};

/* The best scale (and minimum) for the levels of lane i. */
static struct group_fit solve(const struct sums *s, int i, bool with_min, bool min_positive)
{
    float q = s->q.at[i], qq = s->qq.at[i], qx = s->qx.at[i], det = s->w * qq - q * q;
    struct group_fit f = {.scale = qq > 0 ? qx / qq : 0};
    if (with_min && det > 1e-9f * s->w * qq) {
        float scale = (s->w * qx - s->x * q) / det, min = (s->x * -qq + q * qx) / det;
        if (!min_positive || (min >= 0 && scale >= 0))
            f = (struct group_fit){.scale = scale, .min = min};
    }
    f.error = s->xx - 2 * f.scale * qx + f.scale * f.scale * qq + f.min * (2 * s->x - 2 * f.scale * q + f.min * s->w);
    return f;
}

static void improve(struct group_fit *best, const struct work *k, int at, const struct candidates *c)
{
    struct sums s;
    sums_of(&s, k, at, c);
    bool with_min = k->s->min_high || k->s->offset;
    for (int i = 0; i < LANES; i++) {
        struct group_fit f = solve(&s, i, with_min, k->s->min_high > 0);
        if (f.error < best->error)
            *best = f;
    }
}

/* Closer and closer around the best so far. */
static void refine(struct group_fit *best, const struct work *k, int at, float spread)
{
    for (int round = 0; round < 2; round++, spread /= 4) {
        struct candidates c;
        for (int i = 0; i < LANES; i++) {
            c.inverse.at[i] = inverse_of(best->scale) * (1 + spread * ((float)i - 7.5f) / 7.5f);
            c.min.at[i] = best->min;
        }
        improve(best, k, at, &c);
    }
}

/* Signed levels: the element of largest magnitude lands near the lowest or near the highest level. */
static struct group_fit search_scale(const struct work *k, int at)
{
    float most = 0, xx = 0;
    for (int j = at; j < at + k->s->size; j++) {
        most = fabsf(k->x[j]) > fabsf(most) ? k->x[j] : most;
        xx += k->w[j] * k->x[j] * k->x[j];
    }
    struct group_fit best = {.error = xx};
    if (fabsf(most) < 1e-30f)
        return best;
    for (int side = 0; side < COARSE; side++) {
        float end = side ? k->high : k->low, far = fabsf(end), span = 0.4f * far;
        span = !k->s->values && span > 4 ? 4 : span;
        struct candidates c = {0};
        for (int i = 0; i < LANES; i++) {
            float t = far + 0.06f * span - (float)i / (LANES - 1) * span;
            c.inverse.at[i] = (end < 0 ? -t : t) / most;
        }
        improve(&best, k, at, &c);
    }
    refine(&best, k, at, (k->s->values ? 0.03f : 0.3f / k->high));
    return best;
}

/* Levels 0 .. high above a minimum: both ends are drawn in by shares of a level. */
static struct group_fit search_range(const struct work *k, int at)
{
    float low = k->x[at], high = low, x = 0, w = 0, xx = 0, top = k->high;
    for (int j = at; j < at + k->s->size; j++) {
        low = k->x[j] < low ? k->x[j] : low;
        high = k->x[j] > high ? k->x[j] : high;
        x += k->w[j] * k->x[j];
        w += k->w[j];
        xx += k->w[j] * k->x[j] * k->x[j];
    }
    if (k->s->min_high && low > 0)
        low = 0;
    float mean = w > 0 ? x / w : 0;
    if (k->s->min_high && mean > 0)
        mean = 0;
    struct group_fit best = {.min = -mean, .error = xx - 2 * mean * x + mean * mean * w};
    float range = high - low;
    if (range < 1e-30f)
        return best;
    static const float begin[] = {-0.25f, 0.0f, 0.25f, 0.6f};
    for (size_t b = 0; b < sizeof begin / sizeof *begin; b++) {
        struct candidates c;
        for (int i = 0; i < LANES; i++) {
            c.inverse.at[i] = (top - 0.5f + (float)i / (LANES - 1) * (1.0f + 0.2f * top)) / range;
            c.min.at[i] = -(low + begin[b] * range / top);
        }
        improve(&best, k, at, &c);
    }
    refine(&best, k, at, 0.3f / top);
    return best;
}

/* ---- the error that is really left, over candidates ---- */
static void errors_of(struct lanes *out, const struct work *k, int at, const struct candidates *c)
{
    const float *x = k->x + at, *w = k->w + at;
    for (int i = 0; i < LANES / 4; i++) {
        quad scale = c->scale.part[i], min = c->min.part[i], inverse = c->inverse.part[i], sum = {0};
        for (int j = 0; j < k->s->size; j++) {
            quad e = x[j] - (nearest((x[j] + min) * inverse, k) * scale - min);
            sum += w[j] * e * e;
        }
        out->part[i] = sum;
    }
}

static int best_lane(float *error, const struct work *k, int at, struct candidates *c)
{
    struct lanes e;
    int best = 0;
    for (int i = 0; i < LANES; i++)
        c->inverse.at[i] = inverse_of(c->scale.at[i]);
    errors_of(&e, k, at, c);
    for (int i = 1; i < LANES; i++)
        best = e.at[i] < e.at[best] ? i : best;
    *error = e.at[best];
    return best;
}

/* The nearest whole number in low .. high; low for NaN. */
static int whole_of(float v, int low, int high)
{
    return v >= (float)high ? high : v >= (float)low ? (int)rintf(v) : low;
}

static void levels_put(int *level, const struct work *k, int at, float scale, float min)
{
    float inverse = inverse_of(scale);
    for (int j = at; j < at + k->s->size; j++) {
        float y = (k->x[j] + min) * inverse;
        int q = 0;
        if (k->s->values) {
            for (int i = 0; i < k->s->n_value - 1; i++)
                q += y > k->middle[i];
        } else {
            q = whole_of(y, k->s->low, k->s->high);
        }
        level[j] = q;
    }
}

static int clamp(int v, int low, int high)
{
    return v < low ? low : v > high ? high : v;
}

/* ---- numbers as they are stored ---- */
static float stored(const struct work *k, float f)
{
    return f16_to_f32(f32_to_f16(f * k->unit)) / k->unit;
}

/* The half `steps` further on; infinity stays, so that what is too large is seen and refused. */
static float stored_step(const struct work *k, float f, int steps)
{
    uint16_t h = f32_to_f16(f * k->unit);
    int magnitude = h & 0x7fff;
    if (magnitude < 0x7c00)
        magnitude = clamp(magnitude + steps, 0, 0x7bff);
    return f16_to_f32((uint16_t)((h & 0x8000) | magnitude)) / k->unit;
}

/* ---- one group: d, perhaps a minimum ---- */
static void fit_single(struct fit *out, const struct work *k)
{
    struct group_fit g = k->s->offset ? search_range(k, 0) : search_scale(k, 0);
    struct candidates c;
    float error;
    for (int i = 0; i < LANES; i++) {
        bool two = k->s->offset;
        c.scale.at[i] = stored_step(k, g.scale, two ? i % 4 - 1 : i - 7);
        c.min.at[i] = two ? stored_step(k, g.min, i / 4 - 1) : 0;
    }
    int best = best_lane(&error, k, 0, &c);
    levels_put(out->level, k, 0, c.scale.at[best], c.min.at[best]);
    out->d = c.scale.at[best] * k->unit;
    out->dmin = -c.min.at[best] * k->unit;
}

/* Every exponent that could be meant: the largest magnitude is in 1 .. 2 here, the largest value 12 halves. */
static void fit_power(struct fit *out, const struct work *k)
{
    struct candidates c = {0};
    float error;
    for (int i = 0; i < LANES; i++) {
        float d = ldexpf(1, i % 6 - 6), outside = d * k->unit;
        bool held = outside >= 0x1p-126f && outside <= 0x1p126f; /* as exponent bytes without subnormals */
        c.scale.at[i] = held ? d : 0;
    }
    int best = best_lane(&error, k, 0, &c);
    levels_put(out->level, k, 0, c.scale.at[best], 0);
    out->d = c.scale.at[best] * k->unit;
}

/* ---- groups with whole-numbered scales under one d ---- */
/* Scales and minima near those wanted: the pair that leaves the least error. */
static float choose_scales(struct fit *f, const struct work *k, const struct group_fit *want)
{
    const struct fit_scheme *s = k->s;
    float d = f->d, dmin = f->dmin, total = 0;
    for (int g = 0; g < s->groups; g++) {
        int scale = whole_of(want[g].scale * inverse_of(d), s->scale_low, s->scale_high);
        int min = whole_of(want[g].min * inverse_of(dmin), 0, s->min_high);
        int scales[LANES], mins[LANES];
        struct candidates c;
        for (int i = 0; i < LANES; i++) {
            bool two = s->min_high > 0;
            scales[i] = clamp(scale + (two ? i % 3 - 1 : i - 7), s->scale_low, s->scale_high);
            mins[i] = two ? clamp(min + i / 3 - 2, 0, s->min_high) : 0;
            c.scale.at[i] = d * (float)scales[i];
            c.min.at[i] = dmin * (float)mins[i];
        }
        float error;
        int best = best_lane(&error, k, g * s->size, &c);
        f->scale[g] = scales[best];
        f->min[g] = mins[best];
        levels_put(f->level, k, g * s->size, c.scale.at[best], c.min.at[best]);
        total += error;
    }
    return total;
}

/* d and dmin of least squares for the scales, minima and levels chosen. */
static void solve_block(float *d, float *dmin, const struct fit *f, const struct work *k)
{
    const struct fit_scheme *s = k->s;
    double aa = 0, ab = 0, bb = 0, ax = 0, bx = 0;
    for (int j = 0; j < s->groups * s->size; j++) {
        int g = j / s->size, level = s->values ? s->values[f->level[j]] : f->level[j];
        double a = (double)f->scale[g] * level, b = -f->min[g], w = (double)k->w[j], x = (double)k->x[j];
        aa += w * a * a;
        ab += w * a * b;
        bb += w * b * b;
        ax += w * a * x;
        bx += w * b * x;
    }
    double det = aa * bb - ab * ab;
    if (s->min_high && det > 1e-9 * aa * bb) {
        *d = (float)((ax * bb - bx * ab) / det);
        *dmin = (float)((bx * aa - ax * ab) / det);
    } else if (aa > 0) {
        *d = (float)(ax / aa);
    }
    if (s->min_high) {
        *d = *d < 0 ? 0 : *d;
        *dmin = *dmin < 0 ? 0 : *dmin;
    }
}

static void fit_groups(struct fit *out, const struct work *k)
{
    enum { ROUNDS = 3 };
    const struct fit_scheme *s = k->s;
    struct group_fit want[FIT_GROUPS] = {0};
    float most = 0, most_min = 0, best = INFINITY;
    for (int g = 0; g < s->groups; g++) {
        want[g] = s->min_high ? search_range(k, g * s->size) : search_scale(k, g * s->size);
        most = fabsf(want[g].scale) > fabsf(most) ? want[g].scale : most;
        most_min = want[g].min > most_min ? want[g].min : most_min;
    }
    float d = most / (float)(s->scale_low < 0 ? s->scale_low : s->scale_high);
    float dmin = s->min_high ? most_min / (float)s->min_high : 0;
    for (int round = 0; round < ROUNDS; round++) {
        struct fit f = {.d = stored(k, d), .dmin = stored(k, dmin)};
        float error = choose_scales(&f, k, want);
        if (round && !(error < best)) /* the first is kept whatever it is: an infinite d must be seen by the caller */
            break;
        best = error;
        *out = f;
        solve_block(&d, &dmin, &f, k);
    }
    out->d *= k->unit;
    out->dmin *= k->unit;
}

void fit_block(struct fit *out, enum dtype t, const float *x, const float *w)
{
    struct work k = {.s = &schemes[t], .unit = 1};
    int n = k.s->groups * k.s->size, e;
    float most = 0, heaviest = 0;
    *out = (struct fit){0};
    for (int j = 0; j < n; j++) {
        most = fabsf(x[j]) > most ? fabsf(x[j]) : most;
        heaviest = w[j] > heaviest ? w[j] : heaviest;
    }
    if (most > 0) {
        frexpf(most, &e);
        k.unit = ldexpf(1, clamp(e - 1, -126, 126));
    }
    for (int j = 0; j < n; j++) {
        k.x[j] = x[j] / k.unit;
        k.w[j] = heaviest > 0 ? w[j] / heaviest : 1;
    }
    k.low = (float)(k.s->values ? k.s->values[0] : k.s->low);
    k.high = (float)(k.s->values ? k.s->values[k.s->n_value - 1] : k.s->high);
    for (int i = 0; k.s->values && i < k.s->n_value - 1; i++) {
        k.step[i] = (float)(k.s->values[i + 1] - k.s->values[i]);
        k.middle[i] = (float)k.s->values[i] + k.step[i] / 2;
    }
    if (k.s->power)
        fit_power(out, &k);
    else if (k.s->groups == 1)
        fit_single(out, &k);
    else
        fit_groups(out, &k);
}
