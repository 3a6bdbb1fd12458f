/* rope - inverse frequencies of rotary positions, with every scaling that checkpoints name
 *
 * Numbers  powers and logarithms are our own in double, rounded to f32 where transformers' f32 tensors are; the choice
 *          that "dynamic" and "longrope" make from the running length is made once, from the context in force
 * Source   Su et al. 2021; Peng et al. 2023 (YaRN), eq. 17 to 23; Ding et al. 2024 (LongRoPE); Llama 3.1's code
 */
#include "model/program.h"

#include <math.h>

static const double pi = 3.14159265358979323846;

static double log_of(double x)
{
    return fn_log64(x);
}

/* What config.json leaves out, as transformers fills it in. */
static enum status fill_defaults(struct rope_config *r, const struct model_config *c, struct error *err)
{
    bool ratio = strcmp(r->type, "yarn") == 0 || strcmp(r->type, "longrope") == 0;
    if (r->original == 0)
        r->original = c->n_ctx_train;
    if (r->factor == 0 && ratio)
        r->factor = c->n_ctx_train / r->original;
    r->beta_fast = r->beta_fast ? r->beta_fast : 32;
    r->beta_slow = r->beta_slow ? r->beta_slow : 1;
    if (!(r->factor > 0) || !(r->factor < 1e6))
        return fail(err, ST_CORRUPT, "config: rope scaling \"%s\" needs a factor over 0, found %g", r->type, r->factor);
    if (!(r->original >= 1) || !(r->original < 1e9))
        return fail(err, ST_CORRUPT, "config: original_max_position_embeddings is %g", r->original);
    return ST_OK;
}

static void base_frequencies(float *out, int n, double theta, const float *divide)
{
    for (int i = 0; i < n; i++) {
        float exponent = (float)(2 * i) / (float)(2 * n);
        float power = (float)fn_pow(theta, exponent);
        out[i] = 1.0f / (divide ? divide[i] * power : power);
    }
}

static void scale_llama3(float *f, int n, const struct rope_config *r)
{
    float low_wave = (float)(r->original / r->low), high_wave = (float)(r->original / r->high);
    for (int i = 0; i < n; i++) {
        float wave = (float)(2 * pi) / f[i];
        if (wave < high_wave)
            continue;
        if (wave > low_wave) {
            f[i] /= (float)r->factor;
            continue;
        }
        float smooth = ((float)r->original / wave - (float)r->low) / (float)(r->high - r->low);
        f[i] = (1 - smooth) * f[i] / (float)r->factor + smooth * f[i];
    }
}

/* The dimension that turns `turns` times over the original context. */
static double yarn_dimension(double turns, int dim, const struct rope_config *r)
{
    return dim * log_of(r->original / (turns * 2 * pi)) / (2 * log_of(r->theta));
}

static double yarn_mscale(double factor, double mscale)
{
    return factor <= 1 ? 1 : 0.1 * mscale * log_of(factor) + 1;
}

static void scale_yarn(struct rope_table *t, const struct rope_config *r)
{
    int dim = 2 * t->n_half;
    double low = yarn_dimension(r->beta_fast, dim, r), high = yarn_dimension(r->beta_slow, dim, r);
    if (!r->no_truncate) {
        low = floor(low);
        high = ceil(high);
    }
    low = low > 0 ? low : 0;
    high = high < dim - 1 ? high : dim - 1;
    if (low == high)
        high += 0.001; /* as transformers does against a division by zero */
    for (int i = 0; i < t->n_half; i++) {
        float power = (float)fn_pow(r->theta, (float)(2 * i) / (float)dim);
        float ramp = ((float)i - (float)low) / (float)(high - low);
        ramp = ramp < 0 ? 0 : ramp > 1 ? 1 : ramp;
        float keep = 1 - ramp;
        t->inv_freq[i] = 1.0f / ((float)r->factor * power) * (1 - keep) + 1.0f / power * keep;
    }
    if (r->attention_factor)
        t->scale = (float)r->attention_factor;
    else if (r->mscale && r->mscale_all_dim)
        t->scale = (float)(yarn_mscale(r->factor, r->mscale) / yarn_mscale(r->factor, r->mscale_all_dim));
    else
        t->scale = (float)yarn_mscale(r->factor, 1);
}

