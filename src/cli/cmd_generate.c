/* ingot generate MODEL -p TEXT - one completion, and nothing but the completion on stdout */
#include "base/file.h"
#include "cli/cli.h"
#include "replay/replay.h"

#include <stdio.h>
#include <unistd.h>

struct generate {
    struct engine *engine;
    bool stream; /* text goes to stdout as it comes */
    struct buf text;
    struct ids ids;
    bool write_failed, no_memory;
    const struct request *request;
};

static void on_token(void *ctx, const struct token_event *event)
{
    struct generate *g = ctx;
    if (event->id >= 0 && !ids_push(&g->ids, event->id))
        g->no_memory = true;
    buf_append_str(&g->text, event->text);
    if (g->stream && event->text.len) {
        if (fwrite(event->text.ptr, 1, event->text.len, stdout) != event->text.len || fflush(stdout))
            g->write_failed = true;
    }
    if (g->write_failed)
        engine_cancel(g->engine, g->request->id); /* set before the first event */
}

const char *cli_finish_name(enum finish finish)
{
    static const char *const names[] = {"none", "stop", "length", "canceled", "error"};
    return names[finish];
}

struct generate_how { /* what the command line asked for, beside the sampling */
    struct str prompt;
    const char *lora; /* an adapter's folder, or NULL */
    bool raw, json;
    const char *save;                     /* a file for the answer, or NULL */
    const char *schema, *regex, *grammar; /* at most one: what the answer must be; files, but for the expression */
};

/* What the answer must be; *out stays NULL when it may be anything. */
static enum status make_grammar(struct grammar **out, struct grammar_vocab **vocab, const struct engine *e,
                                const struct generate_how *how, struct error *err)
{
    const char *file = how->schema ? how->schema : how->grammar;
    struct buf text = {0};
    if (!file && !how->regex)
        return ST_OK;
    struct grammar_part part = {.kind = how->schema ? GRAMMAR_SCHEMA : how->grammar ? GRAMMAR_GBNF : GRAMMAR_REGEX};
    enum status st = file ? file_read_all(&text, file, GRAMMAR_SOURCE_MAX, err) : ST_OK;
    part.text = file ? buf_str(&text) : str_of(how->regex);
    if (st == ST_OK)
        st = engine_vocab_create(vocab, e, NULL, 0, err);
    if (st == ST_OK)
        st = grammar_compile(out, *vocab, &part, err);
    buf_free(&text);
    return st;
}

static void print_json(struct buf *out, const struct generate *g, const struct finish_event *end)
{
    struct json_writer w;
    json_writer_init(&w, out);
    json_begin_object(&w);
    json_put_str(&w, "text", buf_str(&g->text));
    json_key(&w, "ids");
    json_begin_array(&w);
    for (size_t i = 0; i < g->ids.count; i++)
        json_write_int(&w, g->ids.ids[i]);
    json_end_array(&w);
    json_put_str(&w, "finish_reason", str_of(cli_finish_name(end->finish)));
    json_put_int(&w, "seed", (int64_t)end->seed);
    json_key(&w, "usage");
    json_begin_object(&w);
    json_put_int(&w, "prompt_tokens", end->n_prompt);
    json_put_int(&w, "completion_tokens", end->n_output);
    json_put_int(&w, "total_tokens", end->n_prompt + end->n_output);
    json_end_object(&w);
    json_end_object(&w);
    buf_append_char(out, '\n');
}

/* The request as a client of the server would have written it. */
static void write_request(struct buf *out, const struct generate_how *how, const struct request *r, uint64_t seed)
{
    struct json_writer w;
    json_writer_init(&w, out);
    json_begin_object(&w);
    json_put_str(&w, "prompt", how->prompt);
    json_put_bool(&w, "raw", how->raw);
    json_put_int(&w, "max_tokens", r->sampling.max_tokens);
    json_put_real(&w, "temperature", (double)r->sampling.temperature);
    json_put_int(&w, "seed", (int64_t)seed);
    json_end_object(&w);
}

