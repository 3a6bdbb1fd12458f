/* write_packed - matrices as the checkpoints of AWQ (gemm) and GPTQ (its first format) hold them
 *
 * Of a matrix X [n_out, n_in], eight numbers of four bits a word, from the low end:
 *   AWQ    X.qweight [n_in, n_out / 8]  columns 0 2 4 6 1 3 5 7 of each eight outputs
 *          X.qzeros [groups, n_out / 8]  likewise
 *   GPTQ   X.qweight [n_in / 8, n_out]  eight consecutive inputs
 *          X.qzeros [groups, n_out / 8]  each a zero less one
 *          X.g_idx [n_in]  the group of each input
 *   both   X.scales [groups, n_out], f16
 *
 * formats/packed.c reads them. Words are written before zeros and scales, which are small and kept from then on.
 */
#include "model/private.h"
#include "tensor/groups.h"

#include <stdio.h>

enum { PER_WORD = 8 };

struct packed {
    struct tensor_source s;
    struct str importance; /* the matrix's name in an importance matrix: GGUF's */
    int64_t n_out, n_in, n_group;
    uint8_t *zeros;   /* [n_out, n_group] */
    uint16_t *scales; /* likewise */
    bool done;
};

/* ---- words ---- */
static const uint8_t awq_order[PER_WORD] = {0, 2, 4, 6, 1, 3, 5, 7};

/* Eight rows' levels of each input, into one column of words. */
static void awq_words(uint32_t *out, int64_t stride, const uint8_t *levels, int64_t n_in)
{
    for (int64_t k = 0; k < n_in; k++) {
        uint32_t w = 0;
        for (int i = 0; i < PER_WORD; i++)
            w |= (uint32_t)levels[awq_order[i] * n_in + k] << 4 * i;
        out[k * stride] = w;
    }
}

static void gptq_words(uint32_t *out, int64_t stride, const uint8_t *levels, int64_t n_in)
{
    for (int64_t k = 0; k < n_in; k += PER_WORD) {
        uint32_t w = 0;
        for (int i = 0; i < PER_WORD; i++)
            w |= (uint32_t)levels[k + i] << 4 * i;
        out[k / PER_WORD * stride] = w;
    }
}

/* ---- the matrix, once ---- */
struct pass {
    struct packed *p;
    struct groups_job job;
    struct quantize_sums sums;
    uint8_t *levels; /* of a slab */
    int64_t capacity;
    uint32_t *out;
};

static enum status pack_rows(void *ctx, const float *rows, int64_t row0, int64_t n, struct error *err)
{
    struct pass *a = ctx;
    const struct packed *p = a->p;
    if (a->capacity < n) { /* the first slab is the largest */
        a->levels = mem_alloc((size_t)(n * p->n_in));
        if (!a->levels)
            return fail_nomem(err, "quantize");
        a->capacity = n;
    }
    a->job.n_row = n;
    a->job.in = rows;
    a->job.levels = a->levels;
    a->job.zeros = p->zeros + row0 * p->n_group;
    a->job.scales = p->scales + row0 * p->n_group;
    TRY(quantize_groups(&a->job, &a->sums, p->s.how->pool, err));
    if (p->s.how->packing == PACKED_AWQ)
        for (int64_t i = 0; i < n; i += PER_WORD)
            awq_words(a->out + (row0 + i) / PER_WORD, p->n_out / PER_WORD, a->levels + i * p->n_in, p->n_in);
    else
        for (int64_t i = 0; i < n; i++)
            gptq_words(a->out + row0 + i, p->n_out, a->levels + i * p->n_in, p->n_in);
    return ST_OK;
}

static enum status report(struct packed *p, const struct pass *a, struct error *err)
{
    struct quantized q = {.name = p->s.name,
                          .from = p->s.m->plan.params[p->s.first[0]].src,
                          .type = DT_Q4_Z,
                          .wanted = DT_Q4_Z,
                          .n_out = p->n_out,
                          .n_in = p->n_in,
                          .n_expert = 1,
                          .importance = a->job.importance != NULL};
    q.bytes = (uint64_t)(p->n_out * p->n_in / 2 + p->n_group * p->n_out / 2 + p->n_group * p->n_out * 2);
    return quantize_report(&q, &a->sums, p->s.how, err);
}

