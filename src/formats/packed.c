/* packed - AWQ and GPTQ: four bits in int32 words, become one weight tensor a matrix
 *
 * X.qweight, X.qzeros, X.scales (GPTQ also X.g_idx) stay as they are; X.weight [n_out, n_in] is added beside them, of
 * type q4_z, whose blocks of 32 say exactly (q - zero) * scale. What blocks of 32 cannot say (groups that change within
 * 32 columns, as with act-order; scales that are no f16) is dequantized to f32.
 *
 * Source   AutoAWQ's WQLinear_GEMM and AutoGPTQ's QuantLinear: the layouts their checkpoints have
 */
#include <stdio.h>

#include "formats/loading.h"

enum { BITS = 4, PER_WORD = 8, ZBLOCK = 32 };

enum packing { AWQ, GPTQ };
struct packed {
    enum packing packing;
    int64_t group;   /* columns a group; -1: all */
    int zero_plus;   /* GPTQ's first format stores zero - 1 */
    struct str base; /* X */
    const struct tensor *q, *zeros, *scales, *order;
    int64_t n_in, n_out, n_group;
};

/* ---- the configuration ---- */
static int64_t config_int(const struct json *c, const char *key, const char *older, int64_t otherwise)
{
    return json_int(json_get(c, key), json_int(json_get(c, older), otherwise));
}

static enum status read_config(struct packed *p, const struct json *c, struct error *err)
{
    struct str method = json_str(json_get(c, "quant_method")), version = json_str(json_get(c, "version"));
    struct str format = json_str(json_get(c, "checkpoint_format"));
    bool awq = method.ptr && str_is(method, "awq"), gptq = method.ptr && str_is(method, "gptq");
    if (!awq && !gptq)
        return fail(err, ST_UNSUPPORTED,
                    "config.json: quantization_config has quant_method %.*s, but Ingot reads awq and gptq; use the "
                    "unquantized model, or a GGUF",
                    STR_ARG(method.ptr ? method : STR("(none)")));
    int64_t bits = config_int(c, "bits", "w_bit", 0);
    if (bits != BITS)
        return fail(err, ST_UNSUPPORTED, "config.json: quantization_config has %lld bits, but Ingot reads %.*s of 4",
                    (long long)bits, STR_ARG(method));
    p->packing = awq ? AWQ : GPTQ;
    p->group = config_int(c, "group_size", "q_group_size", 128);
    if (p->group != -1 && (p->group < 1 || p->group > 1 << 24))
        return fail(err, ST_CORRUPT, "config.json: quantization_config has group_size %lld", (long long)p->group);
    if (awq && version.ptr && !str_is(version, "gemm") && !str_is(version, "GEMM"))
        return fail(err, ST_UNSUPPORTED, "config.json: AWQ version %.*s is not read, only gemm", STR_ARG(version));
    if (gptq && format.ptr && !str_is(format, "gptq") && !str_is(format, "gptq_v2"))
        return fail(err, ST_UNSUPPORTED, "config.json: GPTQ checkpoint_format %.*s is not read, only gptq and gptq_v2",
                    STR_ARG(format));
    p->zero_plus = gptq && !(format.ptr && str_is(format, "gptq_v2"));
    return ST_OK;
}

/* ---- one matrix: its tensors and their shapes ---- */
static const struct tensor *part(const struct loading *l, const struct packed *p, const char *suffix)
{
    char name[512];
    int n = snprintf(name, sizeof name, "%.*s%s", (int)p->base.len, p->base.ptr, suffix);
    return n > 0 && (size_t)n < sizeof name ? checkpoint_find(&l->pub, str_n(name, (size_t)n)) : NULL;
}

