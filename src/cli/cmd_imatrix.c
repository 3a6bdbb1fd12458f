/* ingot imatrix MODEL --file TEXT -o OUT - which columns of which matrices matter, seen on a text */
#include "cli/convert.h"
#include "cli/evaluate.h"

#include <stdio.h>

#include "base/mem.h"

static void add_run(void *ctx, const struct model_run *run)
{
    imatrix_sums_add(ctx, run);
}

static enum status collect(struct evaluation *e, const struct bundle *b, const struct cli_text *text, const char *out,
                           struct pool *pool, struct error *err)
{
    struct imatrix_sums *sums;
    TRY(imatrix_sums_create(&sums, b->model, err));
    const struct cli_evaluate how = {"imatrix", b->model, b->tokenizer, text, pool, add_run, sums};
    enum status st = cli_evaluate(e, &how, err);
    if (st == ST_OK)
        st = imatrix_sums_write(sums, out, text->file, e->n_chunk, (int)text->ctx, err);
    imatrix_sums_free(sums);
    return st;
}

/* OUT replaces nothing that is read. */
static enum status check_out(const char *model, const char *text, const char *out, struct error *err)
{
    struct checkpoint *ck;
    TRY(checkpoint_open(&ck, model, err));
    enum status st = cli_check_apart(ck, out, true, err);
    checkpoint_close(ck);
    if (st == ST_OK && file_same(out, text))
        st = fail(err, ST_INVALID, "-o %s is the text that is read: name another", out);
    return st;
}

enum status cmd_imatrix(int argc, char **argv, struct error *err)
{
    struct cli_model m = {.exact = true};
    struct cli_text text = {0};
    const char *out = NULL;
    const struct cli_option options[] = {
        {"file", 'f', CLI_TEXT, &text.file, "TEXT", "text like what the model will be used for"},
        {"output", 'o', CLI_TEXT, &out, "OUT", "file to write, in llama.cpp's GGUF form"},
        {"ctx", 'c', CLI_INT, &text.ctx, "N", "tokens a chunk (default 512)"},
        {"chunks", 0, CLI_INT, &text.chunks, "N", "only the first N chunks"},
        {"threads", 't', CLI_INT, &m.threads, "N", "threads (default: all CPUs)"},
    };
    const struct cli_spec spec = {
        "ingot imatrix MODEL --file TEXT -o OUT",
        "Runs a text through the model and writes the mean square of every column's input: what `ingot quantize\n"
        "--imatrix` weighs errors with. 50 to 200 chunks are enough.",
        "  ingot imatrix model/ --file calibration.txt -o model.imatrix.gguf --chunks 100",
        options,
        sizeof options / sizeof *options,
        1,
        1};
    struct cli_args args;
    TRY(cli_parse(&args, &spec, argc, argv, err));
    if (args.done)
        return ST_OK;
    if (!text.file || !out)
        return fail(err, ST_INVALID, "--file and -o are needed; usage: %s", spec.usage);
    TRY(cli_text_check(&text, err));
    m.ctx = text.ctx;
    TRY(check_out(args.positional[0], text.file, out, err));
    struct model_options load;
    struct pool *pool;
    TRY(cli_model_options(&load, &pool, &m, err));
    load.keep = true;
    struct bundle *bundle = NULL;
    enum status st = bundle_open(&bundle, args.positional[0], &load, err);
    progress_end();
    cli_catch_interrupt();
    struct evaluation e;
    if (st == ST_OK)
        st = collect(&e, bundle, &text, out, pool, err);
    if (st == ST_OK)
        printf("%s: %d chunks of %lld tokens, perplexity %.4f\n", out, e.n_chunk, (long long)text.ctx, e.perplexity);
    bundle_close(bundle);
    pool_destroy(pool);
    return st;
}
