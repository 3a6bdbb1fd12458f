/* ingot run MODEL - a chat in the terminal; with a prompt, one answer
 *
 * The conversation is kept as JSON text and rendered whole each turn. A model without a chat template continues each
 * line as plain text instead, without memory of the lines before.
 *
 *   prompt -> turn_generate -> (streaming) -> prompt;  Ctrl-C while it answers: turn_generate -> prompt
 */
#include "cli/cli.h"

#include <stdio.h>
#include <unistd.h>

struct chat_run {
    struct bundle *bundle;
    struct engine *engine;
    struct lora *lora;
    struct request request; /* sampling and adapter, filled once */
    struct buf system;      /* "" = none */
    struct buf messages;    /* `{...},{...}`: the turns so far, as JSON */
    struct buf answer;
    bool write_failed, quiet;
    struct finish_event last;
};

/* ---- one turn ---- */

static void on_token(void *ctx, const struct token_event *event)
{
    struct chat_run *r = ctx;
    buf_append_str(&r->answer, event->text);
    if (event->text.len && (fwrite(event->text.ptr, 1, event->text.len, stdout) != event->text.len || fflush(stdout)))
        r->write_failed = true;
    if (r->write_failed)
        engine_cancel(r->engine, r->request.id);
}

static void put_message(struct buf *out, const char *role, struct str content)
{
    struct json_writer w;
    if (out->len)
        buf_append_char(out, ',');
    json_writer_init(&w, out);
    json_begin_object(&w);
    json_put_str(&w, "role", str_of(role));
    json_put_str(&w, "content", content);
    json_end_object(&w);
}

static enum status turn_ids(struct chat_run *r, struct ids *ids, struct str text, struct error *err)
{
    if (!r->bundle->template)
        return bundle_prompt_ids(ids, r->bundle, text, true, err);
    struct buf all = {0}, system = {0};
    buf_append_char(&all, '[');
    if (r->system.len) {
        put_message(&system, "system", buf_str(&r->system));
        buf_append_str(&all, buf_str(&system));
        buf_append_char(&all, ',');
    }
    buf_append_str(&all, buf_str(&r->messages));
    buf_append_char(&all, ']');
    enum status st = all.failed || system.failed || r->messages.failed
                         ? fail_nomem(err, "the conversation")
                         : bundle_messages_ids(ids, r->bundle, buf_str(&all), err);
    buf_free(&all);
    buf_free(&system);
    return st;
}

/* Answers `text`; the turn stays in the conversation only when it was answered. */
static enum status turn_generate(struct chat_run *r, struct str text, struct error *err)
{
    struct ids ids = {0};
    size_t before = r->messages.len;
    put_message(&r->messages, "user", text);
    buf_clear(&r->answer);
    enum status st = turn_ids(r, &ids, text, err);
    if (st == ST_OK) {
        r->request.prompt = ids.ids;
        r->request.n_prompt = (int)ids.count;
        r->request.ctx = r;
        r->request.on_token = on_token;
        r->request.interrupt = &cli_interrupted;
        st = engine_generate(r->engine, &r->request, &r->last, err);
    }
    ids_free(&ids);
    if (st == ST_OK && r->last.finish == FINISH_ERROR)
        st = fail(err, r->last.status, "%s", r->last.message);
    if (st == ST_OK && r->write_failed)
        st = fail(err, ST_IO, "standard output: the reader is gone");
    if (st == ST_OK && (r->last.finish != FINISH_CANCELED || r->answer.len))
        put_message(&r->messages, "assistant", str_trim(buf_str(&r->answer)));
    else if (r->messages.ptr)
        r->messages.ptr[r->messages.len = before] = 0;
    return st;
}

static void print_stats(const struct chat_run *r)
{
    const struct finish_event *e = &r->last;
    fprintf(stderr, "%d prompt tokens", e->n_prompt);
    if (e->prefill_s > 0)
        fprintf(stderr, " at %.0f/s", e->n_prompt / e->prefill_s);
    fprintf(stderr, ", %d output tokens", e->n_output);
    if (e->decode_s > 0)
        fprintf(stderr, " at %.1f/s", e->n_output / e->decode_s);
    fprintf(stderr, ", ended by %s, seed %llu\n", cli_finish_name(e->finish), (unsigned long long)e->seed);
}

/* ---- commands of the prompt ---- */

enum verdict { GO_ON, QUIT };

static enum verdict do_help(struct chat_run *r, struct str rest);

