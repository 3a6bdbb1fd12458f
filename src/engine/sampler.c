/* sampler - docs/numerics.md section 6
 *
 * Everything is computed from the row, the ids and the seed: a sequence that was preempted, or shares its batch with
 * others, draws the same ids. Here the row is adjusted and log-probabilities are told; draw.c draws.
 */
#include "engine/engine_private.h"

#include "base/mem.h"

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
        out->id = in->how->temperature < 1e-4f ? row_argmax(row, scratch->maxima, in->n_vocab)
                                               : sampler_draw(in, logits, row, scratch);
    }
    if (in->how->n_logprobs >= 0 || in->given >= 0)
        report(out, in, scratch, raw_lse(in));
}
