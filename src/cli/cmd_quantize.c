/* ingot quantize IN OUT --type T - a model with fewer bits a weight, and what each tensor lost */
#include <math.h>
#include <stdio.h>

#include "base/mem.h"
#include "cli/convert.h"
#include "cli/evaluate.h"

struct report {
    struct quantized *rows;
    size_t n, capacity;
    struct arena arena; /* names */
    int n_matrix;
};
struct job {
    const char *in, *out, *type, *imatrix_path;
    bool pure, json;
    enum model_packing packing; /* of --type awq and gptq */
    int64_t group;
    struct cli_text text;
    struct cli_model common;
    struct pool *pool;
    struct model_options load;
    struct checkpoint *ck;
    struct model *model;
    struct tokenizer *tokenizer;
    struct imatrix *imatrix;
    struct report report;
    struct evaluation before, after;
    uint64_t bytes_in, bytes_out;
};

static enum status on_tensor(void *ctx, const struct quantized *row, struct error *err)
{
    struct report *r = ctx;
    if (!MEM_GROW(r->rows, r->capacity, r->n))
        return fail_nomem(err, "quantize");
    struct quantized *kept = &r->rows[r->n++];
    *kept = *row;
    kept->name = str_of(arena_copy(&r->arena, row->name));
    if (!kept->name.ptr)
        return fail_nomem(err, "quantize");
    progress_show("quantize", (double)r->n / r->n_matrix, kept->name.ptr);
    return cli_interrupted ? fail(err, ST_CANCELED, "interrupted; nothing was written") : ST_OK;
}

/* ---- the report ---- */
static double bits_per_weight(const struct report *r)
{
    double bits = 0, n = 0;
    for (size_t i = 0; i < r->n; i++) {
        bits += 8 * (double)r->rows[i].bytes;
        n += (double)(r->rows[i].n_out * r->rows[i].n_in * r->rows[i].n_expert);
    }
    return n > 0 ? bits / n : 0;
}

static void print_row(struct buf *out, const struct quantized *q)
{
    char size[32], shape[64];
    if (q->n_expert > 1)
        snprintf(shape, sizeof shape, "%lld x %lld x %lld", (long long)q->n_expert, (long long)q->n_out,
                 (long long)q->n_in);
    else
        snprintf(shape, sizeof shape, "%lld x %lld", (long long)q->n_out, (long long)q->n_in);
    buf_printf(out, "%-32.*s %-20s %-6s %-6s %9s  rms error %.3e  relative %.4f", STR_ARG(q->name), shape,
               dtype_row(q->from)->name, dtype_row(q->type)->name, cli_bytes_text(size, sizeof size, q->bytes), q->rms,
               q->relative);
    if (q->type != q->wanted)
        buf_printf(out, "  (rows of %lld hold no whole blocks of %s)", (long long)q->n_in, dtype_row(q->wanted)->name);
    buf_append_char(out, '\n');
}

static void print_text(struct buf *out, const struct job *j)
{
    char before[32], after[32];
    for (size_t i = 0; i < j->report.n; i++)
        print_row(out, &j->report.rows[i]);
    if (j->report.n)
        buf_printf(out, "matrices: %.3f bits a weight\n", bits_per_weight(&j->report));
    buf_printf(out, "%s: %s, before %s\n", j->out, cli_bytes_text(after, sizeof after, j->bytes_out),
               cli_bytes_text(before, sizeof before, j->bytes_in));
    if (j->text.file)
        buf_printf(out, "perplexity %.4f, before %.4f (%+.3f %%), over %lld tokens\n", j->after.perplexity,
                   j->before.perplexity, 100 * (j->after.perplexity / j->before.perplexity - 1),
                   (long long)j->after.n_token);
}

static void put_row(struct json_writer *w, const struct quantized *q)
{
    json_begin_object(w);
    json_put_str(w, "name", q->name);
    json_key(w, "shape");
    json_begin_array(w);
    if (q->n_expert > 1)
        json_write_int(w, q->n_expert);
    json_write_int(w, q->n_out);
    json_write_int(w, q->n_in);
    json_end_array(w);
    json_put_str(w, "from", str_of(dtype_row(q->from)->name));
    json_put_str(w, "type", str_of(dtype_row(q->type)->name));
    json_put_str(w, "wanted", str_of(dtype_row(q->wanted)->name));
    json_put_int(w, "bytes", (int64_t)q->bytes);
    json_put_bool(w, "importance", q->importance);
    json_put_real(w, "rms_error", q->rms);
    json_put_real(w, "relative_error", q->relative);
    json_end_object(w);
}

