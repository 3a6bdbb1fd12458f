/* train - learns a byte-level BPE vocabulary
 *
 * The texts are cut into pieces, equal pieces are counted once, and the pair of neighbours that is most frequent over
 * all pieces is merged, again and again. Of equally frequent pairs the one whose bytes come last in order is taken.
 *
 * Invariants
 *  1 pair.count is the number of times left and right stand side by side, over all pieces times their counts.
 *  2 pair.words lists every word that holds the pair; it may list one twice, or one that has lost it since.
 *  3 The heap holds an entry with the present count of every pair whose count is above 0; entries with another count
 *    are stale and are dropped, or put back lower, when they come up.
 */
#include "tokenizer/tok.h"
#include "base/file.h"
#include "base/map.h"

#include <stdio.h>

struct word {
    uint32_t at, len; /* symbols in the pool */
    uint64_t count;
};
struct pair {
    uint32_t left, right;
    uint64_t count;
    uint32_t *words;
    size_t n_word, word_capacity;
};
struct heap_entry {
    uint64_t count;
    uint32_t pair;
};
struct merge {
    uint32_t left, right;
};
struct trainer {
    const struct tokenizer_train *how;
    struct map word_map; /* piece to index of word */
    struct word *words;
    struct str *word_text;
    size_t n_word, word_capacity, text_capacity;
    uint32_t *pool;
    struct pair *pairs;
    size_t n_pair, pair_capacity;
    uint32_t *slots; /* hash of pairs: index + 1 */
    size_t slot_mask;
    struct heap_entry *heap;
    size_t n_heap, heap_capacity;
    struct str *tokens; /* bytes of each token */
    size_t n_token;
    struct map token_map;
    struct merge *merges;
    size_t n_merge, merge_capacity;
    uint32_t byte_token[256];
    struct arena arena;
};

static void report(const struct trainer *t, const char *phase, double done)
{
    if (t->how->progress)
        t->how->progress(t->how->ctx, phase, done);
}

/* ---- counting pieces ---- */
static bool count_piece(struct trainer *t, struct str piece)
{
    const uint64_t *found = map_find(&t->word_map, piece);
    if (found) {
        t->words[*found].count++;
        return true;
    }
    if (!MEM_GROW(t->words, t->word_capacity, t->n_word) || !MEM_GROW(t->word_text, t->text_capacity, t->n_word) ||
        !map_put(&t->word_map, piece, t->n_word))
        return false;
    t->word_text[t->n_word] = piece;
    t->words[t->n_word++] = (struct word){.count = 1};
    return true;
}

/* Special tokens are cut out; what lies between them is split. */
static bool count_text(struct trainer *t, struct str text, split_fn *split, const struct trie *special)
{
    const char *p = text.ptr, *end = p + text.len, *start = p;
    while (start < end) {
        const char *stop = end, *next = end;
        for (p = start; special->slots && p < end && stop == end; p++) {
            uint32_t node = TRIE_ROOT;
            for (const char *q = p; q < end && (node = trie_step(special, node, (unsigned char)*q)) != 0; q++)
                if (special->value[node] >= 0) {
                    stop = p;
                    next = q + 1;
                }
        }
        for (const char *q; start < stop; start = q) {
            bool match;
            q = split(start, stop, &match);
            if (!count_piece(t, str_n(start, (size_t)(q - start))))
                return false;
        }
        start = next;
    }
    return true;
}

/* ---- pairs ---- */
static size_t slot_of(const struct trainer *t, uint32_t left, uint32_t right)
{
    size_t i = (((uint64_t)left << 32 | right) * 0x9E3779B97F4A7C15u >> 24) & t->slot_mask;
    while (t->slots[i] && (t->pairs[t->slots[i] - 1].left != left || t->pairs[t->slots[i] - 1].right != right))
        i = (i + 1) & t->slot_mask;
    return i;
}

static bool slots_grow(struct trainer *t)
{
    size_t n = t->slot_mask ? 2 * (t->slot_mask + 1) : 1 << 16;
    uint32_t *slots = mem_alloc_zero(n, sizeof *slots);
    if (!slots)
        return false;
    mem_free(t->slots);
    t->slots = slots;
    t->slot_mask = n - 1;
    for (size_t i = 0; i < t->n_pair; i++)
        t->slots[slot_of(t, t->pairs[i].left, t->pairs[i].right)] = (uint32_t)i + 1;
    return true;
}

