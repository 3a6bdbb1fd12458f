/* kernels_private - what the files of this room share: the table of chosen kernels, function types, lane helpers
 *
 * A door function (kernels.h) splits its work and calls `kernels.op(...)`; op__ref, op__avx2 ... are rows of
 * kernels.def. To add an operation: a typedef op_fn here, KERNEL_OP and KERNEL rows there, ref/<file>_ref.c,
 * x86/<file>_<isa>.c and arm/<file>_<isa>.c (a body in lanes that both share: simd/<file>.h), a check_op in
 * tests/kernels, a bench_op in bench/bench_kernels.c.
 */
#ifndef KERNELS_KERNELS_PRIVATE_H
#define KERNELS_KERNELS_PRIVATE_H

#include <assert.h>
#include <math.h>

#include "kernels/kernels.h"

/* The double build and the fuzzers, which are about readers, have the reference alone. */
#if defined __x86_64__ && !defined INGOT_REAL_DOUBLE && !defined INGOT_FUZZING
#define KERNELS_X86 1
#else
#define KERNELS_X86 0
#endif
#if defined __aarch64__ && !defined INGOT_REAL_DOUBLE && !defined INGOT_FUZZING
#define KERNELS_ARM 1
#else
#define KERNELS_ARM 0
#endif

/* Feature bundles: a set is usable when the processor and the operating system offer all of its bundle. */
enum {
    CPU_AVX2 = 1,   /* avx2, fma, f16c, bmi2 */
    CPU_AVX512 = 2, /* f, bw, vl, dq */
    CPU_VNNI = 4,
    CPU_BF16 = 8,
    CPU_NEON = 16,
    CPU_DOTPROD = 32,
    CPU_AMX = 64, /* tile, int8, and leave to use them */
};
unsigned cpu_features(void);
const char *cpu_name(void);

/* One for float and double: a fused multiply-add and the other functions the contract names. */
#ifdef INGOT_REAL_DOUBLE
#define FMA(a, b, c) fma(a, b, c)
#define SQRT(x)      sqrt(x)
#else
#define FMA(a, b, c) fmaf(a, b, c)
#define SQRT(x)      sqrtf(x)
#endif

enum { LANES = 16 }; /* rows of a panel; lanes of every reduction */

/* The tree of docs/numerics.md section 2: +8, +4, +2, +1. Destroys lane. */
static inline real lanes_sum(real lane[LANES])
{
    for (int step = LANES / 2; step > 0; step /= 2)
        for (int j = 0; j < step; j++)
            lane[j] += lane[j + step];
    return lane[0];
}

static inline int64_t panel_count(int64_t n_out)
{
    return (n_out + LANES - 1) / LANES;
}

/* ---- panels: the layout of struct weight, private to this room ----
 *
 * Panel p holds output rows 16p .. 16p+15, the rows in lanes, k in order; every panel starts on a 64-byte boundary.
 *   F32    [n_in][16] real             F16   [n_in][16] half
 *   BF16   [ceil(n_in/2)][16][2]: pairs (k = 2i, 2i+1), the odd one of the last pair zero
 *   blocks of 32: units of a line of scales and their quants, groups of [16 rows][4 k] (block32.h)
 * So one 4-byte load of activations meets 16 outputs with no shuffle and no horizontal sum.
 */
enum { BLOCK = 32, PANEL_ALIGN = 64 };
size_t panel_scale_bytes(enum dtype t, int64_t n_in); /* before the quants */
size_t panel_bytes(enum dtype t, int64_t n_in);
static inline const void *panel_at(const struct weight *w, int64_t panel)
{
    return (const char *)w->panels + (size_t)panel * w->panel_bytes;
}
/* One lane of a panel widened to real, k0 .. k1-1 (multiples of 32 for block types), `stride` reals apart. */
void panel_widen_lane(real *out, ptrdiff_t stride, const struct weight *w, int64_t panel, int lane, int64_t k0,
                      int64_t k1);

static inline float half_at(const char *p, int64_t i)
{
    uint16_t h;
    memcpy(&h, p + 2 * i, 2);
    return f16_to_f32(h);
}

/* ---- prepared activations, the storage of struct act ----
 *
 * ACT_BF16   rows of bf16 pairs (k = 2i, 2i+1), zero after n_in; an odd number of cache lines apart, so that the rows
 *            of a tile do not fall into one set of the first-level cache
 * ACT_INT8   tiles of 16 rows, the last of n_row % 16: [n_block][rows of the tile][32] int8; f32 scales, int32
 *            sums and pairs of int16 sums likewise, [n_block][rows of the tile]; a tile of products reads one stream at
 * fixed offsets
 */
