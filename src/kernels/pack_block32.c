/* pack_block32 - panels of the types in blocks of 32 (block32.h): Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, IQ4_NL, MXFP4, Q4_Z */
#include "kernels/block32.h"

/* One row's scale and minimum, or exponent, of `bytes` each, at its lane. */
static void put_scales(enum dtype t, char *panel, int64_t b, int lane, const char *block, int bytes, int count)
{
    char *scales = panel + (block32_scales(t, panel, b) - panel);
    for (int h = 0; h < count; h++)
        memcpy(scales + (h * LANES + lane) * bytes, block + h * bytes, (size_t)bytes);
}

void q8_0_pack(char *panel, const char *const source[LANES], enum dtype src, int64_t n_in)
{
    for (int j = 0; j < LANES; j++)
        for (int64_t b = 0; source[j] && b < n_in / BLOCK; b++) {
            const char *block = source[j] + b * 34;
            char *quants = panel + (block32_quants(src, panel, b) - panel);
            put_scales(src, panel, b, j, block, 2, 1);
            for (int i = 0; i < 8; i++) {
                uint32_t word;
                memcpy(&word, block + 2 + 4 * i, 4);
                word ^= 0x80808080u;
                memcpy(quants + i * 64 + j * 4, &word, 4);
            }
        }
}

/* stored: byte k has element k below, element k + 16 above. */
static void put_nibbles(char *quants, int lane, const char *bytes)
{
    uint32_t stored[4];
    memcpy(stored, bytes, 16);
    for (int i = 0; i < 4; i++) {
        int half = i / 2 * 4; /* elements 0 .. 15 are low nibbles */
        uint32_t low = stored[i % 2 * 2] >> half & 0x0f0f0f0fu;
        uint32_t high = stored[i % 2 * 2 + 1] >> half & 0x0f0f0f0fu;
        uint32_t word = low | high << 4;
        memcpy(quants + i * 64 + lane * 4, &word, 4);
    }
}

/* stored: bit k is the fifth bit of element k. */
static void put_fifths(char *quants, int lane, const char *bytes)
{
    uint32_t stored;
    uint8_t plane[4] = {0};
    memcpy(&stored, bytes, 4);
    for (int k = 0; k < BLOCK; k++)
        plane[k % 4] = (uint8_t)(plane[k % 4] | (stored >> k & 1) << (k / 4));
    memcpy(quants + lane * 4, plane, 4);
}

/* A stored block: `count` scales of `scale` bytes, then fifth bits or not, then nibbles. */
static void pack_nibbles(char *panel, const char *const source[LANES], enum dtype t, int64_t n_in, int scale, int count)
{
    enum { NIBBLES = LANES * BLOCK / 2 };
    int64_t bytes = dtype_row(t)->bytes;
    for (int j = 0; j < LANES; j++)
        for (int64_t b = 0; source[j] && b < n_in / BLOCK; b++) {
            const char *block = source[j] + b * bytes;
            char *quants = panel + (block32_quants(t, panel, b) - panel);
            put_scales(t, panel, b, j, block, scale, count);
            put_nibbles(quants, j, block + bytes - BLOCK / 2);
            if (block32_quant_bytes(t) > NIBBLES)
                put_fifths(quants + NIBBLES, j, block + scale * count);
        }
}

/* Q4_1 and Q5_1: a product and a sum, each rounded, as the format's own definition says. */
static inline void widen(real *out, ptrdiff_t stride, enum dtype t, const struct lane *at, int64_t k0, int64_t k1)
{
    for (int64_t k = k0; k < k1; k++, out += stride) {
        int64_t b = k / BLOCK;
        int q = block32_level(t, at->panel, b, at->lane, k % BLOCK);
        float product = block32_scale(t, at->panel, b, at->lane) * (float)q;
        *out = block32_has_min(t) ? product + block32_min(t, at->panel, b, at->lane) : product;
    }
}

#define WIDEN(TYPE, name)                                                                                              \
    void name##_widen(real *out, ptrdiff_t stride, const struct lane *at, int64_t k0, int64_t k1)                      \
    {                                                                                                                  \
        widen(out, stride, DT_##TYPE, at, k0, k1);                                                                     \
    }
#define NIBBLES(TYPE, name, scale, count)                                                                              \
    void name##_pack(char *panel, const char *const source[LANES], enum dtype src, int64_t n_in)                       \
    {                                                                                                                  \
        pack_nibbles(panel, source, src, n_in, scale, count);                                                          \
    }                                                                                                                  \
    WIDEN(TYPE, name)
WIDEN(Q8_0, q8_0)
NIBBLES(Q4_0, q4_0, 2, 1)
NIBBLES(Q4_1, q4_1, 2, 2)
NIBBLES(Q5_0, q5_0, 2, 1)
NIBBLES(Q5_1, q5_1, 2, 2)
NIBBLES(IQ4_NL, iq4_nl, 2, 1)
NIBBLES(MXFP4, mxfp4, 1, 1)
NIBBLES(Q4_Z, q4_z, 2, 2)
