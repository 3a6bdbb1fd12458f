/* train_test - the golden run of tools/golden/train_tiny.py, and a trainer on its model */
#ifndef TESTS_TRAIN_TRAIN_TEST_H
#define TESTS_TRAIN_TRAIN_TEST_H

#include "test.h"

#include "base/file.h"
#include "base/mem.h"
#include "train/train_private.h"

#include <math.h>

enum { STEPS = 10, WINDOWS = 4, BLOCK = 12, VOCAB = 37 };

struct golden {
    struct checkpoint *ck;
    int32_t windows[STEPS][WINDOWS * (BLOCK + 1)];
    double loss[STEPS], norm[STEPS], lr[STEPS];
};

static inline void golden_doubles(double *out, const struct checkpoint *ck, const char *name)
{
    const struct tensor *t = checkpoint_find(ck, str_of(name));
    assert_non_null(t);
    assert_int_equal(t->bytes, STEPS * sizeof(double));
    memcpy(out, t->data, t->bytes);
}

static inline void golden_open(struct golden *g)
{
    struct error err;
    OK(checkpoint_open(&g->ck, GOLDEN("train/run.safetensors"), &err));
    const struct tensor *t = checkpoint_find(g->ck, STR("windows"));
    assert_non_null(t);
    assert_int_equal(t->bytes, sizeof g->windows);
    memcpy(g->windows, t->data, t->bytes);
    golden_doubles(g->loss, g->ck, "loss");
    golden_doubles(g->norm, g->ck, "norm");
    golden_doubles(g->lr, g->ck, "lr");
}

static inline struct model *tiny_model(const char *path, bool train, struct pool *pool)
{
    struct error err;
    struct checkpoint *ck;
    struct model *m;
    struct model_options options = {.n_ctx = 32, .train = train, .kv = KV_F32, .pool = pool};
    OK(checkpoint_open(&ck, path, &err));
    OK(model_load(&m, ck, &options, &err));
    checkpoint_close(ck);
    return m;
}

static inline struct trainer *tiny_trainer(struct model *m, int batch_max, struct pool *pool)
{
    struct error err;
    struct trainer *t;
    struct trainer_options options = {
        .block_size = BLOCK,
        .batch_max = batch_max,
        .beta1 = (real)0.9,
        .beta2 = (real)0.95,
        .eps = (real)1e-8,
        .weight_decay = (real)0.1,
        .max_grad_norm = 1,
        .pool = pool,
    };
    OK(trainer_create(&t, m, &options, &err));
    return t;
}

/* A parameter, or its gradient, as rows: [n_out, n_in]. */
static inline real *param_rows(const struct model_param *p, const real *values)
{
    real *out = malloc((size_t)(p->n_out * p->n_in) * sizeof *out);
    if (!p->weight) {
        memcpy(out, values, (size_t)(p->n_out * p->n_in) * sizeof *out);
        return out;
    }
    struct weight w = *p->weight;
    w.panels = (void *)(uintptr_t)values;
    for (int64_t r = 0; r < p->n_out; r++)
        weight_get_row(out + r * p->n_in, &w, r);
    return out;
}

/* Largest difference from the golden tensor PREFIX.NAME (F64); *most is its largest magnitude. */
static inline double param_error(double *most, const struct golden *g, const char *prefix, const struct model_param *p,
                                 const real *values)
{
    char name[256];
    snprintf(name, sizeof name, "%s.%s", prefix, p->name);
    const struct tensor *t = checkpoint_find(g->ck, str_of(name));
    if (!t)
        fail_msg("%s is not in the golden run", name);
    assert_int_equal(tensor_count(t), p->n_out * p->n_in);
    real *rows = param_rows(p, values);
    double worst = 0;
    *most = 0;
    for (int64_t i = 0; i < p->n_out * p->n_in; i++) {
        double e;
        memcpy(&e, (const char *)t->data + 8 * i, 8);
        double d = fabs((double)rows[i] - e);
        worst = d > worst || d != d ? d : worst;
        *most = fabs(e) > *most ? fabs(e) : *most;
    }
    free(rows);
    return worst;
}

/* One update from windows already drawn, in micro-batches of `micro` windows; returns the mean loss. */
static inline double tiny_update(struct trainer *t, const int32_t *windows, int n, int micro, double lr, int64_t step,
                                 double *norm)
{
    double loss = 0;
    for (int at = 0; at < n; at += micro)
        loss += trainer_accumulate(t, windows + at * (BLOCK + 1), micro, (int64_t)n * BLOCK);
    double size = trainer_update(t, lr, step);
    if (norm)
        *norm = size;
    return loss / (n * BLOCK);
}

#endif