enum { TILE_ROWS = 16 };
static inline size_t act_row_bytes(int64_t n_in) /* ACT_BF16 */
{
    return ((((size_t)n_in + 1) / 2 * 4 + 63) / 64 | 1) * 64;
}
/* Below this the scale amax/127 would be subnormal: the block counts as zero. */
#define ACT_AMAX_MIN (127.0f * 0x1p-126f)
/* One row: block b lies at q + b * rows * 32, scale + b * rows, minus + b * rows, halves + b * rows * 2. */
struct act_int8 {
    int8_t *q;
    float *scale;
    int32_t *minus;  /* the negated sum of the block's int8: what kernels want */
    int16_t *halves; /* the same for the first and the last 16: types with a scale for 16 k; one word for vpdpwssd */
    int64_t rows;    /* of the tile */
};
static inline struct act_int8 act_int8_row(const struct act *a, int64_t row)
{
    int64_t tile = row / TILE_ROWS * TILE_ROWS, in_tile = row - tile, n_block = a->n_in / BLOCK;
    int8_t *q = a->storage;
    float *scale = (float *)(q + a->n_row * a->n_in);
    int32_t *minus = (int32_t *)(scale + a->n_row * n_block);
    int16_t *halves = (int16_t *)(minus + a->n_row * n_block);
    return (struct act_int8){.q = q + tile * a->n_in + in_tile * BLOCK,
                             .scale = scale + tile * n_block + in_tile,
                             .minus = minus + tile * n_block + in_tile,
                             .halves = halves + 2 * (tile * n_block + in_tile),
                             .rows = a->n_row - tile < TILE_ROWS ? a->n_row - tile : TILE_ROWS};
}
static inline struct act_int8 act_int8_at(struct act_int8 a, int64_t block)
{
    a.q += block * a.rows * BLOCK;
    a.scale += block * a.rows;
    a.minus += block * a.rows;
    a.halves += 2 * block * a.rows;
    return a;
}

/* ---- function types: op_fn of every KERNEL_OP ---- */
struct linear_job {
    real *out; /* row r, output n: out[r * stride + n] */
    const struct act *x;
    const struct weight *w;
    const real *bias; /* or NULL */
    int64_t stride;
};
/* Rows row0 .. row1-1 of the output in panels panel0 .. panel1-1. Up to weight_few_rows come together, with any number
 * of panels; otherwise row0 is a multiple of TILE_ROWS and at most ITEM_ROWS_INT8 rows come (ITEM_ROWS for other
 * activations) with as many panels as ITEM_PANELS_INT8 or ITEM_PANELS says. */
enum { FEW_ROWS_EXACT = 8, ITEM_ROWS = 96, ITEM_PANELS = 8, ITEM_ROWS_INT8 = 256, ITEM_PANELS_INT8 = 4 };
typedef void linear_fn(const struct linear_job *job, int64_t row0, int64_t row1, int64_t panel0, int64_t panel1);
#define PANEL(TYPE, name, ...) typedef linear_fn linear_##name##_fn;
#include "kernels/panels.def"
typedef linear_fn linear_exact_fn; /* any type of panel, dequantized to f32, then as linear_f32 */
/* x: elements k0 .. k1-1 of a row, into its place in a->storage; k0 a multiple of the block, k1 too or n_in. */
typedef void act_fill_fn(const struct act *a, const real *x, int64_t row, int64_t k0, int64_t k1);
typedef act_fill_fn act_bf16_fn, act_int8_fn;
/* dx rows row0 .. row1-1, columns k0 .. k1-1 */
struct linear_input_job {
    real *dx;
    const real *dy;
    const struct weight *w;
    int64_t n_row;
    bool accumulate;
};
typedef void linear_input_fn(const struct linear_input_job *job, int64_t row0, int64_t row1, int64_t k0, int64_t k1);
/* dw of panels panel0 .. panel1-1, columns k0 .. k1-1 */
struct linear_weight_job {
    real *dw;
    const real *dy, *x;
    int64_t n_row, n_out, n_in;
};
typedef void linear_weight_fn(const struct linear_weight_job *job, int64_t panel0, int64_t panel1, int64_t k0,
                              int64_t k1);

linear_fn *linear_kernel(const struct weight *w);
int64_t weight_few_rows(const struct weight *w);
void act_fill(const struct act *a, const real *x, int64_t row, int64_t k0, int64_t k1); /* ACT_REAL: nothing to do */

#include "kernels/ops_private.h"

/* ---- the chosen kernels ---- */
struct kernel_table {
    int chosen; /* set number, kernels_isa_list order */
#define KERNEL_OP(op) op##_fn *op;
#include "kernels/kernels.def"
};
extern struct kernel_table kernels; /* written by kernels_init; tests put mutants in */

/* ---- types of panels: the rows of panels.def ---- */
struct lane { /* one row of a panel */
    const char *panel, *quants;
    int lane;
};
/* Sixteen rows of n_in elements of type src into a panel of zeros; source[j] NULL: the row stays zero. */
typedef void pack_fn(char *panel, const char *const source[LANES], enum dtype src, int64_t n_in);
/* Elements k0 .. k1-1 of a lane, `stride` reals apart; k0 a multiple of the block */
typedef void widen_fn(real *out, ptrdiff_t stride, const struct lane *at, int64_t k0, int64_t k1);
struct panel_type {
    enum act_type act;
    int few_rows, block;
    size_t scale_bytes, quant_bytes;
    pack_fn *pack;
    widen_fn *widen;
    linear_fn **forward; /* in the table of chosen kernels */
};
const struct panel_type *panel_type(enum dtype t);
#define PANEL(TYPE, name, ...)                                                                                         \
    pack_fn name##_pack;                                                                                               \
    widen_fn name##_widen;
#include "kernels/panels.def"

#define KERNEL(op, isa, needs) op##_fn op##__##isa;
#include "kernels/kernels.def"

/* Every row, for tests and benches. */
struct kernel_row {
    const char *op, *isa;
    int set;        /* kernels_isa_list number */
    unsigned needs; /* CPU_ bits beyond the set's own */
    void (*fn)(void);
    size_t slot; /* offset in struct kernel_table */
};
const struct kernel_row *kernel_rows(int *count);
bool kernel_row_available(const struct kernel_row *row);

#endif
