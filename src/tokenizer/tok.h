/* tok - the private shape of a tokenizer: every file format is read into these parts, and one pipeline walks them
 *
 *   text > added tokens cut out > normalizer steps > added tokens (normalized) > pre-tokenizer steps > model > template
 *
 * Invariants
 *  1 Everything here is constant after open, but `spare` (exchanged atomically) and the scratch it hands out.
 *  2 Token bytes (`vocab_bytes`) are what the token stands for in a text; vocab_text is how the file spells it.
 */
#ifndef TOKENIZER_TOK_H
#define TOKENIZER_TOK_H

#include "base/arena.h"
#include "base/mem.h"
#include "tokenizer/split.h"
#include "tokenizer/tokenizer.h"

enum { NO_ID = -1 };

/* ---- trie over byte strings: added tokens, unigram pieces, word pieces, user-defined symbols ---- */
struct trie {
    uint64_t *slots; /* parent << 8 | byte, then child, 32 bits each; 0 = empty (the root is nobody's child) */
    size_t mask, n_edge;
    int32_t *value; /* a node's value, NO_ID when no string ends there */
    size_t n_node, node_capacity;
};
enum { TRIE_ROOT = 1 };
MUST_USE bool trie_init(struct trie *t);
void trie_free(struct trie *t);
MUST_USE bool trie_put(struct trie *t, struct str key, int32_t value);
static inline uint32_t trie_step(const struct trie *t, uint32_t node, unsigned char byte) /* 0 = no such child */
{
    uint32_t key = node << 8 | byte;
    for (size_t i = (key * 0x9E3779B97F4A7C15u) >> 20;; i++) {
        uint64_t slot = t->slots[i & t->mask];
        if (slot == 0 || slot >> 32 == key)
            return (uint32_t)slot;
    }
}

/* ---- vocabulary ---- */
enum token_flag {
    TOKEN_PRESENT = 1,
    TOKEN_SPECIAL = 2,   /* skipped by DETOKENIZE_SKIP_SPECIAL */
    TOKEN_ADDED = 4,     /* not of the model's vocabulary: only the search for added tokens makes it */
    TOKEN_CONTROL = 8,   /* invisible when a SentencePiece vocabulary decodes it */
    TOKEN_UNKNOWN = 16,  /* the unknown token */
    TOKEN_BYTE = 32,     /* <0xNN>: one raw byte */
    TOKEN_USER = 64,     /* SentencePiece: always taken whole */
    TOKEN_GUARDED = 128, /* a user-defined one that looks like markup: never made of what a user wrote */
};
struct span {
    uint32_t at, len;
};
struct vocab {
    struct buf blob;
    struct span *text, *bytes; /* [size]; the same array unless tokens are spelled with GPT-2's printable bytes */
    uint8_t *flags;
    double *score; /* unigram, SentencePiece; else NULL */
    size_t size, capacity;
    size_t n_id_max; /* ids are below this: what a file of this size can mean */
    uint64_t *index; /* hash << 32 | id + 1, of the bytes of all tokens the model itself may produce */
    size_t index_mask;
    uint64_t seed;
};
static inline struct str vocab_text(const struct vocab *v, int32_t id)
{
    return (struct str){v->blob.ptr + v->text[id].at, v->text[id].len};
}
static inline struct str vocab_bytes(const struct vocab *v, int32_t id)
{
    return (struct str){v->blob.ptr + v->bytes[id].at, v->bytes[id].len};
}
/* `size` ids are made room for; a token given twice keeps the later spelling. Fails on memory and on ids too large. */
MUST_USE enum status vocab_reserve(struct vocab *v, size_t size, struct error *err);
MUST_USE enum status vocab_put(struct vocab *v, int64_t id, struct str text, unsigned flags, struct error *err);
/* Gives each token its bytes: GPT-2's printable bytes are turned back. */
MUST_USE enum status vocab_unprintable(struct vocab *v, struct error *err);
MUST_USE enum status vocab_index(struct vocab *v, struct error *err); /* last; needed by vocab_find */
int32_t vocab_find(const struct vocab *v, struct str bytes);
void vocab_free(struct vocab *v);
/* GPT-2's printable bytes: byte to code point and back (-1: no such). */
int byte_of_printable(uint32_t c);
/* Appends the bytes that printable text stands for; false when a character is none of the 256. */
bool printable_to_bytes(struct buf *out, struct str text);
void printable_from_bytes(struct buf *out, struct str bytes);
bool base64_append(struct buf *out, struct str text); /* false when it is not base64; stops at '=' */
int byte_of_token(struct str text);                   /* "<0x0A>" gives 10; -1 when it is none */

