/* bench_kernels - every row of kernels.def: its rate, its share of what this machine can do, its speed over ref
 *
 *   bench_kernels [op-prefix] [threads] [isa]        isa: rows of that set only, without the speed over ref
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
/* Decoding, of one stream, of 8, 16 and 32, reads weights larger than any cache; prefill has a model's shapes:
 * Qwen2.5-0.5B's up and down, and 4096^2.
 */
struct shape {
    int64_t rows, n_out, n_in;
};
static const struct shape decode_shape = {1, 131072, 896}, rows8_shape = {8, 131072, 896};
static const struct shape rows16_shape = {16, 131072, 896}, rows32_shape = {32, 131072, 896};
static const struct shape up_shape = {512, 4864, 896}, down_shape = {512, 896, 4864};
static const struct shape square_shape = {512, 4096, 4096};
enum { BACK_ROWS = 192, BACK_OUT = 1024, BACK_IN = 896 };

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

static struct work product(enum dtype t, bool exact, const struct shape *shape, struct pool *pool)
{
    int64_t rows = shape->rows, block = dtype_row(t)->block, n_in = (shape->n_in + block - 1) / block * block;
    struct weight w = some_weight(t, shape->n_out, n_in);
    w.exact = exact;
    real *x = slot_reals(1, rows * n_in), *out = slot_reals(2, rows * w.n_out);
    struct act a;
    act_prepare(&a, weight_act(&w), slot_bytes(3, act_bytes(weight_act(&w), rows, n_in) + 64), x, rows, n_in, pool);
    clock_start();
    linear_forward(out, &a, &w, NULL, pool);
    clock_stop();
    if (rows <= weight_few_rows(&w))
        return (struct work){.bytes = (double)w.bytes};
    return (struct work){.ops = 2.0 * (double)rows * (double)(w.n_out * n_in),
                         .peak = exact || t == DT_F16 ? DT_F32
                                 : dtype_is_block(t)  ? DT_Q8_0
                                                      : t};
}
#define SHAPE(name, type, exact, shape)                                                                                \
    static struct work shape##_##name(struct pool *pool)                                                               \
    {                                                                                                                  \
        return product(type, exact, &shape##_shape, pool);                                                             \
    }
#define PRODUCT(name, type, exact)                                                                                     \
    SHAPE(name, type, exact, decode)                                                                                   \
    SHAPE(name, type, exact, rows8)                                                                                    \
    SHAPE(name, type, exact, rows16)                                                                                   \
    SHAPE(name, type, exact, rows32)                                                                                   \
    SHAPE(name, type, exact, up)                                                                                       \
    SHAPE(name, type, exact, down)                                                                                     \
    SHAPE(name, type, exact, square)
#define PANEL(TYPE, name, ...) PRODUCT(name, DT_##TYPE, false)
#include "kernels/panels.def"
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
    struct weight w = some_weight(DT_F32, BACK_OUT, BACK_IN);
    real *dy = slot_reals(1, BACK_ROWS * BACK_OUT), *dx = slot_reals(2, BACK_ROWS * BACK_IN);
    clock_start();
    linear_backward_input(dx, dy, &w, BACK_ROWS, false, pool);
    clock_stop();
    return (struct work){.ops = 2.0 * BACK_ROWS * BACK_OUT * BACK_IN, .peak = DT_F32};
}

static struct work run_linear_weight(struct pool *pool)
{
    real *dy = slot_reals(1, BACK_ROWS * BACK_OUT), *x = slot_reals(2, BACK_ROWS * BACK_IN);
    real *dw = slot_reals(0, BACK_OUT * BACK_IN);
    clock_start();
    linear_backward_weight(dw, dy, x, BACK_ROWS, BACK_OUT, BACK_IN, pool);
    clock_stop();
    return (struct work){.ops = 2.0 * BACK_ROWS * BACK_OUT * BACK_IN, .peak = DT_F32};
}

/* ---- attention: Qwen2.5-0.5B's heads, f16 keys and values ---- */
enum { HEADS = 14, KV_HEADS = 2, D_HEAD = 64, CONTEXT = 2048 };

