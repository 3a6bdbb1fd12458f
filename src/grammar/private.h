/* private - the pieces of the room, in the order in which a grammar passes them
 *
 *   source -> ast -> nfa -> dfa (regex.c, gbnf.c, ast.c, nfa.c, dfa.c)         text and expressions
 *   schema -> types and their alternatives -> dfas (schema*.c)                  JSON
 *   dfas and types -> frames over bytes (machine.c) -> masks over tokens (mask.c, vocab.c)
 */
#ifndef GRAMMAR_PRIVATE_H
#define GRAMMAR_PRIVATE_H

#include "grammar/grammar.h"

#include "base/arena.h"
#include "base/json.h"
#include "base/mem.h"

#include <pthread.h>
#include <stdlib.h>

/* ---- build: what a compile may still take, and why it stopped ---- */
struct build {
    struct arena *keep; /* lives with the grammar */
    struct arena temp;  /* until the compile ends */
    uint64_t steps_left;
    enum status status;
    struct error *err;
    const char *what; /* "regex", "grammar", "json schema": begins the sentences */
};
/* All return false or NULL once something failed, and leave the first reason in b->status. */
bool build_fail(struct build *b, enum status st, const char *fmt, ...) __attribute__((format(printf, 3, 4), cold));
#ifdef __clang_analyzer__ /* which does not look into functions of other files */
#define build_fail(b, st, ...) ((build_fail)(b, st, __VA_ARGS__), false)
#endif
bool build_step(struct build *b, uint64_t n);
void *build_temp(struct build *b, size_t count, size_t size); /* zeroed */
void *build_keep(struct build *b, size_t count, size_t size);

#define VEC(type)                                                                                                      \
    struct {                                                                                                           \
        type *at;                                                                                                      \
        size_t n, capacity;                                                                                            \
    }
bool vec_room(struct build *b, void **at, size_t *capacity, size_t n, size_t more, size_t item_size);
#define VEC_ROOM(b, v, more) vec_room(b, (void **)&(v)->at, &(v)->capacity, (v)->n, more, sizeof *(v)->at)
/* Pointer to the new item, or NULL. */
#define VEC_ADD(b, v) (VEC_ROOM(b, v, 1) ? &(v)->at[(v)->n++] : NULL)

/* ---- sets of code points ---- */
struct range {
    uint32_t lo, hi;
};
struct charset {
    VEC(struct range) r;
};
bool charset_add(struct build *b, struct charset *c, uint32_t lo, uint32_t hi);
bool charset_finish(struct build *b, struct charset *c, bool negate); /* sorted, disjoint, without surrogates */

/* ---- ast ---- */
enum ast_kind {
    AST_EMPTY,
    AST_CLASS,
    AST_TEXT,   /* bytes */
    AST_CAT,    /* of children */
    AST_ALT,    /* of children */
    AST_REPEAT, /* of the child */
    AST_BEGIN,  /* ^ */
    AST_END,    /* $ */
    AST_LOOK,   /* (?=child), (?!child): at the front of a `^` expression only */
    AST_CALL,   /* a rule or a type */
    AST_DFA,
};
enum { REPEAT_NO_MAX = UINT32_MAX, AST_DEPTH_MAX = 200, CALL_TYPE = 1u << 31 /* callee is a type, else a rule */ };
struct ast {
    enum ast_kind kind;
    bool negative;
    uint32_t min, max, callee;
    struct charset set;
    struct str text;
    const struct dfa *dfa;
    struct ast *child, *last, *next;
};
struct ast *ast_new(struct build *b, enum ast_kind kind);
struct ast *ast_add(struct ast *parent, struct ast *child); /* both may be NULL: then NULL */
struct ast *ast_text(struct build *b, struct str text);
struct ast *ast_repeat(struct build *b, struct ast *child, uint32_t min, uint32_t max);

/* ---- nfa ---- */
enum edge_kind { EDGE_BYTES, EDGE_EMPTY, EDGE_BEGIN, EDGE_END, EDGE_CALL };
struct nfa_edge {
    uint32_t to, next, callee;
    uint8_t kind, lo, hi;
};
struct nfa_node {
    uint32_t first, tag; /* edges, 0 = none; tag: 0 = not accepting */
};
struct nfa {
    struct build *b;
    VEC(struct nfa_node) nodes;
    VEC(struct nfa_edge) edges;
};
bool nfa_init(struct nfa *n, struct build *b);
uint32_t nfa_node(struct nfa *n); /* 0 = failed */
bool nfa_edge(struct nfa *n, uint32_t from, uint32_t to, enum edge_kind kind, unsigned lo, unsigned hi);
bool nfa_call(struct nfa *n, uint32_t from, uint32_t to, uint32_t callee);
bool nfa_emit(struct nfa *n, const struct ast *a, uint32_t from, uint32_t to);
bool nfa_embed(struct nfa *n, const struct dfa *d, uint32_t from, uint32_t to); /* calls included */

