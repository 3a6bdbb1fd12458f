/* seq - one request's ids, text and end
 *
 * Text goes decoder -> stopper -> event: the decoder holds back incomplete characters, the stopper what may become a
 * stop string. The decoder reads the prompt too, so that the first word of a continuation keeps its leading space: on
 * the engine thread, chunk by chunk as they are computed, because whoever submits may be a thread that must not wait.
 */
#include "engine/engine_private.h"

#include "base/mem.h"
#include "base/rng.h"
#include "base/unicode.h"

#include <math.h>

static enum status check_prompt(const struct request *r, const struct executor *x, int context, struct error *err)
{
    if (r->n_prompt < 1)
        return fail(err, ST_INVALID, "the prompt has no tokens: at least one is needed");
    int most = r->sampling.max_tokens < 0 ? context : context - 1; /* room for one answer token */
    if (r->n_prompt > most)
        return fail(err, ST_INVALID, "the prompt has %d tokens, but the context holds %d%s: shorten it or raise %s",
                    r->n_prompt, context, most < context ? ", the answer included" : "",
                    context < x->n_ctx ? "--kv-bytes" : "--ctx");
    for (int i = 0; i < r->n_prompt; i++)
        if (r->prompt[i] < 0 || r->prompt[i] >= x->n_vocab)
            return fail(err, ST_INVALID, "token %d of the prompt is %d: the vocabulary has 0 to %d", i, r->prompt[i],
                        x->n_vocab - 1);
    return ST_OK;
}

static enum status check_request(const struct request *r, const struct executor *x, int context, struct error *err)
{
    const char *param;
    TRY(check_prompt(r, x, context, err));
    TRY(sampling_check(&r->sampling, &param, err));
    if (r->sampling.max_tokens < 0 && !r->echo_logprobs)
        return fail(err, ST_INVALID, "max_tokens is -1 without echo_logprobs: there would be nothing to do");
    for (int i = 0; i < r->sampling.n_logit_bias; i++)
        if (r->sampling.logit_bias[i].id < 0 || r->sampling.logit_bias[i].id >= x->n_vocab)
            return fail(err, ST_INVALID, "logit_bias names token %d: the vocabulary has 0 to %d",
                        r->sampling.logit_bias[i].id, x->n_vocab - 1);
    if (r->n_stop < 0 || r->n_stop > REQUEST_STOPS_MAX)
        return fail(err, ST_INVALID, "%d stop strings: at most %d are accepted", r->n_stop, REQUEST_STOPS_MAX);
    if (r->n_stop && !x->tokenizer)
        return fail(err, ST_INVALID, "stop strings need a tokenizer, and this model has none");
    for (int i = 0; i < r->n_stop; i++)
        if (r->stops[i].len == 0 || !utf8_valid(r->stops[i]))
            return fail(err, ST_INVALID, "stop string %d is %s", i + 1, r->stops[i].len ? "not valid UTF-8" : "empty");
    return ST_OK;
}

static enum status begin_grammar(struct seq *s, const struct executor *x, struct error *err)
{
    if (!s->r->grammar)
        return ST_OK;
    s->n_mask_word = grammar_vocab_words(grammar_vocab_of(s->r->grammar));
    if (s->n_mask_word != (x->n_vocab + 63) / 64)
        return fail(err, ST_INVALID, "the grammar was made for another vocabulary than this model's");
    return grammar_state_create(&s->grammar, s->r->grammar, err);
}

static bool allocate(struct seq *s)
{
    s->blocks.capacity = kv_blocks_for(s->n_limit);
    s->blocks.ids = mem_alloc_zero((size_t)s->blocks.capacity, sizeof *s->blocks.ids);
    s->ids = mem_alloc_zero((size_t)s->n_limit, sizeof *s->ids);
    /* Enough for any usual token and stop string, so that decoding allocates nothing. */
    return s->blocks.ids && s->ids && buf_reserve(&s->piece, 500) && buf_reserve(&s->stop.held, 1000);
}

int seq_context(const struct executor *x)
{
    int64_t pool = (int64_t)x->n_block * KV_BLOCK;
    return pool < x->n_ctx ? (int)pool : x->n_ctx;
}

enum status seq_create(struct seq **out, struct request *r, const struct executor *x, struct error *err)
{
    *out = NULL;
    int context = seq_context(x);
    TRY(check_request(r, x, context, err));
    struct seq *s = mem_alloc_zero(1, sizeof *s);
    if (!s)
        return fail_nomem(err, "sequence");
    s->r = r;
    s->n_prompt = s->n_ids = r->n_prompt;
    int most = r->sampling.max_tokens;
    s->n_limit = most < 0 ? s->n_prompt : most == 0 || most > context - s->n_prompt ? context : s->n_prompt + most;
    s->stop.stops = r->stops;
    s->stop.n_stop = r->n_stop;
    if (!allocate(s)) {
        seq_free(s);
        return fail_nomem(err, "sequence");
    }
    memcpy(s->ids, r->prompt, (size_t)s->n_prompt * sizeof *s->ids);
    if (x->tokenizer)
        decoder_init(&s->decoder, x->tokenizer, DETOKENIZE_SKIP_SPECIAL);
    if (r->lora)
        r->adapter = lora_key(r->lora);
    if (!r->sampling.has_seed)
        r->sampling.seed = rng_entropy() >> 11; /* 53 bits: what a JSON number carries without loss */
    s->submit_ns = executor_now(x);
    enum status st = begin_grammar(s, x, err);
    if (st != ST_OK) {
        seq_free(s);
        return st;
    }
    *out = s;
    return ST_OK;
}

