/* ingot bench MODEL - tokens per second of prefill and decode, beside what this machine can do at most
 *
 * The clock holds model_forward alone: no sampling, no tokenizer. Prefill: one prompt in chunks, logits of its last
 * row. Decode: one row a sequence a step, after that prompt. Share of bandwidth: (weights and keys and values that a
 * step reads) x steps per second over the read bandwidth probed just before and after, of a batch's experts those of
 * one row; share of peak: 2 x body weights met x tokens per second, the head for the last row alone, attention not
 * counted, over the peak of the instruction that type uses. Medians of the repetitions. --depth: keys and values of so
 * many tokens lie before the prompt, copies of those of the first block: what they are costs no time, how many does.
 */
#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "cli/cli.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct bench {
    int64_t depth, prompt, gen, batch, repeat;
    struct model *model;
    struct pool *pool;
    int chunk;
    struct model_run *run;
    void *kv;
    int32_t *blocks, *ids;
    struct attend_span *spans;
    float *logits;
    int blocks_each;
    struct machine_limits limits;
    double prefill_tok_s, decode_tok_s;
    bool profile;
    struct model_profile prefill_profile, decode_profile;
};

static enum status bench_open(struct bench *b, struct error *err)
{
    const struct model_config *c = model_config(b->model);
    b->blocks_each = (int)((b->depth + b->prompt + b->gen + KV_BLOCK - 1) / KV_BLOCK);
    int n_block = b->blocks_each * (int)b->batch, rows = b->chunk > b->batch ? b->chunk : (int)b->batch;
    b->kv = mem_alloc_aligned((size_t)n_block * model_kv_block_bytes(b->model));
    b->blocks = mem_alloc((size_t)n_block * sizeof *b->blocks);
    b->ids = mem_alloc((size_t)rows * sizeof *b->ids);
    b->spans = mem_alloc((size_t)b->batch * sizeof *b->spans);
    b->logits = mem_alloc((size_t)b->batch * (size_t)c->n_vocab * sizeof *b->logits);
    if (!b->kv || !b->blocks || !b->ids || !b->spans || !b->logits)
        return fail_nomem(err, "bench: KV cache and logits");
    for (int i = 0; i < n_block; i++)
        b->blocks[i] = i;
    return model_run_create(&b->run, b->model, rows, (int)b->batch, b->kv, n_block, b->pool, err);
}

static void bench_close(struct bench *b)
{
    model_run_free(b->run);
    mem_free(b->logits);
    mem_free(b->spans);
    mem_free(b->ids);
    mem_free(b->blocks);
    mem_free(b->kv);
    model_free(b->model);
}

/* Any ids will do for speed, but not one id again and again: experts and caches would notice. */
static int32_t some_id(const struct bench *b, int64_t i)
{
    return (int32_t)((uint64_t)(i * 7919 + 13) % (uint64_t)model_config(b->model)->n_vocab);
}

/* Tokens `from` to `to` of a sequence, in chunks. */
static void prefill(struct bench *b, int sequence, int64_t from, int64_t to)
{
    for (int64_t at = from; at < to; at += b->chunk) {
        int rows = to - at < b->chunk ? (int)(to - at) : b->chunk;
        for (int r = 0; r < rows; r++)
            b->ids[r] = some_id(b, at + r + sequence * 31);
        b->spans[0] = (struct attend_span){0, rows, (int32_t)at, b->blocks + sequence * b->blocks_each};
        int32_t last = rows - 1;
        struct model_batch batch = {.n_row = rows,
                                    .ids = b->ids,
                                    .spans = b->spans,
                                    .n_span = 1,
                                    .logit_rows = &last,
                                    .n_logit = at + rows == to};
        model_forward(b->run, &batch, b->logits);
    }
}

static void fill_depth(struct bench *b)
{
    if (!b->depth)
        return;
    prefill(b, 0, 0, b->depth < KV_BLOCK ? b->depth : KV_BLOCK);
    for (int i = 1; i < b->blocks_each * (int)b->batch; i++)
        model_run_copy_block(b->run, i, 0);
}

static double prefill_once(struct bench *b, int sequence)
{
    uint64_t start = clock_ns();
    prefill(b, sequence, b->depth, b->depth + b->prompt);
    return (double)b->prompt / ((double)(clock_ns() - start) / 1e9);
}

