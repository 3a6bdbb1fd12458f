/* A stand-in for engine, tokenizer, template and model, defined in the test program itself so that the linker takes it
 * instead of the rooms': answers are "w0 w1 w2 ...", one word a token, at a pace the test sets.
 *
 *   prompt holds "FAIL"   the third token is an engine error
 *   prompt holds "BIG"    every token is 4 KB of text
 *   prompt holds "END"    the answer ends before its first token
 *   prompt holds "SAY x"  the answer is x, to the prompt's end, three bytes and the rest of a character a token; an
 *                         engine error when the request has a grammar that forbids it
 *   fake.hold             tokens and vectors wait while it is set: what is in flight stays in flight
 *   fake.stuck            whoever makes ids of a text waits while it is set
 */
#ifndef TESTS_GATEWAY_FAKE_H
#define TESTS_GATEWAY_FAKE_H

#include "engine/engine.h"

#include "base/clock.h"

#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

enum { FAKE_SPECIAL = 256, FAKE_VOCAB = 300, FAKE_BLOCKS = 64, FAKE_DEFAULT_TOKENS = 5 };

struct fake_seq {
    struct request *r;
    uint64_t id;
    bool canceled, fails, big, ends;
    int n, n_echoed;
    char *script; /* "SAY ..." in the prompt: that is what it says */
    size_t said;
    struct fake_seq *next;
};
struct engine {
    pthread_mutex_t lock;
    pthread_t thread;
    struct fake_seq *seqs;
    struct embed_request *held; /* at most one */
    uint64_t next_id, steps, prompt_tokens, output_tokens;
    bool stop;
};
static struct {
    int hold, stuck, delay_us, queue_max, frozen; /* frozen: the last step seems two minutes old */
    int priority;                                 /* these three of the last request */
    uint64_t tenant;
    char salt[256]; /* its zero bytes as | */
    enum model_task task;
} fake = {.queue_max = 1000};

static struct bundle fake_bundle = {.id = "fake",
                                    .model = (struct model *)&fake,
                                    .tokenizer = (struct tokenizer *)&fake,
                                    .template = (struct template *)&fake,
                                    .temperature = -1,
                                    .top_p = -1,
                                    .repetition_penalty = -1,
                                    .top_k = -1};

static int fake_get(int *value)
{
    return __atomic_load_n(value, __ATOMIC_SEQ_CST);
}

static bool fake_step(struct fake_seq *s) /* false when it has ended */
{
    struct request *r = s->r;
    struct finish_event end = {.finish = FINISH_NONE, .n_prompt = r->n_prompt, .seed = r->sampling.seed};
    int limit = r->sampling.max_tokens < 0 ? 0 : r->sampling.max_tokens ? r->sampling.max_tokens : FAKE_DEFAULT_TOKENS;
    struct candidate top[2] = {{'w', -0.5f}, {'x', -1.5f}};
    int n_top = r->sampling.n_logprobs > 2 ? 2 : r->sampling.n_logprobs > 0 ? r->sampling.n_logprobs : 0;
    for (; r->echo_logprobs && s->n_echoed < r->n_prompt; s->n_echoed++) {
        struct token_event echo = {.id = r->prompt[s->n_echoed], .is_prompt = true, .logprob = NAN};
        if (s->n_echoed) {
            echo.logprob = -0.25f * (float)s->n_echoed;
            echo.top = top;
            echo.n_top = n_top;
        }
        r->on_token(r->ctx, &echo);
    }
    if (s->canceled)
        end.finish = FINISH_CANCELED;
    else if (s->fails && s->n == (s->script ? 0 : 2))
        end = (struct finish_event){.finish = FINISH_ERROR, .status = ST_DEVICE, .message = "the device is on fire"};
    else if (s->ends)
        end.finish = FINISH_STOP;
    else if (s->script && !s->script[s->said])
        end.finish = FINISH_STOP;
    else if (s->n == limit && (!s->script || r->sampling.max_tokens))
        end.finish = r->sampling.max_tokens ? FINISH_LENGTH : FINISH_STOP;
    end.n_output = s->n;
    if (end.finish != FINISH_NONE) {
        r->on_finish(r->ctx, &end);
        return false;
    }
    if (s->script) {
        size_t n = strlen(s->script + s->said) < 3 ? strlen(s->script + s->said) : 3;
        while (((unsigned char)s->script[s->said + n] & 0xC0) == 0x80)
            n++;
        r->on_token(
            r->ctx,
            &(struct token_event){
                .id = 'w', .text = str_n(s->script + s->said, n), .logprob = -0.5f, .top = top, .n_top = n_top});
        s->said += n;
        s->n++;
        return true;
    }
    static char big[4096];
    char word[32];
    memset(big, 'b', sizeof big);
    snprintf(word, sizeof word, "%sw%d", s->n ? " " : "", s->n);
    struct token_event e = {.id = 'w', .text = str_of(word), .logprob = -0.5f, .top = top, .n_top = n_top};
    if (s->big)
        e.text = str_n(big, sizeof big);
    s->n++;
    r->on_token(r->ctx, &e);
    return true;
}

