#include "model/imatrix.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>

#include "base/map.h"
#include "model/private.h"

/* ---- reading ---- */
struct entry {
    const struct tensor *sums;
    float *means; /* [n_expert, n_in]; of an expert nothing was sent to: NULL row, see `seen` */
    bool *seen;   /* [n_expert] */
};
struct imatrix {
    struct checkpoint *ck;
    struct arena arena;
    struct entry *entries; /* one a tensor of the file; sums NULL: another tensor */
    int count;
};

static bool is_matrix_of(const struct tensor *t, int64_t rows, int64_t columns)
{
    int64_t r = t->n_dim == 2 ? t->shape[0] : 1, c = t->n_dim ? t->shape[t->n_dim - 1] : 0;
    return t->type == DT_F32 && t->n_dim >= 1 && t->n_dim <= 2 && (rows < 0 || r == rows) && c == columns;
}

static enum status entry_read(struct entry *e, struct imatrix *m, const struct tensor *t, struct error *err)
{
    struct str base = str_n(t->name.ptr, t->name.len - strlen(".in_sum2"));
    int64_t n_in = t->n_dim ? t->shape[t->n_dim - 1] : 0, n = t->n_dim == 2 ? t->shape[0] : 1;
    struct buf name = {0};
    buf_printf(&name, "%.*s.counts", (int)base.len, base.ptr);
    if (name.failed) {
        buf_free(&name);
        return fail_nomem(err, "imatrix");
    }
    const struct tensor *counts = checkpoint_find(m->ck, buf_str(&name));
    buf_free(&name);
    if (!is_matrix_of(t, -1, n_in) || n_in < 1 || n < 1 || n > EXPERT_MAX || !counts || tensor_count(counts) != n ||
        counts->type != DT_F32)
        return fail(err, ST_CORRUPT, "imatrix: %.*s must be f32 [experts, columns] with a count for each expert",
                    STR_ARG(t->name));
    e->means = arena_alloc(&m->arena, t->bytes);
    e->seen = arena_alloc_zero(&m->arena, (size_t)n, sizeof *e->seen);
    if (!e->means || !e->seen)
        return fail_nomem(err, "imatrix");
    memcpy(e->means, t->data, t->bytes);
    for (int64_t i = 0; i < n; i++) {
        float count;
        memcpy(&count, (const char *)counts->data + 4 * i, 4);
        if (!isfinite(count) || count < 0)
            return fail(err, ST_CORRUPT, "imatrix: %.*s has a count of %g", STR_ARG(base), (double)count);
        e->seen[i] = count > 0;
        for (int64_t k = i * n_in; k < (i + 1) * n_in; k++) {
            if (!(e->means[k] >= 0) || !isfinite(e->means[k]))
                return fail(err, ST_CORRUPT, "imatrix: %.*s holds %g, which is no sum of squares", STR_ARG(t->name),
                            (double)e->means[k]);
            e->means[k] = count > 0 ? e->means[k] / count : 0;
        }
    }
    e->sums = t;
    m->count++;
    return ST_OK;
}

static enum status read_all(struct imatrix *m, const char *path, struct error *err)
{
    TRY(checkpoint_open(&m->ck, path, err));
    struct str type = m->ck->gguf ? gguf_string(m->ck->gguf, "general.type") : STR("");
    if (!m->ck->gguf || !str_is(type, "imatrix"))
        return fail(err, ST_UNSUPPORTED,
                    "imatrix: %s is no importance matrix in GGUF (general.type imatrix); make one "
                    "with `ingot imatrix`",
                    path);
    m->entries = arena_alloc_zero(&m->arena, m->ck->n_tensor + 1, sizeof *m->entries);
    if (!m->entries)
        return fail_nomem(err, "imatrix");
    for (size_t i = 0; i < m->ck->n_tensor; i++)
        if (str_ends(m->ck->tensors[i].name, STR(".in_sum2")))
            TRY(entry_read(&m->entries[i], m, &m->ck->tensors[i], err));
    return ST_OK;
}

enum status imatrix_open(struct imatrix **out, const char *path, struct error *err)
{
    struct imatrix *m = mem_alloc_zero(1, sizeof *m);
    *out = NULL;
    if (!m)
        return fail_nomem(err, "imatrix");
    arena_init(&m->arena, 0);
    enum status st = read_all(m, path, err);
    if (st != ST_OK) {
        imatrix_close(m);
        return st;
    }
    *out = m;
    return ST_OK;
}

void imatrix_close(struct imatrix *m)
{
    if (!m)
        return;
    checkpoint_close(m->ck);
    arena_free(&m->arena);
    mem_free(m);
}

int imatrix_count(const struct imatrix *m)
{
    return m->count;
}

enum status imatrix_find(const float **out, const struct imatrix *m, struct str name, int64_t n_in, int n_expert,
                         int expert, struct error *err)
{
    char text[160];
    *out = NULL;
    snprintf(text, sizeof text, "%.*s.in_sum2", STR_ARG(name));
    const struct tensor *t = checkpoint_find(m->ck, str_of(text));
    if (!t)
        return ST_OK;
    const struct entry *e = &m->entries[t - m->ck->tensors];
    if (!is_matrix_of(t, n_expert, n_in))
        return fail(err, ST_INVALID,
                    "the importance matrix has %lld columns for %d experts, expected %lld for %d: it "
                    "belongs to another model",
                    (long long)t->shape[t->n_dim - 1], t->n_dim == 2 ? (int)t->shape[0] : 1, (long long)n_in, n_expert);
    if (e->seen[expert])
        *out = e->means + expert * n_in;
    return ST_OK;
}

/* ---- collecting ---- */
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
