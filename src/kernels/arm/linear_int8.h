/* linear_int8 - forward products of panels in blocks of 32 with int8 activations, on NEON; included for each set */
#include "kernels/arm/int8_neon.h"
#include "kernels/block32.h"

struct format {
    enum dtype type;
    int zero;                                             /* taken from every weight: then it is signed */
    enum { Q_BYTES, Q_NIBBLES, Q_FIFTH, Q_TABLE } quants; /* nibbles; and a plane of fifth bits; or and a table */
    const int8_t *table;
};

INLINE enum extra format_extra(const struct format f)
{
    return block32_has_min(f.type) ? MINS : block32_has_zeros(f.type) ? ZEROS : NONE;
}
INLINE bool format_halves(const struct format f)
{
    (void)f;
    return false;
}
INLINE const uint8_t *block_at(const struct format f, const char *panel, int64_t b)
{
    return (const uint8_t *)block32_quants(f.type, panel, b);
}

INLINE word16 word_load(const struct format f, const uint8_t *quants, int i)
{
    word16 w;
    UNROLL for (int j = 0; j < 4; j++)
    {
        uint8x16_t u;
        if (f.quants == Q_BYTES)
            u = vld1q_u8(quants + i * 64 + j * 16);
        else if (i % 2 == 0)
            u = vandq_u8(vld1q_u8(quants + i / 2 * 64 + j * 16), vdupq_n_u8(15));
        else
            u = vshrq_n_u8(vld1q_u8(quants + i / 2 * 64 + j * 16), 4);
        if (f.quants == Q_FIFTH) {
            uint8x16_t plane = vshlq_u8(vld1q_u8(quants + WORDS / 2 * 64 + j * 16), vdupq_n_s8((int8_t)(4 - i)));
            u = vorrq_u8(u, vandq_u8(plane, vdupq_n_u8(16)));
        }
        if (f.quants == Q_TABLE) {
            w.q[j] = vqtbl1q_s8(vld1q_s8(f.table), u);
            continue;
        }
        w.q[j] = vsubq_s8(vreinterpretq_s8_u8(u), vdupq_n_s8((int8_t)f.zero)); /* 128 wraps to the right sign */
    }
    return w;
}

INLINE v16 scale_load(const struct format f, const uint8_t *scales)
{
    if (f.type != DT_MXFP4)
        return v16_load_half((const uint16_t *)scales);
    v16 d; /* 2^(e-128); the two smallest are subnormal, which compute threads take as zero */
    sum16 e = widen_u8(vld1q_u8(scales));
    UNROLL for (int j = 0; j < 4; j++)
    {
        int32x4_t bits = vsubq_s32(vshlq_n_s32(e.q[j], 23), vdupq_n_s32(0x00800000));
        d.q[j] = vreinterpretq_f32_s32(vmaxq_s32(bits, vdupq_n_s32(0)));
    }
    return d;
}

INLINE struct side block_side(const struct format f, const char *panel, int64_t b)
{
    const char *scales = block32_scales(f.type, panel, b);
    struct side side = {.d = scale_load(f, (const uint8_t *)scales)};
    if (block32_has_min(f.type))
        side.m = v16_load_half((const uint16_t *)scales + LANES);
    if (block32_has_zeros(f.type))
        side.x[0] = widen_s16((const int16_t *)scales + LANES);
    return side;
}

#include "kernels/arm/linear_int8_tile.h"

FORMAT(q8_0, DT_Q8_0, 128, Q_BYTES)
FORMAT(q4_0, DT_Q4_0, 8, Q_NIBBLES)
FORMAT(q4_1, DT_Q4_1, 0, Q_NIBBLES)
FORMAT(q5_0, DT_Q5_0, 16, Q_FIFTH)
FORMAT(q5_1, DT_Q5_1, 0, Q_FIFTH)
FORMAT(iq4_nl, DT_IQ4_NL, 0, Q_TABLE, iq4_values)
FORMAT(mxfp4, DT_MXFP4, 0, Q_TABLE, fp4_values)
FORMAT(q4_z, DT_Q4_Z, 0, Q_NIBBLES)
