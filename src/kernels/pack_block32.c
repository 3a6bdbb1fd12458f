/* pack_block32 - panels of the types in blocks of 32 (block32.h): Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, IQ4_NL, MXFP4 */
#include "kernels/block32.h"

/* Sixteen halves are 32 bytes: `bytes` of one row's scale or minimum, at its lane. */
static void put_scales(char *panel, int64_t b, int lane, const char *block, int bytes, int count)
{
    for (int h = 0; h < count; h++)
        memcpy(panel + ((b * count + h) * LANES + lane) * bytes, block + h * bytes, (size_t)bytes);
}

void q8_0_pack(char *panel, const char *const source[LANES], enum dtype src, int64_t n_in)
{
    char *quants = panel + panel_scale_bytes(src, n_in);
    for (int j = 0; j < LANES; j++)
        for (int64_t b = 0; source[j] && b < n_in / BLOCK; b++) {
            const char *block = source[j] + b * 34;
            put_scales(panel, b, j, block, 2, 1);
            for (int i = 0; i < 8; i++) {
                uint32_t word;
                memcpy(&word, block + 2 + 4 * i, 4);
                word ^= 0x80808080u;
                memcpy(quants + b * 512 + i * 64 + j * 4, &word, 4);
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
    char *quants = panel + panel_scale_bytes(t, n_in);
    int64_t bytes = dtype_row(t)->bytes, quant_bytes = (int64_t)panel_type(t)->quant_bytes;
    for (int j = 0; j < LANES; j++)
        for (int64_t b = 0; source[j] && b < n_in / BLOCK; b++) {
            const char *block = source[j] + b * bytes;
            put_scales(panel, b, j, block, scale, count);
            put_nibbles(quants + b * quant_bytes, j, block + bytes - BLOCK / 2);
            if (quant_bytes > LANES * BLOCK / 2)
                put_fifths(quants + b * quant_bytes + LANES * BLOCK / 2, j, block + scale * count);
        }
}

/* Q4_1 and Q5_1: a product and a sum, each rounded, as the format's own definition says. */
static inline void widen(real *out, ptrdiff_t stride, enum dtype t, int quant_bytes, const struct lane *at, int64_t k0,
                         int64_t k1)
{
    for (int64_t k = k0; k < k1; k++, out += stride) {
        int64_t b = k / BLOCK;
        int q = block32_level(t, at->quants + b * quant_bytes, at->lane, k % BLOCK);
        float product = block32_scale(t, at->panel, b, at->lane) * (float)q;
        *out = block32_has_min(t) ? product + block32_min(at->panel, b, at->lane) : product;
    }
}

#define WIDEN(TYPE, name, bytes)                                                                                       \
    void name##_widen(real *out, ptrdiff_t stride, const struct lane *at, int64_t k0, int64_t k1)                      \
    {                                                                                                                  \
        widen(out, stride, DT_##TYPE, bytes, at, k0, k1);                                                              \
    }
#define NIBBLES(TYPE, name, bytes, scale, count)                                                                       \
    void name##_pack(char *panel, const char *const source[LANES], enum dtype src, int64_t n_in)                       \
    {                                                                                                                  \
        pack_nibbles(panel, source, src, n_in, scale, count);                                                          \
    }                                                                                                                  \
    WIDEN(TYPE, name, bytes)
WIDEN(Q8_0, q8_0, 512)
NIBBLES(Q4_0, q4_0, 256, 2, 1)
NIBBLES(Q4_1, q4_1, 256, 2, 2)
NIBBLES(Q5_0, q5_0, 320, 2, 1)
NIBBLES(Q5_1, q5_1, 320, 2, 2)
NIBBLES(IQ4_NL, iq4_nl, 256, 2, 1)
NIBBLES(MXFP4, mxfp4, 256, 1, 1)