/* ---- dfa: state 0 is dead, all others live; state 1 is the start, if any ---- */
enum { DFA_START = 1 };
struct dfa_call {
    uint32_t callee, to;
};
struct dfa {
    uint32_t n_state, n_class;
    uint8_t class_of[256];
    uint32_t *next;    /* [n_state][n_class] */
    uint32_t *accept;  /* [n_state] 0 = no; else 1 + index of its set of tags */
    uint32_t *call_at; /* [n_state + 1] into calls; NULL: no calls */
    struct dfa_call *calls;
    uint32_t n_tagset;
    uint32_t *tag_at, *tags; /* [n_tagset + 1] into tags: ascending */
    bool *final;             /* [n_state] accepts, and nothing can follow; NULL: not known */
};
static inline uint32_t dfa_next(const struct dfa *d, uint32_t state, uint8_t byte)
{
    return d->next[(size_t)state * d->n_class + d->class_of[byte]];
}
static inline bool dfa_empty(const struct dfa *d)
{
    return d->n_state < 2;
}
uint32_t dfa_run(const struct dfa *d, uint32_t state, struct str bytes);
static inline bool dfa_matches(const struct dfa *d, struct str bytes)
{
    return !dfa_empty(d) && d->accept[dfa_run(d, DFA_START, bytes)];
}
enum { DFA_STATES_MAX = 60000 };
struct dfa *dfa_of_nfa(struct nfa *n, uint32_t start); /* in keep */
/* Removes states that reach no accepting one. `accepts` (may be NULL) has the last word on which tag sets accept. */
bool dfa_trim(struct build *b, struct dfa *d, const bool *accepts);
enum dfa_op { DFA_AND, DFA_OR, DFA_AND_NOT };
struct dfa *dfa_combine(struct build *b, const struct dfa *x, const struct dfa *y, enum dfa_op op);
/* Strings of min to max code points that d accepts; max REPEAT_NO_MAX: any. */
struct dfa *dfa_limit_length(struct build *b, const struct dfa *d, uint32_t min, uint32_t max);
struct dfa *dfa_of_ast(struct build *b, const struct ast *a);
struct dfa *dfa_any(struct build *b); /* all valid UTF-8 */
/* At least one code point of [lo, hi] has a path from `state`, to a state that `ok` (may be NULL) likes. */
bool dfa_any_between(const struct dfa *d, uint32_t state, uint32_t lo, uint32_t hi,
                     bool (*ok)(const void *ctx, uint32_t state), const void *ctx);
bool dfa_finite(struct build *b, const struct dfa *d, size_t max, struct str *out, size_t *n); /* lists a small one */

/* ---- regex ---- */
enum { REGEX_SEARCH = 1 }; /* a match anywhere is enough (JSON Schema's pattern); else all of the text */
struct dfa *regex_compile(struct build *b, struct str pattern, unsigned flags);
/* A character class after its '['; *at moves behind the ']'. Shared with GBNF. */
struct ast *regex_class(struct build *b, struct str s, size_t *at);

/* ---- rules: GBNF's, and those that join parts ---- */
struct rule {
    struct str name;
    struct ast *body;
    bool defined;
};
struct rules {
    struct build *b;
    VEC(struct rule) rules;
};
uint32_t rules_add(struct rules *r, struct str name); /* index; UINT32_MAX = failed */
/* Appends the rules of a grammar; *root is where it begins. */
bool gbnf_parse(struct rules *r, struct str text, uint32_t *root);
/* Appends a grammar's rules; their calls are moved accordingly, their names forgotten. */
bool rules_join(struct rules *r, const struct rules *own);
/* dfas[i] of rule i. type_empty: which types have no value at all. */
bool rules_compile(struct rules *r, struct dfa **dfas, const bool *type_empty);

