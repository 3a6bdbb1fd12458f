/* sampler - docs/numerics.md section 6
 *
 * Everything is computed from the row, the ids and the seed: a sequence that was preempted, or shares its batch with
 * others, draws the same ids. Probabilities are exp(x - lse) in f32, added up in f64 in descending order.
 */
#include "engine/engine_private.h"

#include "base/mem.h"
#include "base/rng.h"

#include <math.h>

enum status sampler_scratch_init(struct sampler_scratch *s, int n_vocab, struct error *err)
{
    size_t n = (size_t)n_vocab;
    *s = (struct sampler_scratch){
        .work = mem_alloc_aligned(n * sizeof *s->work),
        .narrow = sizeof(real) != sizeof(float) ? mem_alloc_aligned(n * sizeof *s->narrow) : NULL,
        .counts = mem_alloc_zero(n, sizeof *s->counts),
        .sorted = mem_alloc_zero(n, sizeof *s->sorted),
        .spare = mem_alloc_zero(n, sizeof *s->spare),
        .p = mem_alloc_aligned(n * sizeof *s->p),
        .maxima = mem_alloc_zero((size_t)row_blocks(n_vocab), sizeof *s->maxima),
    };
    if (!s->work || !s->counts || !s->sorted || !s->spare || !s->p || !s->maxima ||
        (sizeof(real) != sizeof(float) && !s->narrow)) {
        sampler_scratch_free(s);
        return fail_nomem(err, "sampler");
    }
    return ST_OK;
}

void sampler_scratch_free(struct sampler_scratch *s)
{
    mem_free(s->work);
    mem_free(s->narrow);
    mem_free(s->counts);
    mem_free(s->sorted);
    mem_free(s->spare);
    mem_free(s->p);
    mem_free(s->maxima);
    *s = (struct sampler_scratch){0};
}

void sampling_defaults(struct sampling *s)
{
    *s = (struct sampling){.temperature = 1, .top_p = 1, .typical_p = 1, .repetition_penalty = 1, .n_logprobs = -1};
}

static bool between(double v, double least, double most)
{
    return v >= least && v <= most; /* false for NaN */
}

