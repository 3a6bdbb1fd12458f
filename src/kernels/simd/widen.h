/* widen - panels to f32, sixteen outputs at a time: a span of k of a panel as [k][16], in the bits of panel_widen_lane
 *
 * Sixteen outputs' words of 4 k are one vector: a shift and a mask give the levels of one k. What a block has once
 * (zeros, scales of 6 bits) and what needs a table is done lane by lane.
 */
#ifndef KERNELS_SIMD_WIDEN_H
#define KERNELS_SIMD_WIDEN_H

#include "kernels/block32.h"
#include "kernels/kquant.h"
#include "kernels/simd/lanes.h"

static void widen_bf16(float *out, const char *pairs, int64_t n)
{
    for (int64_t k = 0; k < n; k += 2) {
        v16 pair = v16_load((const float *)(pairs + k * 32));
        v16_store(out + k * LANES, v16_pair_even(pair));
        if (k + 1 < n)
            v16_store(out + (k + 1) * LANES, v16_pair_odd(pair));
    }
}

/* Levels of k in planes of 4 bits, of 2 bits, of one bit (block32.h, kquant.h), whole numbers. */
INLINE v16 nibbles(const void *plane, int k, int zero)
{
    return v16_load_bits((const char *)plane + k / 8 * 64, k % 4 * 8 + k % 8 / 4 * 4, 15, zero);
}
INLINE v16 pairs_of_bits(const void *plane, int k)
{
    return v16_load_bits((const char *)plane + k / 16 * 64, k % 4 * 8 + k % 16 / 4 * 2, 3, 0);
}
INLINE v16 single_bits(const void *plane, int k)
{
    return v16_load_bits(plane, k % 4 * 8 + k / 4, 1, 0);
}
INLINE v16 of_table(const int8_t table[16], const void *plane, int k)
{
    const uint8_t *at = (const uint8_t *)plane + k / 8 * 64 + k % 4;
    float level[LANES];
    for (int j = 0; j < LANES; j++)
        level[j] = table[at[4 * j] >> k % 8 / 4 * 4 & 15];
    return v16_load(level);
}

/* ---- blocks of 32 ---- */
INLINE v16 block32_levels(const enum dtype t, const char *quants, int k, v16 zeros)
{
    switch (t) {
    case DT_Q8_0:
        return v16_load_bits(quants + k / 4 * 64, k % 4 * 8, 255, 128);
    case DT_Q4_0:
        return nibbles(quants, k, 8);
    case DT_Q4_Z:
        return v16_sub(nibbles(quants, k, 0), zeros);
    case DT_Q5_0:
    case DT_Q5_1: /* exact: whole numbers below 32 */
        return v16_fma(single_bits(quants + 256, k), v16_set(16), nibbles(quants, k, t == DT_Q5_0 ? 16 : 0));
    case DT_IQ4_NL:
        return of_table(iq4_values, quants, k);
    case DT_MXFP4:
        return of_table(fp4_values, quants, k);
    default: /* Q4_1 */
        return nibbles(quants, k, 0);
    }
}

INLINE void widen_block32(const enum dtype t, float *out, const char *panel, int64_t b0, int64_t n_block)
{
    for (int64_t b = b0; b < b0 + n_block; b++) {
        const char *quants = block32_quants(t, panel, b), *scales = block32_scales(t, panel, b);
        float lane[LANES] = {0};
        for (int j = 0; j < LANES && t == DT_MXFP4; j++)
            lane[j] = block32_scale(t, panel, b, j);
        const v16 d = t == DT_MXFP4 ? v16_load(lane) : v16_load_half((const uint16_t *)scales);
        for (int j = 0; j < LANES && block32_has_zeros(t); j++)
            lane[j] = ((const int16_t *)scales)[LANES + j];
        const v16 zeros = v16_load(lane);
        const v16 m = block32_has_min(t) ? v16_load_half((const uint16_t *)scales + LANES) : zeros;
        for (int k = 0; k < BLOCK; k++, out += LANES) {
            v16 product = v16_mul(d, block32_levels(t, quants, k, zeros));
            v16_store(out, block32_has_min(t) ? v16_add(product, m) : product);
        }
    }
}

/* ---- superblocks ---- */
INLINE v16 kq_levels(const enum dtype t, const uint8_t *block, int k)
{
    const uint8_t *high = block + kq_low_bytes(t);
    if (t == DT_IQ4_XS)
        return of_table(iq4_values, block, k);
    v16 level = kq_low_bits(t) == 4 ? nibbles(block, k, kq_zero(t)) : pairs_of_bits(block, k);
    if (kq_low_bits(t) == 2)
        level = v16_sub(level, v16_set((float)kq_zero(t)));
    if (kq_high_bits(t))
        level = v16_fma(kq_high_bits(t) == 2 ? pairs_of_bits(high, k) : single_bits(high, k),
                        v16_set((float)(1 << kq_low_bits(t))), level);
    return level;
}

INLINE void widen_kquant(const enum dtype t, float *out, const char *panel, int64_t b0, int64_t n_block)
{
    for (int64_t b = b0; b < b0 + n_block; b++) {
        const int in_super = (int)(b % SUPER_BLOCKS), part = kq_has_halves(t) ? BLOCK / 2 : BLOCK;
        const uint8_t *super = (const uint8_t *)panel + b / SUPER_BLOCKS * kq_super_bytes(t);
        const uint8_t *block = super + kq_blocks_at(t) + in_super * kq_block_bytes(t);
        const v16 d = v16_load_half((const uint16_t *)super);
        const v16 dmin = kq_has_min(t) ? v16_load_half((const uint16_t *)super + LANES) : d;
        for (int k0 = 0; k0 < BLOCK; k0 += part) {
            float scale[LANES], min[LANES];
            for (int j = 0; j < LANES; j++) {
                const struct kq_scale s = kq_scale(t, super + kq_scales_at(t), j, in_super, k0 / part);
                scale[j] = (float)s.scale, min[j] = (float)s.min;
            }
            const v16 ds = v16_mul(d, v16_load(scale)), m = v16_mul(dmin, v16_load(min));
            for (int k = k0; k < k0 + part; k++, out += LANES) {
                v16 product = v16_mul(ds, kq_levels(t, block, k));
                v16_store(out, kq_has_min(t) ? v16_sub(product, m) : product);
            }
        }
    }
}

/* k0 and n: of block types multiples of 32 */
static void widen_span(float *out, const struct weight *w, int64_t panel, int64_t k0, int64_t n)
{
    const char *base = panel_at(w, panel);
    switch (w->type) {
    case DT_BF16:
        widen_bf16(out, base + k0 * 32, n);
        return;
#define WIDEN(TYPE, family)                                                                                            \
    case DT_##TYPE:                                                                                                    \
        widen_##family(DT_##TYPE, out, base, k0 / BLOCK, n / BLOCK);                                                   \
        return;
        WIDEN(Q8_0, block32)
        WIDEN(Q4_0, block32)
        WIDEN(Q4_1, block32)
        WIDEN(Q5_0, block32)
        WIDEN(Q5_1, block32)
        WIDEN(IQ4_NL, block32)
        WIDEN(MXFP4, block32)
        WIDEN(Q4_Z, block32)
        WIDEN(Q2_K, kquant)
        WIDEN(Q3_K, kquant)
        WIDEN(Q4_K, kquant)
        WIDEN(Q5_K, kquant)
        WIDEN(Q6_K, kquant)
        WIDEN(IQ4_XS, kquant)
#undef WIDEN
    default: /* f32 and f16 are exact without it */
        assert(false);
    }
}

#endif