/* n_row rows at positions pos0 .. of one sequence; every page holds something. */
static struct work attention(enum kv_type type, int pos0, int n_row, struct pool *pool)
{
    static int32_t blocks[CONTEXT / KV_BLOCK];
    struct kv_layout l = {type, KV_HEADS, D_HEAD};
    struct attend_attr attr = {HEADS, 0.125f, 0, 0};
    for (int i = 0; i < CONTEXT / KV_BLOCK; i++)
        blocks[i] = i;
    void *layer = slot_bytes(0, kv_page_bytes(&l) * (CONTEXT / KV_BLOCK));
    real *k = slot_reals(1, (int64_t)CONTEXT * KV_HEADS * D_HEAD),
         *q = slot_reals(2, (int64_t)CONTEXT * HEADS * D_HEAD);
    real *out = slot_reals(3, (int64_t)CONTEXT * HEADS * D_HEAD);
    struct attend_span all = {0, CONTEXT, 0, blocks}, span = {0, n_row, pos0, blocks};
    kv_write(layer, &l, k, k, &all, 1, pool);
    clock_start();
    attend_forward(out, q, layer, &l, &attr, &span, 1, pool);
    clock_stop();
    double keys = (double)n_row * (pos0 + (n_row + 1) / 2.0); /* two products of d_head a key */
    return (struct work){.ops = 4.0 * HEADS * D_HEAD * keys, .peak = DT_F32};
}
static struct work attend_decode(struct pool *pool)
{
    return attention(KV_F16, CONTEXT - 1, 1, pool);
}
static struct work attend_decode_int8(struct pool *pool)
{
    return attention(KV_INT8, CONTEXT - 1, 1, pool);
}
static struct work attend_prefill(struct pool *pool)
{
    return attention(KV_F16, 0, 512, pool);
}

static struct work run_attend_back(struct pool *pool)
{
    enum { ROWS = 256 };
    struct kv_layout l = {KV_F32, KV_HEADS, D_HEAD};
    struct attend_attr attr = {HEADS, 0.125f, 0, 0};
    struct attend_span span = {0, ROWS, 0, NULL};
    int64_t n = ROWS * HEADS * D_HEAD, n_kv = ROWS * KV_HEADS * D_HEAD;
    real *q = slot_reals(0, n), *dout = slot_reals(1, n), *dq = slot_reals(2, n), *k = slot_reals(3, n_kv);
    real *v = slot_reals(4, n_kv), *dk = slot_reals(5, n_kv), *dv = slot_reals(6, n_kv);
    clock_start();
    attend_backward(dq, dk, dv, dout, q, k, v, &l, &attr, &span, 1, pool);
    clock_stop();
    return (struct work){.ops = 14.0 * HEADS * D_HEAD * ROWS * (ROWS + 1) / 2, .peak = DT_F32}; /* seven products */
}

static struct work run_kv_store(struct pool *pool)
{
    static const int32_t blocks[8] = {0, 1, 2, 3, 4, 5, 6, 7};
    struct kv_layout l = {KV_F16, KV_HEADS, D_HEAD};
    struct attend_span span = {0, 512, 0, blocks};
    void *layer = slot_bytes(0, kv_page_bytes(&l) * 8);
    real *k = slot_reals(1, 512 * KV_HEADS * D_HEAD);
    clock_start();
    kv_write(layer, &l, k, k, &span, 1, pool);
    clock_stop();
    return (struct work){.bytes = 512.0 * KV_HEADS * D_HEAD * 2 * (4 + 2)};
}

/* ---- rows and elements ---- */
enum { ROW_COUNT = 128, WIDTH = 896, WIDE = 4864, VOCABULARY = 151936 };

