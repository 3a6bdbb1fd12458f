#include "tensor/block.h"

#include <math.h>

/* Read-only scale at `in`: f16. */
static float scale_at(const uint8_t *in)
{
    uint16_t h;
    memcpy(&h, in, 2);
    return f16_to_f32(h);
}

static void scale_put(uint8_t *out, float f)
{
    uint16_t h = f32_to_f16(f);
    memcpy(out, &h, 2);
}

/* ---- reading: 32 elements ---- */

/* Q4_0, Q4_1, Q5_0, Q5_1: nibble j of the low halves is element j, of the high halves element j + 16; `fifth` holds
 * bit 4 of element j in bit j. */
static void nibbles_read(float *out, const uint8_t *q, uint32_t fifth, float d, int zero, const float *m)
{
    for (int j = 0; j < 32; j++) {
        int v = (j < 16 ? q[j] & 15 : q[j - 16] >> 4) | (int)(fifth >> j & 1) << 4;
        float product = d * (float)(v - zero);
        out[j] = m ? product + *m : product;
    }
}

static uint32_t u32_at(const uint8_t *in)
{
    uint32_t u;
    memcpy(&u, in, 4);
    return u;
}

static void q8_0_read(float *out, const uint8_t *in)
{
    float d = scale_at(in);
    for (int j = 0; j < 32; j++)
        out[j] = d * (float)(int8_t)in[2 + j];
}

/* ---- reading: nibbles that are indices of a table ---- */

