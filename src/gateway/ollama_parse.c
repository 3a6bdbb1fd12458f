/* Ollama's chat and generate, as rows. Source: ollama's docs/api.md and api/types.go. */
#include "gateway/private.h"

#include <limits.h>
#include <stdio.h>

static bool read_think(struct parse *p, const char *name, const struct json *v)
{
    static const char *const levels[] = {"low", "medium", "high"};
    p->out->thinking = THINKING_ON;
    if (json_is(v, JSON_FALSE))
        p->out->thinking = THINKING_OFF;
    for (size_t i = 0; i < 3; i++)
        if (str_is(json_str(v), levels[i])) {
            p->out->effort = json_str(v);
            return true;
        }
    return json_is(v, JSON_TRUE) || json_is(v, JSON_FALSE) ||
           field_wrong_type(p, name, "true, false, low, medium or high");
}

static bool read_truncate(struct parse *p, const char *name, const struct json *v)
{
    p->out->embed.truncate = json_is(v, JSON_FALSE) ? 0 : -1;
    return json_is(v, JSON_TRUE) || json_is(v, JSON_FALSE) || field_wrong_type(p, name, "true or false");
}

/* num_predict: -1 = until the end, -2 = until the context is full: the same here. */
static bool read_predict(struct parse *p, const char *name, const struct json *v)
{
    if (!json_is(v, JSON_INT) || v->integer < -2 || v->integer > INT_MAX)
        return field_wrong_type(p, name, "an integer from -2 on");
    p->out->sampling.max_tokens = v->integer > 0 ? (int)v->integer : 0;
    return true;
}

static const struct field option_rows[] = {
    NUMBER("temperature", ASK_ANY, READ_REAL, sampling.temperature, 0, 2),
    NUMBER("top_p", ASK_ANY, READ_REAL, sampling.top_p, 0, 1),
    NUMBER("top_k", ASK_ANY, READ_INT, sampling.top_k, -1, INT_MAX),
    NUMBER("min_p", ASK_ANY, READ_REAL, sampling.min_p, 0, 1),
    NUMBER("typical_p", ASK_ANY, READ_REAL, sampling.typical_p, 1e-9, 1),
    NUMBER("repeat_penalty", ASK_ANY, READ_REAL, sampling.repetition_penalty, 0.01, 100),
    NUMBER("presence_penalty", ASK_ANY, READ_REAL, sampling.presence_penalty, -2, 2),
    NUMBER("frequency_penalty", ASK_ANY, READ_REAL, sampling.frequency_penalty, -2, 2),
    SHAPED("seed", ASK_ANY, read_seed),
    SHAPED("stop", ASK_ANY, read_stop),
    SHAPED("num_predict", ASK_ANY, read_predict),
    IGNORED("num_ctx", ASK_ANY), /* the context is the server's: a model is never loaded anew for it */
    IGNORED("num_keep", ASK_ANY),
    IGNORED("num_batch", ASK_ANY),
    IGNORED("num_gpu", ASK_ANY),
    IGNORED("main_gpu", ASK_ANY),
    IGNORED("num_thread", ASK_ANY),
    IGNORED("use_mmap", ASK_ANY),
    IGNORED("use_mlock", ASK_ANY),
    IGNORED("low_vram", ASK_ANY),
    IGNORED("numa", ASK_ANY),
    IGNORED("f16_kv", ASK_ANY),
    IGNORED("vocab_only", ASK_ANY),
    IGNORED("logits_all", ASK_ANY),
    REFUSED("embedding_only", ASK_ANY, "false"),
    IGNORED("repeat_last_n", ASK_ANY), /* penalties look at the whole context */
    IGNORED("penalize_newline", ASK_ANY),
    IGNORED("mirostat_eta", ASK_ANY),
    IGNORED("mirostat_tau", ASK_ANY),
    REFUSED("mirostat", ASK_ANY, "0"),
    REFUSED("tfs_z", ASK_ANY, "1 1.0"),
};