static struct work run_norm_rms(struct pool *pool)
{
    real *x = slot_reals(0, ROW_COUNT * WIDTH), *out = slot_reals(1, ROW_COUNT * WIDTH), *w = slot_reals(2, WIDTH);
    clock_start();
    norm_rms_forward(out, x, w, 1e-5f, ROW_COUNT, WIDTH, pool);
    clock_stop();
    return (struct work){.bytes = 2.0 * sizeof(real) * ROW_COUNT * WIDTH};
}
static struct work run_norm_layer(struct pool *pool)
{
    real *x = slot_reals(0, ROW_COUNT * WIDTH), *out = slot_reals(1, ROW_COUNT * WIDTH), *w = slot_reals(2, WIDTH);
    clock_start();
    norm_layer_forward(out, x, w, w, 1e-5f, ROW_COUNT, WIDTH, pool);
    clock_stop();
    return (struct work){.bytes = 2.0 * sizeof(real) * ROW_COUNT * WIDTH};
}
static struct work run_norm_rms_dx(struct pool *pool)
{
    real *x = slot_reals(0, ROW_COUNT * WIDTH), *dx = slot_reals(1, ROW_COUNT * WIDTH), *w = slot_reals(2, WIDTH);
    real *dy = slot_reals(3, ROW_COUNT * WIDTH), *dw = slot_reals(4, WIDTH);
    clock_start();
    norm_rms_backward(dx, dw, dy, x, w, 1e-5f, ROW_COUNT, WIDTH, pool);
    clock_stop();
    return (struct work){.bytes = 3.0 * sizeof(real) * ROW_COUNT * WIDTH};
}
static struct work run_rope_turn(struct pool *pool)
{
    enum { ROPE_HEADS = HEADS + KV_HEADS };
    real *x = slot_reals(0, ROW_COUNT * ROPE_HEADS * D_HEAD), *cs = slot_reals(1, ROW_COUNT * D_HEAD);
    clock_start();
    rope_apply(x, cs, ROPE_HALF, ROW_COUNT, ROPE_HEADS, D_HEAD, D_HEAD / 2, 1, pool);
    clock_stop();
    return (struct work){.bytes = 2.0 * sizeof(real) * ROW_COUNT * ROPE_HEADS * D_HEAD};
}
static struct work gated(enum act_fn fn, struct pool *pool)
{
    real *gate = slot_reals(0, ROW_COUNT * WIDE), *up = slot_reals(1, ROW_COUNT * WIDE);
    clock_start();
    glu_forward(gate, gate, up, fn, ROW_COUNT * WIDE, pool);
    clock_stop();
    return (struct work){.bytes = 3.0 * sizeof(real) * ROW_COUNT * WIDE};
}
static struct work run_silu(struct pool *pool)
{
    return gated(FN_SILU, pool);
}
static struct work run_gelu(struct pool *pool)
{
    return gated(FN_GELU, pool);
}
static struct work run_map_add(struct pool *pool)
{
    real *x = slot_reals(0, ROW_COUNT * WIDTH), *y = slot_reals(1, ROW_COUNT * WIDTH);
    clock_start();
    add_forward(x, x, y, ROW_COUNT * WIDTH, pool);
    clock_stop();
    return (struct work){.bytes = 3.0 * sizeof(real) * ROW_COUNT * WIDTH};
}

/* ---- vocabulary, optimizer ---- */
static struct work run_lse(struct pool *pool)
{
    real *x = slot_reals(0, VOCABULARY), lse;
    clock_start();
    lse_forward(&lse, x, 1, VOCABULARY, pool);
    clock_stop();
    return (struct work){.bytes = 1.0 * sizeof(real) * VOCABULARY};
}
static struct work run_loss(struct pool *pool)
{
    real *x = slot_reals(0, 8 * VOCABULARY), loss[8];
    static const int32_t targets[8];
    clock_start();
    cross_entropy(loss, x, x, targets, 0.1f, 8, VOCABULARY, pool);
    clock_stop();
    return (struct work){.bytes = 8 * 2.0 * sizeof(real) * VOCABULARY};
}
static struct work run_top_k(struct pool *pool)
{
    (void)pool;
    float *x = slot_bytes(0, VOCABULARY * sizeof *x);
    struct candidate best[40];
    uint64_t state = 9;
    for (int i = 0; i < VOCABULARY; i++)
        x[i] = (float)((state = state * 6364136223846793005u + 1442695040888963407u) >> 40);
    clock_start();
    top_k_select(best, x, VOCABULARY, 40);
    clock_stop();
    return (struct work){.bytes = 4.0 * VOCABULARY};
}
static struct work run_adamw(struct pool *pool)
{
    enum { PARAMETERS = 1 << 20 };
    struct adamw how = {1e-3f, 0.9f, 0.95f, 1e-8f, 0.1f, 10, 1};
    real *p = slot_reals(0, PARAMETERS), *m = slot_reals(1, PARAMETERS), *g = slot_reals(3, PARAMETERS);
    real *v = slot_bytes(2, PARAMETERS * sizeof *v);
    memset(v, 0, PARAMETERS * sizeof *v);
    clock_start();
    adamw_step(p, m, v, g, &how, PARAMETERS, pool);
    clock_stop();
    return (struct work){.bytes = 7.0 * sizeof(real) * PARAMETERS};
}
static struct work run_squares(struct pool *pool)
{
    real *x = slot_reals(0, 1 << 20);
    clock_start();
    sum_squares(x, 1 << 20, pool);
    clock_stop();
    return (struct work){.bytes = sizeof(real) * 1048576.0};
}

