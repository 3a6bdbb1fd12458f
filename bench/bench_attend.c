/* bench_attend - how near is attention over paged keys and values to memory's read bandwidth and to the f32 peak?
 *
 *   bench_attend [threads] [part-of-a-name]
 *
 * One layer a call, layers in turn, so that what is read comes from memory. Medians of the runs that fit in 0.3 s, by
 * the clock. Bytes are those of the keys and values seen, operations two products of d_head a key and query.
 */
#include "base/clock.h"
#include "base/mem.h"
#include "kernels/kernels_private.h"
#include "model/model.h"

#include <stdio.h>
#include <stdlib.h>

static const struct shape {
    const char *name;
    int streams, context, rows, n_head, n_kv_head, d_head; /* rows: of each stream, the last ones of its context */
} shapes[] = {
    {"32 streams", 32, 500, 1, 14, 2, 64},         {"32 streams, 1:1", 32, 500, 1, 16, 16, 64},
    {"32 streams of 128", 32, 500, 1, 16, 8, 128}, {"one of 4k", 1, 4096, 1, 14, 2, 64},
    {"one of 4k, 1:1", 1, 4096, 1, 16, 16, 64},    {"one of 32k", 1, 32768, 1, 14, 2, 64},
    {"prefill 512", 1, 512, 512, 14, 2, 64},       {"prefill 512, 1:1", 1, 512, 512, 16, 16, 64},
    {"prefill at 4k", 1, 4096, 256, 14, 2, 64},
};
enum { RUNS_MAX = 1000 };

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}
static void *must(void *p)
{
    if (!p) {
        fprintf(stderr, "bench_attend: out of memory\n");
        exit(71);
    }
    return p;
}
static real *noise(int64_t n)
{
    real *x = must(mem_alloc_aligned((size_t)n * sizeof *x));
    uint32_t state = 1;
    for (int64_t i = 0; i < n; i++)
        x[i] = (real)((int32_t)(state = state * 1664525u + 1013904223u) >> 8) * 0x1p-23f;
    return x;
}

static void measure(const struct shape *s, enum kv_type type, const struct machine_limits *limits, struct pool *pool)
{
    struct kv_layout l = {type, s->n_kv_head, s->d_head};
    struct attend_attr attr = {s->n_head, 0.125f, 0, 0, false};
    int pages = (s->context + KV_BLOCK - 1) / KV_BLOCK, n_row = s->streams * s->rows;
    size_t layer_bytes = kv_page_bytes(&l) * (size_t)(pages * s->streams);
    int layers = (int)((192u << 20) / layer_bytes) + 1;
    char *cache = must(mem_alloc_aligned(layer_bytes * (size_t)layers));
    int32_t *blocks = must(mem_alloc_zero((size_t)(pages * s->streams), sizeof *blocks));
    struct attend_span *fill = must(mem_alloc_zero((size_t)s->streams, sizeof *fill));
    struct attend_span *spans = must(mem_alloc_zero((size_t)s->streams, sizeof *spans));
    real *kv = noise((int64_t)s->streams * s->context * s->n_kv_head * s->d_head);
    int64_t n_q = (int64_t)n_row * s->n_head * s->d_head;
    real *q = noise(n_q), *out = noise(n_q);
    size_t scratch_bytes = attend_scratch_bytes(&l, s->n_head, s->context);
    void *scratch = must(mem_alloc_aligned(scratch_bytes));
    for (int i = 0; i < pages * s->streams; i++)
        blocks[i] = i % s->streams * pages + i / s->streams; /* as streams that grow side by side get them */
    for (int i = 0; i < s->streams; i++) {
        fill[i] = (struct attend_span){i * s->context, s->context, 0, blocks + (size_t)i * (size_t)pages};
        spans[i] = (struct attend_span){i * s->rows, s->rows, s->context - s->rows, blocks + (size_t)i * (size_t)pages};
    }
    for (int i = 0; i < layers; i++)
        kv_write(cache + layer_bytes * (size_t)i, &l, kv, kv, fill, s->streams, pool);
    double runs[RUNS_MAX];
    int n = 0;
    for (uint64_t begin = clock_ns(); n < RUNS_MAX && clock_ns() - begin < 300000000u; n++) {
        uint64_t start = clock_ns();
        attend_forward_split(out, q, cache + layer_bytes * (size_t)(n % layers), &l, &attr, spans, s->streams, scratch,
                             scratch_bytes, pool);
        runs[n] = (double)(clock_ns() - start);
    }
    qsort(runs, (size_t)n, sizeof *runs, by_value);
    double ns = runs[n / 2], keys = 0;
    for (int r = 0; r < s->rows; r++)
        keys += (double)s->streams * (s->context - r);
    double bytes = (double)kv_page_bytes(&l) / KV_BLOCK * s->streams * s->context;
    double ops = 4.0 * s->n_head * s->d_head * keys;
    printf("%-18s %-5s %9.1f us  %6.1f GB/s %4.0f %%  %6.1f Gop/s %4.0f %%\n", s->name, model_kv_names[type], ns / 1e3,
           bytes / ns, 100 * bytes / ns / limits->read_gb_s, ops / ns, 100 * ops / ns / limits->f32_gflop_s);
    mem_free(cache), mem_free(blocks), mem_free(fill), mem_free(spans);
    mem_free(kv), mem_free(q), mem_free(out), mem_free(scratch);
}

int main(int argc, char **argv)
{
    struct error err;
    struct pool *pool;
    struct machine_limits limits;
    if (kernels_init(NULL, &err) != ST_OK ||
        pool_create(&pool, argc > 1 ? atoi(argv[1]) : cpu_count(), &err) != ST_OK) {
        fprintf(stderr, "bench_attend: %s\n", err.text);
        return 71;
    }
    machine_limits(&limits, pool);
    printf("%s, %s, %d threads: read %.1f GB/s, f32 %.0f Gop/s\n", kernels_cpu_name(), kernels_isa(),
           pool_threads(pool), limits.read_gb_s, limits.f32_gflop_s);
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        if (argc < 3 || strstr(shapes[i].name, argv[2]))
            for (enum kv_type type = KV_F16; type <= KV_INT8; type++)
                measure(&shapes[i], type, &limits, pool);
    pool_destroy(pool);
    return 0;
}