/* ---- added tokens ---- */
struct added {
    int32_t id;
    struct str content;
    bool single_word, left_strip, right_strip, normalized;
    bool pieces_only; /* looked for only in prompts that hold a user's text */
    bool control;     /* never recognised in what a user wrote */
};

/* Where added tokens are looked for. In a prompt that holds a user's text, those of the normalized text that are
 * control tokens are looked for before normalization, too: only there is known which part of the text is whose. */
enum added_trie { ADDED_RAW, ADDED_NORMALIZED, ADDED_PIECES, ADDED_TRIES };

/* ---- normalizer ---- */
enum norm_type {
    NORM_NFC,
    NORM_NFD,
    NORM_NFKC,
    NORM_NFKD,
    NORM_LOWERCASE,
    NORM_STRIP_ACCENTS,
    NORM_REPLACE,
    NORM_REPLACE_SPACES,
    NORM_PREPEND,
    NORM_STRIP,
    NORM_BERT,
    NORM_PRECOMPILED,
    NORM_NMT,
    NORM_SENTENCEPIECE,
};
struct charsmap { /* SentencePiece's precompiled map: a double array, then NUL-terminated replacements */
    const uint32_t *units;
    size_t n_unit;
    struct str strings;
};
struct norm_step {
    enum norm_type type;
    struct str from, to;                                        /* replace, prepend */
    bool left, right;                                           /* strip */
    bool clean, cjk, strip_accents, lowercase;                  /* bert */
    struct charsmap map;                                        /* precompiled, sentencepiece */
    bool dummy_prefix, remove_spaces, escape_spaces, as_suffix; /* sentencepiece */
    const struct trie *symbols;                                 /* sentencepiece: user-defined, copied as they are */
};
MUST_USE enum status charsmap_open(struct charsmap *out, struct str blob, struct error *err);
/* Appends the normalized text. */
MUST_USE enum status norm_apply(const struct norm_step *step, struct buf *out, struct str text, struct error *err);

/* ---- pre-tokenizer ---- */
enum pre_type { PRE_SPLIT, PRE_PREFIX_SPACE, PRE_METASPACE };
enum prefix_when { PREFIX_ALWAYS, PREFIX_FIRST, PREFIX_NEVER };
extern const char *const metaspace_prefixes[]; /* "always", "first", "never": as tokenizer.json has them */
struct pre_step {
    enum pre_type type;
    split_fn *split;
    bool drop_gaps, drop_matches; /* split: else both become pieces */
    enum prefix_when prefix;      /* metaspace */
    bool cut;                     /* metaspace: cut before each replacement */
};
enum { PRE_STEPS_MAX = 8, NORM_STEPS_MAX = 12, TEMPLATE_MAX = 16 };
#define METASPACE "\xE2\x96\x81" /* U+2581 */

/* ---- decoder ---- */
enum decode_type {
    DECODE_SPACED,        /* none given: tokens joined by spaces */
    DECODE_BYTES,         /* the bytes, one after the other */
    DECODE_METASPACE,     /* Hugging Face's Metaspace */
    DECODE_FALLBACK,      /* Replace, ByteFallback, Fuse, Strip */
    DECODE_SENTENCEPIECE, /* as sentencepiece does: control tokens vanish, <unk> shows as its surface */
    DECODE_WORDPIECE,
};

enum model_type { MODEL_BPE, MODEL_UNIGRAM, MODEL_WORDPIECE };
enum { SCRATCH_SLOTS = 16, TOK_FILES_MAX = 4 };
struct pair_slot {
    uint32_t left, right, rank, merged; /* left UINT32_MAX: empty */
};