static void scale_longrope(struct rope_table *t, const struct rope_config *r, int n_ctx)
{
    base_frequencies(t->inv_freq, t->n_half, r->theta, n_ctx > r->original ? r->long_factor : r->short_factor);
    if (r->attention_factor)
        t->scale = (float)r->attention_factor;
    else if (r->factor > 1)
        t->scale = (float)sqrt(1 + log_of(r->factor) / log_of(r->original));
}

/* The base grows with the length; here the length is the context in force, once. */
static void scale_dynamic(struct rope_table *t, const struct rope_config *r, const struct model_config *c)
{
    int dim = 2 * t->n_half;
    double length = c->n_ctx > c->n_ctx_train ? c->n_ctx : c->n_ctx_train;
    double grown = r->factor * length / c->n_ctx_train - (r->factor - 1);
    base_frequencies(t->inv_freq, t->n_half, r->theta * fn_pow(grown, (double)dim / (dim - 2)), NULL);
}

static enum status check(struct rope_table *t, const struct rope_config *r, const struct model_config *c,
                         struct error *err)
{
    bool sane = r->partial > 0 && r->partial <= 1;
    t->n_half = sane ? (int)(c->d_head * r->partial) / 2 : 0;
    if (t->n_half < 1)
        return fail(err, ST_CORRUPT, "config: partial_rotary_factor %g of head_dim %d leaves nothing to rotate",
                    r->partial, c->d_head);
    if (!(r->theta > 1) || !(r->theta < 1e18))
        return fail(err, ST_CORRUPT, "config: rope_theta is %g, expected more than 1", r->theta);
    if ((r->long_factor || r->divide) && r->n_factor != t->n_half)
        return fail(err, ST_CORRUPT, "config: rope scaling has %d factors, expected %d (half the rotated dimensions)",
                    r->n_factor, t->n_half);
    return ST_OK;
}

enum status rope_build(struct rope_table *t, struct arena *arena, const struct rope_config *config,
                       const struct model_config *c, struct error *err)
{
    struct rope_config r = *config;
    *t = (struct rope_table){.scale = 1};
    TRY(check(t, &r, c, err));
    t->inv_freq = arena_alloc_zero(arena, (size_t)t->n_half, sizeof *t->inv_freq);
    if (!t->inv_freq)
        return fail_nomem(err, "rope");
    base_frequencies(t->inv_freq, t->n_half, r.theta, r.divide);
    if (!r.type[0])
        return ST_OK;
    TRY(fill_defaults(&r, c, err));
    if (strcmp(r.type, "linear") == 0) {
        for (int i = 0; i < t->n_half; i++)
            t->inv_freq[i] /= (float)r.factor;
    } else if (strcmp(r.type, "dynamic") == 0) {
        if (t->n_half < 2)
            return fail(err, ST_CORRUPT, "config: rope scaling \"dynamic\" needs more than two rotated dimensions");
        scale_dynamic(t, &r, c);
    } else if (strcmp(r.type, "yarn") == 0) {
        scale_yarn(t, &r);
    } else if (strcmp(r.type, "llama3") == 0) {
        if (!(r.low > 0) || !(r.high > r.low))
            return fail(err, ST_CORRUPT,
                        "config: rope scaling \"llama3\" needs 0 < low_freq_factor < high_freq_factor");
        scale_llama3(t->inv_freq, t->n_half, &r);
    } else if (strcmp(r.type, "longrope") == 0 || strcmp(r.type, "su") == 0) {
        if (!r.long_factor || !(r.original > 1))
            return fail(err, ST_CORRUPT, "config: rope scaling \"longrope\" needs long_factor and short_factor");
        scale_longrope(t, &r, c->n_ctx);
    } else {
        return fail(err, ST_UNSUPPORTED,
                    "config: rope_type \"%s\" is not known; known are linear, dynamic, yarn, llama3 and longrope",
                    r.type);
    }
    return ST_OK;
}
