/* linear_kquant - forward products of Q2_K ... Q6_K and IQ4_XS panels with int8 activations, on NEON; included for each
 * set. A panel's rows lie in lanes, so sixteen scales are one register of bytes (kquant.h). */
#include "kernels/arm/int8_neon.h"
#include "kernels/kquant.h"

struct format {
    enum dtype type;
};

INLINE bool format_halves(const struct format f)
{
    return kq_has_halves(f.type);
}
INLINE enum extra format_extra(const struct format f)
{
    return !kq_has_min(f.type) ? NONE : format_halves(f) ? HALF_MINS : MINS;
}
INLINE const uint8_t *super_at(const struct format f, const char *panel, int64_t b)
{
    return (const uint8_t *)panel + b / SUPER_BLOCKS * kq_super_bytes(f.type);
}
INLINE const uint8_t *block_at(const struct format f, const char *panel, int64_t b)
{
    return super_at(f, panel, b) + kq_blocks_at(f.type) + b % SUPER_BLOCKS * kq_block_bytes(f.type);
}

INLINE word16 word_load(const struct format f, const uint8_t *block, int i)
{
    const enum dtype t = f.type;
    const uint8_t *high = block + kq_low_bytes(t);
    word16 w;
    UNROLL for (int j = 0; j < 4; j++, block += 16, high += 16)
    {
        uint8x16_t u = kq_low_bits(t) == 4 ? bits_of(vld1q_u8(block + i / 2 * 64), i % 2 * 4, 4)
                                           : bits_of(vld1q_u8(block + i / 4 * 64), i % 4 * 2, 2);
        if (kq_high_bits(t) == 1)
            u = vorrq_u8(u, vshlq_u8(bits_of(vld1q_u8(high), i, 1), vdupq_n_s8((int8_t)kq_low_bits(t))));
        if (kq_high_bits(t) == 2)
            u = vorrq_u8(u, vshlq_n_u8(bits_of(vld1q_u8(high + i / 4 * 64), i % 4 * 2, 2), 4));
        w.q[j] = t == DT_IQ4_XS ? vqtbl1q_s8(vld1q_s8(iq4_values), u)
                                : vsubq_s8(vreinterpretq_s8_u8(u), vdupq_n_s8((int8_t)kq_zero(t)));
    }
    return w;
}

/* Scales of 6 bits, four below and two above, on 32. */
INLINE sum16 six_bits(uint8x16_t low, uint8x16_t high, int b)
{
    uint8x16_t both = vorrq_u8(bits_of(low, b / 4 * 4, 4), vshlq_n_u8(bits_of(high, b / 2 * 2, 2), 4));
    return widen_s8(vsubq_s8(vreinterpretq_s8_u8(both), vdupq_n_s8(32)));
}

INLINE v16 sum_product(v16 d, sum16 whole)
{
    v16 n;
    UNROLL for (int j = 0; j < 4; j++) n.q[j] = vcvtq_f32_s32(whole.q[j]);
    return v16_mul(d, n);
}

/* One scale for 32 k: it joins d. */
INLINE void whole_scales(const enum dtype t, struct side *side, const uint8_t *in, int b)
{
    if (t == DT_IQ4_XS) {
        side->d = sum_product(side->d, six_bits(vld1q_u8(in + b % 4 * LANES), vld1q_u8(in + (4 + b % 2) * LANES), b));
        return;
    }
    const uint8_t *at = in + b % 4 * LANES;
    uint8x16_t first = vld1q_u8(at), second = vld1q_u8(at + 4 * LANES), third = vld1q_u8(at + 8 * LANES);
    uint8x16_t scale = bits_of(first, 0, 6), min = bits_of(second, 0, 6);
    if (b >= 4) {
        scale = vorrq_u8(bits_of(third, 0, 4), vshlq_n_u8(bits_of(first, 6, 2), 4));
        min = vorrq_u8(bits_of(third, 4, 4), vshlq_n_u8(bits_of(second, 6, 2), 4));
    }
    side->d = sum_product(side->d, widen_u8(scale));
    side->m = sum_product(side->m, widen_u8(min));
    UNROLL for (int j = 0; j < 4; j++) side->m.q[j] = vnegq_f32(side->m.q[j]);
}

/* One for 16 k: whole numbers, two to an output. */
INLINE void half_scales(const enum dtype t, struct side *side, const uint8_t *in, int b)
{
    const int row = 2 * LANES;
    uint8x16x2_t pair = vld2q_u8(in + (t == DT_Q3_K ? b % 4 : b) * row);
    uint8x16x2_t high = t == DT_Q3_K ? vld2q_u8(in + (4 + b % 2) * row) : pair;
    UNROLL for (int h = 0; h < 2; h++)
    {
        if (t == DT_Q6_K)
            side->scale[h] = widen_s8(vreinterpretq_s8_u8(pair.val[h]));
        else if (t == DT_Q3_K)
            side->scale[h] = six_bits(pair.val[h], high.val[h], b);
        else {
            side->scale[h] = widen_u8(bits_of(pair.val[h], 0, 4));
            side->x[h] = widen_u8(bits_of(pair.val[h], 4, 4));
        }
    }
}

INLINE struct side block_side(const struct format f, const char *panel, int64_t b)
{
    const enum dtype t = f.type;
    const uint8_t *super = super_at(f, panel, b);
    struct side side = {.d = v16_load_half((const uint16_t *)super)};
    if (kq_has_min(t))
        side.m = v16_load_half((const uint16_t *)super + LANES);
    if (kq_has_halves(t))
        half_scales(t, &side, super + kq_scales_at(t), (int)(b % SUPER_BLOCKS));
    else
        whole_scales(t, &side, super + kq_scales_at(t), (int)(b % SUPER_BLOCKS));
    return side;
}

#include "kernels/arm/linear_int8_tile.h"

FORMAT(q2_k, DT_Q2_K)
FORMAT(q3_k, DT_Q3_K)
FORMAT(q4_k, DT_Q4_K)
FORMAT(q5_k, DT_Q5_K)
FORMAT(q6_k, DT_Q6_K)
FORMAT(iq4_xs, DT_IQ4_XS)
