/* ingot perplexity MODEL --file TEXT - how well a model predicts a text, by llama.cpp's definition */
#include "cli/evaluate.h"

#include <stdio.h>

#include "base/mem.h"

enum { TEXT_MAX = 1 << 30 };

static enum status text_ids(struct ids *out, const struct tokenizer *tok, const char *file, struct error *err)
{
    struct buf text = {0};
    if (!tok)
        return fail(err, ST_INVALID, "the model has no tokenizer: a text cannot be turned into its ids");
    enum status st = file_read_all(&text, file, TEXT_MAX, err);
    if (st == ST_OK)
        st = tokenizer_encode(tok, out, buf_str(&text), tokenizer_adds_bos(tok) ? TOKENIZE_ADD : 0, err);
    if (st != ST_OK && st != ST_NOT_FOUND)
        st = fail_context(err, "%s", file);
    buf_free(&text);
    return st;
}

struct watched {
    const char *phase;
    void (*each)(void *ctx, const struct model_run *run);
    void *ctx;
};

static enum status on_chunk(void *ctx, const struct model_run *run, double done, struct error *err)
{
    const struct watched *w = ctx;
    if (w->each)
        w->each(w->ctx, run);
    progress_show(w->phase, done, NULL);
    return cli_interrupted ? fail(err, ST_CANCELED, "interrupted") : ST_OK;
}

enum status cli_evaluate(struct evaluation *out, const struct cli_evaluate *e, struct error *err)
{
    struct ids ids = {0};
    const struct tokenizer *tok = e->tokenizer;
    struct watched watched = {e->phase, e->each, e->ctx};
    enum status st = text_ids(&ids, tok, e->text->file, err);
    struct evaluate how = {.model = e->model,
                           .ids = ids.ids,
                           .n = ids.count,
                           .n_ctx = (int)e->text->ctx,
                           .max_chunks = (int)e->text->chunks,
                           .bos = tok && tokenizer_adds_bos(tok) ? tokenizer_bos(tok) : -1,
                           .pool = e->pool,
                           .seen = on_chunk,
                           .ctx = &watched};
    if (st == ST_OK)
        st = evaluate_text(out, &how, err);
    progress_end();
    ids_free(&ids);
    return st;
}

enum status cli_text_check(struct cli_text *t, struct error *err)
{
    t->ctx = t->ctx ? t->ctx : 512;
    if (t->ctx < 8 || t->ctx > 1 << 20)
        return fail(err, ST_INVALID, "--ctx %lld: expected 8 to 1048576 tokens a chunk", (long long)t->ctx);
    if (t->chunks < 0 || t->chunks > INT32_MAX)
        return fail(err, ST_INVALID, "--chunks %lld: expected 1 or more", (long long)t->chunks);
    return ST_OK;
}

void cli_put_evaluation(struct json_writer *w, const struct evaluation *e)
{
    json_begin_object(w);
    json_put_real(w, "perplexity", e->perplexity);
    json_put_real(w, "error", e->error);
    json_put_int(w, "tokens", e->n_token);
    json_put_int(w, "chunks", e->n_chunk);
    json_end_object(w);
}

enum status cmd_perplexity(int argc, char **argv, struct error *err)
{
    struct cli_model m = {0};
    struct cli_text text = {0};
    bool json = false;
    const struct cli_option options[] = {
        {"file", 'f', CLI_TEXT, &text.file, "TEXT", "text to predict (- is standard input)"},
        {"ctx", 'c', CLI_INT, &text.ctx, "N", "tokens a chunk (default 512)"},
        {"chunks", 0, CLI_INT, &text.chunks, "N", "only the first N chunks"},
        {"threads", 't', CLI_INT, &m.threads, "N", "threads (default: all CPUs)"},
        {"kv", 0, CLI_TEXT, &m.kv, "TYPE", "KV cache: f32, f16 or int8 (default f16; f32 under --exact)"},
        {"exact", 0, CLI_FLAG, &m.exact, NULL, "activations and KV in f32 whatever the weights"},
        {"json", 0, CLI_FLAG, &json, NULL, "one line of JSON"},
    };
    const struct cli_spec spec = {
        "ingot perplexity MODEL --file TEXT [--ctx N] [--json]",
        "How well the model predicts a text: e to the mean of -log p over the second half of each chunk of N tokens,\n"
        "as llama.cpp's llama-perplexity counts it. Lower is better.",
        "  ingot perplexity model.gguf --file wikitext2-valid.txt\n"
        "  ingot perplexity model.gguf --file book.txt --chunks 20 --json",
        options,
        sizeof options / sizeof *options,
        1,
        1};
    struct cli_args args;
    TRY(cli_parse(&args, &spec, argc, argv, err));
    if (args.done)
        return ST_OK;
    if (!text.file)
        return fail(err, ST_INVALID, "--file is needed; usage: %s", spec.usage);
    TRY(cli_text_check(&text, err));
    m.ctx = text.ctx;
    struct bundle *bundle;
    struct pool *pool;
    TRY(cli_bundle_open(&bundle, &pool, args.positional[0], &m, err));
    cli_catch_interrupt();
    struct evaluation e;
    const struct cli_evaluate how = {"perplexity", bundle->model, bundle->tokenizer, &text, pool, NULL, NULL};
    enum status st = cli_evaluate(&e, &how, err);
    struct buf out = {0};
    if (st == ST_OK && json) {
        struct json_writer w;
        json_writer_init(&w, &out);
        cli_put_evaluation(&w, &e);
        buf_append_char(&out, '\n');
    } else if (st == ST_OK) {
        buf_printf(&out, "perplexity %.4f +- %.4f over %lld tokens in %d chunks of %lld\n", e.perplexity, e.error,
                   (long long)e.n_token, e.n_chunk, (long long)text.ctx);
    }
    if (st == ST_OK)
        st = cli_print(&out, err);
    buf_free(&out);
    bundle_close(bundle);
    pool_destroy(pool);
    return st;
}