static void *fake_run(void *arg)
{
    struct engine *e = arg;
    for (;;) {
        pthread_mutex_lock(&e->lock);
        bool stop = e->stop && !e->seqs;
        struct fake_seq *batch[256];
        int n = 0;
        for (struct fake_seq *s = e->seqs; s && n < 256; s = s->next) {
            s->canceled |= e->stop;
            if (s->canceled || !fake_get(&fake.hold))
                batch[n++] = s;
        }
        e->steps += n > 0;
        pthread_mutex_unlock(&e->lock);
        if (stop)
            return NULL;
        for (int i = 0; i < n; i++) {
            pthread_mutex_lock(&e->lock);
            struct fake_seq view = *batch[i]; /* canceled is set by other threads */
            pthread_mutex_unlock(&e->lock);
            bool alive = fake_step(&view);
            pthread_mutex_lock(&e->lock);
            batch[i]->n = view.n;
            batch[i]->n_echoed = view.n_echoed;
            batch[i]->said = view.said;
            e->output_tokens += alive;
            for (struct fake_seq **p = &e->seqs; !alive && *p; p = &(*p)->next)
                if (*p == batch[i]) {
                    *p = batch[i]->next;
                    free(batch[i]->script);
                    free(batch[i]);
                    break;
                }
            pthread_mutex_unlock(&e->lock);
        }
        usleep((useconds_t)(fake_get(&fake.delay_us) + 200));
    }
}

enum status engine_create(struct engine **out, struct bundle *bundle, const struct engine_options *options,
                          struct error *err)
{
    (void)bundle, (void)options, (void)err;
    struct engine *e = calloc(1, sizeof *e);
    pthread_mutex_init(&e->lock, NULL);
    pthread_create(&e->thread, NULL, fake_run, e);
    *out = e;
    return ST_OK;
}

void engine_destroy(struct engine *e)
{
    pthread_mutex_lock(&e->lock);
    e->stop = true;
    pthread_mutex_unlock(&e->lock);
    pthread_join(e->thread, NULL);
    pthread_mutex_destroy(&e->lock);
    free(e);
}

static bool fake_prompt_has(const struct request *r, const char *word, char **rest)
{
    static _Thread_local char text[4097];
    int n = 0;
    for (; n < r->n_prompt && n < 4096; n++)
        text[n] = r->prompt[n] < 256 ? (char)r->prompt[n] : '?';
    text[n] = 0;
    size_t at = str_find(str_n(text, (size_t)n), str_of(word), 0);
    if (at != SIZE_MAX && rest)
        *rest = strdup(text + at + strlen(word));
    return at != SIZE_MAX;
}

