/* ingot embed MODEL TEXT ... - texts as vectors; or, with --query, how well each answers it */
#include "base/file.h"
#include "base/mem.h"
#include "cli/cli.h"

enum { INPUT_MAX = 1 << 30, GROUP = 2048 }; /* texts in memory at once */

struct embed_job {
    struct bundle *bundle;
    struct engine *engine;
    const char *query; /* NULL: embeddings */
    struct str before; /* the model's words for this kind of text */
    int64_t dimensions;
    bool raw, cut, json;
    int n_ctx, n_out, n_done; /* n_done: texts that are answered */
    int64_t n_token;
    struct buf out;
    struct json_writer w;
    /* one group */
    struct str given[GROUP];
    struct ids ids[GROUP];
    struct embed_text texts[GROUP];
    real *rows; /* [GROUP, n_out] */
    int n;
};

static enum status encode(struct embed_job *j, int i, struct error *err)
{
    size_t first = 0, max = j->cut ? (size_t)j->n_ctx : SIZE_MAX;
    j->ids[i].count = 0;
    enum status st = j->query ? bundle_pair_ids(&j->ids[i], &first, j->bundle, str_of(j->query), j->given[i], max, err)
                              : bundle_text_ids(&j->ids[i], j->bundle, j->before, j->given[i], max, err);
    if (st == ST_OK && j->ids[i].count > (size_t)j->n_ctx)
        st = fail(err, ST_INVALID, "it has %zu tokens, this model takes %d; --truncate cuts it", j->ids[i].count,
                  j->n_ctx);
    if (st == ST_OK && j->ids[i].count == 0)
        st = fail(err, ST_INVALID, "it has no tokens");
    if (st != ST_OK)
        return fail_context(err, "text %d", j->n_done + i + 1);
    j->texts[i] = (struct embed_text){j->ids[i].ids, (int)j->ids[i].count, (int)first};
    return ST_OK;
}

/* ---- answers ---- */
static void put_vector(struct json_writer *w, const real *row, int n)
{
    json_begin_array(w);
    for (int i = 0; i < n; i++)
        json_write_float(w, (float)row[i]);
    json_end_array(w);
}

static void put_row(struct embed_job *j, int i)
{
    real *row = j->rows + (size_t)i * (size_t)j->n_out;
    int n = j->dimensions ? (int)j->dimensions : j->n_out;
    bool score = model_config(j->bundle->model)->task == TASK_SCORE;
    for (int k = 0; score && !j->raw && k < n; k++)
        row[k] = embed_sigmoid(row[k]);
    if (!score && !j->raw)
        embed_unit(row, n);
    if (j->json) {
        json_begin_object(&j->w);
        json_put_int(&j->w, "index", j->n_done + i);
        json_key(&j->w, !score ? "embedding" : n == 1 ? "relevance_score" : "scores");
        if (score && n == 1)
            json_write_float(&j->w, (float)row[0]);
        else
            put_vector(&j->w, row, n);
        json_end_object(&j->w);
        return;
    }
    json_writer_init(&j->w, &j->out);
    if (score && n == 1) {
        buf_printf(&j->out, "%.6f\t%.*s\n", (double)row[0], STR_ARG(j->given[i]));
    } else {
        put_vector(&j->w, row, n);
        buf_append_char(&j->out, '\n');
    }
}

static enum status group_run(struct embed_job *j, struct error *err)
{
    struct embed_request r = {.texts = j->texts, .n_text = j->n, .out = j->rows, .interrupt = &cli_interrupted};
    struct finish_event end;
    for (int i = 0; i < j->n; i++)
        TRY(encode(j, i, err));
    TRY(engine_embed_wait(j->engine, &r, &end, err));
    if (end.finish == FINISH_CANCELED)
        return fail(err, ST_CANCELED, "interrupted");
    j->n_token += end.n_prompt;
    for (int i = 0; i < j->n; i++)
        put_row(j, i);
    j->n_done += j->n;
    j->n = 0;
    enum status st = cli_print(&j->out, err);
    buf_clear(&j->out);
    return st;
}

static enum status add(struct embed_job *j, struct str text, struct error *err)
{
    j->given[j->n++] = text;
    return j->n == GROUP ? group_run(j, err) : ST_OK;
}

static void put_head(struct embed_job *j)
{
    json_writer_init(&j->w, &j->out);
    json_begin_object(&j->w);
    json_put_str(&j->w, "model", str_of(j->bundle->id));
    json_key(&j->w, model_config(j->bundle->model)->task == TASK_EMBED ? "data" : "results");
    json_begin_array(&j->w);
}

static enum status put_tail(struct embed_job *j, struct error *err)
{
    json_end_array(&j->w);
    json_key(&j->w, "usage");
    json_begin_object(&j->w);
    json_put_int(&j->w, "prompt_tokens", j->n_token);
    json_put_int(&j->w, "total_tokens", j->n_token);
    json_end_object(&j->w);
    json_end_object(&j->w);
    buf_append_char(&j->out, '\n');
    return cli_print(&j->out, err);
}