struct tokenizer {
    struct arena arena;
    enum model_type model;
    struct vocab vocab;
    struct norm_step norm[NORM_STEPS_MAX];
    int n_norm;
    struct pre_step pre[PRE_STEPS_MAX];
    int n_pre;

    /* BPE */
    struct pair_slot *pairs;
    size_t pair_mask;
    unsigned pair_shift;
    bool by_bytes;      /* symbols start as bytes, else as characters */
    bool ignore_merges; /* a piece that is a token is not merged at all */
    bool cut_metaspace; /* no token holds U+2581 after another character: pieces may be cut before it */
    bool byte_fallback, fuse_unknown;
    bool fuse_after_bytes;                   /* sentencepiece: neighbouring unknown characters become one */
    int32_t byte_id[256], last_byte_id[256]; /* the last of a word has word_suffix */
    int32_t ascii_id[128];                   /* by characters: the ids of ASCII */
    struct str word_suffix, word_prefix;
    int32_t unknown;

    /* unigram and word pieces */
    struct trie pieces; /* word pieces: those that begin a word */
    struct trie pieces_inner;
    double min_score;
    bool float_scores; /* sums are kept in float, as sentencepiece does; else in double */
    size_t word_chars_max;
    struct trie symbols;       /* sentencepiece: user-defined; no slots when there are none */
    struct trie symbols_plain; /* those that are not guarded */

    struct added *added;
    size_t n_added;
    struct trie added_tries[ADDED_TRIES]; /* values index `added`; no slots when empty */
    bool added_first[ADDED_TRIES][256];   /* bytes that begin one */

    int32_t before[TEMPLATE_MAX], after[TEMPLATE_MAX]; /* the post-processor's template */
    int n_before, n_after;
    int32_t between[TEMPLATE_MAX], pair_after[TEMPLATE_MAX]; /* likewise for two texts: before A between B pair_after */
    int n_between, n_pair_after;
    bool has_pair, second_type; /* second_type: B and what follows it have type 1 */

    enum decode_type decode;
    bool decode_strip_first; /* metaspace, sentencepiece, fallback: one leading space of the text goes */
    bool decode_strip_all;   /* sentencepiece with remove_extra_whitespaces: all leading spaces go */
    bool decode_cleanup;     /* word pieces */
    struct str inner_prefix; /* word pieces: "##" */
    struct str unknown_surface;

    bool accepts_any_bytes; /* byte-level vocabularies of tiktoken and GGUF */
    int32_t bos, eos;
    bool adds_bos;
    struct str chat_template;
    struct tok_file {
        const char *path;
        struct file_id id;
    } files[TOK_FILES_MAX]; /* it was read from */
    int n_file;
    struct scratch *spare[SCRATCH_SLOTS];
};

/* ---- scratch of one encode call; kept in `spare` between calls, so that warm calls allocate nothing ---- */
struct cache_entry { /* what a piece of at most 15 bytes became */
    uint64_t key[2];
    uint32_t n; /* 0 = empty */
    int32_t ids[3];
};
enum { CACHE_SET_BITS = 15, CACHE_ENTRIES = 2 << CACHE_SET_BITS, CACHE_PIECE_MAX = 15 };
struct path_node { /* unigram: the best way to reach a position */
    double score;
    uint32_t start;
    int32_t id;
};
struct scratch {
    struct cache_entry *cache; /* NULL when there was no memory for it */
    struct buf text[2];        /* normalizer's output, in turns */
    struct buf stage[PRE_STEPS_MAX];
    bool guarded; /* the text holds what a user wrote: guarded tokens are not made */
    void *work;   /* BPE of long pieces; paths of unigram */
    size_t work_size;
};
void scratch_destroy(struct scratch *s);
void *scratch_work(struct scratch *s, size_t count, size_t size); /* NULL when out of memory */

/* ---- models: append the ids of one piece ---- */
MUST_USE bool bpe_encode(const struct tokenizer *tok, struct scratch *s, struct ids *out, const char *piece, size_t n,
                         const char *readable_end);
MUST_USE bool unigram_encode(const struct tokenizer *tok, struct scratch *s, struct ids *out, const char *piece,
                             size_t n);
