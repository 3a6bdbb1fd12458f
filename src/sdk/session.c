/* Sessions: a conversation kept as JSON, rendered whole each turn; the engine finds what it computed before. And the
 * one call, which is a model with one stream. */
#include "sdk/sdk.h"

#include "base/mem.h"

struct ingot_session {
    struct ingot_model *model;
    struct lora *lora;
    struct buf messages; /* "[{...},{...}": open, so that the next one can be added */
    size_t system_len;   /* of the part that stays */
    struct buf answer;
    ingot_on_token *on_token; /* of the running turn */
    void *ctx;
};

static void put_message(struct buf *out, const char *role, struct str content)
{
    struct json_writer w;
    buf_append_char(out, out->len ? ',' : '[');
    json_writer_init(&w, out);
    json_begin_object(&w);
    json_put_str(&w, "role", str_of(role));
    json_put_str(&w, "content", content);
    json_end_object(&w);
}

int ingot_session_open(ingot_session **out, ingot_model *model, const char *system, ingot_error *error)
{
    *out = NULL;
    struct ingot_session *s = mem_alloc_zero(1, sizeof *s);
    if (s && system)
        put_message(&s->messages, "system", str_of(system));
    if (!s || s->messages.failed) {
        if (s)
            buf_free(&s->messages);
        mem_free(s);
        return sdk_refuse(error, ST_NOMEM, "out of memory for a session");
    }
    s->system_len = s->messages.len;
    s->model = model;
    model_hold(model);
    *out = s;
    return INGOT_OK;
}

void ingot_session_close(ingot_session *session)
{
    if (!session)
        return;
    buf_free(&session->messages);
    buf_free(&session->answer);
    lora_drop(session->lora);
    model_drop(session->model);
    mem_free(session);
}

static void cut(struct ingot_session *s, size_t len)
{
    s->messages.len = len;
    s->messages.failed = false;
    if (s->messages.ptr)
        s->messages.ptr[len] = 0;
}

void ingot_session_reset(ingot_session *session)
{
    cut(session, session->system_len);
    buf_clear(&session->answer);
}

const char *ingot_session_answer(const ingot_session *session)
{
    return buf_str(&session->answer).ptr;
}

int ingot_session_adapter(ingot_session *session, const char *name, ingot_error *error)
{
    struct lora *lora;
    struct error err;
    if (adapter_hold(&lora, session->model, name, &err) != ST_OK)
        return sdk_fail(error, &err);
    lora_drop(session->lora);
    session->lora = lora;
    return INGOT_OK;
}

static int keep_token(void *ctx, const ingot_token *t)
{
    struct ingot_session *s = ctx;
    buf_append(&s->answer, t->text, t->text_len);
    return s->answer.failed || (s->on_token && s->on_token(s->ctx, t));
}

int ingot_session_say(ingot_session *session, const char *text, const ingot_sampling *sampling,
                      ingot_on_token *on_token, void *ctx, ingot_result *result, ingot_error *error)
{
    struct ingot_session *s = session;
    size_t before = s->messages.len;
    ingot_stream *stream;
    ingot_request r;
    s->on_token = on_token;
    s->ctx = ctx;
    buf_clear(&s->answer);
    put_message(&s->messages, "user", str_of(text));
    size_t asked = s->messages.len;
    buf_append_char(&s->messages, ']');
    if (s->messages.failed) {
        cut(s, before);
        return sdk_refuse(error, ST_NOMEM, "out of memory for a turn");
    }
    INGOT_INIT(r);
    r.messages = s->messages.ptr;
    r.sampling = sampling;
    r.on_token = keep_token;
    r.ctx = s;
    int status = stream_start(&stream, s->model, &r, s->lora, error);
    if (status == INGOT_OK) {
        status = ingot_stream_wait(stream, result, error);
        ingot_stream_close(stream);
    }
    cut(s, asked);
    if (status == INGOT_OK)
        put_message(&s->messages, "assistant", str_trim(buf_str(&s->answer)));
    if (status == INGOT_OK && (s->answer.failed || s->messages.failed))
        status = sdk_refuse(error, ST_NOMEM, "out of memory for an answer");
    if (status != INGOT_OK)
        cut(s, before);
    return status;
}

/* ---- one call ---- */
static int append_token(void *ctx, const ingot_token *t)
{
    struct buf *out = ctx;
    buf_append(out, t->text, t->text_len);
    return out->failed;
}

int ingot_generate(char **text, const char *model_path, const char *prompt, const ingot_sampling *sampling,
                   ingot_error *error)
{
    ingot_model *model;
    ingot_model_options options;
    ingot_stream *stream;
    ingot_request r;
    struct buf out = {0};
    *text = NULL;
    INGOT_INIT(options);
    options.streams = 1;
    int status = ingot_model_open(&model, model_path, &options, error);
    if (status != INGOT_OK)
        return status;
    INGOT_INIT(r);
    r.prompt = prompt;
    r.sampling = sampling;
    r.on_token = append_token;
    r.ctx = &out;
    buf_reserve(&out, 1); /* an empty answer is a text, too */
    status = ingot_stream_start(&stream, model, &r, error);
    if (status == INGOT_OK) {
        status = ingot_stream_wait(stream, NULL, error);
        ingot_stream_close(stream);
    }
    ingot_model_close(model);
    if (status == INGOT_OK && out.failed)
        status = sdk_refuse(error, ST_NOMEM, "out of memory for an answer");
    if (status == INGOT_OK) {
        out.ptr[out.len] = 0;
        *text = out.ptr;
    } else {
        buf_free(&out);
    }
    return status;
}
