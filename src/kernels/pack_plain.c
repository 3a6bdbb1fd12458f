/* pack_plain - panels of f32 (also of every type without panels of its own), f16 and bf16 */
#include "kernels/kernels_private.h"

/* Through f32, a span of k at a time so that the sixteen rows stay in the first-level cache. */
void f32_pack(char *panel, const char *const source[LANES], enum dtype src, int64_t n_in)
{
    enum { SPAN = 256 }; /* a multiple of every block size */
    int64_t block = dtype_row(src)->block, bytes = dtype_row(src)->bytes;
    real *out = (real *)panel;
    for (int64_t k0 = 0; k0 < n_in; k0 += SPAN) {
        float wide[LANES][SPAN] = {0};
        int64_t n = n_in - k0 < SPAN ? n_in - k0 : SPAN;
        for (int j = 0; j < LANES; j++)
            if (source[j])
                dtype_to_f32(wide[j], src, source[j] + k0 / block * bytes, (size_t)n);
        for (int64_t k = 0; k < n; k++)
            for (int j = 0; j < LANES; j++)
                out[(k0 + k) * LANES + j] = wide[j][k];
    }
}

void f16_pack(char *panel, const char *const source[LANES], enum dtype src, int64_t n_in)
{
    (void)src;
    uint16_t *out = (uint16_t *)panel;
    for (int j = 0; j < LANES; j++)
        for (int64_t k = 0; source[j] && k < n_in; k++)
            memcpy(&out[k * LANES + j], source[j] + 2 * k, 2);
}

void bf16_pack(char *panel, const char *const source[LANES], enum dtype src, int64_t n_in)
{
    (void)src;
    for (int j = 0; j < LANES; j++)
        for (int64_t k = 0; source[j] && k < n_in; k += 2)
            memcpy(panel + (k / 2 * LANES + j) * 4, source[j] + 2 * k, k + 1 < n_in ? 4 : 2);
}

void f32_widen(real *out, ptrdiff_t stride, const struct lane *at, int64_t k0, int64_t k1)
{
    for (int64_t k = k0; k < k1; k++, out += stride)
        *out = ((const real *)at->panel)[k * LANES + at->lane];
}

void f16_widen(real *out, ptrdiff_t stride, const struct lane *at, int64_t k0, int64_t k1)
{
    for (int64_t k = k0; k < k1; k++, out += stride)
        *out = half_at(at->panel, k * LANES + at->lane);
}

void bf16_widen(real *out, ptrdiff_t stride, const struct lane *at, int64_t k0, int64_t k1)
{
    for (int64_t k = k0; k < k1; k++, out += stride)
        *out = bf16_to_f32(((const uint16_t *)at->panel)[(k / 2 * LANES + at->lane) * 2 + k % 2]);
}