static void print_json(struct buf *out, const struct job *j)
{
    struct json_writer w;
    json_writer_init(&w, out);
    json_begin_object(&w);
    json_put_str(&w, "out", str_of(j->out));
    json_put_str(&w, "type", str_of(j->type));
    json_put_int(&w, "bytes", (int64_t)j->bytes_out);
    json_put_int(&w, "bytes_before", (int64_t)j->bytes_in);
    json_put_real(&w, "bits_per_weight", bits_per_weight(&j->report));
    json_key(&w, "tensors");
    json_begin_array(&w);
    for (size_t i = 0; i < j->report.n; i++)
        put_row(&w, &j->report.rows[i]);
    json_end_array(&w);
    if (j->text.file) {
        json_key(&w, "before");
        cli_put_evaluation(&w, &j->before);
        json_key(&w, "after");
        cli_put_evaluation(&w, &j->after);
    }
    json_end_object(&w);
    buf_append_char(out, '\n');
}

/* ---- the work ---- */
static enum status evaluate_model(struct evaluation *out, struct job *j, const struct checkpoint *ck, struct error *err)
{
    struct model *m;
    TRY(model_load(&m, ck, &j->load, err));
    progress_end();
    const struct cli_evaluate how = {"perplexity", m, j->tokenizer, &j->text, j->pool, NULL, NULL};
    enum status st = cli_evaluate(out, &how, err);
    model_free(m);
    return st;
}

static enum status open_all(struct job *j, bool gguf, struct error *err)
{
    TRY(checkpoint_open(&j->ck, j->in, err));
    TRY(cli_check_apart(j->ck, j->out, gguf, err));
    if (j->imatrix_path)
        TRY(imatrix_open(&j->imatrix, j->imatrix_path, err));
    if (j->text.file)
        TRY(tokenizer_from_checkpoint(&j->tokenizer, j->ck, err));
    j->bytes_in = j->ck->file_bytes;
    return j->text.file ? evaluate_model(&j->before, j, j->ck, err) : ST_OK;
}

static enum status write_out(struct job *j, bool gguf, struct error *err)
{
    struct model_quantize how = {.recipe = recipe_find(str_of(j->type)),
                                 .pure = j->pure,
                                 .packing = j->packing,
                                 .group = (int)j->group,
                                 .imatrix = j->imatrix,
                                 .pool = j->pool,
                                 .done = on_tensor,
                                 .ctx = &j->report};
    struct model_options stream = j->load;
    stream.stream = true;
    TRY(model_load(&j->model, j->ck, &stream, err));
    j->report.n_matrix = model_matrix_count(j->model);
    if (gguf)
        return model_quantize_gguf(j->model, j->out, &how, j->ck->gguf ? j->ck->path : j->ck->folder, err);
    TRY(j->packing ? model_quantize_hf(j->model, j->out, &how, err)
                   : model_write_hf(j->model, j->out, (enum dtype)dtype_find(str_of(j->type)), err));
    return j->ck->folder && j->ck->kind != CHECKPOINT_GGUF ? cli_side_files_copy(j->ck->folder, j->out, err) : ST_OK;
}

/* The written model as anyone will load it. */
static enum status read_back(struct job *j, struct error *err)
{
    struct checkpoint *ck;
    TRY(checkpoint_open(&ck, j->out, err));
    j->bytes_out = ck->file_bytes;
    enum status st = j->text.file ? evaluate_model(&j->after, j, ck, err) : ST_OK;
    checkpoint_close(ck);
    return st;
}

static enum status run(struct job *j, struct error *err)
{
    bool gguf = str_ends(str_of(j->out), STR(".gguf"));
    struct buf out = {0};
    TRY(open_all(j, gguf, err));
    enum status st = write_out(j, gguf, err);
    progress_end();
    if (st == ST_OK)
        st = read_back(j, err);
    if (st == ST_OK) {
        (j->json ? print_json : print_text)(&out, j);
        st = cli_print(&out, err);
    }
    buf_free(&out);
    return st;
}

static void job_close(struct job *j)
{
    model_free(j->model);
    tokenizer_close(j->tokenizer);
    imatrix_close(j->imatrix);
    checkpoint_close(j->ck);
    arena_free(&j->report.arena);
    mem_free(j->report.rows);
    pool_destroy(j->pool);
}

/* What a folder holds: plain numbers, or packed ones. */
static enum status check_folder(struct job *j, struct error *err)
{
    static const char *const plain[] = {"f32", "f16", "bf16"};
    for (size_t i = 0; i < sizeof plain / sizeof *plain; i++)
        if (strcmp(j->type, plain[i]) == 0)
            return ST_OK;
    if (j->packing)
        return ST_OK;
    return fail(err, ST_UNSUPPORTED,
                "OUT %s: a Hugging Face folder holds f32, f16, bf16, awq or gptq, not %s; end OUT in .gguf for a GGUF "
                "file",
                j->out, j->type);
}

