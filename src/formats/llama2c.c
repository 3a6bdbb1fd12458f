/* llama2c - reader of llama2.c checkpoints, versions 0 (legacy), 1 and 2 (int8 in groups)
 *
 * A file is a header and then tensors in a fixed order: the order is a list, walked by one cursor. In version 2 the
 * matrices are int8 values of one whole tensor followed by one f32 scale a group; they are widened here.
 */
#include "base/cursor.h"
#include "formats/loading.h"

#include <stdio.h>

enum { MAGIC = 0x616b3432, HEADER_BYTES = 256 };
enum { DIM_MAX = 1 << 20, HIDDEN_MAX = 1 << 22, LAYER_MAX = 4096, VOCAB_MAX = 1 << 24, SEQ_MAX = 1 << 26 };

enum measure { NONE, DIM, KV, HIDDEN, VOCAB, ROPE };
enum part { EMBEDDING, ATTN_NORM, WQ, WK, WV, WO, FFN_NORM, W1, W2, W3, NORM, ROPE_TABLES, OUTPUT, END };

static const struct {
    const char *name; /* with the layer, or NULL: skipped */
    bool per_layer;
    uint8_t rows, columns; /* columns NONE: a vector */
} parts[] = {
    [EMBEDDING] = {"tok_embeddings.weight", false, VOCAB, DIM},
    [ATTN_NORM] = {"layers.%d.attention_norm.weight", true, DIM, NONE},
    [WQ] = {"layers.%d.attention.wq.weight", true, DIM, DIM},
    [WK] = {"layers.%d.attention.wk.weight", true, KV, DIM},
    [WV] = {"layers.%d.attention.wv.weight", true, KV, DIM},
    [WO] = {"layers.%d.attention.wo.weight", true, DIM, DIM},
    [FFN_NORM] = {"layers.%d.ffn_norm.weight", true, DIM, NONE},
    [W1] = {"layers.%d.feed_forward.w1.weight", true, HIDDEN, DIM},
    [W2] = {"layers.%d.feed_forward.w2.weight", true, DIM, HIDDEN},
    [W3] = {"layers.%d.feed_forward.w3.weight", true, HIDDEN, DIM},
    [NORM] = {"norm.weight", false, DIM, NONE},
    [ROPE_TABLES] = {NULL, false, ROPE, NONE},
    [OUTPUT] = {"output.weight", false, VOCAB, DIM},
};
static const uint8_t order_legacy[] = {EMBEDDING, ATTN_NORM, WQ, WK,   WV,          WO,     FFN_NORM,
                                       W1,        W2,        W3, NORM, ROPE_TABLES, OUTPUT, END};
static const uint8_t order_later[] = {ATTN_NORM, FFN_NORM, NORM, EMBEDDING, WQ, WK, WV, WO, W1, W2, W3, OUTPUT, END};

static struct llama2c_header read_header(struct cursor *c)
{
    struct llama2c_header h = {0};
    uint32_t magic = cursor_u32(c);
    if (magic == MAGIC)
        h.version = cursor_i32(c);
    else
        cursor_seek(c, 0);
    int *fields[] = {&h.dim, &h.hidden_dim, &h.n_layer, &h.n_head, &h.n_kv_head, &h.vocab, &h.seq_len};
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
        *fields[i] = cursor_i32(c);
    if (magic != MAGIC) {
        h.shared_output = h.vocab > 0;
        h.vocab = h.vocab > -VOCAB_MAX && h.vocab < 0 ? -h.vocab : h.vocab;
        return h;
    }
    h.shared_output = cursor_u8(c) != 0;
    if (h.version == 2)
        h.group_size = cursor_i32(c);
    cursor_seek(c, HEADER_BYTES);
    return h;
}

static bool within(int v, int most)
{
    return v >= 1 && v <= most;
}

static bool is_plausible(const struct llama2c_header *h)
{
    return within(h->dim, DIM_MAX) && within(h->hidden_dim, HIDDEN_MAX) && within(h->n_layer, LAYER_MAX) &&
           within(h->n_head, h->dim) && within(h->n_kv_head, h->n_head) && within(h->vocab, VOCAB_MAX) &&
           within(h->seq_len, SEQ_MAX) && h->dim % h->n_head == 0 && h->n_head % h->n_kv_head == 0;
}

bool llama2c_matches(const uint8_t *data, size_t size)
{
    struct cursor c = cursor_of(data, size);
    if (cursor_u32(&c) == MAGIC && !c.failed)
        return true;
    /* A legacy file has no magic: seven numbers that fit together are it. */
    c = cursor_of(data, size);
    struct llama2c_header h = read_header(&c);
    return !c.failed && is_plausible(&h);
}

