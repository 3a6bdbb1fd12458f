/* pack_block32 - panels of the types in blocks of 32: Q8_0, Q4_0, Q4_1 */
#include "kernels/kernels_private.h"

void q8_0_pack(char *panel, const char *const source[LANES], enum dtype src, int64_t n_in)
{
    char *quants = panel + panel_scale_bytes(src, n_in);
    for (int j = 0; j < LANES; j++)
        for (int64_t b = 0; source[j] && b < n_in / BLOCK; b++) {
            const char *block = source[j] + b * 34;
            memcpy(panel + (b * LANES + j) * 2, block, 2);
            for (int i = 0; i < 8; i++) {
                uint32_t word;
                memcpy(&word, block + 2 + 4 * i, 4);
                word ^= 0x80808080u;
                memcpy(quants + b * 512 + i * 64 + j * 4, &word, 4);
            }
        }
}

static void pack_q4(char *panel, const char *const source[LANES], enum dtype src, int64_t n_in)
{
    int n_half = src == DT_Q4_1 ? 2 : 1; /* scale, and minimum */
    char *quants = panel + panel_scale_bytes(src, n_in);
    for (int j = 0; j < LANES; j++)
        for (int64_t b = 0; source[j] && b < n_in / BLOCK; b++) {
            const char *block = source[j] + b * (16 + 2 * n_half);
            for (int h = 0; h < n_half; h++)
                memcpy(panel + ((b * n_half + h) * LANES + j) * 2, block + 2 * h, 2);
            uint32_t stored[4]; /* byte k: element k below, element k + 16 above */
            memcpy(stored, block + 2 * n_half, 16);
            for (int i = 0; i < 4; i++) {
                int half = i / 2 * 4; /* elements 0 .. 15 are low nibbles */
                uint32_t low = stored[i % 2 * 2] >> half & 0x0f0f0f0fu;
                uint32_t high = stored[i % 2 * 2 + 1] >> half & 0x0f0f0f0fu;
                uint32_t word = low | high << 4;
                memcpy(quants + b * 256 + i * 64 + j * 4, &word, 4);
            }
        }
}

void q4_0_pack(char *panel, const char *const source[LANES], enum dtype src, int64_t n_in)
{
    pack_q4(panel, source, src, n_in);
}

void q4_1_pack(char *panel, const char *const source[LANES], enum dtype src, int64_t n_in)
{
    pack_q4(panel, source, src, n_in);
}

void q8_0_widen(real *out, ptrdiff_t stride, const struct lane *at, int64_t k0, int64_t k1)
{
    for (int64_t k = k0; k < k1; k++, out += stride) {
        int q = (uint8_t)at->quants[k / 4 * 64 + at->lane * 4 + k % 4] - 128;
        *out = half_at(at->panel, k / BLOCK * LANES + at->lane) * (float)q;
    }
}

static int nibble(const struct lane *at, int64_t k)
{
    return (uint8_t)at->quants[k / 8 * 64 + at->lane * 4 + k % 4] >> (k % 8 / 4 * 4) & 15;
}

void q4_0_widen(real *out, ptrdiff_t stride, const struct lane *at, int64_t k0, int64_t k1)
{
    for (int64_t k = k0; k < k1; k++, out += stride)
        *out = half_at(at->panel, k / BLOCK * LANES + at->lane) * (float)(nibble(at, k) - 8);
}

void q4_1_widen(real *out, ptrdiff_t stride, const struct lane *at, int64_t k0, int64_t k1)
{
    for (int64_t k = k0; k < k1; k++, out += stride) {
        int64_t b = k / BLOCK; /* a product and a sum, each rounded: what the format's own definition says */
        float product = half_at(at->panel, 2 * b * LANES + at->lane) * (float)nibble(at, k);
        *out = product + half_at(at->panel, (2 * b + 1) * LANES + at->lane);
    }
}
