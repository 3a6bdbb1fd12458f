/* act_ref - how activations are rounded before they meet bf16 and quantized weights (docs/numerics.md section 1) */
#include "kernels/act_rows.h"

void act_bf16__ref(const struct act *a, const real *x, int64_t row, int64_t k0, int64_t k1)
{
    uint16_t *out = act_bf16_row(a, row);
    for (int64_t k = k0; k < k1; k++)
        out[k] = f32_to_bf16((float)x[k - k0]);
    if (k1 % 2)
        out[k1] = 0;
}

static uint32_t bits_of(float f)
{
    uint32_t u;
    memcpy(&u, &f, 4);
    return u;
}

/* One block; returns its scale. The largest magnitude is found on the bits, where Inf and NaN are the largest of all.
 */
static float quantize_block(int8_t *q, int32_t *minus, int16_t *halves, const real *x)
{
    uint32_t top = 0;
    for (int k = 0; k < BLOCK; k++) {
        uint32_t magnitude = bits_of((float)x[k]) & 0x7fffffffu;
        top = magnitude > top ? magnitude : top;
    }
    float amax;
    memcpy(&amax, &top, 4);
    bool finite = top < 0x7f800000u;
    *minus = halves[0] = halves[1] = 0;
    if (!finite || amax < ACT_AMAX_MIN) {
        memset(q, 0, BLOCK);
        return finite ? 0.0f : NAN;
    }
    float inverse = 127.0f / amax;
    for (int k = 0; k < BLOCK; k++) {
        q[k] = (int8_t)rintf((float)x[k] * inverse);
        halves[k / (BLOCK / 2)] -= q[k];
    }
    *minus = halves[0] + halves[1];
    return amax / 127.0f;
}

void act_int8__ref(const struct act *a, const real *x, int64_t row, int64_t k0, int64_t k1)
{
    act_int8_some(a, x, row, k0, k1, quantize_block);
}