/* ---- what runs ---- */
struct lang { /* of strings, decoded */
    const struct dfa *dfa;
    uint32_t min, max;                  /* code points; max REPEAT_NO_MAX */
    const uint32_t *shortest, *longest; /* [n_state] code points to an accepting state; NULL when 0 and endless */
    bool counted;
    const bool *any;    /* [n_state] from here on every string is accepted */
    uint32_t any_state; /* one of those; 0: there is none */
};
struct type {
    bool empty;
    uint32_t scalar; /* automaton of null, booleans, numbers; UINT32_MAX: none */
    uint32_t *langs, *arrays, *objects;
    uint32_t n_lang, n_array, n_object;
    uint64_t first[4]; /* bytes that may begin it */
};
enum { CLAIMS_MAX = 3 };
struct claim {         /* contains; or a property that must exist */
    uint32_t min, max; /* items; max REPEAT_NO_MAX */
};
struct array {
    uint32_t min, max, n_prefix;
    uint32_t n_claim;
    struct claim claims[CLAIMS_MAX];
    uint32_t *types; /* [n_prefix + 1][1 << n_claim] by claims made; UINT32_MAX: not possible */
};
struct label {       /* what a key may be */
    uint32_t name;   /* index of the declared name; UINT32_MAX: another key */
    uint32_t *types; /* [1 << n_claim] */
    bool possible;
};
struct object {
    uint32_t min, max, n_name, n_required, n_word, n_claim;
    struct claim claims[CLAIMS_MAX];
    bool ordered, counts;   /* counts: the number of members matters */
    const struct dfa *keys; /* accept - 1 = label */
    const bool *any;        /* [n_state] from here on every key has the label of another key */
    uint32_t any_state;     /* one of those; 0: there is none */
    struct label *labels;
    uint64_t *required; /* [n_word] */
    uint64_t *reach;    /* [keys->n_state][n_word] names that may still come */
    bool *reach_other;  /* [keys->n_state] another key may still come */
};

/* ---- vocabulary: tokens as a trie in preorder ---- */
enum { TOKEN_BYTES_MAX = 255 }; /* longer ones are not offered */
struct trie {
    uint32_t n_node, n_token;
    uint8_t *byte, *depth; /* [n_node]; depth of the first byte is 1 */
    uint32_t *skip;        /* [n_node] the node after the subtree */
    uint32_t *first;       /* [n_node + 1] tokens of node i: order[first[i] .. first[i + 1]) */
    uint32_t *order;       /* [n_token] ids by their bytes */
    uint32_t root_first;   /* order[0 .. root_first): those without bytes */
};
struct exit { /* a token that leaves a string of any characters through its closing quote */
    uint32_t token;
    uint8_t chars; /* before the quote */
};
enum { CHARS_SMALL = 16 };
struct grammar_vocab {
    int n_vocab, n_word;
    int32_t *eos;
    int n_eos;
    struct trie tokens, suffixes;           /* suffixes: what follows the quote; its "ids" are groups of exits */
    struct dfa *any;                        /* all strings: these tables are about its start state */
    struct arena arena;                     /* of `any` */
    char *bytes;                            /* of all tokens; those of id begin at bytes_at[id] */
    uint32_t *bytes_at;                     /* [n_vocab + 1] */
    uint64_t *stay;                         /* tokens that stay within the string */
    uint64_t *stay_small[CHARS_SMALL];      /* of those, with at most so many characters */
    uint32_t *by_chars, n_stay;             /* the ones that stay, by characters */
    uint32_t chars_at[TOKEN_BYTES_MAX + 3]; /* by_chars[chars_at[c] ..] have c characters */
    int chars_max;
    struct exit *exits;
    uint32_t *exit_at; /* [n_group + 1] */
};
static inline void bit_set(uint64_t *bits, uint32_t i)
{
    bits[i >> 6] |= (uint64_t)1 << (i & 63);
}
static inline void bit_clear(uint64_t *bits, uint32_t i)
{
    bits[i >> 6] &= ~((uint64_t)1 << (i & 63));
}
static inline bool bit_has(const uint64_t *bits, uint32_t i)
{
    return bits[i >> 6] >> (i & 63) & 1;
}

/* ---- characters of a JSON string ---- */
enum text_result { TEXT_DEAD, TEXT_INSIDE, TEXT_CHAR, TEXT_ESCAPE, TEXT_CLOSE };
enum {
    LEX_PLAIN,
    LEX_ESCAPE,
    LEX_HEX,
    LEX_LOW_ESCAPE = LEX_HEX + 4,
    LEX_LOW_U,
    LEX_LOW_HEX,
    LEX_END = LEX_LOW_HEX + 4
};
struct text_at {
    uint32_t q;    /* of the language, over the decoded characters */
    uint32_t part; /* hexadecimal digits so far, and a high surrogate above them */
    uint8_t lex;
};
typedef bool text_ok(const void *ctx, uint32_t q);
/* One byte of the JSON text. CHAR: another character has begun or is complete; ESCAPE: one will be. */
enum text_result text_step(const struct dfa *d, struct text_at *at, uint8_t byte, text_ok *ok, const void *ctx);

