/* OpenAI's requests (chat, completions) and those of vLLM's tokenize, as rows.
 *
 * Source: OpenAI's API description, and vLLM's additions: top_k, min_p, ...
 */
#include "gateway/private.h"

#include <limits.h>

enum {
    CHAT = ASK_CHAT,
    TEXT = ASK_COMPLETION,
    TOK = ASK_TOKENIZE,
    DETOK = ASK_DETOKENIZE,
    GEN = CHAT | TEXT,
    ALL = 15
};

static bool read_stream_options(struct parse *p, const char *name, const struct json *v)
{
    if (!json_is(v, JSON_OBJECT))
        return field_wrong_type(p, name, "an object");
    if (!p->streams && !json_bool(json_get(p->body, "stream"), false))
        return refuse(p->why, 400, "invalid_value", name, "%s: only with \"stream\": true", name);
    JSON_EACH_MEMBER (key, value, v) {
        bool usage = str_is(key, "include_usage"),
             bool_or_null = json_is(value, JSON_TRUE) || json_is(value, JSON_FALSE) || json_is(value, JSON_NULL);
        if (!usage && !str_is(key, "include_obfuscation")) /* padding against listeners: not offered, not missed */
            return refuse(p->why, 400, "unknown_parameter", name, "%s: unknown field %.*s", name, STR_ARG(key));
        if (!bool_or_null)
            return field_wrong_type(p, usage ? "stream_options.include_usage" : "stream_options.include_obfuscation",
                                    "true or false");
        if (usage)
            p->out->include_usage = json_is(value, JSON_TRUE);
    }
    return true;
}

static bool check_best(struct parse *p)
{
    struct ask *a = p->out;
    int width = a->best_of ? a->best_of : a->n;
    if (width < a->n)
        return refuse(p->why, 400, "invalid_value", "best_of", "best_of: at least n, which is %d, not %d", a->n, width);
    if (!a->beam_search && width > a->n && (a->stream || p->streams))
        return refuse(p->why, 400, "invalid_value", "best_of",
                      "best_of: more than n cannot be streamed, because which are best is known at the end only");
    if (!a->beam_search)
        return true;
    if (width > BEAMS_MAX)
        return refuse(p->why, 400, "invalid_value", a->best_of ? "best_of" : "n",
                      "%s: beam search takes n to %d beams, not %d", a->best_of ? "best_of" : "n", BEAMS_MAX, width);
    if (a->n_stop || a->return_replay)
        return refuse(p->why, 400, "unsupported_parameter", a->n_stop ? "stop" : "return_replay",
                      "%s: not offered with use_beam_search", a->n_stop ? "stop" : "return_replay");
    a->best_of = width;
    return true;
}

static const struct field rows[] = {
    WORDS("model", ALL, model),
    SHAPED("messages", CHAT | TOK, read_messages),
    SHAPED("prompt", TEXT | TOK, read_prompt),
    SHAPED("text", TOK, read_prompt),
    SHAPED("tokens", DETOK, read_tokens),
    SHAPED("tools", CHAT | TOK, read_tools),
    SHAPED("tool_choice", CHAT, read_tool_choice),
    SHAPED("parallel_tool_calls", CHAT, read_parallel),
    SHAPED("reasoning_effort", CHAT, read_effort),
    SWITCH("add_special_tokens", TOK, add_special),
    SWITCH("return_token_strs", TOK, want_strings),
    SHAPED("add_generation_prompt", CHAT | TOK, read_generation_prompt),
    SHAPED("chat_template_kwargs", CHAT | TOK, read_template_kwargs),

    NUMBER("temperature", GEN, READ_REAL, sampling.temperature, 0, 2),
    NUMBER("top_p", GEN, READ_REAL, sampling.top_p, 0, 1),
    NUMBER("top_k", GEN, READ_INT, sampling.top_k, -1, INT_MAX),
    NUMBER("min_p", GEN, READ_REAL, sampling.min_p, 0, 1),
    NUMBER("typical_p", GEN, READ_REAL, sampling.typical_p, 1e-9, 1),
    NUMBER("repetition_penalty", GEN, READ_REAL, sampling.repetition_penalty, 0.01, 100),
    NUMBER("presence_penalty", GEN, READ_REAL, sampling.presence_penalty, -2, 2),
    NUMBER("frequency_penalty", GEN, READ_REAL, sampling.frequency_penalty, -2, 2),
    NUMBER("max_tokens", CHAT, READ_INT, sampling.max_tokens, 1, INT_MAX),
    NUMBER("max_tokens", TEXT, READ_INT, sampling.max_tokens, 0, INT_MAX), /* 0: the prompt alone, with echo */
    NUMBER("max_completion_tokens", CHAT, READ_INT, sampling.max_tokens, 1, INT_MAX),
    NUMBER("min_tokens", GEN, READ_INT, sampling.min_tokens, 0, INT_MAX),
    SWITCH("ignore_eos", GEN, sampling.ignore_eos),
    SHAPED("response_format", GEN, read_response_format),
    SHAPED("guided_json", GEN, read_guided_json), /* vLLM's, older and newer */
    SHAPED("guided_regex", GEN, read_guided_regex),
    SHAPED("guided_choice", GEN, read_guided_choice),
    SHAPED("guided_grammar", GEN, read_guided_grammar),
    SHAPED("structured_outputs", GEN, read_structured_outputs),
    SHAPED("grammar", GEN, read_guided_grammar), /* llama.cpp's */
    SHAPED("json_schema", GEN, read_guided_json),
    IGNORED("guided_decoding_backend", GEN),
    SHAPED("seed", GEN, read_seed),
    SHAPED("stop", GEN, read_stop),
    SHAPED("logit_bias", GEN, read_logit_bias),
    SHAPED("logprobs", GEN, read_logprobs),
    SHAPED("top_logprobs", CHAT, read_top_logprobs),
    NUMBER("n", GEN, READ_INT, n, 1, ASK_CHOICES_MAX),
    NUMBER("best_of", GEN, READ_INT, best_of, 1, ASK_CHOICES_MAX),
    SWITCH("use_beam_search", GEN, beam_search),
    NUMBER("length_penalty", GEN, READ_REAL, length_penalty, -100, 100),
    SWITCH("early_stopping", GEN, early_stopping),
    SWITCH("echo", TEXT, echo),
    NUMBER("priority", GEN, READ_INT, priority, -1000000, 1000000), /* vLLM's: smaller goes first */
    WORDS("cache_salt", GEN, cache_salt),
    SWITCH("stream", GEN, stream),
    SHAPED("stream_options", GEN, read_stream_options),
    SWITCH("return_replay", GEN, return_replay),

    IGNORED("user", ALL),
    IGNORED("metadata", GEN),
    IGNORED("store", GEN),
    IGNORED("service_tier", GEN),
    IGNORED("safety_identifier", GEN),
    IGNORED("prompt_cache_key", GEN),
    IGNORED("prompt_cache_retention", GEN),
    IGNORED("prompt_cache_options", GEN),
    SHAPED("keep_alive", GEN, read_keep_alive), /* Ollama's, and LM Studio's name for it */
    SHAPED("ttl", GEN, read_keep_alive),
    IGNORED("prediction", GEN), /* a hint for speed */
    IGNORED("verbosity", CHAT),

    REFUSED("functions", CHAT, "[]"),
    REFUSED("function_call", CHAT, "\"none\" \"auto\""),
    REFUSED("modalities", CHAT, "[\"text\"]"),
    REFUSED("audio", CHAT, ""),
    REFUSED("moderation", CHAT, ""),
    REFUSED("web_search_options", CHAT, ""),
    REFUSED("suffix", TEXT, "\"\""),
    REFUSED("continue_final_message", CHAT | TOK, "false"),
    REFUSED("stop_token_ids", GEN, "[]"),
    REFUSED("skip_special_tokens", GEN, "true"),
};

