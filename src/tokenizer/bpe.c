/* bpe - byte pair encoding: of all neighbouring pairs the one of lowest rank, leftmost first, is merged until none is
 *
 * Short pieces are scanned for the minimum each time (the arrays fit in a few cache lines), long ones keep their pairs
 * in a heap and their symbols in a linked list: O(n log n). Both give the same ids; tests compare them.
 */
#include "tokenizer/tok.h"
#include "tokenizer/uchar.h"

#include <assert.h>
#include <stdio.h>

enum { SHORT_MAX = 48 };
#define NO_RANK UINT32_MAX

/* ---- the table of pairs ---- */
static inline size_t pair_hash(const struct tokenizer *tok, uint32_t left, uint32_t right)
{
    return (((uint64_t)left << 32 | right) * 0x9E3779B97F4A7C15u) >> tok->pair_shift;
}

static inline const struct pair_slot *pair_find(const struct tokenizer *tok, uint32_t left, uint32_t right)
{
    for (size_t i = pair_hash(tok, left, right);; i = (i + 1) & tok->pair_mask) {
        const struct pair_slot *s = &tok->pairs[i];
        if (s->left == left && s->right == right)
            return s;
        if (s->left == UINT32_MAX)
            return NULL;
    }
}

enum status bpe_pairs_init(struct tokenizer *tok, size_t n_merge, struct error *err)
{
    unsigned bits = 4;
    while ((size_t)1 << bits < 2 * n_merge)
        bits++;
    size_t bytes;
    if (!size_mul(&bytes, (size_t)1 << bits, sizeof *tok->pairs) || !(tok->pairs = mem_alloc(bytes)))
        return fail_nomem(err, "the merges");
    memset(tok->pairs, 0xFF, bytes);
    tok->pair_mask = ((size_t)1 << bits) - 1;
    tok->pair_shift = 64 - bits;
    return ST_OK;
}

static void bpe_pair_put(struct tokenizer *tok, uint32_t left, uint32_t right, uint32_t rank, uint32_t merged)
{
    size_t i = pair_hash(tok, left, right);
    while (tok->pairs[i].left != UINT32_MAX && (tok->pairs[i].left != left || tok->pairs[i].right != right))
        i = (i + 1) & tok->pair_mask;
    tok->pairs[i] = (struct pair_slot){left, right, rank, merged};
}

enum status bpe_pair_parse(struct tokenizer *tok, struct str left, struct str right, uint32_t rank, struct buf *joined,
                           struct error *err)
{
    struct str part[3] = {left, right};
    int32_t id[3];
    buf_clear(joined);
    size_t middle = 0;
    for (int i = 0; i < 2; i++) {
        size_t start = joined->len;
        if (!tok->by_bytes || !printable_to_bytes(joined, part[i])) {
            joined->len = start;
            buf_append_str(joined, part[i]);
        }
        middle = i == 0 ? joined->len : middle;
    }
    if (joined->failed)
        return fail_nomem(err, "the merges");
    part[0] = str_n(joined->ptr, middle);
    part[1] = str_n(joined->ptr + middle, joined->len - middle);
    id[0] = vocab_find(&tok->vocab, part[0]);
    id[1] = vocab_find(&tok->vocab, part[1]);
    size_t skip = str_starts(part[1], tok->word_prefix) ? tok->word_prefix.len : 0;
    if (skip) { /* "##" of the right part goes when joined */
        memmove(joined->ptr + middle, joined->ptr + middle + skip, joined->len - middle - skip);
        joined->len -= skip;
    }
    id[2] = vocab_find(&tok->vocab, buf_str(joined));
    for (int i = 0; i < 2; i++)
        if (id[i] < 0)
            return fail(err, ST_CORRUPT, "tokenizer: merge %u names \"%.*s\", which is not in the vocabulary", rank,
                        STR_ARG(i == 0 ? left : right));
    if (id[2] < 0)
        return fail(err, ST_CORRUPT, "tokenizer: merge %u gives \"%.*s%.*s\", which is not in the vocabulary", rank,
                    STR_ARG(left), STR_ARG(right));
    bpe_pair_put(tok, (uint32_t)id[0], (uint32_t)id[1], rank, (uint32_t)id[2]);
    return ST_OK;
}