void seq_free(struct seq *s)
{
    mem_free(s->blocks.ids);
    mem_free(s->ids);
    buf_free(&s->piece);
    buf_free(&s->stop.held);
    grammar_state_destroy(s->grammar);
    mem_free(s->masks);
    mem_free(s);
}

void seq_read_prompt(struct seq *s, const struct executor *x)
{
    int end = s->n_done < s->n_prompt ? s->n_done : s->n_prompt;
    for (; x->tokenizer && s->n_read < end; s->n_read++) {
        buf_clear(&s->piece); /* its text is known; only what the decoder remembers matters */
        if (s->ids[s->n_read] < tokenizer_vocab_size(x->tokenizer))
            decoder_next(&s->decoder, s->ids[s->n_read], &s->piece);
    }
}

/* ---- events ---- */

static void emit(struct seq *s, const struct token_event *e)
{
    if (s->r->on_token)
        s->r->on_token(s->r->ctx, e);
}

void seq_echo(struct seq *s, const struct sample *sample)
{
    if (s->n_echoed == 0) {
        emit(s, &(struct token_event){.id = s->ids[0], .is_prompt = true, .logprob = NAN});
        s->n_echoed = 1;
    }
    if (sample) {
        emit(s, &(struct token_event){.id = sample->id,
                                      .is_prompt = true,
                                      .logprob = sample->logprob,
                                      .top = sample->top,
                                      .n_top = sample->n_top});
        s->n_echoed++;
    }
}

/* Text of the piece through the stop strings; at the end also what was held back. The stopper's answer is -1 or the
 * stop string. The text of both calls must be one event, so the first part is moved to `piece`, which is free by then.
 */
static int pass_text(struct seq *s, bool check_stops, bool end, struct str *text)
{
    int n_stop = s->stop.n_stop, hit;
    if (!check_stops)
        s->stop.n_stop = 0;
    hit = stop_feed(&s->stop, buf_str(&s->piece), text);
    s->stop.n_stop = n_stop;
    if (hit >= 0 || !end)
        return hit;
    buf_clear(&s->piece);
    buf_append_str(&s->piece, *text);
    buf_append_str(&s->piece, stop_flush(&s->stop));
    *text = buf_str(&s->piece);
    return -1;
}

static void decode(struct seq *s, int32_t id)
{
    unsigned flags = s->decoder.flags;
    for (int i = 0; i < s->r->n_shown; i++)
        if (s->r->shown[i] == id)
            s->decoder.flags &= ~(unsigned)DETOKENIZE_SKIP_SPECIAL;
    decoder_next(&s->decoder, id, &s->piece);
    s->decoder.flags = flags;
}

enum finish seq_take(struct seq *s, const struct executor *x, const struct sample *sample, struct str *stop_text)
{
    struct str text = {"", 0};
    *stop_text = (struct str){NULL, 0};
    s->ids[s->n_ids++] = sample->id;
    s->logprob += (double)sample->logprob;
    bool eos = executor_is_eos(x, sample->id) && (!s->r->sampling.ignore_eos || s->grammar),
         full = s->n_ids == s->n_limit;
    bool check_stops = s->n_ids - s->n_prompt >= s->r->sampling.min_tokens;
    int hit = -1;
    if (s->grammar && !eos && grammar_accept(s->grammar, sample->id, &s->failure) != ST_OK)
        return FINISH_ERROR; /* the mask let it through: of memory, or of a bound on the work */
    if (x->tokenizer) {
        buf_clear(&s->piece);
        if (!eos && sample->id < tokenizer_vocab_size(x->tokenizer))
            decode(s, sample->id);
        if (eos || full)
            decoder_end(&s->decoder, &s->piece);
        hit = pass_text(s, check_stops, eos || full, &text);
    }
    if (s->piece.failed || s->stop.held.failed) {
        fail(&s->failure, ST_NOMEM, "out of memory");
        return FINISH_ERROR;
    }
    if (!eos || text.len)
        emit(s, &(struct token_event){.id = eos ? -1 : sample->id,
                                      .text = text,
                                      .logprob = eos ? 0 : sample->logprob,
                                      .top = eos ? NULL : sample->top,
                                      .n_top = eos ? 0 : sample->n_top});
    if (hit >= 0)
        *stop_text = s->r->stops[hit];
    return hit >= 0 || eos ? FINISH_STOP : full ? FINISH_LENGTH : FINISH_NONE;
}
