/* ingot template - what a chat looks like to the model, or any template rendered with any context */
#include "base/file.h"
#include "cli/cli.h"

#include <stdio.h>
#include <time.h>

enum { INPUT_MAX = 256 << 20 };

struct rendering {
    const char *model, *template, *messages, *tools, *context, *kwargs, *now, *style;
    bool no_generation_prompt, json;
    /* what was read */
    struct arena arena;
    struct tokenizer *tok;
    struct buf source;
    struct template *parsed;
};

/* A file's JSON; its text lives in the arena. */
static enum status read_json(struct rendering *r, const struct json **out, const char *path, struct error *err)
{
    struct buf text = {0};
    enum status st = file_read_all(&text, path, INPUT_MAX, err);
    if (st == ST_OK) {
        char *copy = arena_copy(&r->arena, buf_str(&text));
        st = copy ? json_parse(out, &r->arena, str_n(copy, text.len), 0, err) : fail_nomem(err, path);
        if (st != ST_OK && st != ST_NOMEM)
            fail_context(err, "%s", path);
    }
    buf_free(&text);
    return st;
}

/* Seconds since 1970, or 2025-07-10T12:00:00Z. */
static enum status parse_now(int64_t *out, const char *text, struct error *err)
{
    struct tm tm = {0};
    if (!text || str_to_i64(out, str_of(text)))
        return ST_OK;
    const char *end = strptime(text, "%Y-%m-%dT%H:%M:%SZ", &tm);
    if (!end || *end)
        return fail(err, ST_INVALID, "--now %s: expected a time such as 2025-07-10T12:00:00Z", text);
    *out = timegm(&tm);
    return ST_OK;
}

static enum status template_open(struct rendering *r, struct error *err)
{
    if (r->model)
        TRY(cli_tokenizer_open(&r->tok, r->model, err));
    if (r->template)
        TRY(file_read_all(&r->source, r->template, INPUT_MAX, err));
    else
        buf_append_str(&r->source, tokenizer_chat_template(r->tok));
    if (r->source.failed)
        return fail_nomem(err, "the template");
    if (!r->template && !r->source.len) /* `run` and `serve` use the built-in form then; so does this */
        return ST_OK;
    enum status st = template_parse(&r->parsed, buf_str(&r->source), err);
    return st == ST_OK ? st : fail_context(err, "%s", r->template ? r->template : r->model);
}

static void print_pieces(struct buf *out, const struct chat_prompt *p)
{
    struct json_writer w;
    json_writer_init(&w, out);
    json_begin_object(&w);
    json_put_str(&w, "text", buf_str(&p->text));
    json_key(&w, "pieces");
    json_begin_array(&w);
    for (size_t i = 0; i < p->n_piece; i++) {
        json_begin_object(&w);
        json_put_str(&w, "text", p->pieces[i].text);
        json_put_bool(&w, "plain", p->pieces[i].plain);
        json_end_object(&w);
    }
    json_end_array(&w);
    json_end_object(&w);
    buf_append_char(out, '\n');
}

static enum status render_messages(struct rendering *r, struct buf *out, int64_t now, struct error *err)
{
    struct chat_options options = {.no_generation_prompt = r->no_generation_prompt, .now_wall_s = now};
    struct chat_prompt prompt = {0};
    TRY(read_json(r, &options.messages, r->messages, err));
    if (json_type(options.messages) == JSON_OBJECT) { /* a whole request of the OpenAI API */
        options.tools = json_get(options.messages, "tools");
        options.extra = json_get(options.messages, "chat_template_kwargs");
        options.messages = json_get(options.messages, "messages");
    }
    if (r->tools)
        TRY(read_json(r, &options.tools, r->tools, err));
    if (r->tools && json_type(options.tools) != JSON_ARRAY)
        return fail(err, ST_INVALID, "--tools %s: expected a JSON list of tools", r->tools);
    if (r->kwargs && (json_parse(&options.extra, &r->arena, str_of(r->kwargs), 0, err) != ST_OK ||
                      json_type(options.extra) != JSON_OBJECT))
        return fail(err, ST_INVALID, "--kwargs %s: expected a JSON object", r->kwargs);
    if (r->tok) {
        options.bos_token = tokenizer_token(r->tok, tokenizer_bos(r->tok));
        options.eos_token = tokenizer_token(r->tok, tokenizer_eos(r->tok));
    }
    TRY(chat_render(r->parsed, &prompt, &options, err));
    if (r->json)
        print_pieces(out, &prompt);
    else
        buf_append_str(out, buf_str(&prompt.text));
    chat_prompt_free(&prompt);
    return ST_OK;
}

