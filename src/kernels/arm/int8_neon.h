/* int8_neon - integer vectors of a panel's sixteen outputs in four NEON registers, and what stands beside weights */
#ifndef KERNELS_ARM_INT8_NEON_H
#define KERNELS_ARM_INT8_NEON_H

#include "kernels/arm/lanes_neon.h"

enum { WORDS = 8, TILE_R = 4 };

typedef struct {
    int8x16_t q[4];
} word16; /* 16 outputs x 4 k */
typedef struct {
    int32x4_t q[4];
} sum16;

/* What a block has beside its weights and one scale for each output. */
enum extra {
    NONE,
    MINS,     /* f32: m, as they are to be added */
    ZEROS,    /* x[0] */
    HALF_MINS /* whole numbers of 16 k: x, with their scale m */
};
struct side {
    v16 d, m;
    sum16 scale[2]; /* of 16 k each, in formats with halves */
    sum16 x[2];
};

INLINE sum16 widen_u8(uint8x16_t a)
{
    uint16x8_t lo = vmovl_u8(vget_low_u8(a)), hi = vmovl_u8(vget_high_u8(a));
    return (sum16){
        {vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(lo))), vreinterpretq_s32_u32(vmovl_u16(vget_high_u16(lo))),
         vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(hi))), vreinterpretq_s32_u32(vmovl_u16(vget_high_u16(hi)))}};
}
INLINE sum16 widen_s8(int8x16_t a)
{
    int16x8_t lo = vmovl_s8(vget_low_s8(a)), hi = vmovl_s8(vget_high_s8(a));
    return (sum16){{vmovl_s16(vget_low_s16(lo)), vmovl_s16(vget_high_s16(lo)), vmovl_s16(vget_low_s16(hi)),
                    vmovl_s16(vget_high_s16(hi))}};
}
INLINE sum16 widen_s16(const int16_t *p)
{
    return (sum16){
        {vmovl_s16(vld1_s16(p)), vmovl_s16(vld1_s16(p + 4)), vmovl_s16(vld1_s16(p + 8)), vmovl_s16(vld1_s16(p + 12))}};
}

/* n bits of each byte from bit `at` on. */
INLINE uint8x16_t bits_of(uint8x16_t a, int at, int n)
{
    return vandq_u8(vshlq_u8(a, vdupq_n_s8((int8_t)-at)), vdupq_n_u8((uint8_t)((1 << n) - 1)));
}

#endif