enum status engine_submit(struct engine *e, struct request *r, struct error *err)
{
    struct fake_seq *s = calloc(1, sizeof *s);
    int n = 0;
    if (!fake_prompt_has(r, "SAY ", &s->script)) {
        s->fails = fake_prompt_has(r, "FAIL", NULL);
        s->big = fake_prompt_has(r, "BIG", NULL);
        s->ends = fake_prompt_has(r, "END", NULL);
    }
    if (r->grammar && s->script) { /* what it says by nature must fit: it has no other words */
        struct grammar_state *state;
        s->fails = grammar_state_create(&state, r->grammar, err) != ST_OK ||
                   !grammar_accepts_bytes(state, str_of(s->script), true);
        grammar_state_destroy(state);
    }
    s->r = r;
    pthread_mutex_lock(&e->lock);
    fake.priority = r->priority;
    fake.tenant = r->tenant;
    size_t n_salt = 0;
    for (; n_salt < r->cache_salt.len && n_salt + 1 < sizeof fake.salt; n_salt++)
        fake.salt[n_salt] = r->cache_salt.ptr[n_salt] ? r->cache_salt.ptr[n_salt] : '|';
    fake.salt[n_salt] = 0;
    for (struct fake_seq *other = e->seqs; other; other = other->next)
        n++;
    bool full = n >= fake_get(&fake.queue_max);
    if (!full) {
        r->id = s->id = ++e->next_id;
        s->next = e->seqs;
        e->seqs = s;
        e->prompt_tokens += (uint64_t)r->n_prompt;
    }
    pthread_mutex_unlock(&e->lock);
    if (full) {
        free(s->script);
        free(s);
    }
    return full ? fail(err, ST_LIMIT, "engine: the queue is full") : ST_OK;
}

enum status engine_submit_beams(struct engine *e, struct request *const *requests, int n, const struct beam_options *o,
                                struct error *err)
{
    if (o->width < n || o->width > BEAMS_MAX)
        abort(); /* the gateway must have refused it; fuzzers, which have no cmocka, include this file too */
    for (int i = 0; i < n; i++)
        TRY(engine_submit(e, requests[i], err));
    return ST_OK;
}

void engine_cancel(struct engine *e, uint64_t id)
{
    struct embed_request *held = NULL;
    pthread_mutex_lock(&e->lock);
    for (struct fake_seq *s = e->seqs; s; s = s->next)
        if (s->id == id)
            s->canceled = true;
    if (e->held && e->held->id == id) {
        held = e->held;
        e->held = NULL;
    }
    pthread_mutex_unlock(&e->lock);
    if (held)
        held->on_finish(held->ctx, &(struct finish_event){.finish = FINISH_CANCELED, .status = ST_CANCELED});
}

void engine_stats(const struct engine *engine, struct engine_stats *out)
{
    struct engine *e = (struct engine *)(uintptr_t)engine;
    pthread_mutex_lock(&e->lock);
    *out = (struct engine_stats){.blocks_total = FAKE_BLOCKS, .n_ctx = 2048, .steps = e->steps};
    for (struct fake_seq *s = e->seqs; s; s = s->next)
        out->running++;
    out->blocks_free = FAKE_BLOCKS - out->running;
    out->prompt_tokens = e->prompt_tokens;
    out->output_tokens = e->output_tokens;
    out->last_step_ns = clock_ns();
    if (fake_get(&fake.frozen))
        out->last_step_ns = 0;
    pthread_mutex_unlock(&e->lock);
}

int engine_live(const struct engine *engine, struct engine_live *out, int max)
{
    struct engine *e = (struct engine *)(uintptr_t)engine;
    int n = 0;
    pthread_mutex_lock(&e->lock);
    for (struct fake_seq *s = e->seqs; s; s = s->next, n++)
        if (n < max)
            out[n] = (struct engine_live){.id = s->id, .n_prompt = s->r->n_prompt, .canceled = s->canceled};
    pthread_mutex_unlock(&e->lock);
    return n;
}

const struct bundle *engine_bundle(const struct engine *e)
{
    (void)e;
    return &fake_bundle;
}