static bool read_options(struct parse *p, const char *name, const struct json *v)
{
    return json_is(v, JSON_OBJECT) ? fields_read(p, FIELDS(option_rows), v) : field_wrong_type(p, name, "an object");
}

/* ---- chat ---- */

/* Ids, which Ollama's messages lack: nine characters, as the strictest template wants them, results in the calls'
 * order. */
static void put_id(struct json_writer *w, const char *key, int n)
{
    char id[16];
    snprintf(id, sizeof id, "call%05d", n % 100000);
    json_put_str(w, key, str_of(id));
}

static void put_calls(struct json_writer *w, const struct json *calls, int *n_call)
{
    json_key(w, "tool_calls");
    json_begin_array(w);
    JSON_EACH (call, calls) {
        json_begin_object(w);
        put_id(w, "id", (*n_call)++);
        json_put_str(w, "type", STR("function"));
        json_key(w, "function");
        json_write_value(w, json_get(call, "function"));
        json_end_object(w);
    }
    json_end_array(w);
}

static bool put_one(struct parse *p, struct json_writer *w, const struct json *m, size_t index, int *n_call,
                    int *n_result)
{
    static const char *const roles[] = {"system", "user", "assistant", "tool"};
    char name[ASK_PARAM_MAX];
    struct str role = json_str(json_get(m, "role")), content = json_str(json_get(m, "content"));
    struct str thought = json_str(json_get(m, "thinking"));
    bool known = false;
    for (size_t i = 0; i < 4; i++)
        known |= str_is(role, roles[i]);
    snprintf(name, sizeof name, "messages[%zu]", index);
    if (!known)
        return refuse(p->why, 400, "invalid_value", name, "%s.role: expected system, user, assistant or tool", name);
    if (json_count(json_get(m, "images")))
        return refuse(p->why, 400, "unsupported_value", name, "%s.images: this model takes text only", name);
    json_begin_object(w);
    json_put_str(w, "role", role);
    json_put_str(w, "content", content.ptr ? content : STR(""));
    if (thought.len)
        json_put_str(w, "reasoning_content", thought);
    if (json_count(json_get(m, "tool_calls")))
        put_calls(w, json_get(m, "tool_calls"), n_call);
    if (str_is(role, "tool"))
        put_id(w, "tool_call_id", (*n_result)++);
    json_end_object(w);
    return true;
}

static bool read_conversation(struct parse *p, const char *name, const struct json *v)
{
    struct buf text = {0};
    struct json_writer w;
    size_t index = 0;
    int n_call = 0, n_result = 0;
    bool good = true;
    if (!json_is(v, JSON_ARRAY))
        return field_wrong_type(p, name, "an array of messages");
    if (json_count(v) == 0)
        return true; /* load, or unload */
    json_writer_init(&w, &text);
    json_begin_array(&w);
    JSON_EACH (m, v)
        good = good && put_one(p, &w, m, index++, &n_call, &n_result);
    json_end_array(&w);
    if (good)
        return messages_take(p, &text);
    buf_free(&text);
    return false;
}

#define COMMON_ROWS                                                                                                    \
    WORDS("model", ASK_ANY, model), SHAPED("options", ASK_ANY, read_options), SWITCH("stream", ASK_ANY, stream),       \
        SHAPED("keep_alive", ASK_ANY, read_keep_alive), SHAPED("think", ASK_ANY, read_think),                          \
        SHAPED("format", ASK_ANY, read_ollama_format), SHAPED("logprobs", ASK_ANY, read_logprobs),                     \
        SHAPED("top_logprobs", ASK_ANY, read_top_logprobs), IGNORED("truncate", ASK_ANY), IGNORED("shift", ASK_ANY),   \
        IGNORED("_debug_render_only", ASK_ANY)

static const struct field chat_rows[] = {
    COMMON_ROWS,
    SHAPED("messages", ASK_ANY, read_conversation),
    SHAPED("tools", ASK_ANY, read_tools),
};

/* ---- generate ---- */