static struct pair *pair_get(struct trainer *t, uint32_t left, uint32_t right) /* NULL when out of memory */
{
    if (2 * (t->n_pair + 1) > t->slot_mask && !slots_grow(t))
        return NULL;
    size_t i = slot_of(t, left, right);
    if (!t->slots[i]) {
        if (!MEM_GROW(t->pairs, t->pair_capacity, t->n_pair))
            return NULL;
        t->pairs[t->n_pair++] = (struct pair){.left = left, .right = right};
        t->slots[i] = (uint32_t)t->n_pair;
    }
    return &t->pairs[t->slots[i] - 1];
}

static bool pair_add(struct trainer *t, uint32_t left, uint32_t right, uint32_t word)
{
    struct pair *p = pair_get(t, left, right);
    if (!p)
        return false;
    p->count += t->words[word].count;
    if (p->n_word && p->words[p->n_word - 1] == word)
        return true;
    if (!MEM_GROW(p->words, p->word_capacity, p->n_word))
        return false;
    p->words[p->n_word++] = word;
    return true;
}

/* ---- the heap: most frequent first, then the greater bytes ---- */
static bool before(const struct trainer *t, struct heap_entry a, struct heap_entry b)
{
    if (a.count != b.count)
        return a.count > b.count;
    const struct pair *x = &t->pairs[a.pair], *y = &t->pairs[b.pair];
    int order = str_cmp(t->tokens[x->left], t->tokens[y->left]);
    return order ? order > 0 : str_cmp(t->tokens[x->right], t->tokens[y->right]) > 0;
}

static bool heap_push(struct trainer *t, uint32_t pair)
{
    if (!MEM_GROW(t->heap, t->heap_capacity, t->n_heap))
        return false;
    struct heap_entry e = {t->pairs[pair].count, pair};
    size_t i = t->n_heap++;
    for (; i > 0 && before(t, e, t->heap[(i - 1) / 2]); i = (i - 1) / 2)
        t->heap[i] = t->heap[(i - 1) / 2];
    t->heap[i] = e;
    return true;
}

static struct heap_entry heap_pop(struct trainer *t)
{
    struct heap_entry top = t->heap[0], e = t->heap[--t->n_heap];
    size_t i = 0;
    for (size_t child; (child = 2 * i + 1) < t->n_heap; i = child) {
        if (child + 1 < t->n_heap && before(t, t->heap[child + 1], t->heap[child]))
            child++;
        if (!before(t, t->heap[child], e))
            break;
        t->heap[i] = t->heap[child];
    }
    t->heap[i] = e;
    return top;
}

/* The most frequent pair, or UINT32_MAX. */
static bool best_pair(struct trainer *t, uint32_t *best)
{
    *best = UINT32_MAX;
    while (t->n_heap) {
        struct heap_entry e = heap_pop(t);
        uint64_t now = t->pairs[e.pair].count;
        if (e.count == now) {
            *best = e.pair;
            return true;
        }
        if (now && now < e.count && !heap_push(t, e.pair)) /* when it has grown, a newer entry lies in the heap */
            return false;
    }
    return true;
}

/* ---- merging ---- */
static bool words_to_symbols(struct trainer *t)
{
    size_t total = 0;
    for (size_t i = 0; i < t->n_word; i++)
        total += t->word_text[i].len;
    t->pool = total < UINT32_MAX ? mem_alloc((total + 1) * sizeof *t->pool) : NULL;
    if (!t->pool)
        return false;
    total = 0;
    for (size_t i = 0; i < t->n_word; i++) {
        struct str s = t->word_text[i];
        t->words[i].at = (uint32_t)total;
        t->words[i].len = (uint32_t)s.len;
        for (size_t k = 0; k < s.len; k++)
            t->pool[total + k] = t->byte_token[(unsigned char)s.ptr[k]];
        for (size_t k = 0; k + 1 < s.len; k++)
            if (!pair_add(t, t->pool[total + k], t->pool[total + k + 1], (uint32_t)i))
                return false;
        total += s.len;
    }
    for (uint32_t i = 0; i < t->n_pair; i++)
        if (!heap_push(t, i))
            return false;
    return true;
}

/* Takes the word's pairs out of the counts, merges, and puts the new word's pairs in. The merged pair itself is left:
 * its count becomes 0 once all its words are done. */
