/* data - text files into fixed training windows, in an order that is a pure function of (seed, epoch, index)
 *
 *   TRY(dataset_open(&d, &source, err));
 *   n = dataset_windows(d, epoch);  dataset_window(d, ids, seed, epoch, i);      // ids [block_size + 1]
 *
 * Every document is followed by the tokenizer's EOS (when it has one); documents are laid end to end and cut into
 * windows of block_size inputs whose targets are the inputs moved by one. Each epoch starts at another offset below
 * block_size, so that borders move; nothing is kept between calls, so a cursor (epoch, i) is all a resume needs.
 *
 * Memory   4 bytes a token
 * Errors   ST_NOT_FOUND, ST_INVALID (too little text: both numbers are named), what the tokenizer says of a file
 * Threads  immutable after open
 */
#ifndef DATA_DATA_H
#define DATA_DATA_H

#include "tokenizer/tokenizer.h"

struct dataset;
struct data_source {
    const struct str *paths; /* text files, UTF-8 */
    size_t n_path;
    const struct tokenizer *tokenizer;
    int block_size;                /* tokens of input a window */
    struct str document_separator; /* a string between documents inside a file; empty = a file is one document */
    void (*progress)(void *ctx, const char *phase, double done); /* may be NULL */
    void *ctx;
};

MUST_USE enum status dataset_open(struct dataset **out, const struct data_source *source, struct error *err);
void dataset_close(struct dataset *d);
uint64_t dataset_tokens(const struct dataset *d);
uint64_t dataset_bytes(const struct dataset *d); /* of text: bits per byte needs it */
uint64_t dataset_hash(const struct dataset *d);  /* of the token ids: a checkpoint refuses other data */
uint64_t dataset_windows(const struct dataset *d, uint64_t seed, uint64_t epoch);
/* Window number i (0 .. windows-1) of the epoch's order. ids: block_size + 1. */
void dataset_window(const struct dataset *d, int32_t *ids, uint64_t seed, uint64_t epoch, uint64_t i);
/* Without shuffling or offset: for evaluation. */
void dataset_window_at(const struct dataset *d, int32_t *ids, uint64_t i);
uint64_t dataset_windows_at(const struct dataset *d);
/* The order's permutation of 0 .. n-1 by itself (tested against being one). */
uint64_t data_permute(uint64_t i, uint64_t n, uint64_t key);

#endif