/* Every way to cut a token into two tokens is a merge, since any of them may come up inside a longer text. */
enum status bpe_pairs_from_tokens(struct tokenizer *tok, const uint32_t *rank_of, struct error *err)
{
    const struct vocab *v = &tok->vocab;
    uint64_t *list = NULL; /* id << 16 | cut: half the size of the pairs themselves, which are looked up again */
    size_t n = 0, capacity = 0;
    enum status st = ST_OK;
    for (size_t id = 0; st == ST_OK && id < v->size; id++) {
        struct str s = vocab_bytes(v, (int32_t)id);
        if (rank_of[id] == NO_RANK || s.len > 4096)
            continue;
        for (size_t cut = 1; cut < s.len && st == ST_OK; cut++) {
            int32_t left = vocab_find(v, str_n(s.ptr, cut)), right;
            if (left < 0 || rank_of[left] == NO_RANK || (right = vocab_find(v, str_from(s, cut))) < 0 ||
                rank_of[right] == NO_RANK)
                continue;
            if (!MEM_GROW(list, capacity, n))
                st = fail_nomem(err, "the merges");
            else
                list[n++] = id << 16 | cut;
        }
    }
    if (st == ST_OK)
        st = bpe_pairs_init(tok, n, err);
    for (size_t i = 0; st == ST_OK && i < n; i++) {
        size_t id = list[i] >> 16, cut = list[i] & 0xFFFF;
        struct str s = vocab_bytes(v, (int32_t)id);
        bpe_pair_put(tok, (uint32_t)vocab_find(v, str_n(s.ptr, cut)), (uint32_t)vocab_find(v, str_from(s, cut)),
                     rank_of[id], (uint32_t)id);
    }
    mem_free(list);
    return st;
}

/* A word boundary U+2581 may be cut at when no token holds one after another character: no merge crosses it. */
static bool crosses_metaspace(struct str s)
{
    bool other = false;
    for (size_t i = 0; i < s.len; i++) {
        bool meta = s.len - i >= 3 && memcmp(s.ptr + i, METASPACE, 3) == 0;
        if (meta && other)
            return true;
        other |= !meta;
        i += meta ? 2 : 0;
    }
    return false;
}

enum status bpe_finish(struct tokenizer *tok, struct error *err)
{
    const struct vocab *v = &tok->vocab;
    if (!tok->pairs)
        TRY(bpe_pairs_init(tok, 0, err));
    for (int b = 0; b < 256; b++) {
        char raw = (char)b, name[8];
        snprintf(name, sizeof name, "<0x%02X>", (unsigned)b);
        tok->byte_id[b] = vocab_find(v, tok->by_bytes ? str_n(&raw, 1) : str_of(name));
        tok->last_byte_id[b] = tok->byte_id[b];
        if (tok->by_bytes && tok->word_suffix.len) {
            char last[40] = {raw};
            memcpy(last + 1, tok->word_suffix.ptr, tok->word_suffix.len); /* at most 32 bytes: load_bpe saw to that */
            tok->last_byte_id[b] = vocab_find(v, str_n(last, 1 + tok->word_suffix.len));
        }
        if (b < 128)
            tok->ascii_id[b] = vocab_find(v, str_n(&raw, 1));
    }
    tok->cut_metaspace = !tok->by_bytes && !tok->ignore_merges && tok->word_suffix.len + tok->word_prefix.len == 0 &&
                         vocab_find(v, STR(METASPACE)) >= 0;
    for (size_t id = 0; tok->cut_metaspace && id < v->size; id++)
        if (v->flags[id] & TOKEN_USER && crosses_metaspace(vocab_bytes(v, (int32_t)id)))
            tok->cut_metaspace = false;
    for (size_t i = 0; tok->cut_metaspace && i <= tok->pair_mask; i++)
        if (tok->pairs[i].left != UINT32_MAX && crosses_metaspace(vocab_bytes(v, (int32_t)tok->pairs[i].merged)))
            tok->cut_metaspace = false;
    return ST_OK;
}

/* ---- first symbols ---- */
/* One per byte; bytes the vocabulary lacks become the unknown token, or nothing when there is none. */
static size_t symbols_of_bytes(const struct tokenizer *tok, uint32_t *ids, const char *piece, size_t n)
{
    size_t count = 0;
    assert(piece || n == 0);
    for (size_t i = 0; i < n; i++) {
        int32_t id = (i + 1 < n ? tok->byte_id : tok->last_byte_id)[(unsigned char)piece[i]];
        if (id < 0)
            id = tok->unknown;
        if (id >= 0)
            ids[count++] = (uint32_t)id;
    }
    return count;
}