static enum status render_context(struct rendering *r, struct buf *out, int64_t now, struct error *err)
{
    struct template_budget budget = {.now_wall_s = now};
    const struct json *context;
    struct buf text = {0};
    if (r->style && strcmp(r->style, "python") != 0 && strcmp(r->style, "json") != 0)
        return fail(err, ST_INVALID, "--style %s: expected python or json", r->style);
    budget.style = r->style && !strcmp(r->style, "json") ? TEMPLATE_JSON : TEMPLATE_PYTHON;
    TRY(read_json(r, &context, r->context, err));
    enum status st = template_render(r->parsed, r->json ? &text : out, context, &budget, err);
    if (st == ST_OK && r->json) {
        struct json_writer w;
        json_writer_init(&w, out);
        json_begin_object(&w);
        json_put_str(&w, "text", buf_str(&text));
        json_end_object(&w);
        buf_append_char(out, '\n');
    }
    buf_free(&text);
    return st;
}

static enum status render(struct rendering *r, struct error *err)
{
    struct buf out = {0};
    int64_t now = 0;
    enum status st = parse_now(&now, r->now, err);
    if (st == ST_OK)
        st = template_open(r, err);
    if (st == ST_OK)
        st = r->context ? render_context(r, &out, now, err) : render_messages(r, &out, now, err);
    if (st == ST_OK)
        st = cli_print(&out, err);
    if (st == ST_OK && !r->parsed)
        fprintf(stderr, "%s has no chat template: the built-in form is used\n", r->model);
    buf_free(&out);
    return st;
}

enum status cmd_template(int argc, char **argv, struct error *err)
{
    struct rendering r = {0};
    const struct cli_option options[] = {
        {"messages", 'm', CLI_TEXT, &r.messages, "FILE", "JSON: a list of messages, or a request that holds one"},
        {"tools", 0, CLI_TEXT, &r.tools, "FILE", "JSON: a list of tools"},
        {"kwargs", 0, CLI_TEXT, &r.kwargs, "JSON", "more variables, as {\"enable_thinking\": false}"},
        {"no-generation-prompt", 0, CLI_FLAG, &r.no_generation_prompt, NULL, "end after the last message"},
        {"template", 0, CLI_TEXT, &r.template, "FILE", "this template instead of the model's"},
        {"context", 0, CLI_TEXT, &r.context, "FILE", "JSON: all variables of a template, instead of messages"},
        {"now", 0, CLI_TEXT, &r.now, "TIME", "what strftime_now sees, as 2025-07-10T12:00:00Z"},
        {"style", 0, CLI_TEXT, &r.style, "STYLE", "with --context: values print as in python (default) or as json"},
        {"json", 0, CLI_FLAG, &r.json, NULL, "an object: text, and the pieces users wrote (plain) and the template's"},
    };
    const struct cli_spec spec = {
        "ingot template MODEL --messages FILE.json [--tools FILE.json] [--no-generation-prompt], or"
        " ingot template --template FILE --context FILE.json",
        "Prints the prompt that a chat becomes, byte for byte. Templates run in a sandbox with budgets.",
        "  ingot template model/ --messages chat.json\n"
        "  ingot template --template chat.jinja --context context.json\n"
        "  echo '[{\"role\": \"user\", \"content\": \"Hi\"}]' | ingot template model.gguf --messages - --json",
        CLI_TAKES(options, 0, 1)};
    struct cli_args args;
    TRY(cli_parse(&args, &spec, argc, argv, err));
    if (args.done)
        return ST_OK;
    r.model = args.n_positional ? args.positional[0] : NULL;
    if (!r.model && !r.template)
        return fail(err, ST_INVALID, "MODEL or --template FILE is missing; usage: %s", spec.usage);
    if (!r.messages == !r.context)
        return fail(err, ST_INVALID, "one of --messages FILE and --context FILE is needed; usage: %s", spec.usage);
    if (r.context && !r.template)
        return fail(err, ST_INVALID, "--context goes with --template FILE; a model takes --messages FILE");
    arena_init(&r.arena, 0);
    enum status st = render(&r, err);
    template_free(r.parsed);
    buf_free(&r.source);
    tokenizer_close(r.tok);
    arena_free(&r.arena);
    return st;
}
