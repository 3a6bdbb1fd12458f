#include "tokenizer/tok.h"
#include "tokenizer/uchar.h"
#include "base/rng.h"

/* ---- GPT-2's printable bytes: the 188 printable Latin-1 bytes stand for themselves, the others for U+0100 on ---- */
static bool byte_is_printable(unsigned b)
{
    return (b >= '!' && b <= '~') || (b >= 0xA1 && b != 0xAD);
}

static uint32_t printable_of_byte(unsigned char byte)
{
    uint32_t c = 0x100;
    if (byte_is_printable(byte))
        return byte;
    for (unsigned b = 0; b < byte; b++)
        c += !byte_is_printable(b);
    return c;
}

int byte_of_printable(uint32_t c)
{
    if (c < 0x100)
        return byte_is_printable(c) ? (int)c : -1;
    if (c >= 0x100 + 68)
        return -1;
    c -= 0x100; /* the 68 others: 0-32, 127-160, 173 */
    return c <= 32 ? (int)c : c < 67 ? (int)(c - 33 + 127) : 173;
}

bool printable_to_bytes(struct buf *out, struct str text)
{
    for (const char *p = text.ptr, *end = p + text.len; p < end;) {
        int len, byte = byte_of_printable(uchar_at(p, end, &len));
        if (byte < 0)
            return false;
        buf_append_char(out, (char)byte);
        p += len;
    }
    return true;
}

void printable_from_bytes(struct buf *out, struct str bytes)
{
    for (size_t i = 0; i < bytes.len; i++) {
        char c[4];
        int n = utf8_encode(c, printable_of_byte((unsigned char)bytes.ptr[i]));
        buf_append(out, c, (size_t)n);
    }
}

int byte_of_token(struct str t)
{
    int v = 0;
    if (t.len != 6 || memcmp(t.ptr, "<0x", 3) != 0 || t.ptr[5] != '>')
        return -1;
    for (int i = 3; i < 5; i++) {
        char c = t.ptr[i];
        int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
        if (digit < 0)
            return -1;
        v = v * 16 + digit;
    }
    return v;
}

/* ---- vocabulary ---- */
enum status vocab_reserve(struct vocab *v, size_t size, struct error *err)
{
    if (size <= v->capacity)
        return ST_OK;
    if (size > v->n_id_max)
        return fail(err, ST_CORRUPT, "tokenizer: %zu tokens, but a file of this size holds at most %zu: it is damaged",
                    size, v->n_id_max);
    size_t capacity = v->capacity + v->capacity / 2;
    capacity = size > capacity ? size : capacity > v->n_id_max ? v->n_id_max : capacity;
    struct span *text = mem_realloc(v->text, capacity, sizeof *text);
    if (text) {
        v->bytes = v->bytes == v->text ? text : v->bytes;
        v->text = text;
    }
    uint8_t *flags = mem_realloc(v->flags, capacity, 1);
    if (flags)
        v->flags = flags;
    double *score = mem_realloc(v->score, capacity, sizeof *score);
    if (score)
        v->score = score;
    if (!text || !flags || !score)
        return fail_nomem(err, "the vocabulary");
    memset(text + v->capacity, 0, (capacity - v->capacity) * sizeof *text);
    memset(flags + v->capacity, 0, capacity - v->capacity);
    memset(score + v->capacity, 0, (capacity - v->capacity) * sizeof *score);
    v->capacity = capacity;
    return ST_OK;
}

enum status vocab_put(struct vocab *v, int64_t id, struct str text, unsigned flags, struct error *err)
{
    if (id < 0 || (uint64_t)id >= v->n_id_max)
        return fail(err, ST_CORRUPT,
                    "tokenizer: token \"%.*s\" has id %lld; in a file of this size ids are 0 to %zu: it is damaged",
                    STR_ARG(text), (long long)id, v->n_id_max - 1);
    TRY(vocab_reserve(v, (size_t)id + 1, err));
    if (v->blob.len + text.len > UINT32_MAX)
        return fail(err, ST_LIMIT, "tokenizer: the vocabulary's text is over 4 GiB");
    v->text[id] = (struct span){(uint32_t)v->blob.len, (uint32_t)text.len};
    v->flags[id] = (uint8_t)(v->flags[id] | flags | TOKEN_PRESENT);
    buf_append_str(&v->blob, text);
    if ((size_t)id >= v->size)
        v->size = (size_t)id + 1;
    return v->blob.failed ? fail_nomem(err, "the vocabulary") : ST_OK;
}