static enum status save(const struct generate *g, struct bundle *b, const struct generate_how *how,
                        const struct finish_event *end, struct error *err)
{
    struct buf request = {0}, response = {0}, file = {0};
    struct json_writer w;
    const struct request *r = g->request;
    const struct ids prompt = {(int32_t *)(uintptr_t)r->prompt, (size_t)r->n_prompt, 0};
    const struct answer_choice choice = {
        0, 0, end->seed, end->finish, buf_str(&g->text), g->ids.ids, (int)g->ids.count};
    struct answer a = {.model = str_of(b->id),
                       .sampling = r->sampling,
                       .n_stop = r->n_stop,
                       .prompts = &prompt,
                       .choices = &choice,
                       .n_prompt = 1,
                       .n_choice = 1};
    memcpy(a.stops, r->stops, sizeof a.stops);
    TRY(bundle_fingerprint(&a.fingerprint, b, lora_digest(r->lora), err));
    write_request(&request, how, r, end->seed);
    print_json(&response, g, end);
    a.request = buf_str(&request);
    a.response = str_trim(buf_str(&response));
    json_writer_init(&w, &file);
    answer_write(&w, &a);
    buf_append_char(&file, '\n');
    bool whole = !request.failed && !response.failed && !file.failed;
    enum status st = whole ? file_write_all(how->save, buf_str(&file), err) : fail_nomem(err, "saved answer");
    buf_free(&request);
    buf_free(&response);
    buf_free(&file);
    return st;
}

static enum status report(struct generate *g, const struct finish_event *end, bool json, struct error *err)
{
    struct buf out = {0};
    if (json)
        print_json(&out, g, end);
    else if (!g->text.len || g->text.ptr[g->text.len - 1] != '\n')
        buf_append_char(&out, '\n');
    enum status st = g->text.failed || g->no_memory ? fail_nomem(err, "generate") : cli_print(&out, err);
    buf_free(&out);
    if (st == ST_OK && g->write_failed)
        st = fail(err, ST_IO, "standard output: the reader is gone");
    if (end->prefill_s > 0 && cli_is_terminal(STDERR_FILENO))
        fprintf(stderr, "%d prompt tokens, %.0f tok/s; %d output tokens, %.1f tok/s\n", end->n_prompt,
                end->n_prompt / end->prefill_s, end->n_output, end->decode_s > 0 ? end->n_output / end->decode_s : 0);
    if (st == ST_OK && end->finish == FINISH_ERROR)
        st = fail(err, end->status, "%s", end->message);
    if (st == ST_OK && end->finish == FINISH_CANCELED)
        st = fail(err, ST_CANCELED, "interrupted");
    return st;
}

static enum status generate_run(struct bundle *bundle, struct pool *pool, const struct cli_model *m,
                                struct request *request, const struct generate_how *how, struct error *err)
{
    struct generate g = {.stream = !how->json, .request = request};
    struct finish_event end = {0};
    struct ids ids = {0};
    struct lora *lora = NULL;
    struct grammar_vocab *vocab = NULL;
    enum status st = how->lora ? lora_open(&lora, bundle->model, how->lora, pool, err) : ST_OK;
    request->lora = lora;
    if (how->save)
        bundle_fingerprint_begin(bundle);
    if (st == ST_OK)
        st = cli_engine_start(&g.engine, bundle, m, pool, err);
    if (st == ST_OK)
        st = bundle_prompt_ids(&ids, bundle, how->prompt, how->raw, err);
    if (st == ST_OK)
        st = make_grammar(&request->grammar, &vocab, g.engine, how, err);
    if (st == ST_OK) {
        request->prompt = ids.ids;
        request->n_prompt = (int)ids.count;
        request->ctx = &g;
        request->on_token = on_token;
        request->interrupt = &cli_interrupted;
        cli_catch_interrupt();
        st = engine_generate(g.engine, request, &end, err);
    }
    if (st == ST_OK)
        st = report(&g, &end, how->json, err);
    if (st == ST_OK && how->save)
        st = save(&g, bundle, how, &end, err);
    engine_destroy(g.engine);
    grammar_release(request->grammar);
    grammar_vocab_destroy(vocab);
    lora_drop(lora);
    ids_free(&ids);
    ids_free(&g.ids);
    buf_free(&g.text);
    return st;
}