static enum status check_part(const struct packed *p, const struct tensor *t, const char *suffix, int64_t rows,
                              int64_t columns, struct error *err)
{
    char shape[96];
    if (!t)
        return fail(err, ST_CORRUPT, "tensor %.*s%s is missing; it belongs to %.*s.qweight", STR_ARG(p->base), suffix,
                    STR_ARG(p->base));
    bool scales = t == p->scales;
    bool type = scales ? t->type == DT_F16 || t->type == DT_BF16 || t->type == DT_F32 : t->type == DT_I32;
    if (type && t->n_dim == 2 && t->shape[0] == rows && t->shape[1] == columns)
        return ST_OK;
    return fail(err, ST_CORRUPT, "tensor %.*s is %s %s, expected %s [%lld, %lld]", STR_ARG(t->name),
                dtype_row(t->type)->name, tensor_shape_text(shape, sizeof shape, t), scales ? "f16" : "i32",
                (long long)rows, (long long)columns);
}

static enum status check_order(const struct packed *p, struct error *err)
{
    const struct tensor *t = p->order;
    if (t->type != DT_I32 || t->n_dim != 1 || t->shape[0] != p->n_in)
        return fail(err, ST_CORRUPT, "tensor %.*s must be i32 [%lld]", STR_ARG(t->name), (long long)p->n_in);
    for (int64_t k = 0; k < p->n_in; k++) {
        int32_t g;
        memcpy(&g, (const char *)t->data + 4 * k, 4);
        if (g < 0 || g >= p->n_group)
            return fail(err, ST_CORRUPT, "tensor %.*s: group %d of column %lld, expected 0 to %lld", STR_ARG(t->name),
                        g, (long long)k, (long long)p->n_group - 1);
    }
    return ST_OK;
}

static enum status find_parts(struct packed *p, const struct loading *l, struct error *err)
{
    const struct tensor *q = p->q;
    if (q->n_dim != 2 || q->type != DT_I32 || q->shape[0] < 1 || q->shape[1] < 1)
        return fail(err, ST_CORRUPT, "tensor %.*s must be i32 with two dimensions", STR_ARG(q->name));
    p->n_in = q->shape[0] * (p->packing == GPTQ ? PER_WORD : 1);
    p->n_out = q->shape[1] * (p->packing == AWQ ? PER_WORD : 1);
    int64_t group = p->group < 0 ? p->n_in : p->group;
    p->n_group = (p->n_in + group - 1) / group;
    if (p->n_out % PER_WORD)
        return fail(err, ST_CORRUPT, "tensor %.*s has %lld outputs, no multiple of 8", STR_ARG(q->name),
                    (long long)p->n_out);
    p->zeros = part(l, p, ".qzeros");
    p->scales = part(l, p, ".scales");
    p->order = p->packing == GPTQ ? part(l, p, ".g_idx") : NULL;
    TRY(check_part(p, p->scales, ".scales", p->n_group, p->n_out, err));
    TRY(check_part(p, p->zeros, ".qzeros", p->n_group, p->n_out / PER_WORD, err));
    if (part(l, p, ".weight"))
        return fail(err, ST_CORRUPT, "tensor %.*s.weight stands beside its own %.*s", STR_ARG(p->base),
                    STR_ARG(q->name));
    return p->order ? check_order(p, err) : ST_OK;
}

/* ---- values ---- */
static uint32_t word_at(const struct tensor *t, int64_t row, int64_t column)
{
    uint32_t w;
    memcpy(&w, (const char *)t->data + 4 * (row * t->shape[1] + column), 4);
    return w;
}

/* Place in an AWQ word of column 8c + i: columns 0 2 4 6 1 3 5 7 stand from the low end. */
static unsigned awq_shift(int64_t i)
{
    return (unsigned)(4 * ((i & 1) * 4 + i / 2));
}

static int level_at(const struct packed *p, int64_t n, int64_t k)
{
    if (p->packing == AWQ)
        return word_at(p->q, k, n / PER_WORD) >> awq_shift(n % PER_WORD) & 15;
    return word_at(p->q, k / PER_WORD, n) >> 4 * (k % PER_WORD) & 15;
}

static int zero_at(const struct packed *p, int64_t n, int64_t g)
{
    unsigned shift = p->packing == AWQ ? awq_shift(n % PER_WORD) : (unsigned)(4 * (n % PER_WORD));
    int z = (int)(word_at(p->zeros, g, n / PER_WORD) >> shift & 15);
    return (z + p->zero_plus) & 15; /* a zero of 0 is stored as 15 */
}