/* ---- frames: what is open, and the sets of frames to go on with when it closes ---- */
enum frame_kind { FRAME_DONE, FRAME_RULE, FRAME_TEXT, FRAME_ARRAY, FRAME_OBJECT };
enum { AT_FIRST, AT_KEY, AT_COLON, AT_VALUE, AT_AFTER, AT_NEXT };
struct frame {
    uint8_t kind, phase, lex, space;
    uint32_t a, b, c, d, e, f; /* machine.c says what of which kind */
    uint32_t parent;           /* set of frames */
};
struct frame_set {
    uint32_t first, n;
    uint64_t hash;
    bool ends; /* one of them may be the end of it all */
};
struct bit_set {
    uint32_t first, n_word;
    uint64_t hash;
};
struct frame_stack {
    struct frame *at;
    size_t n, capacity;
};
struct machine {
    const struct grammar *g;
    struct frame *pool; /* of the sets */
    size_t n_pool, pool_capacity;
    struct frame_set *sets;
    size_t n_set, set_capacity;
    uint32_t *set_slots;
    size_t set_mask;
    uint64_t *words;
    size_t n_words, words_capacity;
    struct bit_set *bits;
    size_t n_bits, bits_capacity;
    struct frame_stack out;
    int depth;
    uint64_t steps_left; /* of the call at hand */
    enum status status;  /* ST_NOMEM or ST_LIMIT: the call at hand fails */
};
struct machine_mark {
    size_t n_pool, n_set, n_words, n_bits;
};
enum { FRAMES_MAX = 1024, STEP_DEPTH_MAX = 400 };
bool machine_init(struct machine *m, const struct grammar *g); /* false: out of memory */
void machine_free(struct machine *m);
/* Appends to m->out what `f` becomes by the byte. */
void machine_step(struct machine *m, struct frame f, uint8_t byte);
/* Only what a rule's end, or a call, makes of the byte: not the rule's own next state. */
void machine_leave(struct machine *m, const struct frame *rule, uint8_t byte);
/* Sorts and merges m->out from `from` on. */
void machine_tidy(struct machine *m, size_t from);
struct frame machine_start(struct machine *m);
bool machine_may_end(const struct machine *m, const struct frame *f, size_t n);
uint64_t machine_hash(const struct machine *m, const struct frame *f, size_t n);
struct machine_mark machine_mark(const struct machine *m);
void machine_return(struct machine *m, const struct machine_mark *mark); /* drops sets made since */
uint32_t machine_set(struct machine *m, const struct frame *f, size_t n);
/* The names seen, with `name` (and, in order, all before it). UINT32_MAX: out of memory. */
uint32_t machine_add_name(struct machine *m, const struct object *o, uint32_t seen, uint32_t name);
bool frames_reserve(struct frame **at, size_t *capacity, size_t n); /* false: out of memory */
bool machine_spend(struct machine *m, uint64_t steps);              /* false: none are left, and the call fails */
void machine_failed(struct machine *m, enum status st);             /* the first counts */
/* For objects and strings of keys: what is still allowed. */
struct key_room {
    const struct object *o;
    bool other;
    uint64_t allowed[16];
};
enum { NAMES_MAX = 1024 };
void object_room(struct key_room *room, const struct machine *m, const struct frame *f);
bool object_key_ok(const void *room, uint32_t q);
bool lang_ok(const void *room, uint32_t q);
struct lang_room {
    const struct lang *l;
    uint32_t need, left; /* characters that must, and may, still come */
};

/* ---- grammar ---- */
struct mask_entry;
struct grammar {
    int count; /* atomic */
    struct grammar_vocab *vocab;
    struct arena arena;
    struct dfa **dfas; /* scalars, then rules */
    struct lang *langs;
    struct type *types;
    struct array *arrays;
    struct object *objects;
    uint32_t n_dfa, n_lang, n_type, n_array, n_object, root;
    bool compact;
    pthread_mutex_t lock;                /* of the caches */
    struct mask_entry **masks, **locals; /* by hash */
    size_t n_mask, mask_mask, n_local, local_mask, masks_bytes, locals_bytes;
    uint64_t **rule_first; /* [n_dfa] 256 bits: bytes that may begin the rule */
};

struct grammar_state {
    struct grammar *g;
    struct machine m;
    struct frame_stack history; /* frames of each step, one after the other */
    struct step {
        size_t first, n;
        struct machine_mark mark;
    } * steps; /* [n_step]: the start, then one a token */
    size_t n_step, step_capacity;
};
static inline const struct step *state_step(const struct grammar_state *s)
{
    return &s->steps[s->n_step - 1];
}
/* mask.c: the bits for frames f[0 .. n), EOS included */
void mask_make(struct grammar_state *s, const struct frame *f, size_t n, uint64_t *bits);
void masks_free(struct grammar *g);
/* json schema -> types, appended to the grammar's (its dfas are only scalars yet); root: the type's number */
bool schema_compile(struct build *b, struct grammar *g, struct str text, const struct grammar_part *part,
                    uint32_t *root); /* of the part: flags, property */

#endif