static bool merge_in_word(struct trainer *t, uint32_t word, uint32_t left, uint32_t right, uint32_t merged)
{
    struct word *w = &t->words[word];
    uint32_t *s = t->pool + w->at, n = 0;
    bool present = false;
    for (uint32_t i = 0; i + 1 < w->len && !present; i++)
        present = s[i] == left && s[i + 1] == right;
    if (!present)
        return true;
    for (uint32_t i = 0; i + 1 < w->len; i++)
        t->pairs[t->slots[slot_of(t, s[i], s[i + 1])] - 1].count -= w->count;
    for (uint32_t i = 0; i < w->len; i++) {
        bool here = i + 1 < w->len && s[i] == left && s[i + 1] == right;
        s[n++] = here ? merged : s[i];
        i += here;
    }
    w->len = n;
    for (uint32_t i = 0; i + 1 < n; i++) {
        bool fresh = s[i] == merged || s[i + 1] == merged; /* the word is listed already for its other pairs */
        if (fresh && !pair_add(t, s[i], s[i + 1], word))
            return false;
        if (!fresh)
            t->pairs[t->slots[slot_of(t, s[i], s[i + 1])] - 1].count += w->count;
    }
    return true;
}

static bool token_add(struct trainer *t, struct str bytes, uint32_t *id)
{
    const uint64_t *found = map_find(&t->token_map, bytes);
    if (found) { /* another pair made the same bytes before */
        *id = (uint32_t)*found;
        return true;
    }
    char *copy = arena_copy(&t->arena, bytes);
    if (!copy || !map_put(&t->token_map, str_n(copy, bytes.len), t->n_token))
        return false;
    *id = (uint32_t)t->n_token;
    t->tokens[t->n_token++] = str_n(copy, bytes.len);
    return true;
}

static bool merge_pair(struct trainer *t, uint32_t index)
{
    struct pair p = t->pairs[index];
    struct buf bytes = {0};
    uint32_t merged = 0;
    buf_append_str(&bytes, t->tokens[p.left]);
    buf_append_str(&bytes, t->tokens[p.right]);
    bool ok =
        !bytes.failed && token_add(t, buf_str(&bytes), &merged) && MEM_GROW(t->merges, t->merge_capacity, t->n_merge);
    buf_free(&bytes);
    if (!ok)
        return false;
    t->merges[t->n_merge++] = (struct merge){p.left, p.right};
    t->pairs[index].words = NULL; /* taken: merging adds words to other pairs, and never to this one */
    t->pairs[index].n_word = t->pairs[index].word_capacity = 0;
    size_t first_new = t->n_pair;
    bool made_before = merged + 1 != t->n_token; /* then pairs with it may be there already, and grow */
    for (size_t i = 0; ok && i < p.n_word; i++)
        ok = merge_in_word(t, p.words[i], p.left, p.right, merged);
    mem_free(p.words);
    for (size_t i = made_before ? 0 : first_new; ok && i < t->n_pair; i++)
        if (i >= first_new || t->pairs[i].left == merged || t->pairs[i].right == merged)
            ok = heap_push(t, (uint32_t)i);
    return ok;
}

/* ---- writing ---- */
static void put_token(struct json_writer *w, struct buf *text, struct str bytes)
{
    buf_clear(text);
    printable_from_bytes(text, bytes);
    w->out->failed = w->out->failed || text->failed;
    json_write_str(w, buf_str(text));
}

static void write_vocab(struct json_writer *w, const struct trainer *t, struct buf *text)
{
    json_begin_object(w);
    for (size_t i = 0; i < t->n_token; i++) {
        buf_clear(text);
        if (i < t->how->n_special)
            buf_append_str(text, t->tokens[i]);
        else
            printable_from_bytes(text, t->tokens[i]);
        w->out->failed = w->out->failed || text->failed;
        json_key_str(w, buf_str(text));
        json_write_int(w, (int64_t)i);
    }
    json_end_object(w);
}

static void write_byte_level(struct json_writer *w, bool use_regex)
{
    json_begin_object(w);
    json_put_str(w, "type", STR("ByteLevel"));
    json_put_bool(w, "add_prefix_space", false);
    json_put_bool(w, "trim_offsets", true);
    json_put_bool(w, "use_regex", use_regex);
    json_end_object(w);
}

static void write_pretokenizer(struct json_writer *w, const char *name)
{
    if (strcmp(name, "gpt2") == 0) {
        write_byte_level(w, true);
        return;
    }
    json_begin_object(w);
    json_put_str(w, "type", STR("Sequence"));
    json_key(w, "pretokenizers");
    json_begin_array(w);
    json_begin_object(w);
    json_put_str(w, "type", STR("Split"));
    json_key(w, "pattern");
    json_begin_object(w);
    json_put_str(w, "Regex", str_of(split_regex(name)));
    json_end_object(w);
    json_put_str(w, "behavior", STR("Isolated"));
    json_put_bool(w, "invert", false);
    json_end_object(w);
    write_byte_level(w, false);
    json_end_array(w);
    json_end_object(w);
}

