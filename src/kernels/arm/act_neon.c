/* act on NEON: rounding activations to bf16 and to int8 blocks, in the bits of act_ref */
#include "kernels/act_rows.h"
#include "kernels/arm/lanes_neon.h"

void act_bf16__neon(const struct act *a, const real *x, int64_t row, int64_t k0, int64_t k1)
{
    act_bf16_some(a, x, row, k0, k1);
}

INLINE float quantize_block(int8_t *q, int32_t *minus, int16_t *halves, const float *x)
{
    float32x4_t v[8];
    uint32x4_t top = vdupq_n_u32(0);
    UNROLL for (int i = 0; i < 8; i++)
    {
        v[i] = vld1q_f32(x + 4 * i);
        top = vmaxq_u32(top, vandq_u32(vreinterpretq_u32_f32(v[i]), vdupq_n_u32(0x7fffffff)));
    }
    uint32_t bits = vmaxvq_u32(top);
    float amax;
    memcpy(&amax, &bits, 4);
    bool finite = bits < 0x7f800000u;
    if (!finite || amax < ACT_AMAX_MIN) {
        memset(q, 0, BLOCK);
        *minus = halves[0] = halves[1] = 0;
        return finite ? 0.0f : NAN;
    }
    float inverse = 127.0f / amax;
    int32x4_t n[8];
    UNROLL for (int i = 0; i < 8; i++) n[i] = vcvtnq_s32_f32(vmulq_n_f32(v[i], inverse)); /* nearest even */
    UNROLL for (int i = 0; i < 2; i++) halves[i] =
        (int16_t)-vaddvq_s32(vaddq_s32(vaddq_s32(n[4 * i], n[4 * i + 1]), vaddq_s32(n[4 * i + 2], n[4 * i + 3])));
    *minus = halves[0] + halves[1];
    UNROLL for (int i = 0; i < 8; i += 4)
    {
        int16x8_t lo = vcombine_s16(vmovn_s32(n[i]), vmovn_s32(n[i + 1]));
        int16x8_t hi = vcombine_s16(vmovn_s32(n[i + 2]), vmovn_s32(n[i + 3]));
        vst1q_s8(q + 4 * i, vcombine_s8(vmovn_s16(lo), vmovn_s16(hi)));
    }
    return amax / 127.0f;
}

void act_int8__neon(const struct act *a, const real *x, int64_t row, int64_t k0, int64_t k1)
{
    act_int8_some(a, x, row, k0, k1, quantize_block);
}