MUST_USE bool wordpiece_encode(const struct tokenizer *tok, struct ids *out, const char *piece, size_t n);
MUST_USE bool ids_reserve(struct ids *ids, size_t more);

/* Merges: put pairs, the later of equal ones wins; every two tokens whose joined bytes are a token, ranked by rank_of.
 */
MUST_USE enum status bpe_pairs_init(struct tokenizer *tok, size_t n_merge, struct error *err);
MUST_USE enum status bpe_pairs_from_tokens(struct tokenizer *tok, const uint32_t *rank_of, struct error *err);
/* One merge as written in a file: "a b" split in two. Unknown tokens are ST_CORRUPT. */
MUST_USE enum status bpe_pair_parse(struct tokenizer *tok, struct str left, struct str right, uint32_t rank,
                                    struct buf *joined, struct error *err);
/* After vocabulary and pairs: byte and ASCII ids, cut_metaspace. */
MUST_USE enum status bpe_finish(struct tokenizer *tok, struct error *err);
/* Word pieces and unigram: fill the tries. */
MUST_USE enum status pieces_finish(struct tokenizer *tok, struct error *err);

/* ---- loaders: fill a zeroed tokenizer ---- */
MUST_USE enum status load_hf(struct tokenizer *tok, struct str json, struct error *err);
/* {"token": id, ...}, as both layouts have it */
MUST_USE enum status load_vocab_object(struct tokenizer *tok, const struct json *vocab, struct error *err);
/* Of added_tokens (tokenizer.json) or added_tokens_decoder; where: the file, for errors. */
MUST_USE enum status load_added_token(struct tokenizer *tok, const struct json *v, int64_t id, const char *file,
                                      struct error *err);
MUST_USE enum status load_vocab_merges(struct tokenizer *tok, struct str vocab, struct str merges, struct str config,
                                       struct error *err);
MUST_USE enum status load_tiktoken(struct tokenizer *tok, struct str file, struct str name, struct error *err);
MUST_USE enum status load_llama2c(struct tokenizer *tok, struct str file, struct error *err);
MUST_USE enum status load_sentencepiece(struct tokenizer *tok, struct str file, struct error *err);
MUST_USE enum status load_gguf(struct tokenizer *tok, const struct gguf *gguf, struct error *err);
/* ---- what SentencePiece, llama2.c and GGUF's "llama" and "t5" share (load_spm.c) ---- */
enum piece_type { PIECE_NORMAL = 1, PIECE_UNKNOWN, PIECE_CONTROL, PIECE_USER, PIECE_UNUSED, PIECE_BYTE };
unsigned piece_flags(int64_t type);
MUST_USE enum status sentencepiece_common(struct tokenizer *tok, bool dummy_prefix, struct norm_step **step,
                                          struct error *err);
MUST_USE enum status sentencepiece_model(struct tokenizer *tok, struct error *err); /* after the vocabulary */
/* tokenizer_config.json: names of BOS and EOS, chat template. Either may be absent (ptr NULL). */
MUST_USE enum status load_config(struct tokenizer *tok, struct str config, struct error *err);

/* Any tokenizer file but GGUF, from memory; the name tells tiktoken encodings apart. folder NULL: no files beside it.
 */
MUST_USE enum status tok_open_bytes(struct tokenizer **out, struct str bytes, const char *path, const char *folder,
                                    struct error *err);
bool looks_like_markup(struct str content);
MUST_USE enum status tok_add(struct tokenizer *tok, const struct added *a, unsigned flags, struct error *err);
/* A control token, or another that is looked for in the text; ids and contents that cannot be one are passed over. */
MUST_USE enum status tok_add_control(struct tokenizer *tok, int64_t id, struct str content, bool special,
                                     struct error *err);
MUST_USE enum status tok_finish(struct tokenizer *tok, struct error *err); /* tries of added tokens, BOS and EOS */
MUST_USE enum status tok_norm(struct tokenizer *tok, struct norm_step **step, enum norm_type type, struct error *err);
MUST_USE enum status tok_pre(struct tokenizer *tok, struct pre_step step, struct error *err);
/* Copies into the tokenizer's arena; ptr NULL when out of memory. */
struct str tok_copy(struct tokenizer *tok, struct str s);

#endif