static void write_added(struct json_writer *w, const struct tokenizer_train *how)
{
    json_begin_array(w);
    for (size_t i = 0; i < how->n_special; i++) {
        json_begin_object(w);
        json_put_int(w, "id", (int64_t)i);
        json_put_str(w, "content", how->special[i]);
        json_put_bool(w, "single_word", false);
        json_put_bool(w, "lstrip", false);
        json_put_bool(w, "rstrip", false);
        json_put_bool(w, "normalized", false);
        json_put_bool(w, "special", true);
        json_end_object(w);
    }
    json_end_array(w);
}

static void write_model(struct json_writer *w, const struct trainer *t, struct buf *text)
{
    static const char *const nulls[] = {"dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix"};
    json_begin_object(w);
    json_put_str(w, "type", STR("BPE"));
    for (size_t i = 0; i < sizeof nulls / sizeof *nulls; i++) {
        json_key(w, nulls[i]);
        json_write_null(w);
    }
    json_put_bool(w, "fuse_unk", false);
    json_put_bool(w, "byte_fallback", false);
    json_put_bool(w, "ignore_merges", false);
    json_key(w, "vocab");
    write_vocab(w, t, text);
    json_key(w, "merges");
    json_begin_array(w);
    for (size_t i = 0; i < t->n_merge; i++) {
        json_begin_array(w);
        put_token(w, text, t->tokens[t->merges[i].left]);
        put_token(w, text, t->tokens[t->merges[i].right]);
        json_end_array(w);
    }
    json_end_array(w);
    json_end_object(w);
}

static void write_tokenizer_json(struct json_writer *w, const struct trainer *t, const char *splitter, struct buf *text)
{
    static const char *const nulls[] = {"truncation", "padding"};
    json_begin_object(w);
    json_put_str(w, "version", STR("1.0"));
    for (size_t i = 0; i < 2; i++) {
        json_key(w, nulls[i]);
        json_write_null(w);
    }
    json_key(w, "added_tokens");
    write_added(w, t->how);
    json_key(w, "normalizer");
    json_write_null(w);
    json_key(w, "pre_tokenizer");
    write_pretokenizer(w, splitter);
    json_key(w, "post_processor");
    json_write_null(w);
    json_key(w, "decoder");
    write_byte_level(w, true);
    json_key(w, "model");
    write_model(w, t, text);
    json_end_object(w);
}

static enum status write_file(const char *folder, const char *name, const struct buf *bytes, struct error *err)
{
    char path[4096];
    if (bytes->failed)
        return fail_nomem(err, name);
    return file_write_all(path_join(path, sizeof path, folder, name), buf_str(bytes), err);
}

static void write_merges(struct buf *out, const struct trainer *t)
{
    buf_append_str(out, STR("#version: 0.2\n"));
    for (size_t i = 0; i < t->n_merge; i++) {
        printable_from_bytes(out, t->tokens[t->merges[i].left]);
        buf_append_char(out, ' ');
        printable_from_bytes(out, t->tokens[t->merges[i].right]);
        buf_append_char(out, '\n');
    }
}

static void write_settings(struct json_writer *w, const struct tokenizer_train *how)
{
    json_begin_object(w);
    json_put_str(w, "tokenizer_class", STR("PreTrainedTokenizerFast"));
    json_put_bool(w, "clean_up_tokenization_spaces", false);
    if (how->n_special) {
        json_put_str(w, "bos_token", how->special[0]);
        json_put_str(w, "eos_token", how->special[0]);
        json_put_str(w, "unk_token", how->special[0]);
    }
    json_end_object(w);
}

static enum status write_all(const struct trainer *t, const char *folder, const char *splitter, struct error *err)
{
    static const char *const names[] = {"tokenizer.json", "vocab.json", "merges.txt", "tokenizer_config.json"};
    struct buf text = {0};
    enum status st = file_make_folders(folder, err);
    for (int i = 0; st == ST_OK && i < 4; i++) {
        struct buf out = {0};
        struct json_writer w;
        json_writer_init(&w, &out);
        if (i == 0)
            write_tokenizer_json(&w, t, splitter, &text);
        else if (i == 1)
            write_vocab(&w, t, &text);
        else if (i == 2)
            write_merges(&out, t);
        else
            write_settings(&w, t->how);
        st = write_file(folder, names[i], &out, err);
        buf_free(&out);
    }
    buf_free(&text);
    return st;
}

