/* bench_kernels - every row of kernels.def: its rate, its share of what this machine can do, its speed over ref
 *
 *   bench_kernels [op-prefix] [threads]
 *
 * Each operation runs through its door with only one instruction set allowed. The clock holds that call alone: inputs
 * are made before, activations of quantized products are prepared before. Best of the runs that fit in 0.3 s (one run
 * at least): neighbours only ever take away. Figures: Gop/s (a multiply and an add are 2) where arithmetic bounds, GB/s
 * of what must be read and written where memory does; `share` is of the limit measured in this run.
 */
#include "base/clock.h"
#include "base/mem.h"
#include "kernels/kernels_private.h"

#include <stdio.h>
#include <stdlib.h>

struct work {
    double ops, bytes; /* one of them 0: which limit bounds */
    enum dtype peak;   /* ops: F32, BF16 or Q8_0 (int8) */
};
struct bench {
    const char *op, *what;
    struct work (*run)(struct pool *pool); /* inputs are cached in statics; the first call makes them */
};

/* One thread: its CPU time, which a busy machine does not stretch. More: the wall clock. */
static bool one_thread;
static uint64_t started_ns, spent_ns;
static uint64_t now_ns(void)
{
    return one_thread ? clock_thread_cpu_ns() : clock_ns();
}
static void clock_start(void)
{
    started_ns = now_ns();
}
static void clock_stop(void)
{
    spent_ns = now_ns() - started_ns;
}

/* Numbers between -1 and 1; the same memory again for the same slot. */
enum { SLOTS = 8 };
static struct {
    void *p;
    size_t bytes;
} slots[SLOTS];
static void *slot_bytes(int slot, size_t bytes)
{
    if (slots[slot].bytes < bytes) {
        mem_free(slots[slot].p);
        slots[slot].p = mem_alloc_aligned(bytes);
        slots[slot].bytes = bytes;
        if (!slots[slot].p) {
            fprintf(stderr, "bench_kernels: out of memory\n");
            exit(71);
        }
    }
    return slots[slot].p;
}
static real *slot_reals(int slot, int64_t n)
{
    real *x = slot_bytes(slot, (size_t)n * sizeof *x);
    uint32_t state = 1;
    for (int64_t i = 0; i < n; i++)
        x[i] = (real)((int32_t)(state = state * 1664525u + 1013904223u) >> 8) * 0x1p-23f;
    return x;
}

/* ---- linear ---- */
enum { DECODE_OUT = 32768, DECODE_IN = 896, PREFILL_ROWS = 192, PREFILL_OUT = 1024, PREFILL_IN = 896 };

static struct weight some_weight(enum dtype t, int64_t n_out, int64_t n_in)
{
    struct weight w = {.type = t, .n_out = n_out, .n_in = n_in, .panel_bytes = panel_bytes(t, n_in)};
    w.bytes = weight_bytes(t, n_out, n_in);
    uint32_t *word = w.panels = slot_bytes(0, w.bytes), state = 7;
    for (size_t i = 0; i < w.bytes / 4; i++) { /* plain types near 1, scales of block types small, all finite */
        state = state * 1664525u + 1013904223u;
        word[i] = t == DT_F32 ? 0x3f000000u | state >> 9 : (state & 0x83ff83ffu) | 0x24002400u;
    }
    return w;
}

static struct work product(enum dtype t, bool exact, bool prefill, struct pool *pool)
{
    int64_t rows = prefill ? PREFILL_ROWS : 1, n_in = prefill ? PREFILL_IN : DECODE_IN;
    struct weight w = some_weight(t, prefill ? PREFILL_OUT : DECODE_OUT, n_in);
    w.exact = exact;
    real *x = slot_reals(1, rows * n_in), *out = slot_reals(2, rows * w.n_out);
    struct act a;
    act_prepare(&a, weight_act(&w), slot_bytes(3, act_bytes(weight_act(&w), rows, n_in) + 64), x, rows, n_in, pool);
    clock_start();
    linear_forward(out, &a, &w, NULL, pool);
    clock_stop();
    if (!prefill)
        return (struct work){.bytes = (double)w.bytes};
    return (struct work){.ops = 2.0 * (double)rows * (double)(w.n_out * n_in),
                         .peak = exact || t == DT_F16 ? DT_F32
                                 : dtype_is_block(t)  ? DT_Q8_0
                                                      : t};
}
#define PRODUCT(name, type, exact)                                                                                     \
    static struct work decode_##name(struct pool *pool)                                                                \
    {                                                                                                                  \
        return product(type, exact, false, pool);                                                                      \
    }                                                                                                                  \
    static struct work prefill_##name(struct pool *pool)                                                               \
    {                                                                                                                  \
        return product(type, exact, true, pool);                                                                       \
    }
PRODUCT(f32, DT_F32, false)
PRODUCT(f16, DT_F16, false)
PRODUCT(bf16, DT_BF16, false)
PRODUCT(q8_0, DT_Q8_0, false)
PRODUCT(q4_0, DT_Q4_0, false)
PRODUCT(q4_1, DT_Q4_1, false)
PRODUCT(exact, DT_Q8_0, true)

