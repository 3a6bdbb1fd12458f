/* split - hand-written splitters, each equal to one published regular expression
 *
 *   for (p = text; p < end; p = q) { bool match; q = split(p, end, &match); piece [p, q); }
 *
 * Every call returns a piece of at least one byte; `match` tells pieces that the expression matched from the gaps
 * between matches. A look-ahead at "the end" means `end`. Time is linear in the text over all calls.
 * Threads  safe: no state
 */
#ifndef TOKENIZER_SPLIT_H
#define TOKENIZER_SPLIT_H

#include "base/str.h"

typedef const char *split_fn(const char *p, const char *end, bool *match);

/* The splitter of a regular expression as written in tokenizer.json; NULL when unknown. */
split_fn *split_find_regex(struct str regex);
/* The splitters of a tiktoken encoding, by name ("gpt2", "cl100k", "o200k", "qwen2", "llama3"); NULL when unknown. */
split_fn *split_find_name(const char *name);
/* The regular expression a named splitter stands for, to be written into tokenizer.json. */
const char *split_regex(const char *name);

enum { SPLIT_CHAIN_MAX = 8 };
/* The chain of a GGUF's tokenizer.ggml.pre: each splitter cuts the pieces of the one before. false when unknown. */
struct split_pre {
    const char *name;
    split_fn *chain[SPLIT_CHAIN_MAX];
    bool ignore_merges, adds_bos;
};
const struct split_pre *split_find_pre(struct str name);
/* The name of a chain (ended by NULL) whose row has this ignore_merges; NULL when none has. */
const char *split_name_pre(split_fn *const *chain, bool ignore_merges);

/* Pieces for pre-tokenizers of tokenizer.json other than Split. */
split_fn split_gpt2, split_digit, split_digits, split_punctuation, split_bert, split_nonspace, split_words;
/* split_runs.c: of the chains */
split_fn split_newline, split_falcon_punctuation, split_default_punctuation, split_cjk, split_three_digits,
    split_deepseek_letters, split_deepseek_marks;

#endif
