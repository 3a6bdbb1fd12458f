/* tokenizer - text to ids and back, exactly as the original does
 *
 *   TRY(tokenizer_open(&tok, "model/", err));                       folder, or one tokenizer file
 *   TRY(tokenizer_encode(tok, &ids, text, TOKENIZE_SPECIAL | TOKENIZE_ADD, err));
 *   stream: struct decoder d; decoder_init(&d, tok, 0); decoder_next(&d, id, &out); ... decoder_end(&d, &out);
 *
 * Files    tokenizer.json; vocab.json + merges.txt; SentencePiece .model; tiktoken ranks; llama2.c tokenizer.bin; GGUF
 * Threads  a struct tokenizer is immutable after open: any number of threads may use one; a decoder has one owner
 * Errors   ST_CORRUPT, ST_UNSUPPORTED (the component and its type are named), ST_NOMEM, ST_INVALID (bad UTF-8 in text)
 */
#ifndef TOKENIZER_TOKENIZER_H
#define TOKENIZER_TOKENIZER_H

#include "formats/formats.h"

struct tokenizer;
struct ids {
    int32_t *ids;
    size_t count, capacity;
};
void ids_free(struct ids *ids);
MUST_USE bool ids_push(struct ids *ids, int32_t id);

MUST_USE enum status tokenizer_open(struct tokenizer **out, const char *path, struct error *err);
/* From an opened model: side files in its folder, or the vocabulary inside a GGUF. ST_NOT_FOUND when it has none. */
MUST_USE enum status tokenizer_from_checkpoint(struct tokenizer **out, const struct checkpoint *ck, struct error *err);
void tokenizer_close(struct tokenizer *tok);

enum {
    TOKENIZE_SPECIAL = 1, /* special-token strings in the text become their ids (tokenize, --raw, /v1/completions) */
    TOKENIZE_ADD = 2,     /* add what the post-processor adds: BOS, EOS, [CLS] ... */
};
/* Appends to *out. Text that is not UTF-8 is refused, except by byte-level vocabularies read from tiktoken or GGUF. */
MUST_USE enum status tokenizer_encode(const struct tokenizer *tok, struct ids *out, struct str text, unsigned flags,
                                      struct error *err);
/* A prompt in pieces: text that may become special tokens (the template's own) and text that never may (the user's).
 * Encodes as if it were one text whose `plain` pieces hold no special-token strings (ARCHITECTURE section 13). */
struct text_piece {
    struct str text;
    bool plain; /* written by a user: never a special token */
};
MUST_USE enum status tokenizer_encode_pieces(const struct tokenizer *tok, struct ids *out,
                                             const struct text_piece *pieces, size_t n, unsigned flags,
                                             struct error *err);

/* Two texts as the post-processor joins them for a model that compares (with none: one behind the other), appended to
 * *out. From id *first on, counted from the first appended, the token type is 1; 0: there is only one type. At most
 * `max` ids: the second text is cut at its end; ST_INVALID when the first leaves it no room. */
MUST_USE enum status tokenizer_encode_pair(const struct tokenizer *tok, struct ids *out, size_t *first, struct str a,
                                           struct str b, size_t max, struct error *err);
/* Whether ids begin and end with what the post-processor adds: others were hardly made by this tokenizer. */
bool tokenizer_frames(const struct tokenizer *tok, const int32_t *ids, size_t n);
/* Cuts ids made with TOKENIZE_ADD to at most `max`: the text loses its end, what the post-processor adds stays. */
void tokenizer_shorten(const struct tokenizer *tok, struct ids *ids, size_t max);

enum { DETOKENIZE_SKIP_SPECIAL = 1 };
MUST_USE enum status tokenizer_decode(const struct tokenizer *tok, struct buf *out, const int32_t *ids, size_t n,
                                      unsigned flags, struct error *err); /* ST_INVALID names an id out of range */

/* Streaming: the concatenation of all outputs equals tokenizer_decode of all ids; never ends inside a character. */
struct decoder {
    const struct tokenizer *tok;
    unsigned flags;
    uint64_t n_seen;
    unsigned char held[64]; /* an incomplete UTF-8 tail, or text the decoder may still change */
    unsigned n_held;
    uint32_t state; /* the decoder chain's own */
};
void decoder_init(struct decoder *d, const struct tokenizer *tok, unsigned flags);
void decoder_next(struct decoder *d, int32_t id, struct buf *out);
void decoder_end(struct decoder *d, struct buf *out); /* flushes: an incomplete character becomes U+FFFD */

int32_t tokenizer_vocab_size(const struct tokenizer *tok); /* ids are 0 .. size-1 (added tokens included) */
int32_t tokenizer_bos(const struct tokenizer *tok);        /* -1 when there is none */
int32_t tokenizer_eos(const struct tokenizer *tok);
int32_t tokenizer_find(const struct tokenizer *tok, struct str text); /* id of exactly this token; -1 */
struct str tokenizer_token(const struct tokenizer *tok, int32_t id);  /* as stored in the vocabulary; ptr NULL */
/* The bytes one id stands for inside a text (logprobs, stop strings). */
void tokenizer_token_bytes(const struct tokenizer *tok, struct buf *out, int32_t id);
bool tokenizer_is_special(const struct tokenizer *tok, int32_t id);
const char *tokenizer_kind(const struct tokenizer *tok); /* "bpe", "unigram", "wordpiece": inspect prints it */
bool tokenizer_adds_bos(const struct tokenizer *tok);
/* chat_template of tokenizer_config.json, chat_template.jinja or GGUF; ptr NULL when there is none. */
struct str tokenizer_chat_template(const struct tokenizer *tok);
/* The i-th file it was read from, and which file that was then; NULL after the last. One inside a GGUF has none. */
const char *tokenizer_file(struct file_id *id, const struct tokenizer *tok, int i);

/* The tokenizer as the keys of a GGUF file, in llama.cpp's words: tokenizer_from_checkpoint reads the same ids from it.
 * The model has n_id ids (those without a token are padded); bos and eos stand in for what the tokenizer does not name
 * (-1: none). ST_UNSUPPORTED names what the keys cannot say. */
MUST_USE enum status tokenizer_write_gguf(const struct tokenizer *tok, struct gguf_writer *w, int32_t n_id, int32_t bos,
                                          int32_t eos, struct error *err);

/* ---- training a byte-level BPE vocabulary; writes tokenizer.json (and vocab.json, merges.txt) into folder ---- */
struct tokenizer_train {
    int vocab_size;            /* 256 bytes + merges + special tokens */
    int min_frequency;         /* 2 */
    const struct str *special; /* e.g. <|endoftext|>; take the last ids... order as Hugging Face: first ids */
    size_t n_special;
    const char *pretokenizer;                                    /* "gpt2" (default), "cl100k", "qwen2" */
    void (*progress)(void *ctx, const char *phase, double done); /* may be NULL */
    void *ctx;
};
MUST_USE enum status tokenizer_train(const char *folder, const struct str *texts, size_t n_text,
                                     const struct tokenizer_train *how, struct error *err);

#endif
