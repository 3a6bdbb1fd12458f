/* How fast does one thread encode? bench_tokenizer MODEL FILE...: MB/s over all files, the best of five rounds.
 *
 * Texts are encoded in chunks of about 64 KiB that end at line ends, as bench/tokenizer.py gives them to the originals.
 * The clock excludes opening the vocabulary and reading the files, and the first round, which fills the caches.
 * With --worst instead of files: milliseconds for 1 MiB of one letter, of blanks, of CJK, of letters without a blank.
 */
#include "base/clock.h"
#include "base/file.h"
#include "base/rng.h"
#include "base/unicode.h"
#include "tokenizer/tokenizer.h"

#include <stdio.h>

enum { CHUNK = 1 << 16, ROUNDS = 5, WORST = 1 << 20 };

static int encode_chunks(const struct tokenizer *tok, struct str text, size_t *n_id, struct error *err)
{
    struct ids ids = {0};
    while (text.len) {
        size_t n = text.len < CHUNK ? text.len : CHUNK;
        const char *nl = n < text.len ? memchr(text.ptr + n, '\n', text.len - n) : NULL;
        n = nl ? (size_t)(nl + 1 - text.ptr) : text.len;
        ids.count = 0;
        if (tokenizer_encode(tok, &ids, str_n(text.ptr, n), 0, err) != ST_OK)
            return 1;
        *n_id += ids.count;
        text = str_from(text, n);
    }
    ids_free(&ids);
    return 0;
}

static int worst(const struct tokenizer *tok, struct error *err)
{
    static const char *const names[] = {"one letter", "blanks", "CJK", "random letters", "line feeds", "apostrophes"};
    struct rng rng;
    rng_init(&rng, 1);
    for (int k = 0; k < 6; k++) {
        struct buf text = {0};
        struct ids ids = {0};
        char c[4];
        while (text.len < WORST)
            if (k == 2)
                buf_append(&text, c, (size_t)utf8_encode(c, 0x4E00 + (uint32_t)rng_below(&rng, 0x5000)));
            else
                buf_append_char(&text, k == 0   ? 'a'
                                       : k == 1 ? ' '
                                       : k == 3 ? (char)('a' + rng_below(&rng, 26))
                                       : k == 4 ? '\n'
                                                : '\'');
        uint64_t start = clock_thread_cpu_ns();
        if (tokenizer_encode(tok, &ids, buf_str(&text), 0, err) != ST_OK)
            return 1;
        printf("%-16s %8.1f ms %9zu ids\n", names[k], (double)(clock_thread_cpu_ns() - start) / 1e6, ids.count);
        buf_free(&text);
        ids_free(&ids);
    }
    return 0;
}

int main(int argc, char **argv)
{
    struct error err;
    struct tokenizer *tok;
    struct buf texts = {0};
    double best = 0;
    size_t n_id = 0;
    if (argc < 3 || tokenizer_open(&tok, argv[1], &err) != ST_OK) {
        fprintf(stderr, "%s\n", argc < 3 ? "bench_tokenizer MODEL FILE... | MODEL --worst" : err.text);
        return 2;
    }
    if (strcmp(argv[2], "--worst") == 0)
        return worst(tok, &err);
    for (int i = 2; i < argc; i++)
        if (file_read_all(&texts, argv[i], (size_t)1 << 30, &err) != ST_OK) {
            fprintf(stderr, "%s\n", err.text);
            return 2;
        }
    for (int round = 0; round <= ROUNDS; round++) {
        uint64_t start = clock_thread_cpu_ns();
        n_id = 0;
        if (encode_chunks(tok, buf_str(&texts), &n_id, &err)) {
            fprintf(stderr, "%s\n", err.text);
            return 1;
        }
        double rate = (double)texts.len / ((double)(clock_thread_cpu_ns() - start) / 1e9) / 1e6;
        best = round && rate > best ? rate : best;
    }
    printf("{\"mb_s\": %.1f, \"ids\": %zu, \"bytes\": %zu}\n", best, n_id, texts.len);
    buf_free(&texts);
    tokenizer_close(tok);
    return 0;
}
