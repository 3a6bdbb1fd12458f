/* act_rows - the loops over a row's elements that every instruction set's act_bf16 and act_int8 share */
#ifndef KERNELS_ACT_ROWS_H
#define KERNELS_ACT_ROWS_H

#include "kernels/kernels_private.h"

/* Branchless, for the compiler to vectorise: NaN keeps its sign and becomes quiet, the rest is nearest even. */
static inline uint16_t act_round_bf16(uint32_t u)
{
    uint32_t nan = (u & 0x7fffffffu) > 0x7f800000u ? 0x400000u : 0;
    uint32_t rounded = nan ? u | nan : u + 0x7fffu + (u >> 16 & 1);
    return (uint16_t)(rounded >> 16);
}

static inline uint16_t *act_bf16_row(const struct act *a, int64_t row)
{
    return (uint16_t *)((char *)a->storage + (size_t)row * act_row_bytes(a->n_in));
}

static inline void act_bf16_some(const struct act *a, const real *x, int64_t row, int64_t k0, int64_t k1)
{
    uint16_t *out = act_bf16_row(a, row);
    const uint32_t *bits = (const uint32_t *)x;
    for (int64_t k = k0; k < k1; k++)
        out[k] = act_round_bf16(bits[k - k0]);
    if (k1 % 2)
        out[k1] = 0;
}

/* One block of 32; returns its scale. */
typedef float act_block_fn(int8_t *q, int32_t *minus, int16_t *halves, const real *x);

static inline __attribute__((always_inline)) void act_int8_some(const struct act *a, const real *x, int64_t row,
                                                                int64_t k0, int64_t k1, act_block_fn *quantize_block)
{
    const struct act_int8 v = act_int8_row(a, row);
    for (int64_t b = k0 / BLOCK; b < k1 / BLOCK; b++, x += BLOCK)
        v.scale[b * v.rows] =
            quantize_block(v.q + b * v.rows * BLOCK, v.minus + b * v.rows, v.halves + b * v.rows * 2, x);
}

#endif