enum status sampling_check(const struct sampling *s, const char **param, struct error *err)
{
    const struct {
        const char *name;
        double value, least, most;
    } rows[] = {
        {"temperature", (double)s->temperature, 0, 100},
        {"top_k", s->top_k, 0, INT32_MAX},
        {"top_p", (double)s->top_p, 1e-9, 1},
        {"min_p", (double)s->min_p, 0, 1},
        {"typical_p", (double)s->typical_p, 1e-9, 1},
        {"repetition_penalty", (double)s->repetition_penalty, 1e-3, 1e3},
        {"presence_penalty", (double)s->presence_penalty, -2, 2},
        {"frequency_penalty", (double)s->frequency_penalty, -2, 2},
        {"max_tokens", s->max_tokens, -1, INT32_MAX},
        {"min_tokens", s->min_tokens, 0, INT32_MAX},
        {"logprobs", s->n_logprobs, -1, REQUEST_LOGPROBS_MAX},
        {"logit_bias", s->n_logit_bias, 0, INT32_MAX},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (!between(rows[i].value, rows[i].least, rows[i].most)) {
            *param = rows[i].name;
            return fail(err, ST_INVALID, "%s is %g: expected %g to %g", rows[i].name, rows[i].value, rows[i].least,
                        rows[i].most);
        }
    for (int i = 0; i < s->n_logit_bias; i++)
        if (!between((double)s->logit_bias[i].bias, -100, 100)) {
            *param = "logit_bias";
            return fail(err, ST_INVALID, "logit_bias of token %d is %g: expected -100 to 100", s->logit_bias[i].id,
                        (double)s->logit_bias[i].bias);
        }
    *param = NULL;
    return ST_OK;
}

/* ---- adjusting the row ---- */

/* Selection reads f32: in the double build a row is narrowed first. */
static const float *narrow(struct sampler_scratch *s, const real *row, int n)
{
    if (!s->narrow)
        return (const float *)(const void *)row;
    for (int i = 0; i < n; i++)
        s->narrow[i] = (float)row[i];
    return s->narrow;
}

/* transformers' repetition penalty: once for each id that occurs in prompt or output. */
static void apply_repetition(const struct sampler_in *in, struct sampler_scratch *s)
{
    real penalty = (real)in->how->repetition_penalty;
    if (penalty == 1)
        return;
    for (int i = 0; i < in->n_ids; i++) {
        int32_t id = in->ids[i];
        if (s->counts[id]++ == 0)
            s->work[id] = s->work[id] < 0 ? s->work[id] * penalty : s->work[id] / penalty;
    }
    for (int i = 0; i < in->n_ids; i++)
        s->counts[in->ids[i]] = 0;
}

/* OpenAI's: x - count * frequency - (count > 0) * presence, over the output alone. */
static void apply_presence_frequency(const struct sampler_in *in, struct sampler_scratch *s)
{
    real presence = (real)in->how->presence_penalty, frequency = (real)in->how->frequency_penalty;
    if (presence == 0 && frequency == 0)
        return;
    for (int i = in->n_prompt; i < in->n_ids; i++)
        s->counts[in->ids[i]]++;
    for (int i = in->n_prompt; i < in->n_ids; i++) {
        int32_t id = in->ids[i];
        if (s->counts[id])
            s->work[id] = s->work[id] - ((real)s->counts[id] * frequency + presence);
        s->counts[id] = 0;
    }
}

static bool forbids_eos(const struct sampler_in *in)
{
    return in->n_ids - in->n_prompt < in->how->min_tokens && !in->how->ignore_eos && in->n_eos > 0;
}

static bool is_allowed(const uint64_t *mask, int32_t id)
{
    return mask[id / 64] >> id % 64 & 1;
}

/* Does the mask leave anything but the end? Then min_tokens can wait for it. */
static bool goes_on(const struct sampler_in *in)
{
    for (int w = 0; in->mask && w < (in->n_vocab + 63) / 64; w++) {
        uint64_t word = in->mask[w];
        for (int i = 0; i < in->n_eos; i++)
            if (in->eos[i] / 64 == w)
                word &= ~((uint64_t)1 << in->eos[i] % 64);
        if (word)
            return true;
    }
    return !in->mask;
}

static void apply_mask(const struct sampler_in *in, struct sampler_scratch *s)
{
    for (int w = 0; in->mask && w < (in->n_vocab + 63) / 64; w++)
        for (int id = w * 64; in->mask[w] != UINT64_MAX && id < (w + 1) * 64 && id < in->n_vocab; id++)
            if (!is_allowed(in->mask, id))
                s->work[id] = -INFINITY;
}

/* The row to choose from: the model's own when nothing changes it. */
static const real *adjust(const struct sampler_in *in, struct sampler_scratch *s)
{
    const struct sampling *how = in->how;
    if (how->repetition_penalty == 1 && how->presence_penalty == 0 && how->frequency_penalty == 0 &&
        how->n_logit_bias == 0 && !forbids_eos(in) && !in->mask)
        return in->logits;
    memcpy(s->work, in->logits, (size_t)in->n_vocab * sizeof *s->work);
    apply_repetition(in, s);
    apply_presence_frequency(in, s);
    for (int i = 0; i < how->n_logit_bias; i++)
        s->work[how->logit_bias[i].id] += (real)how->logit_bias[i].bias;
    apply_mask(in, s);
    for (int i = 0; forbids_eos(in) && goes_on(in) && i < in->n_eos; i++)
        s->work[in->eos[i]] = -INFINITY;
    return s->work;
}

/* ---- drawing ---- */

/* Ascending keys for descending logits. Adding zero makes -0 equal to 0. */
static uint32_t sort_key(float x)
{
    uint32_t bits;
    x = x + 0.0f;
    memcpy(&bits, &x, sizeof bits);
    return bits >> 31 ? bits : ~bits & 0x7FFFFFFFu;
}

/* s->sorted[0 .. n-1], in order of id, becomes descending by logit: radix sort, stable, so that ids stay in order among
 * equals. */
static void sort_descending(struct sampler_scratch *s, int n)
{
    enum { BITS = 11, BUCKETS = 1 << BITS };
    uint32_t starts[BUCKETS];
    for (int shift = 0; shift < 32; shift += BITS) {
        memset(starts, 0, sizeof starts);
        for (int i = 0; i < n; i++)
            starts[sort_key(s->sorted[i].logit) >> shift & (BUCKETS - 1)]++;
        for (uint32_t b = 0, at = 0; b < BUCKETS; b++) {
            uint32_t count = starts[b];
            starts[b] = at;
            at += count;
        }
        for (int i = 0; i < n; i++)
            s->spare[starts[sort_key(s->sorted[i].logit) >> shift & (BUCKETS - 1)]++] = s->sorted[i];
        struct candidate *swap = s->sorted;
        s->sorted = s->spare;
        s->spare = swap;
    }
}

/* The kept tokens are a beginning of the row in descending order, which is sorted only as far as it is looked at: most
 * draws end within the first few. */
struct ladder {
    struct sampler_scratch *s;
    const float *row;
    int n, n_sorted;
    real temperature, zero; /* probability of a logit x: e^(x / temperature - zero) */
    double reach;           /* mass that will be looked at, of all that is 1 */
};

/* Sorts a longer beginning: to where a sample of the row says that `reach` ends, and at least about `want`. Any
 * threshold gives a beginning of the same order, so the sample decides nothing but the time. */
static int sort_largest(struct ladder *l, int want)
{
    enum { SAMPLE = 1024, PART_MAX = SAMPLE / 4 };
    struct candidate largest[PART_MAX];
    float sample[SAMPLE], limit = -INFINITY;
    int64_t wanted = (int64_t)want * SAMPLE / l->n + 8;
    if (wanted < PART_MAX && l->n > 4 * SAMPLE) {
        int64_t part = 0;
        double mass = 0;
        for (int i = 0; i < SAMPLE; i++)
            sample[i] = l->row[(int64_t)i * l->n / SAMPLE];
        top_k_select(largest, sample, SAMPLE, PART_MAX);
        for (int i = 0; i < l->n_sorted; i++)
            mass += (double)l->s->p[i];
        for (; part < PART_MAX && mass < l->reach; part++) /* those already sorted are counted exactly */
            if (largest[part].logit < l->s->sorted[l->n_sorted - 1].logit)
                mass += (double)fn_exp((float)((real)largest[part].logit / l->temperature - l->zero)) * l->n / SAMPLE;
        part += part / 4 + 8;
        part = part > wanted ? part : wanted;
        limit = part <= PART_MAX ? largest[part - 1].logit : limit;
    }
    int64_t count = row_collect(l->s->sorted, l->row, l->s->maxima, l->n, limit);
    if (count <= l->n_sorted)
        count = row_collect(l->s->sorted, l->row, l->s->maxima, l->n, -INFINITY);
    sort_descending(l->s, (int)count);
    return (int)count;
}

/* Probability of the i-th largest. */
static double step_of(struct ladder *l, int i)
{
    enum { FIRST = 64, GROWTH = 4 };
    if (i < l->n_sorted)
        return (double)l->s->p[i];
    int first = l->n < FIRST ? l->n : FIRST;
    l->n_sorted = l->n_sorted == 0 && i < FIRST
                      ? row_top_k(l->s->sorted, l->row, l->s->maxima, l->n, first)
                      : sort_largest(l, l->n_sorted < l->n / GROWTH ? GROWTH * l->n_sorted : l->n);
    for (int j = 0; j < l->n_sorted; j++)
        l->s->p[j] = (real)l->s->sorted[j].logit / l->temperature - l->zero;
    exp_forward(l->s->p, l->s->p, l->n_sorted);
    return (double)l->s->p[i];
}

/* How many of the `n` largest top-p and min-p keep (at least one), and their mass. */
static int keep(struct ladder *l, const struct sampling *how, int n, double mass_n, double *mass)
{
    double cut = (double)how->top_p * mass_n, least = (double)how->min_p * step_of(l, 0), before = 0;
    for (int i = 0; i < n; i++) {
        double p = step_of(l, i);
        if (i > 0 && ((how->top_p < 1 && before >= cut) || p < least)) {
            *mass = before;
            return i;
        }
        before += p;
    }
    *mass = before;
    return n;
}

/* Of the n largest, those whose log-probability is nearest to its mean over them, until they have the share typical_p
 * of the mass. They lie side by side in the order: returns the first and *end. */
static int typical(struct ladder *l, const struct sampling *how, int n, int *end, double *mass)
{
    double t = (double)l->temperature, all = 0, mean = 0;
    for (int i = 0; i < n; i++) {
        double p = step_of(l, i);
        all += p;
        if (p > 0) /* a forbidden token's logit is -infinity */
            mean += p * ((double)l->s->sorted[i].logit / t);
    }
    mean /= all;
    int first = 0;
    while (first < n && (double)l->s->sorted[first].logit / t > mean)
        first++;
    *end = first;
    *mass = 0;
    while (*mass < (double)how->typical_p * all && (first > 0 || *end < n)) {
        bool larger = first > 0 && (*end == n || (double)l->s->sorted[first - 1].logit / t - mean <=
                                                     mean - (double)l->s->sorted[*end].logit / t);
        *mass += step_of(l, larger ? --first : (*end)++);
    }
    return first;
}

static float uniform(const struct sampler_in *in)
{
    uint64_t seed = in->how->seed;
    uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    uint32_t counter[4] = {(uint32_t)in->n_ids, (uint32_t)in->choice, 0, 0}, words[4];
    philox4x32(words, counter, key);
    return rng_unit(words[0]);
}

static int32_t draw(const struct sampler_in *in, const real *logits, struct sampler_scratch *s)
{
    const struct sampling *how = in->how;
    struct ladder l = {s, narrow(s, logits, in->n_vocab), in->n_vocab, 0, (real)how->temperature, 0, 0};
    bool few = how->top_k > 0 && how->top_k < in->n_vocab; /* then only their ratios count */
    l.zero = few ? (real)l.row[row_argmax(l.row, s->maxima, l.n)] / l.temperature
                 : lse_divided(logits, l.temperature, in->n_vocab);
    l.reach = few ? 0 : how->top_p < 1 ? (double)how->top_p : (double)uniform(in);
    int n = in->n_vocab;
    double mass = 1; /* of all tokens, by definition of lse */
    if (few) {
        n = how->top_k;
        mass = 0;
        for (int i = 0; i < n; i++)
            mass += step_of(&l, i);
    }
    if (how->top_p < 1 || how->min_p > 0)
        n = keep(&l, how, n, mass, &mass);
    int first = how->typical_p < 1 ? typical(&l, how, n, &n, &mass) : 0;
    double target = (double)uniform(in) * mass, sum = 0;
    int last = first; /* rounding may leave the sum below the target: then the last token that has any probability */
    for (int i = first; i < n; i++) {
        double p = step_of(&l, i);
        if (p == 0)
            break; /* descending: nothing follows */
        last = i;
        sum += p;
        if (sum > target)
            break;
    }
    return s->sorted[last].id;
}

/* ---- log-probabilities, from the raw row ---- */

static real raw_lse(const struct sampler_in *in)
{
    real lse;
    lse_forward(&lse, in->logits, 1, in->n_vocab, NULL);
    return lse;
}

static void report(struct sample *out, const struct sampler_in *in, struct sampler_scratch *s, real lse)
{
    out->logprob = (float)(in->logits[out->id] - lse);
    if (in->how->n_logprobs <= 0)
        return;
    const float *row = narrow(s, in->logits, in->n_vocab);
    row_maxima(s->maxima, row, in->n_vocab);
    out->n_top = row_top_k(out->top, row, s->maxima, in->n_vocab, in->how->n_logprobs);
    for (int i = 0; i < out->n_top; i++)
        out->top[i].logit = (float)(in->logits[out->top[i].id] - lse);
}

void sampler_pick(struct sample *out, const struct sampler_in *in, struct sampler_scratch *scratch)
{
    *out = (struct sample){.id = -1};
    if (!row_maxima(scratch->maxima, narrow(scratch, in->logits, in->n_vocab), in->n_vocab))
        return;
    if (in->given >= 0)
        out->id = in->given;
    else {
        const real *logits = adjust(in, scratch);
        const float *row = narrow(scratch, logits, in->n_vocab);
        if (logits != in->logits)
            row_maxima(scratch->maxima, row, in->n_vocab);
        /* Below 1e-4 a division could overflow, and the largest logit wins anyway. */
        out->id =
            in->how->temperature < 1e-4f ? row_argmax(row, scratch->maxima, in->n_vocab) : draw(in, logits, scratch);
    }
    if (in->how->n_logprobs >= 0 || in->given >= 0)
        report(out, in, scratch, raw_lse(in));
}
