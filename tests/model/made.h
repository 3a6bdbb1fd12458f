/* made - small models whose weights a formula gives, written as folders; tools/golden/model_families.py has the same */
#ifndef TESTS_MODEL_MADE_H
#define TESTS_MODEL_MADE_H

#include "model/golden.h"

#include "base/str.h"

/* ---- tensors of one case ---- */
struct made {
    struct str name, gguf;
    int n_dim;
    int64_t shape[TENSOR_DIMS], count;
    float *data;
    enum dtype type;
};
struct made_list {
    struct made *items;
    struct tensor_out *out;
    size_t n;
};

static inline enum status fill_made(void *ctx, void *out, struct error *err)
{
    const struct made *m = ctx;
    return dtype_from_f32(out, m->type, m->data, (size_t)m->count, err);
}

static inline void make_tensors(struct made_list *l, const struct json *c)
{
    const struct json *list = json_get(c, "tensors");
    bool q4 = str_is(json_str(json_get(c, "grid")), "q4");
    l->n = json_count(list);
    l->items = calloc(l->n, sizeof *l->items);
    l->out = calloc(l->n, sizeof *l->out);
    size_t i = 0;
    JSON_EACH (t, list) {
        struct made *m = &l->items[i++];
        m->name = json_str(json_at(t, 0));
        m->gguf = json_str(json_at(t, 2));
        m->count = 1;
        JSON_EACH (d, json_at(t, 1)) {
            m->shape[m->n_dim++] = json_int(d, 0);
            m->count *= json_int(d, 0);
        }
        m->data = malloc((size_t)m->count * sizeof *m->data);
        fill_formula(m->data, m->name, m->count, m->shape[m->n_dim - 1], m->n_dim > 1, q4,
                     (int)json_int(json_at(t, 3), 0));
    }
}

static inline void free_tensors(struct made_list *l)
{
    for (size_t i = 0; i < l->n; i++)
        free(l->items[i].data);
    free(l->items);
    free(l->out);
}

static inline void list_out(struct made_list *l, bool gguf, enum dtype type)
{
    for (size_t i = 0; i < l->n; i++) {
        struct made *m = &l->items[i];
        bool router = str_ends(m->gguf, STR("ffn_gate_inp.weight")); /* llama.cpp keeps routers and vectors in f32 */
        m->type = gguf && (m->n_dim == 1 || router) ? DT_F32 : type;
        l->out[i] = (struct tensor_out){gguf ? m->gguf : m->name, m->type, m->n_dim, {0}, fill_made, m};
        memcpy(l->out[i].shape, m->shape, sizeof m->shape);
    }
}

/* ---- containers ---- */
static char folder[128];

static inline void write_hf(struct made_list *l, const struct json *config, enum dtype type)
{
    struct error err;
    struct buf text = {0};
    struct json_writer w;
    char path[160];
    json_writer_init(&w, &text);
    json_write_value(&w, config);
    OK(file_write_all(path_join(path, sizeof path, folder, "config.json"), buf_str(&text), &err));
    buf_free(&text);
    list_out(l, false, type);
    OK(safetensors_write(folder, l->out, l->n, 0, &err));
}

#endif