static enum status check(struct job *j, const char *method, struct error *err)
{
    struct buf names = {0};
    for (int i = 0; recipe_name(i); i++)
        buf_printf(&names, "%s, ", recipe_name(i));
    bool gguf = str_ends(str_of(j->out), STR(".gguf"));
    enum status st = ST_OK;
    if (j->type && strcmp(j->type, "awq") == 0)
        j->packing = PACKED_AWQ;
    else if (j->type && strcmp(j->type, "gptq") == 0)
        j->packing = PACKED_GPTQ;
    if (!j->type || (!j->packing && !recipe_find(str_of(j->type))))
        st = fail(err, ST_INVALID, "--type %s: expected one of %sawq, gptq", j->type ? j->type : "is needed",
                  names.ptr ? names.ptr : "");
    else if (method && strcmp(method, "rtn") != 0)
        st = fail(err, ST_UNSUPPORTED, "--method %s: expected rtn (rounding to nearest, with a search over scales)",
                  method);
    else if (j->packing && gguf)
        st = fail(err, ST_INVALID, "--type %s is written as a Hugging Face folder, and OUT %s ends in .gguf", j->type,
                  j->out);
    else if (j->group && !j->packing)
        st = fail(err, ST_INVALID, "--group goes with --type awq and gptq");
    else if (j->group && j->group != 32 && j->group != 64 && j->group != 128)
        st = fail(err, ST_INVALID, "--group %lld: expected 32, 64 or 128", (long long)j->group);
    else if (!gguf)
        st = check_folder(j, err);
    j->group = j->group ? j->group : 128;
    buf_free(&names);
    return st;
}

enum status cmd_quantize(int argc, char **argv, struct error *err)
{
    const char *method = NULL;
    struct job j = {0};
    const struct cli_option options[] = {
        {"type", 0, CLI_TEXT, &j.type, "T",
         "q4_k_m, q6_k, q8_0, iq4_xs ...; awq, gptq: a folder. A wrong one lists all"},
        {"method", 0, CLI_TEXT, &method, "rtn", "rounding to nearest, with a search over scales: the only one so far"},
        {"group", 0, CLI_INT, &j.group, "N", "columns that share a scale in awq and gptq: 32, 64 or 128 (default)"},
        {"pure", 0, CLI_FLAG, &j.pure, NULL, "one type for all matrices, no exceptions for important ones"},
        {"imatrix", 0, CLI_TEXT, &j.imatrix_path, "FILE", "what columns matter: from `ingot imatrix`, or llama.cpp's"},
        {"text", 0, CLI_TEXT, &j.text.file, "FILE", "measure perplexity on this text before and after"},
        {"ctx", 'c', CLI_INT, &j.text.ctx, "N", "tokens a chunk of that text (default 512)"},
        {"chunks", 0, CLI_INT, &j.text.chunks, "N", "only its first N chunks"},
        {"threads", 't', CLI_INT, &j.common.threads, "N", "threads (default: all CPUs)"},
        {"json", 0, CLI_FLAG, &j.json, NULL, "the report as one line of JSON"},
    };
    const struct cli_spec spec = {
        "ingot quantize IN OUT --type T [--method rtn] [--imatrix FILE]",
        "Writes the model IN with fewer bits a weight, as a GGUF file when OUT ends in .gguf, and reports for each\n"
        "matrix its type, its bytes and the error that is left. Mixes such as q4_k_m keep more bits where they "
        "matter,\n"
        "as llama.cpp's do. Nothing is left behind when it fails.",
        "  ingot quantize model/ model-q4_k_m.gguf --type q4_k_m\n"
        "  ingot quantize model/ model-awq/ --type awq\n"
        "  ingot quantize model.gguf small.gguf --type iq4_xs --imatrix model.imatrix.gguf --text book.txt",
        options,
        sizeof options / sizeof *options,
        2,
        2};
    struct cli_args args;
    TRY(cli_parse(&args, &spec, argc, argv, err));
    if (args.done)
        return ST_OK;
    j.in = args.positional[0];
    j.out = args.positional[1];
    TRY(check(&j, method, err));
    TRY(cli_text_check(&j.text, err));
    j.common.ctx = j.text.file ? j.text.ctx : 0;
    TRY(cli_model_options(&j.load, &j.pool, &j.common, err));
    j.load.cache = NULL; /* IN and OUT are read once each */
    j.load.any_task = !j.text.file;
    arena_init(&j.report.arena, 0);
    cli_catch_interrupt();
    enum status st = run(&j, err);
    progress_end();
    job_close(&j);
    return st;
}