static enum status fill_weights(void *ctx, void *out, struct error *err)
{
    struct packed *p = ctx;
    const struct model_quantize *how = p->s.how;
    struct pass a = {.p = p, .out = out};
    a.job = (struct groups_job){.n = p->n_in, .group = how->group, .symmetric = how->packing == PACKED_GPTQ};
    enum status st = ST_OK;
    const struct param *param = &p->s.m->plan.params[p->s.first[0]];
    bool expert = role_rows[param->role].expert;
    if (how->imatrix)
        st = imatrix_find(&a.job.importance, how->imatrix, p->importance, p->n_in,
                          expert ? p->s.m->arch.config.n_expert : 1, expert ? param->expert : 0, err);
    if (st == ST_OK)
        st = source_rows(&p->s, 0, pack_rows, &a, err);
    mem_free(a.levels);
    if (st != ST_OK)
        return fail_context(err, "tensor %.*s", STR_ARG(p->s.name));
    p->done = true;
    return report(p, &a, err);
}

/* Zeros and scales: known once the words are, which safetensors lays before them. */
static enum status make_sure(struct packed *p, struct error *err)
{
    if (p->done)
        return ST_OK;
    void *words = mem_alloc((size_t)(p->n_out * p->n_in / 2));
    if (!words)
        return fail_nomem(err, "quantize");
    enum status st = fill_weights(p, words, err);
    mem_free(words);
    return st;
}

static enum status fill_zeros(void *ctx, void *out, struct error *err)
{
    struct packed *p = ctx;
    uint32_t *words = out;
    bool awq = p->s.how->packing == PACKED_AWQ;
    TRY(make_sure(p, err));
    for (int64_t g = 0; g < p->n_group; g++)
        for (int64_t n = 0; n < p->n_out; n += PER_WORD) {
            uint32_t w = 0;
            for (int i = 0; i < PER_WORD; i++) {
                int zero = p->zeros[(n + (awq ? awq_order[i] : i)) * p->n_group + g];
                w |= (uint32_t)(awq ? zero : zero - 1) << 4 * i;
            }
            *words++ = w;
        }
    return ST_OK;
}

static enum status fill_scales(void *ctx, void *out, struct error *err)
{
    struct packed *p = ctx;
    uint16_t *to = out;
    TRY(make_sure(p, err));
    for (int64_t g = 0; g < p->n_group; g++)
        for (int64_t n = 0; n < p->n_out; n++)
            *to++ = p->scales[n * p->n_group + g];
    return ST_OK;
}

static enum status fill_order(void *ctx, void *out, struct error *err)
{
    (void)err;
    const struct packed *p = ctx;
    for (int64_t k = 0; k < p->n_in; k++)
        ((int32_t *)out)[k] = (int32_t)(k / p->s.how->group);
    return ST_OK;
}

/* ---- its tensors ---- */
static enum status add_part(struct tensor_list *l, struct packed *p, const char *suffix, struct tensor_out t,
                            struct error *err)
{
    char text[192];
    if (!MEM_GROW(l->tensors, l->capacity, l->n))
        return fail_nomem(err, "write");
    snprintf(text, sizeof text, "%.*s%s", (int)(p->s.name.len - strlen(".weight")), p->s.name.ptr, suffix);
    t.name = str_of(arena_copy(&l->arena, str_of(text)));
    t.ctx = p;
    if (!t.name.ptr)
        return fail_nomem(err, "write");
    l->tensors[l->n++] = t;
    return ST_OK;
}