/* All single bytes. */
enum status engine_vocab_create(struct grammar_vocab **out, const struct engine *e, const int32_t *markers,
                                int n_marker, struct error *err)
{
    static char bytes[256];
    struct str tokens[FAKE_VOCAB] = {{NULL, 0}};
    int32_t eos = FAKE_VOCAB - 1;
    (void)e, (void)markers, (void)n_marker;
    for (int i = 0; i < 256; i++) {
        bytes[i] = (char)i;
        tokens[i] = str_n(&bytes[i], 1);
    }
    return grammar_vocab_create_of(out, tokens, FAKE_VOCAB, &eos, 1, err);
}

const struct model_config *model_config(const struct model *m)
{
    static const struct model_config by_task[] = {
        [TASK_GENERATE] = {.task = TASK_GENERATE, .n_vocab = FAKE_VOCAB, .n_ctx = 64, .n_label = 1, .n_out = 1},
        [TASK_EMBED] = {.task = TASK_EMBED, .n_vocab = FAKE_VOCAB, .n_ctx = 64, .n_label = 1, .n_out = 4},
        [TASK_SCORE] = {.task = TASK_SCORE, .n_vocab = FAKE_VOCAB, .n_ctx = 64, .n_label = 1, .n_out = 1}};
    (void)m;
    return &by_task[__atomic_load_n(&fake.task, __ATOMIC_SEQ_CST)];
}

enum status bundle_peek(struct bundle **out, struct model_config *config, const char *path, struct error *err)
{
    (void)out, (void)config;
    return fail(err, ST_NOT_FOUND, "%s: no such file", path);
}

void bundle_close(struct bundle *b)
{
    (void)b;
}

bool model_by_words(const struct model *m)
{
    (void)m;
    return false;
}

struct str model_prompt(const struct model *m, struct str name)
{
    (void)m;
    return name.ptr && !str_is(name, "query") ? (struct str){0} : STR("");
}

/* At once, on the caller's thread, unless fake.hold: every number is the text's length in tokens. */
enum status engine_embed(struct engine *e, struct embed_request *r, struct error *err)
{
    struct finish_event end = {.finish = FINISH_STOP};
    int n_out = model_config(NULL)->n_out;
    (void)err;
    pthread_mutex_lock(&e->lock);
    fake.tenant = r->tenant;
    r->id = ++e->next_id;
    e->held = fake_get(&fake.hold) ? r : NULL;
    pthread_mutex_unlock(&e->lock);
    if (fake_get(&fake.hold))
        return ST_OK;
    for (int i = 0; i < r->n_text; i++) {
        end.n_prompt += r->texts[i].n_id;
        for (int k = 0; k < n_out; k++)
            r->out[i * n_out + k] = (real)r->texts[i].n_id;
    }
    r->on_finish(r->ctx, &end);
    return ST_OK;
}

void embed_unit(real *v, int n)
{
    for (int i = 0; i < n; i++)
        v[i] /= (real)n;
}

real embed_sigmoid(real logit)
{
    return logit / (1 + logit);
}

void sampling_defaults(struct sampling *s)
{
    *s = (struct sampling){.temperature = 1, .top_p = 1, .repetition_penalty = 1, .n_logprobs = -1};
}

enum status sampling_check(const struct sampling *s, const char **param, struct error *err)
{
    *param = "top_p";
    return s->top_p > 0 ? ST_OK : fail(err, ST_INVALID, "top_p: expected more than 0");
}

/* ---- tokenizer: bytes, and "<|x|>" as the one special token ---- */

void ids_free(struct ids *ids)
{
    free(ids->ids);
    *ids = (struct ids){0};
}

bool ids_push(struct ids *ids, int32_t id)
{
    if (ids->count == ids->capacity) {
        ids->capacity = ids->capacity * 2 + 64;
        ids->ids = realloc(ids->ids, ids->capacity * sizeof(int32_t));
    }
    ids->ids[ids->count++] = id;
    return true;
}

static void fake_push(struct ids *ids, int32_t id)
{
    if (!ids_push(ids, id))
        abort();
}

