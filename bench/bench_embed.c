/* bench_embed - how many texts a second does a model embed? `bench_embed MODEL FILE [THREADS [SECONDS]]`
 *
 * FILE has one text a line. The clock includes packing, the model and the callbacks; it excludes loading, tokenizing
 * and writing. All texts are one request, asked again until the seconds are over; the best and the median round count.
 * bench/embed.py runs ONNX Runtime on the same ids in turns.
 */
#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "engine/engine.h"

#include <stdio.h>
#include <stdlib.h>

enum { TEXTS_MAX = 4096, ROUNDS_MAX = 1000 };

static int by_value(const void *a, const void *b)
{
    const double *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

static enum status run(const char *path, const char *file, int n_thread, double seconds, struct error *err)
{
    static struct ids ids[TEXTS_MAX];
    static struct embed_text texts[TEXTS_MAX];
    static double rounds[ROUNDS_MAX];
    struct bundle *b;
    struct engine *e;
    struct buf text = {0};
    struct finish_event end = {0};
    struct model_options options = {.any_task = true};
    int n = 0, n_round = 0;
    TRY(kernels_init(NULL, err));
    TRY(bundle_open(&b, path, &options, err));
    TRY(engine_create(&e, b, &(struct engine_options){.n_thread = n_thread}, err));
    TRY(file_read_all(&text, file, 64 << 20, err));
    for (struct str rest = buf_str(&text), line; n < TEXTS_MAX && (line = str_next_line(&rest)).ptr; n++) {
        TRY(tokenizer_encode(b->tokenizer, &ids[n], line, TOKENIZE_ADD, err));
        tokenizer_shorten(b->tokenizer, &ids[n], (size_t)model_config(b->model)->n_ctx);
        texts[n] = (struct embed_text){ids[n].ids, (int)ids[n].count, 0};
    }
    real *out = mem_alloc_zero((size_t)n + 1, (size_t)model_config(b->model)->n_out * sizeof *out);
    if (!out)
        return fail_nomem(err, "bench");
    struct embed_request r = {.texts = texts, .n_text = n, .out = out};
    uint64_t begin = clock_ns();
    while (n_round < ROUNDS_MAX && (double)(clock_ns() - begin) < seconds * 1e9) {
        uint64_t start = clock_ns();
        TRY(engine_embed_wait(e, &r, &end, err));
        rounds[n_round++] = (double)(clock_ns() - start) * 1e-9;
    }
    qsort(rounds, (size_t)n_round, sizeof *rounds, by_value);
    double median = rounds[n_round / 2], best = rounds[0];
    printf("%s, %d threads: %d texts, %d tokens, %d rounds: median %.0f texts/s (%.0f tokens/s), best %.0f\n",
           kernels_cpu_name(), n_thread, n, end.n_prompt, n_round, n / median, end.n_prompt / median, n / best);
    engine_destroy(e);
    bundle_close(b);
    return ST_OK;
}

int main(int argc, char **argv)
{
    struct error err;
    if (argc < 3) {
        fprintf(stderr, "usage: bench_embed MODEL FILE [THREADS [SECONDS]]\n");
        return 2;
    }
    enum status st = run(argv[1], argv[2], argc > 3 ? atoi(argv[3]) : 2, argc > 4 ? atof(argv[4]) : 3, &err);
    if (st != ST_OK)
        fprintf(stderr, "bench_embed: %s\n", err.text);
    return st != ST_OK;
}