static int32_t symbol_of(const struct tokenizer *tok, const char *piece, const char *p, size_t len, const char *end)
{
    char text[64];
    struct str prefix = p == piece ? (struct str){"", 0} : tok->word_prefix;
    struct str suffix = p + len == end ? tok->word_suffix : (struct str){"", 0};
    if (prefix.len + suffix.len == 0)
        return len == 1 && (unsigned char)*p < 128 ? tok->ascii_id[(unsigned char)*p]
                                                   : vocab_find(&tok->vocab, str_n(p, len));
    if (prefix.len + len + suffix.len > sizeof text)
        return NO_ID;
    memcpy(text, prefix.ptr, prefix.len);
    memcpy(text + prefix.len, p, len);
    memcpy(text + prefix.len + len, suffix.ptr, suffix.len);
    return vocab_find(&tok->vocab, str_n(text, prefix.len + len + suffix.len));
}

/* One per character. Of one the vocabulary lacks: its bytes' tokens, or the unknown token (a run of them is one when
 * fuse_unknown is set). ids has room for n. User-defined symbols are marked frozen: no merge touches them. */
#define FROZEN 0x80000000u
static size_t symbols_of_characters(const struct tokenizer *tok, const struct trie *symbols, uint32_t *ids,
                                    const char *piece, size_t n)
{
    size_t count = 0;
    bool after_unknown = false;
    for (const char *p = piece, *end = piece + n; p < end;) {
        int len;
        int32_t id = NO_ID;
        if (symbols->slots) {
            uint32_t node = TRIE_ROOT;
            int32_t found = NO_ID;
            for (const char *q = p; q < end && (node = trie_step(symbols, node, (unsigned char)*q)) != 0; q++)
                if (symbols->value[node] >= 0) {
                    found = symbols->value[node];
                    len = (int)(q + 1 - p);
                }
            if (found >= 0) {
                ids[count++] = (uint32_t)found | FROZEN;
                p += len;
                after_unknown = false;
                continue;
            }
        }
        (void)uchar_at(p, end, &len);
        id = symbol_of(tok, piece, p, (size_t)len, end);
        if (id < 0 && tok->byte_fallback) {
            bool all = true;
            for (int i = 0; i < len; i++)
                all = all && tok->byte_id[(unsigned char)p[i]] >= 0;
            for (int i = 0; all && i < len; i++)
                ids[count++] = (uint32_t)tok->byte_id[(unsigned char)p[i]];
            p += len;
            if (all) {
                after_unknown = false;
                continue;
            }
        } else {
            p += len;
        }
        if (id < 0 && (tok->unknown < 0 || (after_unknown && tok->fuse_unknown)))
            continue;
        after_unknown = id < 0;
        ids[count++] = (uint32_t)(id < 0 ? tok->unknown : id);
    }
    return count;
}

/* ---- merging ---- */
static size_t merge_short(const struct tokenizer *tok, uint32_t *ids, size_t n)
{
    uint32_t rank[SHORT_MAX], merged[SHORT_MAX];
    uint8_t previous[SHORT_MAX], next[SHORT_MAX + 1];
    for (size_t i = 0; i < n; i++) {
        const struct pair_slot *s = i + 1 < n ? pair_find(tok, ids[i], ids[i + 1]) : NULL;
        rank[i] = s ? s->rank : NO_RANK;
        merged[i] = s ? s->merged : 0;
        previous[i] = (uint8_t)(i - 1);
        next[i] = (uint8_t)(i + 1);
    }
    for (;;) {
        size_t best = 0;
        uint32_t least = NO_RANK;
        for (size_t i = 0; i < n; i++) {
            best = rank[i] < least ? i : best;
            least = rank[i] < least ? rank[i] : least;
        }
        if (least == NO_RANK)
            break;
        size_t gone = next[best], after = next[gone], left = previous[best];
        ids[best] = merged[best];
        rank[gone] = rank[best] = NO_RANK;
        next[best] = (uint8_t)after;
        if (after < n) {
            previous[after] = (uint8_t)best;
            const struct pair_slot *s = pair_find(tok, ids[best], ids[after]);
            if (s) {
                rank[best] = s->rank;
                merged[best] = s->merged;
            }
        }
        if (best) {
            const struct pair_slot *s = pair_find(tok, ids[left], ids[best]);
            rank[left] = s ? s->rank : NO_RANK;
            merged[left] = s ? s->merged : 0;
        }
    }
    size_t count = 0;
    for (size_t i = 0; i < n; i = next[i])
        ids[count++] = ids[i];
    return count;
}