static enum verdict do_clear(struct chat_run *r, struct str rest)
{
    (void)rest;
    buf_clear(&r->messages);
    fputs("A new conversation.\n", stderr);
    return GO_ON;
}

static enum verdict do_system(struct chat_run *r, struct str rest)
{
    buf_clear(&r->system);
    buf_append_str(&r->system, rest);
    return do_clear(r, rest);
}

static enum verdict do_temperature(struct chat_run *r, struct str rest)
{
    double t;
    if (str_to_f64(&t, rest) && t >= 0 && t <= 100)
        r->request.sampling.temperature = (float)t;
    else if (rest.len)
        fprintf(stderr, "/temperature %.*s: expected a number from 0 to 100\n", STR_ARG(rest));
    fprintf(stderr, "temperature %g\n", (double)r->request.sampling.temperature);
    return GO_ON;
}

static enum verdict do_stats(struct chat_run *r, struct str rest)
{
    (void)rest;
    print_stats(r);
    return GO_ON;
}

static enum verdict do_exit(struct chat_run *r, struct str rest)
{
    (void)r, (void)rest;
    return QUIT;
}

static const struct {
    const char *word, *value, *what;
    enum verdict (*run)(struct chat_run *r, struct str rest);
} commands[] = {
    {"/help", "", "this list", do_help},
    {"/clear", "", "forget the conversation", do_clear},
    {"/system", " TEXT", "a new conversation under this system message", do_system},
    {"/temperature", " T", "0: always the likeliest token", do_temperature},
    {"/stats", "", "tokens and speed of the last answer", do_stats},
    {"/exit", "", "leave (also Ctrl-D)", do_exit},
    {"/bye", "", "leave", do_exit},
};

static enum verdict do_help(struct chat_run *r, struct str rest)
{
    (void)r, (void)rest;
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        char left[40];
        snprintf(left, sizeof left, "%s%s", commands[i].word, commands[i].value);
        fprintf(stderr, "  %-20s %s\n", left, commands[i].what);
    }
    fputs("  Ctrl-C stops an answer. A line that ends in \\ goes on in the next one,"
          " and what begins with \"\"\" where the next \"\"\" stands.\n",
          stderr);
    return GO_ON;
}

static enum verdict command_run(struct chat_run *r, struct str line)
{
    size_t space = str_find(line, STR(" "), 0);
    struct str word = str_n(line.ptr, space == SIZE_MAX ? line.len : space);
    struct str rest = str_trim(str_from(line, word.len));
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
        if (str_is(word, commands[i].word))
            return commands[i].run(r, rest);
    fprintf(stderr, "%.*s: no such command; /help lists all\n", STR_ARG(word));
    return GO_ON;
}

/* ---- the conversation ---- */

#define QUOTES "\"\"\""

/* A line, and those that follow while each ends in a backslash; or all from """ to the next """. Empty after Ctrl-C.
 * False at the end of input. */
static bool read_turn(struct editor *e, struct buf *out)
{
    bool quoted = false, more = true;
    buf_clear(out);
    while (more) {
        struct str line = editor_next(e);
        if (!line.ptr)
            return out->len > 0;
        if (editor_interrupted(e)) {
            buf_clear(out);
            return true;
        }
        if (!quoted && out->len == 0 && str_starts(line, STR(QUOTES))) {
            quoted = true;
            line = str_from(line, strlen(QUOTES));
        }
        size_t end = quoted ? str_find(line, STR(QUOTES), 0) : SIZE_MAX;
        bool goes_on = !quoted && line.len && line.ptr[line.len - 1] == '\\';
        more = quoted ? end == SIZE_MAX : goes_on;
        buf_append_str(out, str_n(line.ptr, end != SIZE_MAX ? end : line.len - goes_on));
        if (more)
            buf_append_char(out, '\n');
    }
    return true;
}

static enum status converse(struct chat_run *r, struct error *err)
{
    bool people = cli_is_terminal(STDIN_FILENO);
    struct editor *editor;
    struct buf turn = {0};
    enum status st = ST_OK;
    TRY(editor_open(&editor, "> ", err));
    if (people)
        fprintf(stderr, "%s. /help lists the commands, Ctrl-D leaves.\n", r->bundle->id);
    if (!r->bundle->template)
        fputs("This model has no chat template: it continues each line as plain text.\n", stderr);
    while (read_turn(editor, &turn)) {
        struct str text = str_trim(buf_str(&turn));
        if (text.len == 0)
            continue;
        if (text.ptr[0] == '/') {
            if (command_run(r, text) == QUIT)
                break;
            continue;
        }
        st = turn_generate(r, text, err);
        fputs("\n", stdout);
        fflush(stdout);
        if (st != ST_OK && (!people || st == ST_IO || st == ST_NOMEM))
            break;
        if (st != ST_OK)
            fprintf(stderr, "%s\n", err->text);
        else if (people && !r->quiet)
            print_stats(r);
        st = ST_OK;
        if (cli_interrupted && !people)
            break;
        __atomic_store_n(&cli_interrupted, 0, __ATOMIC_RELAXED);
    }
    buf_free(&turn);
    editor_close(editor);
    return st;
}