static double decode_once(struct bench *b)
{
    uint64_t start = clock_ns();
    for (int64_t g = 0; g < b->gen; g++) {
        for (int s = 0; s < b->batch; s++) {
            b->ids[s] = some_id(b, g + s * 31);
            b->spans[s] =
                (struct attend_span){s, 1, (int32_t)(b->depth + b->prompt + g), b->blocks + s * b->blocks_each};
        }
        struct model_batch batch = {.n_row = (int)b->batch,
                                    .ids = b->ids,
                                    .spans = b->spans,
                                    .n_span = (int)b->batch,
                                    .n_logit = (int)b->batch};
        model_forward(b->run, &batch, b->logits);
    }
    return (double)(b->gen * b->batch) / ((double)(clock_ns() - start) / 1e9);
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void bench_run(struct bench *b)
{
    enum { REPEAT_MAX = 64 };
    double prefill[REPEAT_MAX] = {0}, decode[REPEAT_MAX] = {0}, read[REPEAT_MAX] = {0};
    int n = b->repeat < REPEAT_MAX ? (int)b->repeat : REPEAT_MAX;
    fill_depth(b);
    for (int s = 1; s < b->batch; s++) /* the other sequences need a prompt too; also warms up */
        prefill_once(b, s);
    machine_limits(&b->limits, b->pool);
    for (int i = 0; i < n; i++) {
        progress_show("bench", (double)i / n, NULL);
        model_run_profile(b->run, b->profile ? &b->prefill_profile : NULL);
        prefill[i] = b->prompt ? prefill_once(b, 0) : 0;
        model_run_profile(b->run, b->profile ? &b->decode_profile : NULL);
        double before = b->gen ? machine_read_gb_s(b->pool) : 0;
        decode[i] = b->gen ? decode_once(b) : 0;
        read[i] = b->gen ? (before + machine_read_gb_s(b->pool)) / 2 : b->limits.read_gb_s;
    }
    model_run_profile(b->run, NULL);
    progress_end();
    qsort(prefill, (size_t)n, sizeof *prefill, by_value);
    qsort(decode, (size_t)n, sizeof *decode, by_value);
    qsort(read, (size_t)n, sizeof *read, by_value);
    b->limits.read_gb_s = read[n / 2];
    b->prefill_tok_s = prefill[n / 2];
    b->decode_tok_s = decode[n / 2];
}

static int by_time(const void *a, const void *b)
{
    uint64_t x = ((const struct model_profile_row *)a)->ns, y = ((const struct model_profile_row *)b)->ns;
    return (x < y) - (x > y);
}

/* Longest first; the last line says what is spent in products of weights. */
static void profile_table(struct buf *out, const char *phase, struct model_profile *p)
{
    double total = 0, products = 0, n = p->forwards ? (double)p->forwards : 1;
    qsort(p->rows, (size_t)p->n_row, sizeof *p->rows, by_time);
    for (int i = 0; i < p->n_row; i++) {
        total += (double)p->rows[i].ns;
        products += p->rows[i].product ? (double)p->rows[i].ns : 0;
    }
    buf_printf(out, "\n%-11s%-22s%8s%12s%9s%9s\n", phase, "", "calls", "us a step", "share", "GB/s");
    for (int i = 0; i < p->n_row; i++) {
        const struct model_profile_row *r = &p->rows[i];
        buf_printf(out, "%-11s%-22s%8.0f%12.1f%7.1f %%", r->op, r->name ? r->name : "", (double)r->calls / n,
                   (double)r->ns / n / 1e3, 100 * (double)r->ns / total);
        if (r->bytes)
            buf_printf(out, "%9.1f", (double)r->bytes / (double)r->ns);
        buf_append_char(out, '\n');
    }
    buf_printf(out, "%-41s%12.1f%7.1f %%\n", "products", products / n / 1e3, 100 * products / total);
}

static void profile_json(struct json_writer *w, const char *key, const struct model_profile *p)
{
    double n = p->forwards ? (double)p->forwards : 1;
    json_key(w, key);
    json_begin_array(w);
    for (int i = 0; i < p->n_row; i++) {
        const struct model_profile_row *r = &p->rows[i];
        json_begin_object(w);
        json_put_str(w, "op", str_of(r->op));
        json_put_str(w, "name", str_of(r->name ? r->name : ""));
        json_put_real(w, "calls", (double)r->calls / n);
        json_put_real(w, "us", (double)r->ns / n / 1e3);
        json_put_real(w, "weight_bytes", (double)r->bytes / n);
        json_end_object(w);
    }
    json_end_array(w);
}

static void report(struct buf *out, struct bench *b, bool json)
{
    const struct model_config *c = model_config(b->model);
    struct model_plan plan;
    model_plan_of(&plan, b->model, b->chunk);
    double kv_read =
        (double)plan.kv_bytes_per_token * ((double)(b->depth + b->prompt) + (double)b->gen / 2) * (double)b->batch;
    double gb_s = ((double)plan.step_bytes + kv_read) * b->decode_tok_s / (double)b->batch / 1e9;
    double gop_s = ((double)plan.body_flops + (double)plan.head_flops / (double)b->prompt) * b->prefill_tok_s / 1e9;
    double peak = dtype_is_block(c->type) ? b->limits.int8_gop_s
                  : c->type == DT_BF16    ? b->limits.bf16_gop_s
                                          : b->limits.f32_gflop_s;
    if (!json) {
        buf_printf(out, "%s, %d threads (%s); %s, %.1f M parameters, %s\n", kernels_cpu_name(), pool_threads(b->pool),
                   kernels_isa(), c->family, (double)c->n_param / 1e6, dtype_row(c->type)->name);
        buf_printf(out, "limits   read %.1f GB/s, f32 %.0f, bf16 %.0f, int8 %.0f Gop/s\n", b->limits.read_gb_s,
                   b->limits.f32_gflop_s, b->limits.bf16_gop_s, b->limits.int8_gop_s);
        buf_printf(out, "prefill  %8.1f tok/s  (%lld tokens, %.0f Gop/s, %.0f %% of peak)\n", b->prefill_tok_s,
                   (long long)b->prompt, gop_s, 100 * gop_s / peak);
        buf_printf(out, "decode   %8.1f tok/s  (%lld tokens, batch %lld, %.1f GB/s, %.0f %% of bandwidth)\n",
                   b->decode_tok_s, (long long)b->gen, (long long)b->batch, gb_s, 100 * gb_s / b->limits.read_gb_s);
        if (b->profile && b->prompt)
            profile_table(out, "prefill", &b->prefill_profile);
        if (b->profile && b->gen)
            profile_table(out, "decode", &b->decode_profile);
        return;
    }
    struct json_writer w;
    json_writer_init(&w, out);
    json_begin_object(&w);
    json_put_str(&w, "cpu", str_of(kernels_cpu_name()));
    json_put_str(&w, "isa", str_of(kernels_isa()));
    json_put_int(&w, "threads", pool_threads(b->pool));
    json_put_str(&w, "family", str_of(c->family));
    json_put_str(&w, "type", str_of(dtype_row(c->type)->name));
    json_put_int(&w, "parameters", c->n_param);
    json_put_int(&w, "depth", b->depth);
    json_put_int(&w, "prompt", b->prompt);
    json_put_int(&w, "gen", b->gen);
    json_put_int(&w, "batch", b->batch);
    json_put_real(&w, "prefill_tok_s", b->prefill_tok_s);
    json_put_real(&w, "decode_tok_s", b->decode_tok_s);
    json_put_real(&w, "read_gb_s", b->limits.read_gb_s);
    json_put_real(&w, "f32_gop_s", b->limits.f32_gflop_s);
    json_put_real(&w, "bf16_gop_s", b->limits.bf16_gop_s);
    json_put_real(&w, "int8_gop_s", b->limits.int8_gop_s);
    json_put_real(&w, "peak_gop_s", peak);
    json_put_real(&w, "decode_gb_s", gb_s);
    json_put_real(&w, "decode_bandwidth_share", gb_s / b->limits.read_gb_s);
    json_put_real(&w, "prefill_gop_s", gop_s);
    json_put_real(&w, "prefill_peak_share", gop_s / peak);
    json_put_int(&w, "weight_bytes", (int64_t)plan.weight_bytes);
    if (b->profile) {
        profile_json(&w, "prefill_profile", &b->prefill_profile);
        profile_json(&w, "decode_profile", &b->decode_profile);
    }
    json_end_object(&w);
    buf_append_char(out, '\n');
}

static enum status random_model(struct model **out, const char *config_path, const char *type,
                                const struct model_options *options, struct error *err)
{
    struct buf text = {0};
    struct arena arena;
    const struct json *config;
    arena_init(&arena, 16 << 20);
    int dtype = dtype_find(str_of(type));
    enum status st = dtype < 0 ? fail(err, ST_INVALID, "--type %s: expected f32, f16, bf16, q8_0, q4_0 or q4_1", type)
                               : file_read_all(&text, config_path, 1 << 20, err);
    if (st == ST_OK) {
        st = json_parse(&config, &arena, buf_str(&text), 0, err);
        if (st == ST_OK)
            st = model_random(out, config, (enum dtype)dtype, 1, options, err);
        if (st != ST_OK)
            fail_context(err, "%s", config_path);
    }
    arena_free(&arena);
    buf_free(&text);
    return st;
}

static enum status bench_model(struct bench *b, const char *path, const char *random, const char *type,
                               const struct cli_model *m, struct error *err)
{
    struct model_options options;
    TRY(cli_model_options(&options, &b->pool, m, err));
    if (random)
        return random_model(&b->model, random, type, &options, err);
    struct checkpoint *ck;
    TRY(checkpoint_open(&ck, path, err));
    enum status st = model_load(&b->model, ck, &options, err);
    checkpoint_close(ck);
    return st;
}

static enum status range(const char *name, int64_t value, int64_t least, int64_t most, struct error *err)
{
    if (value < least || value > most)
        return fail(err, ST_INVALID, "--%s %lld: expected %lld to %lld", name, (long long)value, (long long)least,
                    (long long)most);
    return ST_OK;
}

enum status cmd_bench(int argc, char **argv, struct error *err)
{
    if (argc > 1 && !strcmp(argv[1], "serve"))
        return cmd_bench_serve(argc - 1, argv + 1, err);
    struct bench b = {.prompt = 512, .gen = 128, .batch = 1, .repeat = 3};
    struct cli_model m = {0};
    const char *random = NULL, *type = NULL;
    bool json = false;
    const struct cli_option options[] = {
        {"prompt", 0, CLI_INT, &b.prompt, "N", "tokens of prompt (default 512)"},
        {"depth", 0, CLI_INT, &b.depth, "N", "tokens that lie before the prompt (default 0)"},
        {"gen", 0, CLI_INT, &b.gen, "N", "tokens to decode (default 128)"},
        {"batch", 0, CLI_INT, &b.batch, "N", "sequences decoded together (default 1)"},
        {"repeat", 0, CLI_INT, &b.repeat, "N", "repetitions; medians are printed (default 3)"},
        {"random", 0, CLI_TEXT, &random, "CONFIG.json", "random weights of this shape instead of MODEL"},
        {"type", 0, CLI_TEXT, &type, "T", "of random weights: f32, f16, bf16, q8_0, q4_0, q4_1 (default q8_0)"},
        {"profile", 0, CLI_FLAG, &b.profile, NULL, "the time of each kind of operation, per step"},
        {"json", 0, CLI_FLAG, &json, NULL, "as one JSON object"},
        CLI_MODEL_OPTIONS(m),
    };
    const struct cli_spec spec = {
        "ingot bench MODEL | --random CONFIG.json [--type T]   (a server under load: ingot bench serve --help)",
        "Measures prefill and decode, and the machine's limits in the same run.",
        "  ingot bench model.gguf\n  ingot bench --random bench/configs/qwen2.5-0.5b.json --type f16 --threads 2",
        CLI_TAKES(options, 0, 1)};
    struct cli_args args;
    TRY(cli_parse(&args, &spec, argc, argv, err));
    if (args.done)
        return ST_OK;
    if (!random == !args.n_positional)
        return fail(err, ST_INVALID, "one of MODEL and --random CONFIG.json is needed; usage: %s", spec.usage);
    if (type && !random)
        return fail(err, ST_INVALID, "--type goes with --random: the weights of a model keep their types");
    TRY(range("depth", b.depth, 0, 1 << 20, err));
    TRY(range("prompt", b.prompt, 1, 1 << 20, err));
    TRY(range("gen", b.gen, 0, 1 << 20, err));
    TRY(range("batch", b.batch, 1, 1024, err));
    TRY(range("repeat", b.repeat, 1, 64, err));
    TRY(range("prefill-chunk", m.prefill_chunk, 0, 1 << 16, err));
    if (!m.ctx)
        m.ctx = b.depth + b.prompt + b.gen;
    b.chunk = m.prefill_chunk ? (int)m.prefill_chunk : 512;
    struct buf out = {0};
    enum status st = bench_model(&b, random ? NULL : args.positional[0], random, type ? type : "q8_0", &m, err);
    progress_end();
    if (st == ST_OK)
        st = bench_open(&b, err);
    if (st == ST_OK) {
        bench_run(&b);
        report(&out, &b, json);
        st = cli_print(&out, err);
    }
    buf_free(&out);
    bench_close(&b);
    pool_destroy(b.pool);
    return st;
}