const int8_t iq4_values[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
const int8_t fp4_values[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

float e8m0_half(uint8_t e)
{
    uint32_t u = e < 2 ? 0x00200000u << e : (uint32_t)(e - 1) << 23; /* 2^(e - 128), below 2 a subnormal */
    float f;
    memcpy(&f, &u, 4);
    return f;
}

static void table_read(float *out, const uint8_t *q, float d, const int8_t *values)
{
    for (int j = 0; j < 32; j++)
        out[j] = d * (float)values[j < 16 ? q[j] & 15 : q[j - 16] >> 4];
}

/* Eight sub-blocks of 32; a scale is 6 bits: four in a nibble, two in the 16-bit word before. */
static void iq4_xs_read(float *out, const uint8_t *in)
{
    float d = scale_at(in);
    for (int s = 0; s < 8; s++) {
        int low = in[4 + s / 2] >> s % 2 * 4 & 15, high = in[2 + s / 4] >> s % 4 * 2 & 3;
        table_read(out + 32 * s, in + 8 + 16 * s, d * (float)((low | high << 4) - 32), iq4_values);
    }
}

/* ---- reading: 256 elements ---- */

static void q2_k_read(float *out, const uint8_t *in)
{
    const uint8_t *scales = in, *q = in + 16;
    float d = scale_at(in + 80), dmin = scale_at(in + 82);
    for (int i = 0; i < 256; i++) {
        int group = i / 16;
        /* 128 elements share 32 bytes, two bits each */
        int v = q[i / 128 * 32 + i % 32] >> i % 128 / 32 * 2 & 3;
        out[i] = d * (float)(scales[group] & 15) * (float)v - dmin * (float)(scales[group] >> 4);
    }
}

static void q3_k_read(float *out, const uint8_t *in)
{
    const uint8_t *high = in, *q = in + 32, *packed = in + 96;
    float d = scale_at(in + 108);
    for (int i = 0; i < 256; i++) {
        int group = i / 16;
        int low4 = group < 8 ? packed[group] & 15 : packed[group - 8] >> 4;
        int scale = (low4 | (packed[8 + group % 4] >> group / 4 * 2 & 3) << 4) - 32;
        int v = q[i / 128 * 32 + i % 32] >> i % 128 / 32 * 2 & 3;
        v -= high[i % 32] >> i / 32 & 1 ? 0 : 4;
        out[i] = d * (float)scale * (float)v;
    }
}

/* The 6-bit scale and minimum of sub-block s of 32: 12 bytes hold eight of each. */
static void scale_min(int *scale, int *min, const uint8_t *b, int s)
{
    if (s < 4) {
        *scale = b[s] & 63;
        *min = b[s + 4] & 63;
    } else {
        *scale = (b[s + 4] & 15) | b[s - 4] >> 6 << 4;
        *min = b[s + 4] >> 4 | b[s] >> 6 << 4;
    }
}

/* `high`: NULL for Q4_K; for Q5_K bit s of high[l] is bit 4 of element l of sub-block s. */
static void q45_k_read(float *out, const uint8_t *in, const uint8_t *high, const uint8_t *q)
{
    float d = scale_at(in), dmin = scale_at(in + 2);
    for (int s = 0; s < 8; s++) {
        int scale, min;
        scale_min(&scale, &min, in + 4, s);
        float ds = d * (float)scale, ms = dmin * (float)min;
        for (int l = 0; l < 32; l++) {
            int v = q[s / 2 * 32 + l] >> s % 2 * 4 & 15;
            if (high)
                v |= (high[l] >> s & 1) << 4;
            out[s * 32 + l] = ds * (float)v - ms;
        }
    }
}

static void q6_k_read(float *out, const uint8_t *in)
{
    const uint8_t *low = in, *high = in + 128;
    float d = scale_at(in + 208);
    for (int i = 0; i < 256; i++) {
        int half = i / 128, r = i % 128;
        int v = low[half * 64 + r % 64] >> r / 64 * 4 & 15;
        v |= (high[half * 32 + r % 32] >> r / 32 * 2 & 3) << 4;
        out[i] = d * (float)(int8_t)in[192 + i / 16] * (float)(v - 32);
    }
}

void block_read(float *out, enum dtype t, const uint8_t *in)
{
    float d = scale_at(in), m = scale_at(in + 2);
    switch (t) {
    case DT_Q4_0:
        nibbles_read(out, in + 2, 0, d, 8, NULL);
        break;
    case DT_Q4_1:
        nibbles_read(out, in + 4, 0, d, 0, &m);
        break;
    case DT_Q5_0:
        nibbles_read(out, in + 6, u32_at(in + 2), d, 16, NULL);
        break;
    case DT_Q5_1:
        nibbles_read(out, in + 8, u32_at(in + 4), d, 0, &m);
        break;
    case DT_Q8_0:
        q8_0_read(out, in);
        break;
    case DT_Q2_K:
        q2_k_read(out, in);
        break;
    case DT_Q3_K:
        q3_k_read(out, in);
        break;
    case DT_Q4_K:
        q45_k_read(out, in, NULL, in + 16);
        break;
    case DT_Q5_K:
        q45_k_read(out, in, in + 16, in + 48);
        break;
    case DT_Q6_K:
        q6_k_read(out, in);
        break;
    case DT_IQ4_NL:
        table_read(out, in + 2, d, iq4_values);
        break;
    case DT_IQ4_XS:
        iq4_xs_read(out, in);
        break;
    case DT_Q4_Z:
        nibbles_read(out, in + 4, 0, d, in[2], NULL);
        break;
    case DT_MXFP4:
        table_read(out, in + 1, e8m0_half(in[0]), fp4_values);
        break;
    default:
        break;
    }
}

/* ---- writing ---- */

/* Truncation to 0..top; NaN gives 0, so that no undefined conversion is reached. */
static int level(float f, int top)
{
    return f >= (float)top ? top : f >= 0 ? (int)f : 0;
}

/* Q4_0 and Q5_0: the element of largest magnitude becomes exactly the lowest level. */
static float symmetric_levels(int *levels, const float *in, int half)
{
    float most = 0;
    for (int j = 0; j < 32; j++)
        if (fabsf(in[j]) > fabsf(most))
            most = in[j];
    float d = most / (float)-half, inverse = d != 0 ? 1.0f / d : 0.0f;
    for (int j = 0; j < 32; j++)
        levels[j] = level(in[j] * inverse + ((float)half + 0.5f), 2 * half - 1);
    return d;
}

/* Q4_1 and Q5_1: levels from the minimum to the maximum. */
static float offset_levels(int *levels, float *min, const float *in, int top)
{
    float low = in[0], high = in[0];
    for (int j = 1; j < 32; j++) {
        low = in[j] < low ? in[j] : low;
        high = in[j] > high ? in[j] : high;
    }
    float d = (high - low) / (float)top, inverse = d != 0 ? 1.0f / d : 0.0f;
    for (int j = 0; j < 32; j++)
        levels[j] = level((in[j] - low) * inverse + 0.5f, top);
    *min = low;
    return d;
}

static void nibbles_put(uint8_t *out, const int *levels)
{
    for (int j = 0; j < 16; j++)
        out[j] = (uint8_t)((levels[j] & 15) | (levels[j + 16] & 15) << 4);
}

static void fifth_put(uint8_t *out, const int *levels)
{
    uint32_t bits = 0;
    for (int j = 0; j < 32; j++)
        bits |= (uint32_t)(levels[j] >> 4 & 1) << j;
    memcpy(out, &bits, 4);
}

static void q8_0_write(uint8_t *out, const float *in)
{
    float most = 0;
    for (int j = 0; j < 32; j++)
        most = fabsf(in[j]) > most ? fabsf(in[j]) : most;
    float d = most / 127.0f, inverse = d != 0 ? 1.0f / d : 0.0f;
    scale_put(out, d);
    for (int j = 0; j < 32; j++) {
        float v = in[j] * inverse;
        int q = level(fabsf(v) + 0.5f, 127); /* halves away from zero, as roundf */
        out[2 + j] = (uint8_t)(v < 0 ? -q : q);
    }
}

bool block_write(uint8_t *out, enum dtype t, const float *in)
{
    int levels[32];
    float min = 0;
    switch (t) {
    case DT_Q4_0:
        scale_put(out, symmetric_levels(levels, in, 8));
        nibbles_put(out + 2, levels);
        return true;
    case DT_Q5_0:
        scale_put(out, symmetric_levels(levels, in, 16));
        fifth_put(out + 2, levels);
        nibbles_put(out + 6, levels);
        return true;
    case DT_Q4_1:
        scale_put(out, offset_levels(levels, &min, in, 15));
        scale_put(out + 2, min);
        nibbles_put(out + 4, levels);
        return true;
    case DT_Q5_1:
        scale_put(out, offset_levels(levels, &min, in, 31));
        scale_put(out + 2, min);
        fifth_put(out + 4, levels);
        nibbles_put(out + 8, levels);
        return true;
    case DT_Q8_0:
        q8_0_write(out, in);
        return true;
    default:
        return false;
    }
}

/* ---- packing what a fit found: each the reverse of its reader ---- */

static void u16_put(uint8_t *out, unsigned v)
{
    uint16_t h = (uint16_t)v;
    memcpy(out, &h, 2);
}

/* Two bits of element i of 256: 128 elements share 32 bytes. */
static void pairs_put(uint8_t *q, int i, int v)
{
    q[i / 128 * 32 + i % 32] |= (uint8_t)(v << i % 128 / 32 * 2);
}

static void q2_k_pack(uint8_t *out, const struct fit *f)
{
    for (int g = 0; g < 16; g++)
        out[g] = (uint8_t)(f->scale[g] | f->min[g] << 4);
    for (int i = 0; i < 256; i++)
        pairs_put(out + 16, i, f->level[i]);
    scale_put(out + 80, f->d);
    scale_put(out + 82, f->dmin);
}

static void q3_k_pack(uint8_t *out, const struct fit *f)
{
    for (int i = 0; i < 256; i++) {
        int v = f->level[i] + 4;
        out[i % 32] |= (uint8_t)((v >> 2) << i / 32);
        pairs_put(out + 32, i, v & 3);
    }
    for (int g = 0; g < 16; g++) {
        int v = f->scale[g] + 32;
        out[96 + g % 8] |= (uint8_t)((v & 15) << g / 8 * 4);
        out[104 + g % 4] |= (uint8_t)((v >> 4) << g / 4 * 2);
    }
    scale_put(out + 108, f->d);
}

static void scale_min_put(uint8_t *b, int s, int scale, int min)
{
    if (s < 4) {
        b[s] |= (uint8_t)scale;
        b[s + 4] |= (uint8_t)min;
    } else {
        b[s + 4] |= (uint8_t)((scale & 15) | (min & 15) << 4);
        b[s - 4] |= (uint8_t)(scale >> 4 << 6);
        b[s] |= (uint8_t)(min >> 4 << 6);
    }
}

static void q45_k_pack(uint8_t *out, uint8_t *high, uint8_t *q, const struct fit *f)
{
    scale_put(out, f->d);
    scale_put(out + 2, f->dmin);
    for (int s = 0; s < 8; s++)
        scale_min_put(out + 4, s, f->scale[s], f->min[s]);
    for (int i = 0; i < 256; i++) {
        int s = i / 32, l = i % 32;
        q[s / 2 * 32 + l] |= (uint8_t)((f->level[i] & 15) << s % 2 * 4);
        if (high)
            high[l] |= (uint8_t)((f->level[i] >> 4) << s);
    }
}

static void q6_k_pack(uint8_t *out, const struct fit *f)
{
    for (int i = 0; i < 256; i++) {
        int half = i / 128, r = i % 128, v = f->level[i] + 32;
        out[half * 64 + r % 64] |= (uint8_t)((v & 15) << r / 64 * 4);
        out[128 + half * 32 + r % 32] |= (uint8_t)((v >> 4) << r / 32 * 2);
    }
    for (int g = 0; g < 16; g++)
        out[192 + g] = (uint8_t)f->scale[g];
    scale_put(out + 208, f->d);
}

static void iq4_xs_pack(uint8_t *out, const struct fit *f)
{
    unsigned high = 0;
    scale_put(out, f->d);
    for (int s = 0; s < 8; s++) {
        int v = f->scale[s] + 32;
        out[4 + s / 2] |= (uint8_t)((v & 15) << s % 2 * 4);
        high |= (unsigned)(v >> 4) << 2 * s;
        nibbles_put(out + 8 + 16 * s, f->level + 32 * s);
    }
    u16_put(out + 2, high);
}

static void mxfp4_pack(uint8_t *out, const struct fit *f)
{
    int codes[32], e = 0;
    if (f->d > 0)
        frexpf(f->d, &e); /* d = 2^(e - 1) = 2^(byte - 128) */
    out[0] = f->d > 0 ? (uint8_t)(e + 127) : 0;
    for (int j = 0; j < 32; j++) /* levels ascend from -12 to 12 */
        codes[j] = f->level[j] >= 7 ? f->level[j] - 7 : 15 - f->level[j];
    nibbles_put(out + 1, codes);
}

static void q8_0_pack(uint8_t *out, const struct fit *f)
{
    scale_put(out, f->d);
    for (int j = 0; j < 32; j++)
        out[2 + j] = (uint8_t)f->level[j];
}

/* 32 nibbles behind d, perhaps the minimum and the fifth bits; `zero` is the code of level 0. */
static void small_pack(uint8_t *out, const struct fit *f, bool min, bool fifth, int zero)
{
    int codes[32];
    for (int j = 0; j < 32; j++)
        codes[j] = f->level[j] + zero;
    scale_put(out, f->d);
    out += 2;
    if (min) {
        scale_put(out, f->dmin);
        out += 2;
    }
    if (fifth) {
        fifth_put(out, codes);
        out += 4;
    }
    nibbles_put(out, codes);
}

void block_pack(uint8_t *out, enum dtype t, const struct fit *f)
{
    memset(out, 0, (size_t)dtype_row(t)->bytes);
    switch (t) {
    case DT_Q4_0:
        small_pack(out, f, false, false, 8);
        break;
    case DT_Q4_1:
        small_pack(out, f, true, false, 0);
        break;
    case DT_Q5_0:
        small_pack(out, f, false, true, 16);
        break;
    case DT_Q5_1:
        small_pack(out, f, true, true, 0);
        break;
    case DT_Q8_0:
        q8_0_pack(out, f);
        break;
    case DT_Q2_K:
        q2_k_pack(out, f);
        break;
    case DT_Q3_K:
        q3_k_pack(out, f);
        break;
    case DT_Q4_K:
        q45_k_pack(out, NULL, out + 16, f);
        break;
    case DT_Q5_K:
        q45_k_pack(out, out + 16, out + 48, f);
        break;
    case DT_Q6_K:
        q6_k_pack(out, f);
        break;
    case DT_IQ4_NL:
        small_pack(out, f, false, false, 0);
        break;
    case DT_IQ4_XS:
        iq4_xs_pack(out, f);
        break;
    case DT_MXFP4:
        mxfp4_pack(out, f);
        break;
    default:
        break;
    }
}
