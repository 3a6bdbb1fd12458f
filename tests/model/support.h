/* support - a model, its pages and a run, for the tests of this room */
#ifndef TESTS_MODEL_SUPPORT_H
#define TESTS_MODEL_SUPPORT_H

#include "test.h"

#include "base/file.h"
#include "base/mem.h"
#include "model/model.h"

#include <math.h>

struct bench_model {
    struct model *model;
    struct model_run *run;
    void *kv;
    int32_t blocks[64];
    int n_block, max_rows;
};

static inline void bench_open(struct bench_model *b, struct model *model, int max_rows)
{
    struct error err;
    int n_ctx = model_config(model)->n_ctx < 4096 ? model_config(model)->n_ctx : 4096;
    b->model = model;
    b->max_rows = max_rows;
    b->n_block = (n_ctx + KV_BLOCK - 1) / KV_BLOCK;
    b->kv = mem_alloc_aligned((size_t)b->n_block * model_kv_block_bytes(model));
    assert_non_null(b->kv);
    for (int i = 0; i < b->n_block; i++)
        b->blocks[i] = b->n_block - 1 - i; /* pages need not lie in order */
    OK(model_run_create(&b->run, model, max_rows, max_rows, b->kv, b->n_block, NULL, &err));
}

static inline void bench_load_with(struct bench_model *b, const char *path, const struct model_options *options,
                                   int max_rows)
{
    struct error err;
    struct checkpoint *ck;
    struct model *model;
    OK(checkpoint_open(&ck, path, &err));
    OK(model_load(&model, ck, options, &err));
    checkpoint_close(ck);
    bench_open(b, model, max_rows);
}

static inline void bench_load(struct bench_model *b, const char *path, int max_rows)
{
    struct model_options options = {.exact = true};
    bench_load_with(b, path, &options, max_rows);
}

static inline void bench_close(struct bench_model *b)
{
    model_run_free(b->run);
    model_free(b->model);
    mem_free(b->kv);
}

/* Logits of every position of ids into out [n, n_vocab], in chunks. */
static inline void bench_logits(struct bench_model *b, real *out, const int32_t *ids, int n, int chunk)
{
    for (int at = 0; at < n; at += chunk) {
        int rows = n - at < chunk ? n - at : chunk;
        struct attend_span span = {0, rows, at, b->blocks};
        struct model_batch batch = {.n_row = rows, .ids = ids + at, .spans = &span, .n_span = 1};
        model_forward(b->run, &batch, out + (size_t)at * (size_t)model_config(b->model)->n_vocab);
    }
}

static inline double deviation(const real *x, size_t n)
{
    double sum = 0, squares = 0;
    for (size_t i = 0; i < n; i++)
        sum += x[i];
    for (size_t i = 0; i < n; i++)
        squares += (x[i] - sum / (double)n) * (x[i] - sum / (double)n);
    return sqrt(squares / (double)n);
}

/* Base64 of little-endian f32; free() it. */
static inline float *decode_floats(struct str text, size_t *n)
{
    unsigned char *out = malloc(text.len);
    uint32_t bits = 0;
    size_t at = 0;
    int held = 0;
    for (size_t i = 0; i < text.len && text.ptr[i] != '='; i++) {
        char ch = text.ptr[i];
        int v = ch >= 'A' && ch <= 'Z'   ? ch - 'A'
                : ch >= 'a' && ch <= 'z' ? ch - 'a' + 26
                : ch >= '0' && ch <= '9' ? ch - '0' + 52
                : ch == '+'              ? 62
                                         : 63;
        bits = bits << 6 | (uint32_t)v;
        held += 6;
        if (held >= 8) {
            held -= 8;
            out[at++] = (unsigned char)(bits >> held);
        }
    }
    *n = at / sizeof(float);
    return (float *)out;
}

/* The whole of a small JSON file. */
static inline const struct json *read_json(struct arena *arena, struct buf *text, const char *path)
{
    struct error err;
    const struct json *doc;
    OK(file_read_all(text, path, 64 << 20, &err));
    OK(json_parse(&doc, arena, buf_str(text), 0, &err));
    return doc;
}

#endif