/* ---- the list ---- */
static const struct bench benches[] = {
#define BENCH(name, shape)                                                                                             \
    {                                                                                                                  \
        "linear_" #name, #shape, shape##_##name                                                                        \
    }
#define PRODUCTS(name)                                                                                                 \
    BENCH(name, decode), BENCH(name, rows8), BENCH(name, rows16), BENCH(name, rows32), BENCH(name, up),                \
        BENCH(name, down), BENCH(name, square),
#define PANEL(TYPE, name, ...) PRODUCTS(name)
#include "kernels/panels.def"
    PRODUCTS(exact){"act_bf16", "", run_act_bf16},
    {"act_int8", "", run_act_int8},
    {"linear_input", "", run_linear_input},
    {"linear_weight", "", run_linear_weight},
    {"attend", "decode", attend_decode},
    {"attend", "int8", attend_decode_int8},
    {"attend", "prefill", attend_prefill},
    {"attend_back", "", run_attend_back},
    {"kv_store", "", run_kv_store},
    {"norm_rms", "", run_norm_rms},
    {"norm_layer", "", run_norm_layer},
    {"norm_rms_dx", "", run_norm_rms_dx},
    {"rope_turn", "", run_rope_turn},
    {"map_glu", "silu", run_silu},
    {"map_glu", "gelu", run_gelu},
    {"map_add", "", run_map_add},
    {"lse_rows", "", run_lse},
    {"loss_rows", "", run_loss},
    {"find_above", "top 40", run_top_k},
    {"adamw_range", "", run_adamw},
    {"squares_chunks", "", run_squares},
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

/* Operations of kernels.def with no run here. */
static void list_unmeasured(void)
{
    int count;
    const struct kernel_row *rows = kernel_rows(&count);
    for (int i = 0; i < count; i++) {
        bool found = rows[i].set != 0; /* name an operation once */
        for (int b = 0; b < BENCHES && !found; b++)
            found = strcmp(rows[i].op, benches[b].op) == 0;
        if (!found)
            printf("%-14s not measured\n", rows[i].op);
    }
}

static double limit_of(const struct work *w, const struct machine_limits *m)
{
    if (w->bytes > 0)
        return m->read_gb_s;
    return w->peak == DT_F32 ? m->f32_gflop_s : w->peak == DT_BF16 ? m->bf16_gop_s : m->int8_gop_s;
}

static void bench_op(const struct bench *b, const char *isa, const struct machine_limits *limits, struct pool *pool)
{
    int count;
    const struct kernel_row *rows = kernel_rows(&count);
    double ref = 0;
    for (int i = 0; i < count; i++) {
        struct error err;
        struct work work;
        if (strcmp(rows[i].op, b->op) != 0 || (isa && strcmp(rows[i].isa, isa) != 0))
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
            bench_op(&benches[i], argc > 3 ? argv[3] : NULL, &limits, pool);
    if (!*prefix)
        list_unmeasured();
    pool_destroy(pool);
    return 0;
}