static bool read_nothing(struct parse *p, const char *name, const struct json *v)
{
    return json_is(v, JSON_STRING) || field_wrong_type(p, name, "a string"); /* check_generate reads it */
}

static const struct field generate_rows[] = {
    COMMON_ROWS,
    SHAPED("prompt", ASK_ANY, read_nothing),
    SHAPED("system", ASK_ANY, read_nothing),
    SWITCH("raw", ASK_ANY, raw),
    REFUSED("suffix", ASK_ANY, "\"\""),
    REFUSED("images", ASK_ANY, "[]"),
    REFUSED("template", ASK_ANY, "\"\""),
    REFUSED("context", ASK_ANY, "[]"),
};

static bool put_prompt(struct parse *p, struct str prompt)
{
    struct str system = json_str(json_get(p->body, "system"));
    struct buf text = {0};
    struct json_writer w;
    json_writer_init(&w, &text);
    json_begin_array(&w);
    for (int user = system.len == 0; user < 2; user++) {
        json_begin_object(&w);
        json_put_str(&w, "role", user ? STR("user") : STR("system"));
        json_put_str(&w, "content", user ? prompt : system);
        json_end_object(&w);
    }
    json_end_array(&w);
    return messages_take(p, &text);
}

static void streams(struct ask *a)
{
    a->stream = true;
}

static bool check_chat(struct parse *p)
{
    p->out->immediate = !p->out->messages;
    return true;
}

static bool check_generate(struct parse *p)
{
    struct ask *a = p->out;
    const struct json *prompt = json_get(p->body, "prompt");
    a->immediate = json_str(prompt).len == 0;
    if (a->immediate)
        return true;
    if (!a->raw)
        return put_prompt(p, json_str(prompt));
    a->kind = ASK_COMPLETION;
    if (a->sampling.n_logprobs >= 0)
        return refuse(p->why, 400, "unsupported_parameter", "logprobs", "logprobs: not offered with raw");
    return read_prompt(p, "prompt", prompt);
}

#define OLLAMA_ROW(route, rows, whole, writes)                                                                         \
    {                                                                                                                  \
        .path = route, .id_prefix = "ollama-", .kind = ASK_CHAT, .flags = PROTOCOL_LATE, .wire = &wire_lines,          \
        .fields = {rows, sizeof rows / sizeof *(rows)}, .defaults = streams, .check = whole, .delta = writes##_delta,  \
        .close = writes##_close, .end = ollama_end, .refuse = ollama_fail, .ping = ollama_ping,                        \
        .answer = ollama_answer                                                                                        \
    }
const struct protocol ollama_chat = OLLAMA_ROW("/api/chat", chat_rows, check_chat, ollama);
const struct protocol ollama_generate = OLLAMA_ROW("/api/generate", generate_rows, check_generate, ollama);

/* ---- embed, and its older form embeddings ---- */

static const struct field embed_rows[] = {
    WORDS("model", ASK_ANY, model),
    SHAPED("input", ASK_ANY, read_embed_input),
    SHAPED("prompt", ASK_ANY, read_embed_input),
    NUMBER("dimensions", ASK_ANY, READ_INT, embed.dimensions, 1, INT_MAX),
    SHAPED("truncate", ASK_ANY, read_truncate),
    IGNORED("options", ASK_ANY),
    SHAPED("keep_alive", ASK_ANY, read_keep_alive),
};

static void embeds(struct ask *a)
{
    embed_defaults(a);
    a->embed.truncate = -1; /* long texts are cut, unless "truncate" is false */
}

#define EMBED_ROW(route, writes)                                                                                       \
    {                                                                                                                  \
        .path = route, .kind = ASK_EMBED, .fields = {embed_rows, sizeof embed_rows / sizeof *embed_rows},              \
        .defaults = embeds, .check = embed_check, .answer = writes                                                     \
    }
const struct protocol ollama_embed = EMBED_ROW("/api/embed", ollama_answer_embed);
const struct protocol ollama_embeddings = EMBED_ROW("/api/embeddings", ollama_answer_embeddings);