/* A heap of rank << 32 | position, smallest on top, four children a node. A position's entry is stale when the rank
 * noted for the position has changed since. */
static void heap_down(uint64_t *heap, size_t n, size_t i)
{
    uint64_t v = heap[i];
    for (;;) {
        size_t first = 4 * i + 1, best = first;
        if (first >= n)
            break;
        for (size_t c = first + 1; c < n && c < first + 4; c++)
            if (heap[c] < heap[best])
                best = c;
        if (heap[best] >= v)
            break;
        heap[i] = heap[best];
        i = best;
    }
    heap[i] = v;
}

static void heap_up(uint64_t *heap, size_t i)
{
    uint64_t v = heap[i];
    while (i > 0 && heap[(i - 1) / 4] > v) {
        heap[i] = heap[(i - 1) / 4];
        i = (i - 1) / 4;
    }
    heap[i] = v;
}

struct symbol {
    uint32_t previous, next; /* positions; UINT32_MAX: none */
    uint32_t rank, merged;   /* of the pair with the next */
};

static void rate(const struct tokenizer *tok, struct symbol *symbols, const uint32_t *ids, uint32_t i)
{
    uint32_t next = symbols[i].next;
    const struct pair_slot *s = next == UINT32_MAX ? NULL : pair_find(tok, ids[i], ids[next]);
    symbols[i].rank = s ? s->rank : NO_RANK;
    symbols[i].merged = s ? s->merged : 0;
}

/* heap has room for 3 n entries: n to begin with, and at most two more for each merge. */
static size_t merge_long(const struct tokenizer *tok, uint32_t *ids, size_t n, struct symbol *symbols, uint64_t *heap)
{
    size_t n_heap = 0, count = 0;
    for (uint32_t i = 0; i < n; i++) {
        symbols[i] = (struct symbol){i - 1, i + 1 < n ? i + 1 : UINT32_MAX, NO_RANK, 0};
        rate(tok, symbols, ids, i);
        if (symbols[i].rank != NO_RANK)
            heap[n_heap++] = (uint64_t)symbols[i].rank << 32 | i;
    }
    for (size_t i = n_heap / 4 + 1; i-- > 0;)
        if (i < n_heap)
            heap_down(heap, n_heap, i);
    while (n_heap) {
        uint64_t top = heap[0];
        uint32_t i = (uint32_t)top;
        heap[0] = heap[--n_heap];
        if (n_heap)
            heap_down(heap, n_heap, 0);
        if (symbols[i].rank != top >> 32)
            continue;
        uint32_t gone = symbols[i].next;
        ids[i] = symbols[i].merged;
        symbols[gone].rank = NO_RANK; /* its entry in the heap is stale from now on */
        symbols[i].next = symbols[gone].next;
        if (symbols[gone].next != UINT32_MAX)
            symbols[symbols[gone].next].previous = i;
        uint32_t changed[2] = {symbols[i].previous, i};
        for (int k = 0; k < 2; k++) {
            uint32_t at = changed[k];
            if (at == UINT32_MAX)
                continue;
            rate(tok, symbols, ids, at);
            if (symbols[at].rank == NO_RANK)
                continue;
            heap[n_heap] = (uint64_t)symbols[at].rank << 32 | at;
            heap_up(heap, n_heap++);
        }
    }
    for (uint32_t i = 0; i < n && i != UINT32_MAX; i = symbols[i].next)
        ids[count++] = ids[i];
    return count;
}

static bool push_all(struct ids *out, const uint32_t *ids, size_t n)
{
    if (!ids_reserve(out, n))
        return false;
    for (size_t i = 0; i < n; i++)
        out->ids[out->count++] = (int32_t)(ids[i] & ~FROZEN);
    return true;
}

