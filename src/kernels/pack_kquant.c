/* pack_kquant - rows of Q2_K ... Q6_K and IQ4_XS into panels, and lanes of those panels back to numbers; layout:
 * kquant.h */
#include "kernels/kquant.h"

/* ---- GGUF's superblocks: where things lie (docs/formats.md) ---- */
static const struct {
    int d, min, scales, low, high; /* offsets in bytes; -1: none */
} stored[DT_COUNT] = {
    [DT_Q2_K] = {80, 82, 0, 16, -1}, [DT_Q3_K] = {108, -1, 96, 32, 0},   [DT_Q4_K] = {0, 2, 4, 16, -1},
    [DT_Q5_K] = {0, 2, 4, 48, 16},   [DT_Q6_K] = {208, -1, 192, 0, 128}, [DT_IQ4_XS] = {0, -1, 2, 8, -1},
};

/* The 256 levels, from 0, in the order of k. */
static void super_levels(uint8_t level[SUPER], enum dtype t, const uint8_t *in)
{
    const uint8_t *low = in + stored[t].low, *high = in + stored[t].high;
    for (int k = 0; k < SUPER; k++) {
        int i = k % BLOCK, b = k / BLOCK; /* 32 bytes hold 64 elements of 4 bits or 128 of 2 bits */
        switch (t) {
        case DT_IQ4_XS:
            level[k] = low[b * 16 + i % 16] >> i / 16 * 4 & 15;
            break;
        case DT_Q4_K:
            level[k] = low[b / 2 * 32 + i] >> b % 2 * 4 & 15;
            break;
        case DT_Q5_K:
            level[k] = (uint8_t)((low[b / 2 * 32 + i] >> b % 2 * 4 & 15) | (high[i] >> b & 1) << 4);
            break;
        case DT_Q6_K:
            level[k] = (uint8_t)((low[b / 4 * 64 + b % 2 * 32 + i] >> b % 4 / 2 * 4 & 15) |
                                 (high[b / 4 * 32 + i] >> b % 4 * 2 & 3) << 4);
            break;
        case DT_Q3_K:
            level[k] = (uint8_t)((low[b / 4 * 32 + i] >> b % 4 * 2 & 3) | (high[i] >> b & 1) << 2);
            break;
        default: /* Q2_K */
            level[k] = low[b / 4 * 32 + i] >> b % 4 * 2 & 3;
        }
    }
}

/* One superblock's scales into a lane of the body. */
static void put_scales(uint8_t *scales, enum dtype t, const uint8_t *in, int lane)
{
    if (t == DT_Q4_K || t == DT_Q5_K) {
        for (int i = 0; i < 12; i++)
            scales[i * LANES + lane] = in[i];
        return;
    }
    for (int b = 0; b < SUPER_BLOCKS && t == DT_IQ4_XS; b++) {
        int low = in[2 + b / 2] >> b % 2 * 4 & 15, high = in[b / 4] >> b % 4 * 2 & 3;
        scales[b % 4 * LANES + lane] |= (uint8_t)(low << b / 4 * 4);
        scales[(4 + b % 2) * LANES + lane] |= (uint8_t)(high << b / 2 * 2);
    }
    for (int part = 0; part < 16 && t != DT_IQ4_XS; part++) { /* 16 k each */
        int b = part / 2, h = part % 2;
        if (t != DT_Q3_K) {
            scales[(b * LANES + lane) * 2 + h] = in[part];
            continue;
        }
        int low = in[part % 8] >> part / 8 * 4 & 15, high = in[8 + part % 4] >> part / 4 * 2 & 3;
        scales[(b % 4 * LANES + lane) * 2 + h] |= (uint8_t)(low << b / 4 * 4);
        scales[((4 + b % 2) * LANES + lane) * 2 + h] |= (uint8_t)(high << b / 2 * 2);
    }
}

static void put_word(uint8_t *p, uint32_t word)
{
    memcpy(p, &word, 4);
}

