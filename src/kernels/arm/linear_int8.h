/* linear_int8 - forward products of panels in blocks of 32 with int8 activations, on NEON; included for each set
 *
 * A block's weights come as eight words of 16 outputs x 4 k, made signed; each row brings eight words of four
 * activations. With the dot product instruction four products and their sum are one instruction; without it they are a
 * widening product and two pairwise sums. Integer sums are exact, the f32 steps are in the order of ref.
 */
#include "kernels/arm/lanes_neon.h"
#include "kernels/block32.h"

enum { WORDS = 8, TILE_R = 4 };

struct format {
    enum dtype type;
    int zero;                                             /* taken from every weight: then it is signed */
    bool has_min;                                         /* scales are followed by minima */
    enum { Q_BYTES, Q_NIBBLES, Q_FIFTH, Q_TABLE } quants; /* nibbles; and a plane of fifth bits; or and a table */
    enum { S_HALF, S_E8M0 } scales;
    const int8_t *table;
};

typedef struct {
    int8x16_t q[4];
} word16; /* 16 outputs x 4 k */
typedef struct {
    int32x4_t q[4];
} sum16;

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

INLINE int32x4_t dot4(int32x4_t sum, int8x16_t w, int8x16_t x)
{
#ifdef __ARM_FEATURE_DOTPROD
    return vdotq_s32(sum, w, x);
#else
    int32x4_t lo = vpaddlq_s16(vmull_s8(vget_low_s8(w), vget_low_s8(x))); /* 2 x 128 x 127 needs more than 16 bits */
    int32x4_t hi = vpaddlq_s16(vmull_s8(vget_high_s8(w), vget_high_s8(x)));
    return vaddq_s32(sum, vpaddq_s32(lo, hi));
#endif
}

INLINE v16 scale_load(const struct format f, const uint8_t *scales)
{
    if (f.scales == S_HALF)
        return v16_load_half((const uint16_t *)scales);
    v16 d; /* 2^(e-128); the two smallest are subnormal, which compute threads take as zero */
    uint8x16_t e = vld1q_u8(scales);
    uint16x8_t half[2] = {vmovl_u8(vget_low_u8(e)), vmovl_u8(vget_high_u8(e))};
    UNROLL for (int j = 0; j < 4; j++)
    {
        uint32x4_t word = vmovl_u16(j % 2 ? vget_high_u16(half[j / 2]) : vget_low_u16(half[j / 2]));
        int32x4_t bits = vsubq_s32(vreinterpretq_s32_u32(vshlq_n_u32(word, 23)), vdupq_n_s32(0x00800000));
        d.q[j] = vreinterpretq_f32_s32(vmaxq_s32(bits, vdupq_n_s32(0)));
    }
    return d;
}

INLINE void tile(const struct format f, const struct linear_job *job, const int R, int64_t row, int64_t p)
{
    int64_t n_block = job->w->n_in / BLOCK, n_out = job->w->n_out, n0 = p * LANES;
    int n_valid = n_out - n0 < LANES ? (int)(n_out - n0) : LANES;
    const char *panel = panel_at(job->w, p);
    struct act_int8 a = act_int8_row(job->x, row);
    v16 acc[TILE_R];
    UNROLL for (int r = 0; r < R; r++) acc[r] = v16_zero();
    for (int64_t b = 0; b < n_block; b++) {
        const uint8_t *quants = (const uint8_t *)block32_quants(f.type, panel, b);
        const uint8_t *scales = (const uint8_t *)block32_scales(f.type, panel, b);
        sum16 sum[TILE_R];
        UNROLL for (int r = 0; r < R; r++) UNROLL for (int j = 0; j < 4; j++) sum[r].q[j] = vdupq_n_s32(0);
        UNROLL for (int i = 0; i < WORDS; i++)
        {
            word16 w = word_load(f, quants, i);
            UNROLL for (int r = 0; r < R; r++)
            {
                int32_t word;
                memcpy(&word, a.q + r * BLOCK + 4 * i, 4);
                int8x16_t x = vreinterpretq_s8_s32(vdupq_n_s32(word));
                UNROLL for (int j = 0; j < 4; j++) sum[r].q[j] = dot4(sum[r].q[j], w.q[j], x);
            }
        }
        v16 d = scale_load(f, scales);
        v16 m = f.has_min ? v16_load_half((const uint16_t *)scales + LANES) : v16_zero();
        UNROLL for (int r = 0; r < R; r++)
        {
            v16 s = v16_set(a.scale[r]), isum;
            UNROLL for (int j = 0; j < 4; j++) isum.q[j] = vcvtq_f32_s32(sum[r].q[j]);
            acc[r] = v16_fma(isum, v16_mul(d, s), acc[r]);
            if (f.has_min)
                acc[r] = v16_fma(m, v16_set(a.scale[r] * (float)-a.minus[r]), acc[r]);
        }
        a.q += a.rows * BLOCK;
        a.scale += a.rows;
        a.minus += a.rows;
    }
    v16 bias = job->bias ? v16_load_n(job->bias + n0, n_valid) : v16_zero();
    UNROLL for (int r = 0; r < R; r++)
        v16_store_n(job->out + (row + r) * n_out + n0, job->bias ? v16_add(acc[r], bias) : acc[r], n_valid);
}

INLINE void linear_int8(const struct format f, const struct linear_job *job, int64_t row0, int64_t row1, int64_t panel0,
                        int64_t panel1)
{
    for (int64_t p = panel0; p < panel1; p++)
        for (int64_t row = row0, next; row < row1; row = next) {
            next = (row / TILE_R + 1) * TILE_R; /* never across a tile of the activations */
            next = next < row1 ? next : row1;
            switch (next - row) {
            case 1:
                tile(f, job, 1, row, p);
                break;
            case 2:
                tile(f, job, 2, row, p);
                break;
            case 3:
                tile(f, job, 3, row, p);
                break;
            default:
                tile(f, job, 4, row, p);
            }
        }
}

#define TYPE(name, ...)                                                                                                \
    void ISA(linear_##name)(const struct linear_job *job, int64_t row0, int64_t row1, int64_t panel0, int64_t panel1)  \
    {                                                                                                                  \
        const struct format format = {__VA_ARGS__};                                                                    \
        linear_int8(format, job, row0, row1, panel0, panel1);                                                          \
    }
TYPE(q8_0, .type = DT_Q8_0, .zero = 128, .quants = Q_BYTES)
TYPE(q4_0, .type = DT_Q4_0, .zero = 8, .quants = Q_NIBBLES)
TYPE(q4_1, .type = DT_Q4_1, .has_min = true, .quants = Q_NIBBLES)
TYPE(q5_0, .type = DT_Q5_0, .zero = 16, .quants = Q_FIFTH)
TYPE(q5_1, .type = DT_Q5_1, .has_min = true, .quants = Q_FIFTH)
TYPE(iq4_nl, .type = DT_IQ4_NL, .quants = Q_TABLE, .table = iq4_values)
TYPE(mxfp4, .type = DT_MXFP4, .quants = Q_TABLE, .table = fp4_values, .scales = S_E8M0)