enum status packed_add(struct tensor_list *l, const struct tensor_source *s, int expert, struct error *err)
{
    const struct param *param = &s->m->plan.params[s->first[0]];
    struct packed *p = arena_alloc_zero(&l->arena, 1, sizeof *p);
    char name[128], gguf[96];
    name_format(name, sizeof name, s->row, param->layer, expert, false);
    snprintf(gguf, sizeof gguf, "blk.%d.%s.weight", param->layer, role_rows[param->role].gguf);
    if (!p)
        return fail_nomem(err, "write");
    int64_t n_out = param->n_out, n_in = param->n_in, n_group = n_in / s->how->group;
    *p = (struct packed){.s = *s, .n_out = n_out, .n_in = n_in, .n_group = n_group};
    p->s.name = str_of(arena_copy(&l->arena, str_of(name)));
    p->importance = str_of(arena_copy(&l->arena, str_of(gguf)));
    p->zeros = arena_alloc(&l->arena, (size_t)(n_out * n_group));
    p->scales = arena_alloc(&l->arena, (size_t)(n_out * n_group) * sizeof *p->scales);
    if (!p->s.name.ptr || !p->importance.ptr || !p->zeros || !p->scales)
        return fail_nomem(err, "write");
    bool awq = s->how->packing == PACKED_AWQ;
    struct tensor_out words = {.type = DT_I32, .n_dim = 2, .fill = fill_weights};
    words.shape[0] = awq ? n_in : n_in / PER_WORD;
    words.shape[1] = awq ? n_out / PER_WORD : n_out;
    TRY(add_part(l, p, ".qweight", words, err));
    TRY(add_part(
        l, p, ".qzeros",
        (struct tensor_out){.type = DT_I32, .n_dim = 2, .shape = {n_group, n_out / PER_WORD}, .fill = fill_zeros},
        err));
    TRY(add_part(l, p, ".scales",
                 (struct tensor_out){.type = DT_F16, .n_dim = 2, .shape = {n_group, n_out}, .fill = fill_scales}, err));
    if (awq)
        return ST_OK;
    return add_part(l, p, ".g_idx",
                    (struct tensor_out){.type = DT_I32, .n_dim = 1, .shape = {n_in}, .fill = fill_order}, err);
}

bool packed_wanted(const struct model_quantize *how, const struct param *p)
{
    (void)how;
    return !param_is_vector(p) && p->layer >= 0 && p->role != W_ROUTER && p->role != W_SHARED_ROUTER;
}

/* Before anything is written: rows of whole groups, outputs of whole words. */
enum status packed_check(const struct model *m, const struct family *f, const struct model_quantize *how,
                         struct error *err)
{
    for (const struct name_row *n = f->names; n->role; n++)
        if (n->flags & (NAME_TRANSPOSED | NAME_STACKED) || n->n_part)
            return fail(err, ST_UNSUPPORTED,
                        "write: %s models store matrices turned or joined, which packed folders are not written of; "
                        "write a GGUF instead",
                        f->name);
    for (int i = 0; i < m->plan.n_param; i++) {
        const struct param *p = &m->plan.params[i];
        if (!packed_wanted(how, p) || (p->n_in % how->group == 0 && p->n_out % PER_WORD == 0))
            continue;
        return fail(err, ST_UNSUPPORTED,
                    "write: matrix %s of layer %d is %lld x %lld: packed folders take rows of whole groups of %d and "
                    "outputs of whole eights; %s",
                    role_rows[p->role].gguf, p->layer, (long long)p->n_out, (long long)p->n_in, how->group,
                    p->n_in % 32 || p->n_out % PER_WORD ? "write a GGUF instead" : "try a smaller --group");
    }
    return ST_OK;
}

void packed_put_config(struct json_writer *w, const struct model *m, const struct model_quantize *how)
{
    bool awq = how->packing == PACKED_AWQ;
    json_key(w, "quantization_config");
    json_begin_object(w);
    json_put_str(w, "quant_method", awq ? STR("awq") : STR("gptq"));
    json_put_int(w, "bits", 4);
    json_put_int(w, "group_size", how->group);
    if (awq) {
        json_put_str(w, "version", STR("gemm"));
        json_put_bool(w, "zero_point", true);
        json_key(w, "modules_to_not_convert");
        if (m->arch.config.n_expert) {
            json_begin_array(w);
            json_write_str(w, STR("gate"));
            json_write_str(w, STR("shared_expert_gate"));
            json_end_array(w);
        } else {
            json_write_null(w);
        }
    } else {
        json_put_str(w, "checkpoint_format", STR("gptq"));
        json_put_bool(w, "desc_act", false);
        json_put_bool(w, "sym", true);
        json_put_bool(w, "lm_head", false);
    }
    json_end_object(w);
}
