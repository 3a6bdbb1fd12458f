/* Streams: one engine request each, with everything it needs until its end.
 *
 *   ingot_stream_start > (engine thread: on_token ... on_finish) > ended > ingot_stream_close
 *
 * 1. The engine thread touches a stream only inside its callbacks, and never after `ended` was set.
 */
#include "sdk/sdk.h"

#include "base/clock.h"
#include "base/mem.h"

struct ingot_stream {
    struct ingot_model *model;
    struct request request;
    struct ids ids;
    struct arena arena; /* stops, biases */
    struct lora *lora;
    ingot_on_token *on_token;
    void (*on_finish)(void *ctx, const ingot_result *result);
    void *ctx;
    pthread_mutex_t lock; /* of what follows */
    pthread_cond_t done;
    bool ended;
    ingot_result result;
    struct error error;
};

/* ---- engine thread ---- */
static void on_token(void *ctx, const struct token_event *e)
{
    struct ingot_stream *s = ctx;
    const ingot_token t = {.size = sizeof t,
                           .id = e->id,
                           .logprob = e->logprob,
                           .text = e->text.ptr ? e->text.ptr : "",
                           .text_len = e->text.len};
    if (s->on_token && s->on_token(s->ctx, &t))
        engine_cancel(s->model->engine, s->request.id);
}

static void on_finish(void *ctx, const struct finish_event *e)
{
    struct ingot_stream *s = ctx;
    struct error err = {0};
    if (e->finish == FINISH_ERROR)
        fail(&err, e->status, "%s", e->message ? e->message : "the engine stopped");
    const ingot_result r = {sizeof r,    (int)e->finish, (int)err.status, e->n_prompt,  e->n_output,
                            e->n_cached, e->seed,        e->queue_s,      e->prefill_s, e->decode_s};
    if (s->on_finish)
        s->on_finish(s->ctx, &r);
    pthread_mutex_lock(&s->lock);
    s->result = r;
    s->error = err;
    s->ended = true;
    pthread_cond_broadcast(&s->done);
    pthread_mutex_unlock(&s->lock);
}

/* ---- starting ---- */
static float choose(float given, double of_model, float otherwise)
{
    return given >= 0 ? given : of_model == of_model && of_model >= 0 ? (float)of_model : otherwise;
}

static enum status take_stops(struct ingot_stream *s, const ingot_sampling *o, struct error *err)
{
    if (o->n_stop > REQUEST_STOPS_MAX)
        return fail(err, ST_INVALID, "sampling: %zu stops, expected at most %d", o->n_stop, REQUEST_STOPS_MAX);
    for (size_t i = 0; i < o->n_stop; i++) {
        struct str stop = str_of(o->stops[i]);
        if (!stop.len)
            return fail(err, ST_INVALID, "sampling: stop %zu is empty", i);
        const char *copy = arena_copy(&s->arena, stop);
        if (!copy)
            return fail_nomem(err, "stream");
        s->request.stops[s->request.n_stop++] = str_n(copy, stop.len);
    }
    return ST_OK;
}

static enum status take_sampling(struct ingot_stream *s, const ingot_sampling *given, struct error *err)
{
    const struct bundle *b = s->model->bundle;
    struct sampling *to = &s->request.sampling;
    ingot_sampling o;
    const char *param = "";
    ingot_sampling_init(&o);
    if (!SIZED_READ(o, given))
        return fail(err, ST_INVALID,
                    "sampling: made for a newer library, or its size is not set (ingot_sampling_init)");
    sampling_defaults(to);
    to->n_logprobs = 0;
    to->temperature = choose(o.temperature, b->temperature, 0.7f);
    to->top_p = choose(o.top_p, b->top_p, 1);
    to->repetition_penalty = choose(o.repetition_penalty, b->repetition_penalty, 1);
    to->top_k = o.top_k >= 0 ? o.top_k : b->top_k > 0 ? b->top_k : 0;
    to->min_p = o.min_p;
    to->presence_penalty = o.presence_penalty;
    to->frequency_penalty = o.frequency_penalty;
    to->max_tokens = o.max_tokens;
    to->min_tokens = o.min_tokens;
    to->ignore_eos = o.ignore_eos != 0;
    to->has_seed = o.has_seed != 0;
    to->seed = o.seed;
    if (o.max_tokens < 0)
        return fail(err, ST_INVALID, "max_tokens is %d, expected 0 or more", o.max_tokens);
    size_t bytes;
    struct logit_bias *bias = NULL;
    if (o.n_logit_bias) {
        if (o.n_logit_bias > INT32_MAX || !size_mul(&bytes, o.n_logit_bias, sizeof *bias) ||
            !(bias = arena_alloc(&s->arena, bytes)))
            return fail_nomem(err, "stream");
        for (size_t i = 0; i < o.n_logit_bias; i++)
            bias[i] = (struct logit_bias){o.logit_bias[i].id, o.logit_bias[i].bias};
    }
    to->logit_bias = bias;
    to->n_logit_bias = (int)o.n_logit_bias;
    TRY(take_stops(s, &o, err));
    return sampling_check(to, &param, err);
}

