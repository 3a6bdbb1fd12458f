/* block32 - panels of the types in blocks of 32 k: where a block stands, and one weight of it
 *
 * A panel is one stream of units: a line of 64 bytes with the scales of 1, 2 or 4 blocks, then their quants. (All
 * scales first would be a second stream: one row of Q8_0 then runs at 17 GB/s instead of 31, one thread of a Zen 4
 * EPYC, 2026-11.)
 *
 *   scales of a block   16 halves; Q4_1 and Q5_1 then 16 minima, Q4_Z 16 zeros; MXFP4 16 exponent bytes
 *   quants              four groups i of [16 rows][4]: low nibble k = 8i+j, high nibble k = 8i+4+j; Q5_0 and Q5_1 then
 *                       64 bytes [16][4] whose bit i is the fifth bit of k = 4i+j. Q8_0: eight groups of bytes,
 *                       k = 4i+j, the stored int8 ^ 0x80
 */
#ifndef KERNELS_BLOCK32_H
#define KERNELS_BLOCK32_H

#include "kernels/kernels_private.h"
#include "tensor/block.h"

static inline bool block32_has_min(enum dtype t)
{
    return t == DT_Q4_1 || t == DT_Q5_1;
}

/* AWQ and GPTQ: each row's block has a whole-numbered zero of its own, an int16 where others have minima. */
static inline bool block32_has_zeros(enum dtype t)
{
    return t == DT_Q4_Z;
}

/* Blocks of a unit, and bytes of quants of a block. */
static inline int block32_unit(enum dtype t)
{
    return block32_has_min(t) || block32_has_zeros(t) ? 1 : t == DT_MXFP4 ? 4 : 2;
}
static inline int block32_quant_bytes(enum dtype t)
{
    return t == DT_Q8_0 ? 512 : t == DT_Q5_0 || t == DT_Q5_1 ? 320 : 256;
}
enum { SCALE_LINE = 64 };

static inline const char *block32_scales(enum dtype t, const char *panel, int64_t b)
{
    int unit = block32_unit(t);
    return panel + b / unit * (SCALE_LINE + unit * block32_quant_bytes(t)) + b % unit * (SCALE_LINE / unit);
}
static inline const char *block32_quants(enum dtype t, const char *panel, int64_t b)
{
    int unit = block32_unit(t);
    return panel + b / unit * (SCALE_LINE + unit * block32_quant_bytes(t)) + SCALE_LINE +
           b % unit * block32_quant_bytes(t);
}

/* The whole number that stands for k (0 .. 31) of a block in a row. */
static inline int block32_level(enum dtype t, const char *panel, int64_t b, int lane, int64_t k)
{
    const uint8_t *quants = (const uint8_t *)block32_quants(t, panel, b);
    if (t == DT_Q8_0)
        return quants[k / 4 * 64 + lane * 4 + k % 4] - 128;
    int q = quants[k / 8 * 64 + lane * 4 + k % 4] >> (k % 8 / 4 * 4) & 15;
    switch (t) {
    case DT_Q4_0:
        return q - 8;
    case DT_Q5_0:
    case DT_Q5_1:
        q |= (quants[256 + lane * 4 + k % 4] >> (k / 4) & 1) << 4;
        return t == DT_Q5_0 ? q - 16 : q;
    case DT_IQ4_NL:
        return iq4_values[q];
    case DT_MXFP4:
        return fp4_values[q];
    case DT_Q4_Z:
        return q - ((const int16_t *)block32_scales(t, panel, b))[LANES + lane];
    default: /* Q4_1 */
        return q;
    }
}

static inline float block32_scale(enum dtype t, const char *panel, int64_t b, int lane)
{
    const char *scales = block32_scales(t, panel, b);
    return t == DT_MXFP4 ? e8m0_half((uint8_t)scales[lane]) : half_at(scales, lane);
}

static inline float block32_min(enum dtype t, const char *panel, int64_t b, int lane)
{
    return half_at(block32_scales(t, panel, b), LANES + lane);
}

#endif