static void completion_defaults(struct ask *a)
{
    a->sampling.max_tokens = 16; /* OpenAI's default */
}

static bool check(struct parse *p)
{
    struct ask *a = p->out;
    const struct json *newer =
        json_get(p->body, "max_completion_tokens"); /* wins over max_tokens, whichever is first */
    if (json_is(newer, JSON_INT))
        a->sampling.max_tokens = (int)newer->integer;
    const char *needed = a->kind == ASK_CHAT ? "messages" : a->kind == ASK_DETOKENIZE ? "tokens" : "prompt";
    if (!a->messages && a->n_prompt == 0)
        return refuse(p->why, 400, "missing_required_parameter", needed, "%s is missing", needed);
    if (a->messages && a->n_prompt > 0)
        return refuse(p->why, 400, "invalid_value", "messages", "messages and prompt exclude each other");
    const char *many = ask_candidates(a) > a->n ? "best_of" : "n";
    if (ask_candidates(a) * a->n_prompt > ASK_SEQUENCES_MAX)
        return refuse(p->why, 400, "invalid_value", many, "%s times the number of prompts is more than %d", many,
                      ASK_SEQUENCES_MAX);
    if (a->kind == ASK_COMPLETION && a->sampling.max_tokens == 0) {
        if (!a->echo)
            return refuse(p->why, 400, "invalid_value", "max_tokens",
                          "max_tokens: 0 asks for nothing, unless echo is true");
        a->sampling.max_tokens = -1; /* the engine's word for it */
    }
    if (a->sampling.top_k < 0)
        a->sampling.top_k = 0;
    return check_best(p);
}

#define OPENAI_READS(asks) .kind = asks, .fields = {rows, sizeof rows / sizeof *rows}, .check = check

const struct protocol openai_chat = {
    OPENAI_READS(ASK_CHAT), .path = "/v1/chat/completions",    .id_prefix = "chatcmpl-", .wire = &wire_sse,
    OPENAI_WRITES,          .begin_choice = openai_chunk_role,
};
const struct protocol openai_completion = {
    OPENAI_READS(ASK_COMPLETION),
    .path = "/v1/completions",
    .id_prefix = "cmpl-",
    .wire = &wire_sse,
    .defaults = completion_defaults,
    OPENAI_WRITES,
};
static const struct protocol *choose(const struct json *body)
{
    return json_get(body, "prompt") ? &openai_completion : &openai_chat;
}

const struct protocol openai_stream = {.path = "/v1/stream", .kind = ASK_CHAT, .choose = choose};
const struct protocol openai_tokenize = {OPENAI_READS(ASK_TOKENIZE), .path = "/v1/tokenize",
                                         .answer = openai_answer_tokenize};
const struct protocol openai_detokenize = {OPENAI_READS(ASK_DETOKENIZE), .path = "/v1/detokenize",
                                           .answer = openai_answer_detokenize};