static struct work activations(enum act_type type, struct pool *pool)
{
    int64_t rows = 512, n_in = 4864;
    struct act a;
    real *x = slot_reals(1, rows * n_in);
    void *storage = slot_bytes(3, act_bytes(type, rows, n_in));
    clock_start();
    act_prepare(&a, type, storage, x, rows, n_in, pool);
    clock_stop();
    return (struct work){.bytes = (double)((size_t)(rows * n_in) * sizeof *x + act_bytes(type, rows, n_in))};
}
static struct work run_act_bf16(struct pool *pool)
{
    return activations(ACT_BF16, pool);
}
static struct work run_act_int8(struct pool *pool)
{
    return activations(ACT_INT8, pool);
}

static struct work run_linear_input(struct pool *pool)
{
    struct weight w = some_weight(DT_F32, PREFILL_OUT, PREFILL_IN);
    real *dy = slot_reals(1, PREFILL_ROWS * PREFILL_OUT), *dx = slot_reals(2, PREFILL_ROWS * PREFILL_IN);
    clock_start();
    linear_backward_input(dx, dy, &w, PREFILL_ROWS, false, pool);
    clock_stop();
    return (struct work){.ops = 2.0 * PREFILL_ROWS * PREFILL_OUT * PREFILL_IN, .peak = DT_F32};
}

static struct work run_linear_weight(struct pool *pool)
{
    real *dy = slot_reals(1, PREFILL_ROWS * PREFILL_OUT), *x = slot_reals(2, PREFILL_ROWS * PREFILL_IN);
    real *dw = slot_reals(0, PREFILL_OUT * PREFILL_IN);
    clock_start();
    linear_backward_weight(dw, dy, x, PREFILL_ROWS, PREFILL_OUT, PREFILL_IN, pool);
    clock_stop();
    return (struct work){.ops = 2.0 * PREFILL_ROWS * PREFILL_OUT * PREFILL_IN, .peak = DT_F32};
}

/* ---- the list ---- */
static const struct bench benches[] = {
    {"linear_f32", "decode", decode_f32},     {"linear_f32", "prefill", prefill_f32},
    {"linear_f16", "decode", decode_f16},     {"linear_f16", "prefill", prefill_f16},
    {"linear_bf16", "decode", decode_bf16},   {"linear_bf16", "prefill", prefill_bf16},
    {"linear_q8_0", "decode", decode_q8_0},   {"linear_q8_0", "prefill", prefill_q8_0},
    {"linear_q4_0", "decode", decode_q4_0},   {"linear_q4_0", "prefill", prefill_q4_0},
    {"linear_q4_1", "decode", decode_q4_1},   {"linear_q4_1", "prefill", prefill_q4_1},
    {"linear_exact", "decode", decode_exact}, {"linear_exact", "prefill", prefill_exact},
    {"act_bf16", "", run_act_bf16},           {"act_int8", "", run_act_int8},
    {"linear_input", "", run_linear_input},   {"linear_weight", "", run_linear_weight},
};
enum { BENCHES = sizeof benches / sizeof benches[0] };

/* Best nanoseconds of a run. */
static double best_ns(const struct bench *b, struct pool *pool, struct work *work)
{
    double best = 1e18;
    uint64_t begin = clock_ns();
    do {
        *work = b->run(pool);
        best = (double)spent_ns < best ? (double)spent_ns : best;
    } while (clock_ns() - begin < 300000000u);
    return best;
}

static double limit_of(const struct work *w, const struct machine_limits *m)
{
    if (w->bytes > 0)
        return m->read_gb_s;
    return w->peak == DT_F32 ? m->f32_gflop_s : w->peak == DT_BF16 ? m->bf16_gop_s : m->int8_gop_s;
}

static void bench_op(const struct bench *b, const struct machine_limits *limits, struct pool *pool)
{
    int count;
    const struct kernel_row *rows = kernel_rows(&count);
    double ref = 0;
    for (int i = 0; i < count; i++) {
        struct error err;
        struct work work;
        if (strcmp(rows[i].op, b->op) != 0)
            continue;
        if (!kernel_row_available(&rows[i]) || kernels_init(kernels_isa_list(rows[i].set), &err) != ST_OK) {
            printf("%-14s %-8s %-7s  not on this processor\n", b->op, b->what, rows[i].isa);
            continue;
        }
        double ns = best_ns(b, pool, &work), rate = (work.bytes > 0 ? work.bytes : work.ops) / ns;
        ref = rows[i].set == 0 ? ns : ref;
        printf("%-14s %-8s %-7s %9.2f %s  %5.1f %%  %7.1f x\n", b->op, b->what, rows[i].isa, rate,
               work.bytes > 0 ? "GB/s " : "Gop/s", 100 * rate / limit_of(&work, limits), ref / ns);
        fflush(stdout);
    }
}

int main(int argc, char **argv)
{
    const char *prefix = argc > 1 ? argv[1] : "";
    struct error err;
    struct pool *pool;
    if (pool_create(&pool, argc > 2 ? atoi(argv[2]) : cpu_count(), &err) != ST_OK) {
        fprintf(stderr, "bench_kernels: %s\n", err.text);
        return 71;
    }
    one_thread = pool_threads(pool) == 1;
    struct machine_limits limits;
    machine_limits(&limits, pool);
    printf("%s, %d threads: read %.1f GB/s, f32 %.0f, bf16 %.0f, int8 %.0f Gop/s\n", kernels_cpu_name(),
           pool_threads(pool), limits.read_gb_s, limits.f32_gflop_s, limits.bf16_gop_s, limits.int8_gop_s);
    for (int i = 0; i < BENCHES; i++)
        if (strncmp(benches[i].op, prefix, strlen(prefix)) == 0)
            bench_op(&benches[i], &limits, pool);
    pool_destroy(pool);
    return 0;
}