static enum status run(struct embed_job *j, const struct cli_args *args, const char *file, struct error *err)
{
    struct buf text = {0};
    enum status st = ST_OK;
    if (j->json)
        put_head(j);
    for (int i = 1; i < args->n_positional && st == ST_OK; i++)
        st = add(j, str_of(args->positional[i]), err);
    if (st == ST_OK && (file || args->n_positional == 1))
        st = file_read_all(&text, file ? file : "-", INPUT_MAX, err);
    for (struct str rest = buf_str(&text), line; st == ST_OK && (line = str_next_line(&rest)).ptr;)
        st = add(j, line, err);
    if (st == ST_OK && j->n)
        st = group_run(j, err);
    if (st == ST_OK && j->json)
        st = put_tail(j, err);
    buf_free(&text);
    return st;
}

static enum status check(struct embed_job *j, const char *prompt, struct error *err)
{
    const struct model_config *c = model_config(j->bundle->model);
    j->n_ctx = c->n_ctx;
    j->n_out = c->n_out;
    if (!j->bundle->tokenizer)
        return fail(err, ST_UNSUPPORTED, "this model has no tokenizer: it cannot be asked in text");
    if (c->task == TASK_SCORE && !j->query)
        return fail(err, ST_INVALID, "this model scores texts against a query: give one with --query");
    if (c->task == TASK_EMBED && j->query)
        return fail(err, ST_INVALID, "--query: this model gives embeddings; only a reranker scores texts");
    if (j->dimensions < 0 || j->dimensions > j->n_out || (j->dimensions && j->query))
        return fail(err, ST_INVALID, "--dimensions %lld: expected 1 to %d, for embeddings", (long long)j->dimensions,
                    j->n_out);
    j->before = model_prompt(j->bundle->model, prompt ? str_of(prompt) : (struct str){0});
    if (!j->before.ptr)
        return fail(err, ST_INVALID, "--prompt %s: the model has no prompt of this name", prompt);
    j->rows = mem_alloc_zero((size_t)j->n_out, GROUP * sizeof *j->rows);
    return j->rows ? ST_OK : fail_nomem(err, "embeddings");
}

enum status cmd_embed(int argc, char **argv, struct error *err)
{
    struct cli_model m = {.any_task = true};
    const char *file = NULL, *prompt = NULL, *query = NULL;
    int64_t dimensions = 0;
    bool raw = false, cut = false, json = false;
    const struct cli_option options[] = {
        {"file", 'f', CLI_TEXT, &file, "FILE", "texts, one a line (- or no text: standard input)"},
        {"json", 0, CLI_FLAG, &json, NULL, "one object with data and usage, as the server answers"},
        {"dimensions", 'd', CLI_INT, &dimensions, "N", "only the first N numbers (for models trained to be shortened)"},
        {"raw", 0, CLI_FLAG, &raw, NULL, "as the model gives them: vectors of any length, scores as logits"},
        {"truncate", 0, CLI_FLAG, &cut, NULL, "texts that are too long lose their end (default: an error)"},
        {"prompt", 0, CLI_TEXT, &prompt, "NAME", "one of the model's own prompts before each text, e.g. query"},
        {"query", 'q', CLI_TEXT, &query, "TEXT", "rerankers: how well each text answers it"},
        CLI_POOLING_OPTION(m),
        CLI_MODEL_OPTIONS(m),
    };
    const struct cli_spec spec = {
        "ingot embed MODEL [TEXT ...] [--file F] [options]",
        "Prints each text's embedding as a line of JSON: the model's vector, divided by its length. MODEL is an "
        "encoder, "
        "an\nembedding model, or any decoder with --pooling. A reranker prints the relevance of each text to --query.",
        "  ingot embed model.gguf --pooling last \"a text\" \"another\"\n"
        "  ingot embed model.gguf --pooling mean --file text.txt --json --dimensions 16",
        CLI_TAKES(options, 1, 1000)};
    struct cli_args args;
    TRY(cli_parse(&args, &spec, argc, argv, err));
    if (args.done)
        return ST_OK;
    struct embed_job *j = mem_alloc_zero(1, sizeof *j);
    struct pool *pool = NULL;
    struct engine_options engine_options;
    if (!j)
        return fail_nomem(err, "embeddings");
    j->query = query;
    j->dimensions = dimensions;
    j->raw = raw;
    j->cut = cut;
    j->json = json;
    enum status st = cli_bundle_open(&j->bundle, &pool, args.positional[0], &m, err);
    if (st == ST_OK && model_config(j->bundle->model)->task == TASK_GENERATE)
        st = fail(err, ST_INVALID,
                  "this model generates text; --pooling mean, cls, last, max, sqrt or weighted embeds with it");
    if (st == ST_OK)
        st = check(j, prompt, err);
    if (st == ST_OK)
        st = cli_engine_options(&engine_options, &m, pool, err);
    if (st == ST_OK)
        st = engine_create(&j->engine, j->bundle, &engine_options, err);
    cli_catch_interrupt();
    if (st == ST_OK)
        st = run(j, &args, file, err);
    engine_destroy(j->engine);
    bundle_close(j->bundle);
    pool_destroy(pool);
    for (int i = 0; i < GROUP; i++)
        ids_free(&j->ids[i]);
    buf_free(&j->out);
    mem_free(j->rows);
    mem_free(j);
    return st;
}
