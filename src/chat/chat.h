/* chat - messages and templates: a sandboxed Jinja subset with budgets
 *
 *   TRY(template_parse(&t, source, err));
 *   TRY(template_render(t, &out, context_json, &budget, err));        any context
 *   TRY(chat_render(t, &prompt, &request, err));                      messages -> pieces, user text marked plain
 *
 * Budgets  steps, depth and output bytes; exceeding one is ST_LIMIT with the budget's name. Nothing outside the
 *          context can be reached; an unknown filter, test, function or tag is ST_UNSUPPORTED by name and line.
 * Errors   raise_exception('text') is ST_INVALID with that text; a syntax error is ST_CORRUPT with its line
 * Threads  a struct template is immutable after parse
 */
#ifndef CHAT_CHAT_H
#define CHAT_CHAT_H

#include "tokenizer/tokenizer.h"

struct template;
enum template_style {
    TEMPLATE_PYTHON, /* values print as in Python (True, None, ['a']), as transformers renders chats */
    TEMPLATE_JSON,   /* values print as JSON and + joins text with anything, as JavaScript's implementations do */
};
struct template_budget {
    uint64_t steps_max; /* 0 = default 10,000,000 */
    uint32_t depth_max; /* 0 = default 100 */
    size_t output_max;  /* bytes; 0 = default 64 MiB. Values may take four times that plus 64 MiB */
    int64_t now_wall_s; /* what strftime_now sees; 0 = the wall clock */
    enum template_style style;
};
MUST_USE enum status template_parse(struct template **out, struct str source, struct error *err);
void template_free(struct template *t);
/* context: a JSON object whose members are the template's variables. */
MUST_USE enum status template_render(const struct template *t, struct buf *out, const struct json *context,
                                     const struct template_budget *budget, struct error *err);

struct chat_prompt {
    struct buf text;           /* the rendered prompt */
    struct text_piece *pieces; /* views of text, in order: plain where characters came from the context's strings. The
                                * template's own: its literals, bos_token, eos_token, and roles every template knows */
    size_t n_piece;
};
struct chat_options {
    const struct json *messages; /* [{"role":..., "content":...}, ...] as in OpenAI's API; text parts are joined */
    const struct json *tools;    /* or NULL */
    const struct json *extra;    /* chat_template_kwargs: more variables, or NULL */
    struct str bos_token, eos_token;
    bool no_generation_prompt;
    int64_t now_wall_s; /* strftime_now; 0 = the wall clock */
};
/* t == NULL uses a plain built-in form ("User: ...\nAssistant:"), for models without a template. */
MUST_USE enum status chat_render(const struct template *t, struct chat_prompt *out, const struct chat_options *options,
                                 struct error *err);
void chat_prompt_free(struct chat_prompt *p);

#endif
