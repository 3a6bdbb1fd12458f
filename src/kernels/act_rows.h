/* act_rows - the loops over rows that every instruction set's act_bf16 and act_int8 share */
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

static inline void act_bf16_rows(const struct act *a, int64_t row0, int64_t row1)
{
    size_t stride = act_row_bytes(a->n_in);
    for (int64_t r = row0; r < row1; r++) {
        uint16_t *out = (uint16_t *)((char *)a->storage + (size_t)r * stride);
        const uint32_t *x = (const uint32_t *)(a->x + r * a->n_in);
        for (int64_t k = 0; k < a->n_in; k++)
            out[k] = act_round_bf16(x[k]);
        if (a->n_in % 2)
            out[a->n_in] = 0;
    }
}

/* One block of 32; returns its scale. */
typedef float act_block_fn(int8_t *q, int32_t *minus, int16_t *halves, const real *x);

static inline __attribute__((always_inline)) void act_int8_rows(const struct act *a, int64_t row0, int64_t row1,
                                                                act_block_fn *quantize_block)
{
    for (int64_t r = row0; r < row1; r++) {
        const struct act_int8 v = act_int8_row(a, r);
        for (int64_t b = 0; b < a->n_in / BLOCK; b++)
            v.scale[b * v.rows] = quantize_block(v.q + b * v.rows * BLOCK, v.minus + b * v.rows,
                                                 v.halves + b * v.rows * 2, a->x + r * a->n_in + b * BLOCK);
    }
}

#endif
