/* imatrix_collect - the squares of what flows into the matrices, added up, and written in llama.cpp's form */
#include "model/imatrix.h"

#include <assert.h>
#include <stdio.h>

#include "model/private.h"

struct slot_sums { /* of one matrix, or of all experts' */
    const struct step *step;
    char name[96];
    double *sums; /* [n_expert, n_in] */
    int64_t *counts;
    int64_t n_in;
    int n_expert;
};
struct imatrix_sums {
    struct arena arena;
    struct slot_sums *slots;
    int n;
};

static enum status slot_add(struct imatrix_sums *s, const struct model *m, const struct step *step, struct error *err)
{
    const struct param *p = &m->plan.params[step->param];
    bool fused = m->arch.family->gguf_fused, qkv = p->role == W_Q || p->role == W_K || p->role == W_V;
    const char *gguf = fused && qkv ? "attn_qkv" : role_rows[p->role].gguf;
    if (fused && qkv && p->role != W_Q) /* the same input, once */
        return ST_OK;
    struct slot_sums *slot = &s->slots[s->n++];
    *slot = (struct slot_sums){.step = step, .n_in = p->n_in, .n_expert = step->n_param};
    snprintf(slot->name, sizeof slot->name, "blk.%d.%s.weight", p->layer, gguf);
    slot->sums = arena_alloc_zero(&s->arena, (size_t)(slot->n_in * slot->n_expert), sizeof *slot->sums);
    slot->counts = arena_alloc_zero(&s->arena, (size_t)slot->n_expert, sizeof *slot->counts);
    return slot->sums && slot->counts ? ST_OK : fail_nomem(err, "imatrix");
}

enum status imatrix_sums_create(struct imatrix_sums **out, const struct model *m, struct error *err)
{
    assert(m->plan.keep);
    struct imatrix_sums *s = mem_alloc_zero(1, sizeof *s);
    *out = NULL;
    if (!s)
        return fail_nomem(err, "imatrix");
    arena_init(&s->arena, 0);
    enum status st = ST_OK;
    s->slots = arena_alloc_zero(&s->arena, (size_t)m->plan.n_step, sizeof *s->slots);
    if (!s->slots)
        st = fail_nomem(err, "imatrix");
    for (int i = 0; i < m->plan.n_step && st == ST_OK; i++) {
        const struct step *step = &m->plan.steps[i];
        if (step->op == OP_LINEAR && m->plan.params[step->param].layer >= 0)
            st = slot_add(s, m, step, err);
    }
    if (st != ST_OK) {
        imatrix_sums_free(s);
        return st;
    }
    *out = s;
    return ST_OK;
}

void imatrix_sums_free(struct imatrix_sums *s)
{
    if (!s)
        return;
    arena_free(&s->arena);
    mem_free(s);
}

static void rows_add(double *sums, const real *x, int64_t n_row, int64_t n)
{
    for (int64_t r = 0; r < n_row; r++)
        for (int64_t k = 0; k < n; k++)
            sums[k] += (double)x[r * n + k] * (double)x[r * n + k];
}

void imatrix_sums_add(struct imatrix_sums *s, const struct model_run *r)
{
    for (int i = 0; i < s->n; i++) {
        struct slot_sums *slot = &s->slots[i];
        int in = slot->step->in[0];
        const real *x = value_data(r, in);
        bool routed = r->values[in].space == ROWS_EXPERT;
        const int32_t *start = routed ? r->routes[slot->step->route].start : NULL;
        for (int e = 0; e < slot->n_expert; e++) {
            int64_t row0 = routed ? start[e] : 0, n_row = routed ? start[e + 1] - row0 : value_rows(r, in);
            rows_add(slot->sums + e * slot->n_in, x + row0 * slot->n_in, n_row, slot->n_in);
            slot->counts[e] += n_row;
        }
    }
}

static enum status fill_sums(void *ctx, void *out, struct error *err)
{
    (void)err;
    const struct slot_sums *slot = ctx;
    for (int64_t i = 0; i < slot->n_in * slot->n_expert; i++)
        ((float *)out)[i] = (float)slot->sums[i];
    return ST_OK;
}

static enum status fill_counts(void *ctx, void *out, struct error *err)
{
    (void)err;
    const struct slot_sums *slot = ctx;
    for (int e = 0; e < slot->n_expert; e++)
        ((float *)out)[e] = (float)slot->counts[e];
    return ST_OK;
}

static bool tensor_pair(struct tensor_out *out, struct arena *arena, struct slot_sums *slot)
{
    char text[128];
    snprintf(text, sizeof text, "%s.in_sum2", slot->name);
    out[0] = (struct tensor_out){.name = str_of(arena_copy(arena, str_of(text))),
                                 .n_dim = 2,
                                 .shape = {slot->n_expert, slot->n_in},
                                 .fill = fill_sums,
                                 .ctx = slot};
    snprintf(text, sizeof text, "%s.counts", slot->name);
    out[1] = (struct tensor_out){.name = str_of(arena_copy(arena, str_of(text))),
                                 .n_dim = 2,
                                 .shape = {slot->n_expert, 1},
                                 .fill = fill_counts,
                                 .ctx = slot};
    return out[0].name.ptr && out[1].name.ptr;
}

enum status imatrix_sums_write(const struct imatrix_sums *s, const char *path, const char *dataset, int n_chunk,
                               int chunk_size, struct error *err)
{
    struct arena arena;
    struct gguf_writer *w;
    arena_init(&arena, 0);
    TRY(gguf_writer_create(&w, err));
    struct tensor_out *tensors = arena_alloc_zero(&arena, 2 * (size_t)s->n + 1, sizeof *tensors);
    bool named = tensors != NULL;
    for (int i = 0; i < s->n && named; i++)
        named = tensor_pair(tensors + 2 * i, &arena, &s->slots[i]);
    gguf_put_string(w, "general.type", STR("imatrix"));
    gguf_put_strings(w, "imatrix.datasets", (struct str[]){str_of(dataset)}, 1);
    gguf_put_int(w, "imatrix.chunk_count", GGUF_U32, n_chunk);
    gguf_put_int(w, "imatrix.chunk_size", GGUF_U32, chunk_size);
    enum status st = named ? gguf_writer_commit(w, path, tensors, 2 * (size_t)s->n, err) : fail_nomem(err, "imatrix");
    gguf_writer_destroy(w);
    arena_free(&arena);
    return st;
}