/* ---- all of it ---- */
static enum status check_arguments(const struct tokenizer_train *how, const char *splitter, struct error *err)
{
    if (!split_find_name(splitter))
        return fail(err, ST_INVALID,
                    "tokenizer train: no pre-tokenizer \"%s\"; gpt2, cl100k, qwen2, llama3 and o200k are known",
                    splitter);
    if (how->vocab_size < 0 || (size_t)how->vocab_size < 256 + how->n_special || how->vocab_size > 1 << 24)
        return fail(err, ST_INVALID,
                    "tokenizer train: a vocabulary of %d; it must hold 256 bytes and %zu special tokens",
                    how->vocab_size, how->n_special);
    for (size_t i = 0; i < how->n_special; i++)
        for (size_t k = 0; k <= i; k++)
            if (how->special[i].len == 0 || (k < i && str_eq(how->special[i], how->special[k])))
                return fail(err, ST_INVALID, "tokenizer train: special token \"%.*s\" is empty or given twice",
                            STR_ARG(how->special[i]));
    return ST_OK;
}

/* Special tokens first, then the 256 bytes in the order of their printable forms, as Hugging Face numbers them. */
static bool first_tokens(struct trainer *t, struct trie *special)
{
    uint32_t ignored;
    t->tokens = mem_alloc_zero((size_t)t->how->vocab_size, sizeof *t->tokens);
    if (!t->tokens || !map_init(&t->token_map, 1024) || !map_init(&t->word_map, 1 << 12))
        return false;
    if (t->how->n_special && !trie_init(special))
        return false;
    for (size_t i = 0; i < t->how->n_special; i++) {
        char *copy = arena_copy(&t->arena, t->how->special[i]);
        if (!copy || !trie_put(special, t->how->special[i], (int32_t)i))
            return false;
        t->tokens[t->n_token++] = str_n(copy, t->how->special[i].len);
    }
    for (uint32_t c = 0; c < 0x100 + 68; c++) {
        int byte = byte_of_printable(c);
        char raw = (char)byte;
        if (byte < 0)
            continue;
        t->byte_token[byte] = (uint32_t)t->n_token;
        if (!token_add(t, str_n(&raw, 1), &ignored))
            return false;
    }
    return true;
}

static enum status run(struct trainer *t, const struct str *texts, size_t n_text, split_fn *split, struct trie *special,
                       struct error *err)
{
    uint64_t least = t->how->min_frequency > 1 ? (uint64_t)t->how->min_frequency : 1;
    size_t size = (size_t)t->how->vocab_size, first;
    if (!first_tokens(t, special))
        return fail_nomem(err, "training a tokenizer");
    for (size_t i = 0; i < n_text; i++) {
        if (!count_text(t, texts[i], split, special))
            return fail_nomem(err, "training a tokenizer");
        report(t, "count", (double)(i + 1) / (double)n_text);
    }
    if (!words_to_symbols(t))
        return fail_nomem(err, "training a tokenizer");
    for (first = t->n_token; t->n_token < size;) {
        uint32_t best;
        bool ok = best_pair(t, &best);
        if (ok && (best == UINT32_MAX || t->pairs[best].count < least))
            break;
        if (!ok || !merge_pair(t, best))
            return fail_nomem(err, "training a tokenizer");
        if (t->n_merge % 256 == 0)
            report(t, "merge", (double)(t->n_token - first) / (double)(size - first));
    }
    report(t, "merge", 1);
    return ST_OK;
}

enum status tokenizer_train(const char *folder, const struct str *texts, size_t n_text,
                            const struct tokenizer_train *how, struct error *err)
{
    const char *splitter = how->pretokenizer ? how->pretokenizer : "gpt2";
    struct trainer t = {.how = how};
    struct trie special = {0};
    TRY(check_arguments(how, splitter, err));
    arena_init(&t.arena, 0);
    /* By the expression that is written, so that a reader of the file cuts texts as the trainer did. */
    split_fn *split = split_find_regex(str_of(split_regex(splitter)));
    enum status st = run(&t, texts, n_text, split, &special, err);
    if (st == ST_OK)
        st = write_all(&t, folder, splitter, err);
    map_free(&t.word_map);
    map_free(&t.token_map);
    for (size_t i = 0; i < t.n_pair; i++)
        mem_free(t.pairs[i].words);
    mem_free(t.words);
    mem_free(t.word_text);
    mem_free(t.pool);
    mem_free(t.pairs);
    mem_free(t.slots);
    mem_free(t.heap);
    mem_free(t.tokens);
    mem_free(t.merges);
    trie_free(&special);
    arena_free(&t.arena);
    return st;
}