enum status cmd_generate(int argc, char **argv, struct error *err)
{
    struct cli_model m = {.draft_tokens = CLI_DRAFT_TOKENS};
    struct cli_sampling s = {0};
    const char *prompt = NULL, *file = NULL;
    struct generate_how how = {0};
    cli_sampling_init(&s);
    const struct cli_option options[] = {
        {"prompt", 'p', CLI_TEXT, &prompt, "TEXT", "what to answer or continue"},
        {"file", 'f', CLI_TEXT, &file, "FILE", "the prompt from a file; - is standard input"},
        {"raw", 0, CLI_FLAG, &how.raw, NULL,
         "no chat template: continue the text; special tokens in it are recognised"},
        {"json", 0, CLI_FLAG, &how.json, NULL, "one object: text, ids, finish_reason, usage"},
        {"lora", 0, CLI_TEXT, &how.lora, "DIR", "a PEFT adapter over the model"},
        {"save", 0, CLI_TEXT, &how.save, "FILE", "writes the answer with all that `ingot replay` needs to prove it"},
        {"json-schema", 0, CLI_TEXT, &how.schema, "FILE", "the answer is JSON that this JSON Schema accepts"},
        {"regex", 0, CLI_TEXT, &how.regex, "R", "the answer matches this expression"},
        {"grammar", 0, CLI_TEXT, &how.grammar, "FILE", "the answer is of this GBNF grammar"},
        CLI_SAMPLING_OPTIONS(s),
        CLI_DRAFT_OPTIONS(m),
        CLI_MODEL_OPTIONS(m),
    };
    const struct cli_spec spec = {
        "ingot generate MODEL -p TEXT [options]",
        "Prints the completion of one prompt. The same seed gives the same bits, on any machine.",
        "  ingot generate model.gguf -p \"What is the capital of France?\" -n 32\n"
        "  ingot generate model/ --raw -p \"Once upon a time\" --temperature 0.8 --seed 7 --json\n"
        "  ingot generate model.gguf -p \"Hello\" --save answer.json\n"
        "  ingot generate model.gguf -p \"A person, please\" --json-schema person.json",
        CLI_TAKES(options, 1, 1)};
    struct cli_args args;
    TRY(cli_parse(&args, &spec, argc, argv, err));
    if (args.done)
        return ST_OK;
    if (!prompt == !file)
        return fail(err, ST_INVALID, "one of -p TEXT and -f FILE is needed; usage: %s", spec.usage);
    if ((how.schema != NULL) + (how.regex != NULL) + (how.grammar != NULL) > 1)
        return fail(err, ST_INVALID,
                    "--json-schema, --regex and --grammar exclude each other: an answer has one shape");
    if (how.save && (how.schema || how.regex || how.grammar))
        return fail(err, ST_INVALID,
                    "--save takes no --json-schema, --regex or --grammar: a saved answer does not hold its shape, and "
                    "`ingot replay` could not repeat it");
    struct buf text = {0};
    struct bundle *bundle = NULL;
    struct pool *pool = NULL;
    struct request request = {0};
    enum status st = file ? file_read_all(&text, file, 64 << 20, err) : ST_OK;
    if (st == ST_OK)
        st = cli_bundle_open(&bundle, &pool, args.positional[0], &m, err);
    if (st == ST_OK)
        st = cli_sampling_fill(&request, &s, bundle, err);
    how.prompt = file ? buf_str(&text) : str_of(prompt);
    if (st == ST_OK)
        st = generate_run(bundle, pool, &m, &request, &how, err);
    bundle_close(bundle);
    pool_destroy(pool);
    buf_free(&text);
    return st;
}
