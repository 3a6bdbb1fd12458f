/* block32 - one weight of a panel in blocks of 32: what gathering and the reference read
 *
 * A block of a panel: four groups i of [16 rows][4], low nibble k = 8i+j, high nibble k = 8i+4+j. Q5_0 and Q5_1: then
 * 64 bytes [16][4] whose bit i is the fifth bit of k = 4i+j. Q8_0: eight groups of bytes, k = 4i+j, stored int8 ^ 0x80.
 * The scales of block b: 16 halves, for Q4_1 and Q5_1 then 16 minima; MXFP4: 16 exponent bytes.
 */
#ifndef KERNELS_BLOCK32_H
#define KERNELS_BLOCK32_H

#include "kernels/kernels_private.h"
#include "tensor/block.h"

static inline bool block32_has_min(enum dtype t)
{
    return t == DT_Q4_1 || t == DT_Q5_1;
}

/* The whole number that stands for k (0 .. 31) of a row; quants: of the block. */
static inline int block32_level(enum dtype t, const char *quants, int lane, int64_t k)
{
    if (t == DT_Q8_0)
        return (uint8_t)quants[k / 4 * 64 + lane * 4 + k % 4] - 128;
    int q = (uint8_t)quants[k / 8 * 64 + lane * 4 + k % 4] >> (k % 8 / 4 * 4) & 15;
    switch (t) {
    case DT_Q4_0:
        return q - 8;
    case DT_Q5_0:
    case DT_Q5_1:
        q |= ((uint8_t)quants[256 + lane * 4 + k % 4] >> (k / 4) & 1) << 4;
        return t == DT_Q5_0 ? q - 16 : q;
    case DT_IQ4_NL:
        return iq4_values[q];
    case DT_MXFP4:
        return fp4_values[q];
    default: /* Q4_1 */
        return q;
    }
}

static inline float block32_scale(enum dtype t, const char *panel, int64_t block, int lane)
{
    if (t == DT_MXFP4)
        return e8m0_half((uint8_t)panel[block * LANES + lane]);
    return half_at(panel, block * LANES * (block32_has_min(t) ? 2 : 1) + lane);
}

static inline float block32_min(const char *panel, int64_t block, int lane)
{
    return half_at(panel, (2 * block + 1) * LANES + lane);
}

#endif