enum status tokenizer_encode(const struct tokenizer *tok, struct ids *out, struct str text, unsigned flags,
                             struct error *err)
{
    (void)tok, (void)err;
    while (fake_get(&fake.stuck))
        usleep(1000);
    if (flags & TOKENIZE_ADD)
        fake_push(out, FAKE_SPECIAL + 1);
    for (size_t i = 0; i < text.len; i++) {
        bool special = (flags & TOKENIZE_SPECIAL) && str_starts(str_from(text, i), STR("<|x|>"));
        fake_push(out, special ? FAKE_SPECIAL : (unsigned char)text.ptr[i]);
        i += special ? 4 : 0;
    }
    return ST_OK;
}

enum status tokenizer_encode_pieces(const struct tokenizer *tok, struct ids *out, const struct text_piece *pieces,
                                    size_t n, unsigned flags, struct error *err)
{
    for (size_t i = 0; i < n; i++)
        TRY(tokenizer_encode(tok, out, pieces[i].text, pieces[i].plain ? 0 : flags, err));
    return ST_OK;
}

enum status tokenizer_encode_pair(const struct tokenizer *tok, struct ids *out, size_t *first, struct str a,
                                  struct str b, size_t max, struct error *err)
{
    (void)max;
    TRY(tokenizer_encode(tok, out, a, TOKENIZE_ADD, err));
    *first = out->count;
    return tokenizer_encode(tok, out, b, 0, err);
}

void tokenizer_shorten(const struct tokenizer *tok, struct ids *ids, size_t max)
{
    (void)tok;
    ids->count = ids->count < max ? ids->count : max;
}

bool tokenizer_frames(const struct tokenizer *tok, const int32_t *ids, size_t n)
{
    (void)tok;
    return n > 0 && ids[0] == FAKE_SPECIAL + 1;
}

enum status tokenizer_decode(const struct tokenizer *tok, struct buf *out, const int32_t *ids, size_t n, unsigned flags,
                             struct error *err)
{
    (void)tok, (void)flags, (void)err;
    for (size_t i = 0; i < n; i++)
        buf_append_char(out, ids[i] < 256 ? (char)ids[i] : '?');
    return ST_OK;
}

void decoder_init(struct decoder *d, const struct tokenizer *tok, unsigned flags)
{
    *d = (struct decoder){.tok = tok, .flags = flags};
}

void decoder_next(struct decoder *d, int32_t id, struct buf *out)
{
    (void)d;
    buf_append_char(out, id < 256 ? (char)id : '?');
}

int32_t tokenizer_vocab_size(const struct tokenizer *tok)
{
    (void)tok;
    return FAKE_VOCAB;
}

int32_t tokenizer_bos(const struct tokenizer *tok)
{
    (void)tok;
    return FAKE_SPECIAL + 1;
}

int32_t tokenizer_eos(const struct tokenizer *tok)
{
    (void)tok;
    return -1;
}

int32_t tokenizer_find(const struct tokenizer *tok, struct str text)
{
    (void)tok, (void)text;
    return -1;
}

bool tokenizer_is_special(const struct tokenizer *tok, int32_t id)
{
    (void)tok;
    return id >= FAKE_SPECIAL;
}

struct str tokenizer_token(const struct tokenizer *tok, int32_t id)
{
    (void)tok;
    return id == FAKE_SPECIAL ? STR("<|x|>") : id == FAKE_SPECIAL + 1 ? STR("<s>") : STR("?");
}

void tokenizer_token_bytes(const struct tokenizer *tok, struct buf *out, int32_t id)
{
    (void)tok;
    buf_append_char(out, (char)id);
}

/* "<|x|>" + content, for every message */
enum status chat_render(const struct template *t, struct chat_prompt *out, const struct chat_options *o,
                        struct error *err)
{
    (void)t, (void)err;
    *out = (struct chat_prompt){0};
    out->pieces = calloc(2 * json_count(o->messages) + 1, sizeof *out->pieces);
    JSON_EACH (m, o->messages) {
        out->pieces[out->n_piece++] = (struct text_piece){STR("<|x|>"), false};
        out->pieces[out->n_piece++] = (struct text_piece){json_str(json_get(m, "content")), true};
    }
    return ST_OK;
}

void chat_prompt_free(struct chat_prompt *p)
{
    free(p->pieces);
}

#endif