static float scale_at(const struct packed *p, int64_t n, int64_t g)
{
    const struct dtype_row *d = dtype_row(p->scales->type);
    float s;
    dtype_to_f32(&s, p->scales->type, (const char *)p->scales->data + (g * p->n_out + n) * d->bytes, 1);
    return s;
}

static int64_t group_of(const struct packed *p, int64_t k)
{
    int32_t g;
    if (!p->order)
        return p->group < 0 ? 0 : k / p->group;
    memcpy(&g, (const char *)p->order->data + 4 * k, 4);
    return g;
}

/* Whether blocks of 32 say it exactly. */
static bool blocks_suit(const struct packed *p)
{
    if (p->n_in % ZBLOCK)
        return false;
    for (int64_t k = 0; k < p->n_in; k++)
        if (group_of(p, k) != group_of(p, k / ZBLOCK * ZBLOCK))
            return false;
    for (int64_t g = 0; g < p->n_group && p->scales->type != DT_F16; g++)
        for (int64_t n = 0; n < p->n_out; n++) {
            float s = scale_at(p, n, g);
            if (f16_to_f32(f32_to_f16(s)) != s)
                return false;
        }
    return true;
}

static void put_blocks(uint8_t *out, const struct packed *p)
{
    for (int64_t n = 0; n < p->n_out; n++)
        for (int64_t k0 = 0; k0 < p->n_in; k0 += ZBLOCK, out += 20) {
            int64_t g = group_of(p, k0);
            uint16_t d = f32_to_f16(scale_at(p, n, g)), zero = (uint16_t)zero_at(p, n, g);
            memcpy(out, &d, 2);
            memcpy(out + 2, &zero, 2);
            for (int j = 0; j < 16; j++)
                out[4 + j] = (uint8_t)(level_at(p, n, k0 + j) | level_at(p, n, k0 + j + 16) << 4);
        }
}

static void put_floats(float *out, const struct packed *p)
{
    for (int64_t n = 0; n < p->n_out; n++)
        for (int64_t k = 0; k < p->n_in; k++) {
            int64_t g = group_of(p, k);
            *out++ = scale_at(p, n, g) * (float)(level_at(p, n, k) - zero_at(p, n, g));
        }
}

static enum status add_weight(struct loading *l, const struct packed *p, struct error *err)
{
    static const char suffix[] = ".weight";
    struct tensor t = {.type = blocks_suit(p) ? DT_Q4_Z : DT_F32, .n_dim = 2, .shape = {p->n_out, p->n_in}};
    void *name, *data;
    TRY(loading_alloc(&name, l, p->base.len + sizeof suffix, 1, "a tensor name", err));
    memcpy(name, p->base.ptr, p->base.len);
    memcpy((char *)name + p->base.len, suffix, sizeof suffix);
    t.name = str_n(name, p->base.len + sizeof suffix - 1);
    TRY(tensor_measure(&t, "packed", err));
    TRY(loading_alloc(&data, l, t.bytes, 1, "unpacked weights", err));
    if (t.type == DT_F32)
        put_floats(data, p);
    else
        put_blocks(data, p);
    t.data = data;
    return loading_add(l, &t, "packed", err);
}

enum status packed_read(struct loading *l, const struct json *config, struct error *err)
{
    const struct json *c = json_get(config, "quantization_config");
    struct packed p = {0};
    if (!json_is(c, JSON_OBJECT))
        return ST_OK;
    TRY(read_config(&p, c, err));
    size_t n = l->pub.n_tensor, count = 0;
    for (size_t i = 0; i < n; i++)
        count += str_ends(l->tensors[i].name, STR(".qweight"));
    if (count == 0)
        return fail(err, ST_CORRUPT, "config.json says the weights are packed, but there is no tensor *.qweight");
    TRY(loading_reserve(l, count, err));
    for (size_t i = 0; i < n; i++) {
        const struct tensor *q = &l->tensors[i];
        if (!str_ends(q->name, STR(".qweight")))
            continue;
        p.q = q;
        p.base = str_n(q->name.ptr, q->name.len - strlen(".qweight"));
        TRY(find_parts(&p, l, err));
        TRY(add_weight(l, &p, err));
    }
    return ST_OK;
}
