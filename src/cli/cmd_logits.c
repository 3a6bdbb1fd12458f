/* ingot logits MODEL --ids 1,2,3 --npy OUT - the raw logits of every position, for comparisons */
#include "base/file.h"
#include "base/mem.h"
#include "cli/cli.h"

#include <stdio.h>

static enum status ids_parse(struct ids *out, const char *text, int n_vocab, struct error *err)
{
    struct str rest = str_of(text);
    while (rest.len) {
        size_t comma = str_find(rest, STR(","), 0);
        struct str one = str_trim(str_n(rest.ptr, comma == SIZE_MAX ? rest.len : comma));
        int64_t id;
        if (!str_to_i64(&id, one) || id < 0 || id >= n_vocab)
            return fail(err, ST_INVALID, "--ids: \"%.*s\": expected ids from 0 to %d, separated by commas",
                        STR_ARG(one), n_vocab - 1);
        if (!ids_push(out, (int32_t)id))
            return fail_nomem(err, "--ids");
        rest = str_from(rest, comma == SIZE_MAX ? rest.len : comma + 1);
    }
    if (!out->count)
        return fail(err, ST_INVALID, "--ids: at least one id is needed, e.g. --ids 1,2,3");
    return ST_OK;
}

/* NumPy's format 1.0: magic, header text padded so that the data starts on 64 bytes, then f32 in C order. */
static void npy_header(struct buf *out, size_t n_row, size_t n_col)
{
    char dict[128];
    int n =
        snprintf(dict, sizeof dict, "{'descr': '<f4', 'fortran_order': False, 'shape': (%zu, %zu), }", n_row, n_col);
    size_t padded = ((size_t)n + 1 + 10 + 63) / 64 * 64 - 10;
    buf_append(out, "\x93NUMPY\x01\x00", 8);
    buf_append_char(out, (char)(padded & 255));
    buf_append_char(out, (char)(padded >> 8));
    buf_printf(out, "%-*s\n", (int)padded - 1, dict);
}

struct logits_job {
    const struct bundle *bundle;
    struct pool *pool;
    int chunk;
    struct file_writer *file;
};

/* One sequence in chunks; each chunk's logits go to the file as they come. */
static enum status logits_run(const struct logits_job *job, const struct ids *ids, struct error *err)
{
    const struct model *model = job->bundle->model;
    const int n = (int)ids->count, n_vocab = model_config(model)->n_vocab, n_block = (n + KV_BLOCK - 1) / KV_BLOCK;
    struct model_run *run = NULL;
    void *kv = mem_alloc_aligned((size_t)n_block * model_kv_block_bytes(model));
    int32_t *blocks = mem_alloc((size_t)n_block * sizeof *blocks);
    float *logits = mem_alloc((size_t)job->chunk * (size_t)n_vocab * sizeof *logits);
    enum status st = kv && blocks && logits
                         ? model_run_create(&run, model, job->chunk, job->chunk, kv, n_block, job->pool, err)
                         : fail_nomem(err, "logits");
    for (int i = 0; st == ST_OK && i < n_block; i++)
        blocks[i] = i;
    for (int at = 0; st == ST_OK && at < n; at += job->chunk) {
        int rows = n - at < job->chunk ? n - at : job->chunk;
        struct attend_span span = {0, rows, at, blocks};
        struct model_batch batch = {.n_row = rows, .ids = ids->ids + at, .spans = &span, .n_span = 1, .n_logit = rows};
        model_forward(run, &batch, logits);
        file_writer_write(job->file, logits, (size_t)rows * (size_t)n_vocab * sizeof *logits);
        progress_show("logits", (double)(at + rows) / n, NULL);
    }
    model_run_free(run);
    mem_free(logits);
    mem_free(blocks);
    mem_free(kv);
    return st;
}

static enum status logits_write(const struct bundle *bundle, struct pool *pool, const char *ids_text, const char *npy,
                                int chunk, struct error *err)
{
    const struct model_config *c = model_config(bundle->model);
    struct ids ids = {0};
    struct buf header = {0};
    struct file_writer file;
    enum status st = ids_parse(&ids, ids_text, c->n_vocab, err);
    if (st == ST_OK && (int64_t)ids.count > c->n_ctx)
        st = fail(err, ST_INVALID, "--ids: %zu ids, but the context is %d: see --ctx", ids.count, c->n_ctx);
    if (st == ST_OK)
        st = file_writer_open(&file, npy, err);
    if (st == ST_OK) {
        if ((size_t)chunk > ids.count)
            chunk = (int)ids.count;
        npy_header(&header, ids.count, (size_t)c->n_vocab);
        file_writer_write(&file, header.ptr, header.len);
        st = logits_run(&(struct logits_job){bundle, pool, chunk, &file}, &ids, err);
        if (st == ST_OK)
            st = header.failed ? fail_nomem(err, "logits") : file_writer_commit(&file, err);
        file_writer_abort(&file);
    }
    buf_free(&header);
    ids_free(&ids);
    return st;
}

enum status cmd_logits(int argc, char **argv, struct error *err)
{
    const char *ids = NULL, *npy = NULL;
    struct cli_model m = {0};
    const struct cli_option options[] = {
        {"ids", 0, CLI_TEXT, &ids, "1,2,3", "token ids"},
        {"npy", 0, CLI_TEXT, &npy, "OUT", "file for the f32 logits [n, vocabulary]"},
        CLI_MODEL_OPTIONS(m),
    };
    const struct cli_spec spec = {
        "ingot logits MODEL --ids 1,2,3 --npy OUT",
        "Writes the logits of every position as a NumPy file. Chunks and threads change no bit.",
        "  ingot logits model.gguf --ids 1,2,3 --npy logits.npy --exact", CLI_TAKES(options, 1, 1)};
    struct cli_args args;
    TRY(cli_parse(&args, &spec, argc, argv, err));
    if (args.done)
        return ST_OK;
    if (!ids || !npy)
        return fail(err, ST_INVALID, "--ids and --npy are needed; usage: %s", spec.usage);
    struct engine_options chunking;
    TRY(cli_engine_options(&chunking, &m, NULL, err));
    struct bundle *bundle;
    struct pool *pool;
    TRY(cli_bundle_open(&bundle, &pool, args.positional[0], &m, err));
    enum status st = logits_write(bundle, pool, ids, npy, chunking.prefill_chunk ? chunking.prefill_chunk : 256, err);
    progress_end();
    bundle_close(bundle);
    pool_destroy(pool);
    return st;
}
