/* grammar - what an answer may look like, as masks over the vocabulary
 *
 *   TRY(grammar_vocab_create(&vocab, tok, n_vocab, eos, n_eos, err));        once a model: the trie of its tokens
 *   struct grammar_part part = {.kind = GRAMMAR_SCHEMA, .text = schema};
 *   TRY(grammar_compile(&g, vocab, &part, err));                             on a worker, never on the engine's thread
 *   TRY(grammar_state_create(&s, g, err));                                   once a sequence
 *   grammar_mask(s, bits, err);  grammar_accept(s, id, err);  grammar_rollback(s, 3);
 *
 * A grammar is a tree of parts. Bytes are decided one by one, exactly: a byte is offered when some answer goes on with
 * it. The end (EOS) is offered where the answer may be whole, and alone where it must end. Special tokens are never
 * offered; their text may be (a literal "<tool_call>" is written with ordinary tokens), unless the vocabulary was made
 * with `markers`: those ids stand for their text, too.
 *
 * JSON (GRAMMAR_SCHEMA, GRAMMAR_JSON): docs/grammar.md says which keywords are enforced, and how a value is written.
 * What cannot be enforced is refused, ST_UNSUPPORTED, with its keyword and JSON pointer; annotations and keywords that
 * JSON Schema does not know are ignored, as it says.
 *
 * Memory   a compile holds at most GRAMMAR_BYTES_MAX and takes at most GRAMMAR_STEPS_MAX steps (about a second):
 *          ST_LIMIT beyond. A grammar keeps the masks it has computed, at most GRAMMAR_MASKS_MAX bytes
 * Errors   ST_INVALID (source at fault; the place is named), ST_UNSUPPORTED, ST_LIMIT, ST_NOMEM
 * Threads  a vocabulary and a grammar: any number of threads; a state: one at a time
 */
#ifndef GRAMMAR_GRAMMAR_H
#define GRAMMAR_GRAMMAR_H

#include "tokenizer/tokenizer.h"

enum {
    GRAMMAR_BYTES_MAX = 128 << 20,
    GRAMMAR_STEPS_MAX = 60000000,
    GRAMMAR_MASKS_MAX = 32 << 20,
    GRAMMAR_SOURCE_MAX = 1 << 20, /* bytes of a schema, expression or grammar */
};

/* ---- vocabulary ---- */
struct grammar_vocab;
struct grammar_vocab_of {
    int n_vocab; /* ids the model has; those beyond the tokenizer's are never offered */
    const int32_t *eos;
    int n_eos;
    const int32_t *markers; /* special tokens that stand for their text all the same, e.g. </think> */
    int n_marker;
};
MUST_USE enum status grammar_vocab_create(struct grammar_vocab **out, const struct tokenizer *tok,
                                          const struct grammar_vocab_of *of, struct error *err);
/* From the bytes of each id; a token of no bytes is never offered. */
MUST_USE enum status grammar_vocab_create_of(struct grammar_vocab **out, const struct str *tokens, int n_vocab,
                                             const int32_t *eos, int n_eos, struct error *err);
void grammar_vocab_destroy(struct grammar_vocab *v);    /* after all its grammars */
int grammar_vocab_words(const struct grammar_vocab *v); /* 64-bit words of a mask */

/* ---- parts ---- */
enum grammar_kind {
    GRAMMAR_TEXT,   /* exactly `text` */
    GRAMMAR_REGEX,  /* all of the answer matches `text` (ECMA 262 without look-around inside and back references) */
    GRAMMAR_GBNF,   /* `text`: llama.cpp's GBNF, and EBNF with `=` or `:`; begins at `root`, else at the first rule */
    GRAMMAR_JSON,   /* any JSON object */
    GRAMMAR_SCHEMA, /* JSON that the JSON Schema `text` accepts */
    GRAMMAR_STRING, /* a string that the JSON Schema `text` accepts, as it is, without quotes and escapes; `trigger` is
                     * nowhere in it */
    GRAMMAR_SEQUENCE,  /* all parts, one after the other: a literal prefix, a schema, a literal suffix */
    GRAMMAR_ANY_OF,    /* one of the parts */
    GRAMMAR_REPEAT,    /* parts[0], min to max times */
    GRAMMAR_UNTIL,     /* free text up to and with the first `text` */
    GRAMMAR_TRIGGERED, /* free text, which may end at any place; where a part's `trigger` appears in it, that part must
                        * follow, and then free text again: min to max times in all */
};
enum {
    GRAMMAR_ORDERED = 1, /* schema: properties come in the order in which `properties` declares them */
    GRAMMAR_COMPACT = 2, /* JSON: no white space between tokens */
};
struct grammar_part {
    enum grammar_kind kind;
    unsigned flags;
    struct str text;
    const struct grammar_part *parts;
    size_t n_part;
    struct str property; /* SCHEMA, STRING: what counts is this member of the schema's `properties`; empty = all */
    struct str
        trigger;  /* of a child of GRAMMAR_TRIGGERED, e.g. "<tool_call>"; not repeated in the child itself; STRING */
    int min, max; /* REPEAT, TRIGGERED; max < 0: without end */
};

/* ---- grammar ---- */
struct grammar;
MUST_USE enum status grammar_compile(struct grammar **out, struct grammar_vocab *vocab, const struct grammar_part *part,
                                     struct error *err);
struct grammar *grammar_acquire(struct grammar *g);
void grammar_release(struct grammar *g); /* takes NULL */
const struct grammar_vocab *grammar_vocab_of(const struct grammar *g);

/* ---- the compiled ones, by what they were made of; the least recently used leaves ---- */
struct grammar_cache;
MUST_USE enum status grammar_cache_create(struct grammar_cache **out, struct grammar_vocab *vocab, int n_max,
                                          struct error *err);
void grammar_cache_destroy(struct grammar_cache *c);
/* *out is acquired for the caller. Compiles on the caller's thread; others may use the cache meanwhile. */
MUST_USE enum status grammar_cache_get(struct grammar_cache *c, struct grammar **out, const struct grammar_part *part,
                                       struct error *err);

/* ---- one sequence ---- */
struct grammar_state;
MUST_USE enum status grammar_state_create(struct grammar_state **out, struct grammar *g, struct error *err);
void grammar_state_destroy(struct grammar_state *s); /* takes NULL */
/* Fills the bits of the ids that may come next (EOS included). ST_LIMIT: more readings of the answer are open than can
 * be followed; ST_NOMEM. */
MUST_USE enum status grammar_mask(struct grammar_state *s, uint64_t *bits, struct error *err);
/* ST_INVALID, and nothing changed, when `id` may not come next. */
MUST_USE enum status grammar_accept(struct grammar_state *s, int32_t id, struct error *err);
void grammar_rollback(struct grammar_state *s, int n_token); /* forgets the last n accepted */
bool grammar_may_end(const struct grammar_state *s);
/* Whether these bytes could come next; for tests and for text that no token list gives. Changes nothing. */
bool grammar_accepts_bytes(struct grammar_state *s, struct str bytes, bool whole);

#endif