enum status vocab_unprintable(struct vocab *v, struct error *err)
{
    struct buf bytes = {0};
    struct span *spans = mem_alloc_zero(v->size + 1, sizeof *spans);
    if (!spans)
        return fail_nomem(err, "the vocabulary");
    v->bytes = spans;
    for (size_t i = 0; i < v->size; i++) {
        buf_clear(&bytes);
        spans[i] = v->text[i];
        bool printable = printable_to_bytes(&bytes, vocab_text(v, (int32_t)i));
        if (bytes.failed)
            break;
        if (!printable)
            continue; /* an added token with blanks in it, say: it stands for its own bytes */
        if (v->blob.len + bytes.len > UINT32_MAX)
            break;
        spans[i] = (struct span){(uint32_t)v->blob.len, (uint32_t)bytes.len};
        buf_append_str(&v->blob, buf_str(&bytes));
    }
    bool failed = bytes.failed || v->blob.failed;
    buf_free(&bytes);
    return failed ? fail_nomem(err, "the vocabulary") : ST_OK;
}

enum status vocab_index(struct vocab *v, struct error *err)
{
    size_t slots = 16;
    while (slots < 2 * v->size)
        slots *= 2;
    if (!v->bytes)
        v->bytes = v->text;
    v->index = mem_alloc_zero(slots, sizeof *v->index);
    if (!v->index)
        return fail_nomem(err, "the vocabulary");
    v->index_mask = slots - 1;
    v->seed = rng_entropy();
    for (size_t id = 0; id < v->size; id++) { /* of equal tokens the lowest id is found */
        if (!(v->flags[id] & TOKEN_PRESENT) || v->flags[id] & TOKEN_ADDED ||
            vocab_find(v, vocab_bytes(v, (int32_t)id)) >= 0)
            continue;
        uint64_t h = str_hash(vocab_bytes(v, (int32_t)id), v->seed) >> 32;
        size_t i = h & v->index_mask;
        while (v->index[i])
            i = (i + 1) & v->index_mask;
        v->index[i] = h << 32 | (id + 1);
    }
    return ST_OK;
}

int32_t vocab_find(const struct vocab *v, struct str bytes)
{
    uint64_t h = str_hash(bytes, v->seed) >> 32;
    for (size_t i = h & v->index_mask; v->index[i]; i = (i + 1) & v->index_mask)
        if (v->index[i] >> 32 == h) {
            int32_t id = (int32_t)((uint32_t)v->index[i] - 1);
            if (str_eq(vocab_bytes(v, id), bytes))
                return id;
        }
    return NO_ID;
}

void vocab_free(struct vocab *v)
{
    buf_free(&v->blob);
    if (v->bytes != v->text)
        mem_free(v->bytes);
    mem_free(v->text);
    mem_free(v->flags);
    mem_free(v->score);
    mem_free(v->index);
    *v = (struct vocab){0};
}

/* ---- trie ---- */
static void trie_insert(struct trie *t, uint32_t key, uint32_t child)
{
    size_t i = (key * 0x9E3779B97F4A7C15u) >> 20;
    while (t->slots[i & t->mask])
        i++;
    t->slots[i & t->mask] = (uint64_t)key << 32 | child;
}

static bool trie_grow(struct trie *t)
{
    struct trie bigger = {.mask = t->mask * 2 + 1};
    bigger.slots = mem_alloc_zero(bigger.mask + 1, sizeof *bigger.slots);
    if (!bigger.slots)
        return false;
    for (size_t i = 0; i <= t->mask; i++)
        if (t->slots[i])
            trie_insert(&bigger, (uint32_t)(t->slots[i] >> 32), (uint32_t)t->slots[i]);
    mem_free(t->slots);
    t->slots = bigger.slots;
    t->mask = bigger.mask;
    return true;
}

static bool trie_node(struct trie *t)
{
    if (t->n_node >= 1 << 24 || !MEM_GROW(t->value, t->node_capacity, t->n_node))
        return false;
    t->value[t->n_node++] = NO_ID;
    return true;
}

bool trie_init(struct trie *t)
{
    *t = (struct trie){.mask = 63};
    t->slots = mem_alloc_zero(64, sizeof *t->slots);
    return t->slots && trie_node(t) && trie_node(t); /* node 0 is "none", node 1 the root */
}

void trie_free(struct trie *t)
{
    mem_free(t->slots);
    mem_free(t->value);
    *t = (struct trie){0};
}

bool trie_put(struct trie *t, struct str key, int32_t value)
{
    uint32_t node = TRIE_ROOT;
    for (size_t i = 0; i < key.len; i++) {
        unsigned char byte = (unsigned char)key.ptr[i];
        uint32_t child = trie_step(t, node, byte);
        if (!child) {
            if ((2 * (t->n_edge + 1) > t->mask && !trie_grow(t)) || !trie_node(t))
                return false;
            child = (uint32_t)(t->n_node - 1);
            trie_insert(t, node << 8 | byte, child);
            t->n_edge++;
        }
        node = child;
    }
    t->value[node] = value;
    return true;
}