/* Two bits of each of 32 bytes, `shift` up: two words. */
static void put_two_bits(uint8_t *plane, const uint32_t word[8], int shift)
{
    for (int i = 0; i < 2; i++) {
        uint32_t sum = 0;
        for (int f = 0; f < 4; f++)
            sum |= (word[4 * i + f] >> shift & 0x03030303u) << 2 * f;
        put_word(plane + i * 64, sum);
    }
}

/* 32 levels into a lane of a block; `block` already points at the lane. */
static void put_block(uint8_t *block, enum dtype t, const uint8_t level[BLOCK])
{
    uint32_t word[8], sum = 0;
    memcpy(word, level, sizeof word);
    if (kq_low_bits(t) == 2)
        put_two_bits(block, word, 0);
    for (int i = 0; i < 4 && kq_low_bits(t) == 4; i++)
        put_word(block + i * 64, (word[2 * i] & 0x0f0f0f0fu) | (word[2 * i + 1] & 0x0f0f0f0fu) << 4);
    if (kq_high_bits(t) == 2)
        put_two_bits(block + kq_low_bytes(t), word, 4);
    if (kq_high_bits(t) == 1) {
        for (int i = 0; i < 8; i++)
            sum |= (word[i] >> kq_low_bits(t) & 0x01010101u) << i;
        put_word(block + kq_low_bytes(t), sum);
    }
}

static void kquant_pack(char *panel, const char *const source[LANES], enum dtype t, int64_t n_in)
{
    int64_t n_super = n_in / SUPER;
    for (int j = 0; j < LANES; j++)
        for (int64_t i = 0; source[j] && i < n_super; i++) {
            const uint8_t *in = (const uint8_t *)source[j] + i * dtype_row(t)->bytes;
            uint8_t *super = (uint8_t *)panel + i * kq_super_bytes(t), level[SUPER];
            memcpy(super + 2 * j, in + stored[t].d, 2);
            if (kq_has_min(t))
                memcpy(super + 2 * (LANES + j), in + stored[t].min, 2);
            put_scales(super + kq_scales_at(t), t, in + stored[t].scales, j);
            super_levels(level, t, in);
            for (int b = 0; b < SUPER_BLOCKS; b++)
                put_block(super + kq_blocks_at(t) + b * kq_block_bytes(t) + j * 4, t, level + b * BLOCK);
        }
}

/* In the order of operations that defines a stored number (tensor/block.c). */
static void kquant_widen(real *out, ptrdiff_t stride, const struct lane *at, enum dtype t, int64_t k0, int64_t k1)
{
    for (int64_t k = k0; k < k1; k++, out += stride) {
        int b = (int)(k % SUPER / BLOCK), i = (int)(k % BLOCK);
        const uint8_t *super = (const uint8_t *)at->panel + k / SUPER * kq_super_bytes(t);
        const struct kq_scale s = kq_scale(t, super + kq_scales_at(t), at->lane, b, kq_has_halves(t) ? i / 16 : 0);
        int level = kq_value(t, super + kq_blocks_at(t) + b * kq_block_bytes(t), at->lane, i);
        float product = half_at((const char *)super, at->lane) * (float)s.scale * (float)level;
        if (kq_has_min(t)) {
            float min = half_at((const char *)super, LANES + at->lane) * (float)s.min;
            product -= min;
        }
        *out = product;
    }
}

#define KQUANT(name, type)                                                                                             \
    void name##_pack(char *panel, const char *const source[LANES], enum dtype src, int64_t n_in)                       \
    {                                                                                                                  \
        (void)src;                                                                                                     \
        kquant_pack(panel, source, type, n_in);                                                                        \
    }                                                                                                                  \
    void name##_widen(real *out, ptrdiff_t stride, const struct lane *at, int64_t k0, int64_t k1)                      \
    {                                                                                                                  \
        kquant_widen(out, stride, at, type, k0, k1);                                                                   \
    }
KQUANT(q2_k, DT_Q2_K)
KQUANT(q3_k, DT_Q3_K)
KQUANT(q4_k, DT_Q4_K)
KQUANT(q5_k, DT_Q5_K)
KQUANT(q6_k, DT_Q6_K)
KQUANT(iq4_xs, DT_IQ4_XS)
