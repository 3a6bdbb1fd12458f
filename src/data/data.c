#include "data/data.h"

#include "base/file.h"
#include "base/mem.h"
#include "base/rng.h"

enum { FILE_BYTES_MAX_LOG2 = 34 };

struct dataset {
    struct ids tokens;
    uint64_t text_bytes, hash;
    int block_size;
};

/* ---- reading ---- */

static enum status document_add(struct dataset *d, const struct data_source *source, struct str text, struct error *err)
{
    if (text.len == 0)
        return ST_OK;
    TRY(tokenizer_encode(source->tokenizer, &d->tokens, text, 0, err));
    int32_t eos = tokenizer_eos(source->tokenizer);
    if (eos >= 0 && !ids_push(&d->tokens, eos))
        return fail_nomem(err, "data");
    return ST_OK;
}

static enum status file_add(struct dataset *d, const struct data_source *source, const char *path, struct error *err)
{
    struct buf text = {0};
    enum status st = file_read_all(&text, path, (size_t)1 << FILE_BYTES_MAX_LOG2, err);
    struct str rest = buf_str(&text), separator = source->document_separator;
    d->text_bytes += rest.len;
    while (st == ST_OK && rest.len) {
        size_t end = separator.len ? str_find(rest, separator, 0) : SIZE_MAX;
        struct str document = end == SIZE_MAX ? rest : str_n(rest.ptr, end);
        st = document_add(d, source, document, err);
        rest = end == SIZE_MAX ? str_from(rest, rest.len) : str_from(rest, end + separator.len);
    }
    buf_free(&text);
    if (st != ST_OK)
        fail_context(err, "%s", path);
    return st;
}

enum status dataset_open(struct dataset **out, const struct data_source *source, struct error *err)
{
    struct dataset *d = mem_alloc_zero(1, sizeof *d);
    if (!d)
        return fail_nomem(err, "data");
    d->block_size = source->block_size;
    enum status st = ST_OK;
    for (size_t i = 0; st == ST_OK && i < source->n_path; i++) {
        if (source->progress)
            source->progress(source->ctx, "tokenize", (double)i / (double)source->n_path);
        char path[4096];
        if (source->paths[i].len >= sizeof path)
            st = fail(err, ST_INVALID, "data: file %zu: the path is longer than %zu bytes", i + 1, sizeof path - 1);
        else {
            memcpy(path, source->paths[i].ptr, source->paths[i].len);
            path[source->paths[i].len] = 0;
            st = file_add(d, source, path, err);
        }
    }
    if (st == ST_OK && d->tokens.count < (size_t)source->block_size + 1)
        st = fail(
            err, ST_INVALID,
            "data: %zu tokens in all, but one window needs block_size + 1 = %d: give more text or a smaller block_size",
            d->tokens.count, source->block_size + 1);
    if (st != ST_OK) {
        dataset_close(d);
        return st;
    }
    d->hash = str_hash(str_n(d->tokens.ids, d->tokens.count * sizeof *d->tokens.ids), (uint64_t)d->block_size);
    if (source->progress)
        source->progress(source->ctx, "tokenize", 1);
    *out = d;
    return ST_OK;
}

void dataset_close(struct dataset *d)
{
    if (!d)
        return;
    ids_free(&d->tokens);
    mem_free(d);
}

uint64_t dataset_tokens(const struct dataset *d)
{
    return d->tokens.count;
}

uint64_t dataset_bytes(const struct dataset *d)
{
    return d->text_bytes;
}

uint64_t dataset_hash(const struct dataset *d)
{
    return d->hash;
}

/* ---- order ---- */

static uint64_t epoch_key(uint64_t seed, uint64_t epoch)
{
    uint32_t out[4], counter[4] = {(uint32_t)epoch, (uint32_t)(epoch >> 32), 0x6f726465 /* "orde" */, 0};
    philox4x32(out, counter, (uint32_t[2]){(uint32_t)seed, (uint32_t)(seed >> 32)});
    return (uint64_t)out[1] << 32 | out[0];
}

/* A four-round Feistel network over the next power of four, walked until it lands below n: a bijection of 0 .. n-1
 * without a table (Black and Rogaway 2002, cycle walking; at most four steps on average). */
uint64_t data_permute(uint64_t i, uint64_t n, uint64_t key)
{
    unsigned half = 1;
    while (half < 31 && ((uint64_t)1 << (2 * half)) < n)
        half++;
    uint32_t mask = ((uint32_t)1 << half) - 1;
    do {
        uint32_t left = (uint32_t)(i >> half) & mask, right = (uint32_t)i & mask;
        for (uint32_t round = 0; round < 4; round++) {
            uint32_t out[4], counter[4] = {right, round, 0, 0};
            philox4x32(out, counter, (uint32_t[2]){(uint32_t)key, (uint32_t)(key >> 32)});
            uint32_t next = left ^ (out[0] & mask);
            left = right;
            right = next;
        }
        i = (uint64_t)left << half | right;
    } while (i >= n);
    return i;
}

static uint64_t epoch_offset(const struct dataset *d, uint64_t key)
{
    uint64_t slack = d->tokens.count - ((uint64_t)d->block_size + 1);
    uint64_t most = slack < (uint64_t)d->block_size - 1 ? slack : (uint64_t)d->block_size - 1;
    return key % (most + 1);
}

static uint64_t windows_from(const struct dataset *d, uint64_t offset)
{
    return (d->tokens.count - offset - 1) / (uint64_t)d->block_size;
}

static void window_copy(const struct dataset *d, int32_t *ids, uint64_t start)
{
    memcpy(ids, d->tokens.ids + start, ((size_t)d->block_size + 1) * sizeof *ids);
}

uint64_t dataset_windows(const struct dataset *d, uint64_t seed, uint64_t epoch)
{
    return windows_from(d, epoch_offset(d, epoch_key(seed, epoch)));
}

void dataset_window(const struct dataset *d, int32_t *ids, uint64_t seed, uint64_t epoch, uint64_t i)
{
    uint64_t key = epoch_key(seed, epoch), offset = epoch_offset(d, key);
    window_copy(d, ids, offset + data_permute(i, windows_from(d, offset), key) * (uint64_t)d->block_size);
}

uint64_t dataset_windows_at(const struct dataset *d)
{
    return windows_from(d, 0);
}

void dataset_window_at(const struct dataset *d, int32_t *ids, uint64_t i)
{
    window_copy(d, ids, i * (uint64_t)d->block_size);
}