static enum status take_prompt(struct ingot_stream *s, const ingot_request *r, struct error *err)
{
    const struct bundle *b = s->model->bundle;
    if (!!r->prompt + !!r->messages + !!r->ids != 1)
        return fail(err, ST_INVALID, "request: expected one of prompt, messages and ids");
    if (r->prompt)
        return bundle_prompt_ids(&s->ids, b, str_of(r->prompt), r->flags & INGOT_RAW, err);
    if (r->messages)
        return bundle_messages_ids(&s->ids, b, str_of(r->messages), err);
    for (size_t i = 0; i < r->n_id; i++)
        if (!ids_push(&s->ids, r->ids[i]))
            return fail_nomem(err, "stream");
    return ST_OK;
}

static enum status submit(struct ingot_stream *s, const ingot_request *given, struct lora *lora, struct error *err)
{
    ingot_request r = {0};
    if (!given || !SIZED_READ(r, given))
        return fail(err, ST_INVALID, "request: made for a newer library, or its size is not set (INGOT_INIT)");
    if (r.timeout_ms < 0 || r.choice < 0 || r.flags & ~INGOT_RAW)
        return fail(err, ST_INVALID, "request: timeout_ms and choice not below 0, flags 0 or INGOT_RAW");
    TRY(take_sampling(s, r.sampling, err));
    TRY(take_prompt(s, &r, err));
    s->on_token = r.on_token;
    s->on_finish = r.on_finish;
    s->ctx = r.ctx;
    s->request.prompt = s->ids.ids;
    s->request.n_prompt = s->ids.count > INT32_MAX ? INT32_MAX : (int)s->ids.count;
    s->lora = lora_hold(lora);
    if (!lora)
        TRY(adapter_hold(&s->lora, s->model, r.adapter, err));
    s->request.lora = s->lora;
    s->request.choice = r.choice;
    s->request.priority = r.priority;
    s->request.deadline_ns = r.timeout_ms ? clock_ns() + (uint64_t)r.timeout_ms * 1000000 : 0;
    s->request.ctx = s;
    s->request.on_token = on_token;
    s->request.on_finish = on_finish;
    return engine_submit(s->model->engine, &s->request, err);
}

static void stream_free(struct ingot_stream *s)
{
    pthread_mutex_destroy(&s->lock);
    pthread_cond_destroy(&s->done);
    arena_free(&s->arena);
    ids_free(&s->ids);
    lora_drop(s->lora);
    model_drop(s->model);
    mem_free(s);
}

int ingot_stream_start(ingot_stream **out, ingot_model *model, const ingot_request *request, ingot_error *error)
{
    return stream_start(out, model, request, NULL, error);
}

int stream_start(ingot_stream **out, struct ingot_model *model, const ingot_request *request, struct lora *lora,
                 ingot_error *error)
{
    struct error err;
    *out = NULL;
    struct ingot_stream *s = mem_alloc_zero(1, sizeof *s);
    if (!s)
        return sdk_refuse(error, ST_NOMEM, "out of memory for a stream");
    s->model = model;
    model_hold(model);
    arena_init(&s->arena, 0);
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->done, NULL);
    *out = s; /* before it begins: a callback may cancel it */
    if (submit(s, request, lora, &err) != ST_OK) {
        *out = NULL;
        stream_free(s);
        return sdk_fail(error, &err);
    }
    return INGOT_OK;
}

/* ---- ending ---- */
void ingot_stream_cancel(ingot_stream *stream)
{
    engine_cancel(stream->model->engine, stream->request.id);
}

int ingot_stream_wait(ingot_stream *stream, ingot_result *result, ingot_error *error)
{
    pthread_mutex_lock(&stream->lock);
    while (!stream->ended)
        pthread_cond_wait(&stream->done, &stream->lock);
    pthread_mutex_unlock(&stream->lock);
    sized_write(result, &stream->result, sizeof stream->result);
    return stream->error.status == ST_OK ? INGOT_OK : sdk_fail(error, &stream->error);
}

void ingot_stream_close(ingot_stream *stream)
{
    if (!stream)
        return;
    ingot_stream_cancel(stream);
    ingot_stream_wait(stream, NULL, NULL);
    stream_free(stream);
}
