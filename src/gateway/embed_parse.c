/* Requests for embeddings (OpenAI's) and reranking (Jina's and Cohere's) as rows.
 *
 * Source: OpenAI's API description; vLLM's additions: truncate_prompt_tokens, normalize; TEI's raw_scores.
 */
#include "gateway/private.h"

#include <limits.h>
#include <stdio.h>

enum { EMBED = ASK_EMBED, RERANK = ASK_RERANK, BOTH = EMBED | RERANK };

static bool read_format(struct parse *p, const char *name, const struct json *v)
{
    struct str s = json_str(v);
    p->out->embed.base64 = str_is(s, "base64");
    return p->out->embed.base64 || str_is(s, "float") ||
           refuse(p->why, 400, "invalid_value", name, "%s: expected \"float\" or \"base64\"", name);
}

/* -1: to what the model takes. */
static bool read_truncate(struct parse *p, const char *name, const struct json *v)
{
    if (!json_is(v, JSON_INT) || (v->integer != -1 && (v->integer < 1 || v->integer > INT_MAX)))
        return refuse(p->why, 400, "invalid_value", name,
                      "%s: expected -1 (what the model takes) or a number of tokens", name);
    p->out->embed.truncate = (int)v->integer;
    return true;
}

static bool too_many(struct parse *p, const char *name, size_t n)
{
    return refuse(p->why, 400, "invalid_value", name, "%s: %zu texts; expected 1 to %d", name, n, EMBED_INPUTS_MAX);
}

bool read_embed_input(struct parse *p, const char *name, const struct json *v)
{
    bool many = json_is(v, JSON_ARRAY) && !json_is(json_at(v, 0), JSON_INT);
    size_t n = many ? json_count(v) : 1, i = 0;
    if (n < 1 || n > EMBED_INPUTS_MAX)
        return too_many(p, name, n);
    struct ask_prompt *inputs = fields_prompts(p, n);
    if (!inputs)
        return false;
    if (!many)
        return read_text_or_ids(p, name, v, inputs);
    JSON_EACH (item, v) {
        char one[ASK_PARAM_MAX];
        snprintf(one, sizeof one, "%s[%zu]", name, i);
        if (!read_text_or_ids(p, one, item, &inputs[i++]))
            return false;
    }
    return true;
}

/* Strings, or objects with a text. */
static bool read_documents(struct parse *p, const char *name, const struct json *v)
{
    size_t n = json_count(v), i = 0;
    if (!json_is(v, JSON_ARRAY))
        return field_wrong_type(p, name, "an array of strings");
    if (n < 1 || n > EMBED_INPUTS_MAX)
        return too_many(p, name, n);
    struct ask_prompt *documents = fields_prompts(p, n);
    if (!documents)
        return false;
    JSON_EACH (item, v) {
        const struct json *text = json_is(item, JSON_OBJECT) ? json_get(item, "text") : item;
        char one[ASK_PARAM_MAX];
        snprintf(one, sizeof one, "%s[%zu]", name, i);
        if (!json_is(text, JSON_STRING))
            return field_wrong_type(p, one, "a string, or an object with a text");
        documents[i++].text = json_str(text);
    }
    return true;
}

static const struct field rows[] = {
    WORDS("model", BOTH, model),
    SHAPED("input", EMBED, read_embed_input),
    SHAPED("encoding_format", EMBED, read_format),
    NUMBER("dimensions", EMBED, READ_INT, embed.dimensions, 1, INT_MAX),
    SHAPED("truncate_prompt_tokens", BOTH, read_truncate),
    SWITCH("normalize", EMBED, embed.normalize),
    WORDS("prompt_name", EMBED, embed.prompt_name), /* sentence-transformers' name for the model's own prompts */

    WORDS("query", RERANK, embed.query),
    SHAPED("documents", RERANK, read_documents),
    NUMBER("top_n", RERANK, READ_INT, embed.top_n, 1, INT_MAX),
    SWITCH("return_documents", RERANK, embed.return_documents),
    SWITCH("raw_scores", RERANK, embed.raw_scores),

    REFUSED("priority", BOTH, "0"), /* they take turns */
    IGNORED("user", BOTH),
    REFUSED("max_tokens_per_doc", RERANK, "4096"),
    REFUSED("rank_fields", RERANK, "[] [\"text\"]"),
};

void embed_defaults(struct ask *a)
{
    a->embed.normalize = true;
}

bool embed_check(struct parse *p)
{
    const struct ask *a = p->out;
    bool embed = a->kind == ASK_EMBED;
    const struct model_config *c = model_config(p->bundle->model);
    const char *missing = !embed && !a->embed.query.ptr ? "query"
                          : a->n_prompt == 0            ? embed ? "input" : "documents"
                                                        : NULL;
    if (missing)
        return refuse(p->why, 400, "missing_required_parameter", missing, "%s is missing", missing);
    if (c->task == TASK_GENERATE)
        return refuse(p->why, 400, "unsupported_value", "model",
                      "this model generates text and gives no %s; started with --pooling mean, cls, last, max, sqrt or "
                      "weighted it embeds",
                      embed ? "embeddings" : "scores");
    if ((c->task == TASK_EMBED) != embed)
        return refuse(p->why, 400, "unsupported_value", "model",
                      embed
                          ? "this model scores texts against a query: ask it at /v1/rerank"
                          : "this model gives embeddings: ask it at /v1/embeddings; a reranker is a model of its own");
    if (!embed && c->n_label != 1)
        return refuse(p->why, 400, "unsupported_value", "model",
                      "this model is a classifier of %d labels; a reranker has one", c->n_label);
    if (a->embed.dimensions > c->n_out)
        return refuse(p->why, 400, "invalid_value", "dimensions", "dimensions: %d, but this model's vectors have %d",
                      a->embed.dimensions, c->n_out);
    if (a->embed.truncate > c->n_ctx)
        return refuse(p->why, 400, "invalid_value", "truncate_prompt_tokens",
                      "truncate_prompt_tokens: %d, but this model takes %d", a->embed.truncate, c->n_ctx);
    if (a->embed.prompt_name.ptr && !model_prompt(p->bundle->model, a->embed.prompt_name).ptr)
        return refuse(p->why, 400, "invalid_value", "prompt_name", "prompt_name: this model has no prompt %.*s",
                      (int)(a->embed.prompt_name.len < 80 ? a->embed.prompt_name.len : 80), a->embed.prompt_name.ptr);
    return true;
}

const struct protocol openai_embeddings = {.path = "/v1/embeddings",
                                           .kind = ASK_EMBED,
                                           .fields = {rows, sizeof rows / sizeof *rows},
                                           .defaults = embed_defaults,
                                           .check = embed_check,
                                           .answer = openai_answer_embeddings};
const struct protocol jina_rerank = {.path = "/v1/rerank",
                                     .id_prefix = "rerank-",
                                     .kind = ASK_RERANK,
                                     .fields = {rows, sizeof rows / sizeof *rows},
                                     .defaults = embed_defaults,
                                     .check = embed_check,
                                     .answer = openai_answer_rerank};