static int64_t measure_of(const struct llama2c_header *h, enum measure m)
{
    int64_t d_head = h->dim / h->n_head;
    switch (m) {
    case DIM:
        return h->dim;
    case KV:
        return d_head * h->n_kv_head;
    case HIDDEN:
        return h->hidden_dim;
    case VOCAB:
        return h->vocab;
    case ROPE:
        return d_head / 2 * h->seq_len * 2; /* cosines and sines */
    default:
        return 1;
    }
}

/* value = q * scale: the tensor's bytes become f32 owned by the checkpoint. */
static enum status widen(struct tensor *t, struct loading *l, struct cursor *c, int group, struct error *err)
{
    size_t n = (size_t)tensor_count(t);
    if (n % (size_t)group)
        return fail(err, ST_CORRUPT, "llama2c: %.*s has %zu values, no multiple of the group size %d", STR_ARG(t->name),
                    n, group);
    struct str q = cursor_bytes(c, n), scales = cursor_bytes(c, n / (size_t)group * 4);
    if (c->failed)
        return ST_OK; /* the caller says so */
    void *memory;
    TRY(loading_alloc(&memory, l, n, sizeof(float), "llama2c", err));
    float *out = memory, scale = 0;
    for (size_t i = 0; i < n; i++) {
        if (i % (size_t)group == 0)
            memcpy(&scale, scales.ptr + i / (size_t)group * 4, 4);
        out[i] = (float)(int8_t)q.ptr[i] * scale;
    }
    t->data = out;
    return ST_OK;
}

static enum status read_part(struct loading *l, struct cursor *c, enum part p, int layer, struct error *err)
{
    const struct llama2c_header *h = &l->pub.llama2c;
    char name[64];
    /* Formats come from the table above only; a name without a place for the layer ignores it. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    snprintf(name, sizeof name, parts[p].name ? parts[p].name : "the RoPE tables", layer);
#pragma GCC diagnostic pop
    char *kept = arena_copy(&l->arena, str_of(name));
    if (!kept)
        return fail_nomem(err, "tensor names");
    bool matrix = parts[p].columns != NONE;
    struct tensor t = {.name = str_of(kept), .type = DT_F32, .n_dim = matrix ? 2 : 1};
    t.shape[0] = measure_of(h, parts[p].rows);
    t.shape[1] = matrix ? measure_of(h, parts[p].columns) : 0;
    TRY(tensor_measure(&t, "llama2c", err));
    if (h->version == 2 && matrix)
        TRY(widen(&t, l, c, h->group_size, err));
    else
        t.data = cursor_bytes(c, t.bytes).ptr;
    if (c->failed)
        return fail(err, ST_CORRUPT,
                    "llama2c: the file ends before %s is complete; its %zu bytes are truncated or damaged", name,
                    (size_t)(c->end - c->start));
    return parts[p].name ? loading_add(l, &t, "llama2c", err) : ST_OK;
}

enum status llama2c_read(struct loading *l, const uint8_t *data, size_t size, struct error *err)
{
    struct cursor c = cursor_of(data, size);
    l->pub.llama2c = read_header(&c);
    const struct llama2c_header *h = &l->pub.llama2c;
    if (c.failed)
        return fail(err, ST_CORRUPT, "llama2c: the header is truncated at byte %zu", size);
    if (h->version < 0 || h->version > 2)
        return fail(err, ST_UNSUPPORTED, "llama2c: version %d, expected 0, 1 or 2", h->version);
    if (!is_plausible(h) || (h->version == 2 && h->group_size < 1))
        return fail(err, ST_CORRUPT,
                    "llama2c: the header's numbers do not fit together: dim %d, hidden %d, layers %d, heads "
                    "%d, kv heads %d, vocabulary %d, length %d, group %d",
                    h->dim, h->hidden_dim, h->n_layer, h->n_head, h->n_kv_head, h->vocab, h->seq_len, h->group_size);
    TRY(loading_reserve(l, 9 * (uint64_t)h->n_layer + 3, err));
    for (const uint8_t *p = h->version ? order_later : order_legacy; *p != END; p++) {
        if (*p == OUTPUT && h->shared_output)
            continue;
        for (int layer = 0; layer < (parts[*p].per_layer ? h->n_layer : 1); layer++)
            TRY(read_part(l, &c, *p, layer, err));
    }
    if (cursor_left(&c))
        return fail(err, ST_CORRUPT, "llama2c: %zu bytes follow the last tensor; the header does not fit the file",
                    cursor_left(&c));
    return ST_OK;
}