static bool encode_piece(const struct tokenizer *tok, struct scratch *s, struct ids *out, const char *piece, size_t n)
{
    if (tok->ignore_merges) {
        int32_t whole = vocab_find(&tok->vocab, str_n(piece, n));
        if (whole >= 0)
            return ids_push(out, whole);
    }
    const struct trie *user = s->guarded ? &tok->symbols_plain : &tok->symbols;
    uint32_t few[SHORT_MAX];
    if (n <= SHORT_MAX) {
        size_t count =
            tok->by_bytes ? symbols_of_bytes(tok, few, piece, n) : symbols_of_characters(tok, user, few, piece, n);
        return push_all(out, few, merge_short(tok, few, count));
    }
    size_t room = n * (sizeof(uint32_t) + sizeof(struct symbol) + 3 * sizeof(uint64_t));
    char *work = n < UINT32_MAX / 2 ? scratch_work(s, 1, room) : NULL;
    if (!work)
        return false;
    uint64_t *heap = (uint64_t *)work;
    struct symbol *symbols = (struct symbol *)(heap + 3 * n);
    uint32_t *ids = (uint32_t *)(symbols + n);
    size_t count =
        tok->by_bytes ? symbols_of_bytes(tok, ids, piece, n) : symbols_of_characters(tok, user, ids, piece, n);
    return push_all(out, ids,
                    count <= SHORT_MAX ? merge_short(tok, ids, count) : merge_long(tok, ids, count, symbols, heap));
}

/* ---- the cache of short pieces: most of a text is words seen before ---- */
static inline void key_of(uint64_t key[2], const char *piece, size_t n, const char *readable_end)
{
    if (readable_end - piece >= 16) {
        memcpy(key, piece, 16);
        if (n < 8) {
            key[0] &= ((uint64_t)1 << 8 * n) - 1;
            key[1] = 0;
        } else {
            key[1] &= ((uint64_t)1 << 8 * (n - 8)) - 1;
        }
    } else {
        key[0] = key[1] = 0;
        memcpy(key, piece, n);
    }
    key[1] |= (uint64_t)n << 56;
}

/* Two entries a set, side by side in one cache line; the one used last stands first. */
static bool encode_cached(const struct tokenizer *tok, struct scratch *s, struct ids *out, const char *piece, size_t n,
                          const char *readable_end)
{
    uint64_t key[2];
    key_of(key, piece, n, readable_end);
    uint64_t h = (key[0] * 0x9E3779B97F4A7C15u) ^ (key[1] * 0xC2B2AE3D27D4EB4Fu);
    struct cache_entry *set = &s->cache[2 * ((h ^ h >> 32) * 0x9E3779B97F4A7C15u >> (64 - CACHE_SET_BITS))];
    if (!ids_reserve(out, 3))
        return false;
    for (int way = 0; way < 2; way++) {
        struct cache_entry e = set[way];
        if (e.key[0] != key[0] || e.key[1] != key[1])
            continue;
        if (way == 1) {
            set[1] = set[0];
            set[0] = e;
        }
        memcpy(out->ids + out->count, e.ids, sizeof e.ids);
        out->count += e.n;
        return true;
    }
    size_t before = out->count;
    if (!encode_piece(tok, s, out, piece, n))
        return false;
    size_t made = out->count - before;
    if (made >= 1 && made <= 3) {
        set[1] = set[0];
        set[0] = (struct cache_entry){{key[0], key[1]}, (uint32_t)made, {0}};
        memcpy(set[0].ids, out->ids + before, made * sizeof *set[0].ids);
    }
    return true;
}

bool bpe_encode(const struct tokenizer *tok, struct scratch *s, struct ids *out, const char *piece, size_t n,
                const char *readable_end)
{
    bool cached = s->cache && !(s->guarded && tok->symbols.slots); /* the cache knows nothing of guards */
    if (!tok->cut_metaspace)
        return n <= CACHE_PIECE_MAX && cached ? encode_cached(tok, s, out, piece, n, readable_end)
                                              : encode_piece(tok, s, out, piece, n);
    for (const char *p = piece, *end = piece + n, *q; p < end; p = q) {
        q = p;
        while (end - q >= 3 && memcmp(q, METASPACE, 3) == 0) /* the blanks before a word belong to it */
            q += 3;
        while (q < end && (q = memchr(q, METASPACE[0], (size_t)(end - q))) != NULL && end - q >= 3 &&
               memcmp(q, METASPACE, 3) != 0)
            q++;
        if (!q || end - q < 3)
            q = end;
        size_t len = (size_t)(q - p);
        bool ok = len <= CACHE_PIECE_MAX && cached ? encode_cached(tok, s, out, p, len, end)
                                                   : encode_piece(tok, s, out, p, len);
        if (!ok)
            return false;
    }
    return true;
}