static enum status one_shot(struct chat_run *r, const char *prompt, struct error *err)
{
    TRY(turn_generate(r, str_of(prompt), err));
    if (!str_ends(buf_str(&r->answer), STR("\n")))
        fputs("\n", stdout);
    if (cli_is_terminal(STDERR_FILENO) && !r->quiet)
        print_stats(r);
    return r->last.finish == FINISH_CANCELED ? fail(err, ST_CANCELED, "interrupted") : ST_OK;
}

static enum status engine_start(struct chat_run *r, struct pool *pool, const struct cli_model *m, struct error *err)
{
    if (!r->bundle->tokenizer)
        return fail(err, ST_INVALID, "%s has no tokenizer: text cannot become tokens; `ingot logits` takes ids",
                    r->bundle->id);
    if (r->bundle->template_error.status != ST_OK)
        return fail(err, r->bundle->template_error.status,
                    "the chat template of %s cannot be used (%s); `ingot generate --raw` continues text without one",
                    r->bundle->id, r->bundle->template_error.text);
    return cli_engine_start(&r->engine, r->bundle, m, pool, err);
}

enum status cmd_run(int argc, char **argv, struct error *err)
{
    struct cli_model m = {.draft_tokens = CLI_DRAFT_TOKENS};
    struct cli_sampling s = {0};
    struct chat_run r = {0};
    const char *prompt = NULL, *system = NULL, *lora = NULL;
    cli_sampling_init(&s);
    const struct cli_option options[] = {
        {"prompt", 'p', CLI_TEXT, &prompt, "TEXT", "answer this and leave"},
        {"system", 0, CLI_TEXT, &system, "TEXT", "a system message"},
        {"lora", 0, CLI_TEXT, &lora, "DIR", "a PEFT adapter over the model"},
        {"quiet", 'q', CLI_FLAG, &r.quiet, NULL, "no statistics"},
        CLI_SAMPLING_OPTIONS(s),
        CLI_DRAFT_OPTIONS(m),
        CLI_MODEL_OPTIONS(m),
    };
    const struct cli_spec spec = {
        "ingot run MODEL [TEXT] [options]",
        "Chats in the terminal: line editing, history, answers as they come; /help lists the commands there.\n"
        "Answers go to stdout, all else to stderr; lines from a pipe are answered one by one.",
        "  ingot run model.gguf\n  ingot run model/ \"What is the capital of France?\"\n"
        "  ingot run model/ --system \"Answer in one sentence.\" --temperature 0.7",
        CLI_TAKES(options, 1, 2)};
    struct cli_args args;
    struct pool *pool = NULL;
    TRY(cli_parse(&args, &spec, argc, argv, err));
    if (args.done)
        return ST_OK;
    if (prompt && args.n_positional > 1)
        return fail(err, ST_INVALID, "-p and a second word both say what to answer; usage: %s", spec.usage);
    prompt = args.n_positional > 1 ? args.positional[1] : prompt;
    enum status st = cli_bundle_open(&r.bundle, &pool, args.positional[0], &m, err);
    if (st == ST_OK)
        st = cli_sampling_fill(&r.request, &s, r.bundle, err);
    if (st == ST_OK && lora)
        st = lora_open(&r.lora, r.bundle->model, lora, pool, err);
    r.request.lora = r.lora;
    if (st == ST_OK)
        st = engine_start(&r, pool, &m, err);
    if (st == ST_OK) {
        buf_append_str(&r.system, str_of(system ? system : ""));
        cli_catch_interrupt();
        st = prompt ? one_shot(&r, prompt, err) : converse(&r, err);
    }
    if (r.engine)
        engine_destroy(r.engine);
    buf_free(&r.system);
    buf_free(&r.messages);
    buf_free(&r.answer);
    lora_drop(r.lora);
    bundle_close(r.bundle);
    pool_destroy(pool);
    return st;
}
