/* kquant - panels of the types with superblocks of 256 k (Q2_K ... Q6_K, IQ4_XS): their layout, and one element of it
 *
 * A panel: n_super superblocks of 16 rows, one stream, as dense as GGUF (Q6_K and Q3_K: 32 bytes of padding). Each:
 *   d [16] half; with minima dmin [16] half
 *   the scales, padded to 64 bytes
 *     Q4_K, Q5_K   [12][16]: the twelve bytes of GGUF, rows in lanes
 *     Q6_K         [8 blocks][16][2 halves of the block] int8
 *     Q2_K         likewise, scale below and minimum above in a byte
 *     Q3_K         6 bits and an offset of 32. [4][16][2]: low four bits, block b below and b + 4 above; then
 *                  [2][16][2]: high two bits, block b at bit b / 2 * 2 of byte row b % 2
 *     IQ4_XS       likewise without the halves: [4][16], [2][16]
 *   8 blocks of 32 k: a plane of the low bits, then one of the high bits
 *     low          4 bits: 4 groups i of [16][4], low nibble k = 8i+j, high nibble k = 8i+4+j
 *                  2 bits (Q2_K, Q3_K): 2 groups i of [16][4], bits 2f of k = 16i+4f+j
 *     high         Q6_K: 2 groups likewise; Q5_K, Q3_K: one group [16][4], bit i of k = 4i+j
 */
#ifndef KERNELS_KQUANT_H
#define KERNELS_KQUANT_H

#include "kernels/kernels_private.h"
#include "tensor/block.h"

enum { SUPER = 256, SUPER_BLOCKS = SUPER / BLOCK };

/* All of these fold to constants in kernels. */
static inline bool kq_has_min(enum dtype t)
{
    return t == DT_Q2_K || t == DT_Q4_K || t == DT_Q5_K;
}
static inline bool kq_has_halves(enum dtype t) /* a scale for 16 k, not 32 */
{
    return t == DT_Q2_K || t == DT_Q3_K || t == DT_Q6_K;
}
static inline int kq_zero(enum dtype t) /* the level that means 0 */
{
    return t == DT_Q6_K ? 32 : t == DT_Q3_K ? 4 : 0;
}
static inline int kq_low_bits(enum dtype t)
{
    return t == DT_Q2_K || t == DT_Q3_K ? 2 : 4;
}
static inline int kq_high_bits(enum dtype t)
{
    return t == DT_Q6_K ? 2 : t == DT_Q3_K || t == DT_Q5_K ? 1 : 0;
}
static inline int kq_scales_at(enum dtype t) /* in a superblock */
{
    return (kq_has_min(t) ? 2 : 1) * LANES * 2;
}
static inline int kq_blocks_at(enum dtype t)
{
    int scales = (t == DT_IQ4_XS ? 6 : t == DT_Q2_K || t == DT_Q6_K ? 16 : 12) * LANES;
    return (kq_scales_at(t) + scales + PANEL_ALIGN - 1) / PANEL_ALIGN * PANEL_ALIGN;
}
static inline int kq_low_bytes(enum dtype t) /* the low plane of a block */
{
    return kq_low_bits(t) * LANES * BLOCK / 8;
}
static inline int kq_block_bytes(enum dtype t)
{
    return kq_low_bytes(t) + kq_high_bits(t) * LANES * BLOCK / 8;
}
static inline int kq_super_bytes(enum dtype t)
{
    return kq_blocks_at(t) + SUPER_BLOCKS * kq_block_bytes(t);
}

/* The whole number that stands for element k (0 .. 31) of a lane of a block. */
static inline int kq_value(enum dtype t, const uint8_t *block, int lane, int k)
{
    const uint8_t *at = block + lane * 4 + k % 4, *high = at + kq_low_bytes(t);
    int low = kq_low_bits(t) == 4 ? at[k / 8 * 64] >> k % 8 / 4 * 4 & 15 : at[k / 16 * 64] >> k % 16 / 4 * 2 & 3;
    if (kq_high_bits(t) == 1)
        low |= (*high >> k / 4 & 1) << kq_low_bits(t);
    if (kq_high_bits(t) == 2)
        low |= (high[k / 16 * 64] >> k % 16 / 4 * 2 & 3) << kq_low_bits(t);
    return t == DT_IQ4_XS ? iq4_values[low] : low - kq_zero(t);
}

/* The scale and the minimum of half h (0 when a scale serves 32 k) of block b (0 .. 7) of a lane. */
struct kq_scale {
    int scale, min;
};
static inline struct kq_scale kq_scale(enum dtype t, const uint8_t *scales, int lane, int b, int h)
{
    if (t == DT_Q6_K)
        return (struct kq_scale){(int8_t)scales[(b * LANES + lane) * 2 + h], 0};
    if (t == DT_Q2_K) {
        int both = scales[(b * LANES + lane) * 2 + h];
        return (struct kq_scale){both & 15, both >> 4};
    }
    if (t == DT_Q3_K) {
        int low = scales[(b % 4 * LANES + lane) * 2 + h] >> b / 4 * 4 & 15;
        int high = scales[((4 + b % 2) * LANES + lane) * 2 + h] >> b / 2 * 2 & 3;
        return (struct kq_scale){(low | high << 4) - 32, 0};
    }
    if (t == DT_IQ4_XS) {
        int low = scales[b % 4 * LANES + lane] >> b / 4 * 4 & 15;
        int high = scales[(4 + b % 2) * LANES + lane] >> b / 2 * 2 & 3;
        return (struct kq_scale){(low | high << 4) - 32, 0};
    }
    const uint8_t *at = scales + b % 4 * LANES + lane, first = at[0], second = at[4 * LANES], third = at[8 * LANES];
    if (b < 4)
        return (struct kq_scale){first & 63, second & 63};
    return (struct kq_scale){(third & 15) | first >> 6 << 4, third >> 4 | second >> 6 << 4};
}

#endif
