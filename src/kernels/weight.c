/* weight - panels of 16 output rows: how stored rows are packed into them and gathered back */
#include "kernels/kernels_private.h"

enum dtype weight_type(enum dtype src)
{
    switch (src) {
    case DT_F16:
    case DT_BF16:
    case DT_Q8_0:
    case DT_Q4_0:
    case DT_Q4_1:
        return src;
    default:
        return DT_F32;
    }
}

size_t panel_bytes(enum dtype t, int64_t n_in)
{
    size_t n = (size_t)n_in, quants = panel_scale_bytes(t, n_in);
    switch (t) {
    case DT_F32:
        return n * LANES * sizeof(real);
    case DT_F16:
        return (n + 1) / 2 * 2 * LANES * sizeof(uint16_t);
    case DT_BF16:
        return (n + 1) / 2 * LANES * 2 * sizeof(uint16_t);
    case DT_Q8_0:
        return quants + n * LANES;
    default: /* Q4_0, Q4_1 */
        return quants + n * LANES / 2;
    }
}

size_t weight_bytes(enum dtype packed, int64_t n_out, int64_t n_in)
{
    return panel_bytes(packed, n_in) * (size_t)panel_count(n_out);
}

/* ---- packing ---- */
struct pack {
    struct weight *w;
    const char *rows;
    enum dtype src;
    size_t row_bytes; /* of the source */
    const int32_t *row_of;
    int64_t item_panels;
};

/* The sixteen source rows of a panel; NULL beyond n_out. */
static void panel_sources(const char *source[LANES], const struct pack *p, int64_t panel)
{
    for (int j = 0; j < LANES; j++) {
        int64_t n = panel * LANES + j;
        source[j] = n >= p->w->n_out ? NULL : p->rows + (size_t)(p->row_of ? p->row_of[n] : n) * p->row_bytes;
    }
}

/* Through f32, a span of k at a time so that the sixteen rows stay in the first-level cache. */
static void pack_f32(const struct pack *p, char *panel, const char *const source[LANES])
{
    enum { SPAN = 256 }; /* a multiple of every block size */
    int64_t n_in = p->w->n_in, block = dtype_row(p->src)->block, bytes = dtype_row(p->src)->bytes;
    real *out = (real *)panel;
    for (int64_t k0 = 0; k0 < n_in; k0 += SPAN) {
        float wide[LANES][SPAN] = {0};
        int64_t n = n_in - k0 < SPAN ? n_in - k0 : SPAN;
        for (int j = 0; j < LANES; j++)
            if (source[j])
                dtype_to_f32(wide[j], p->src, source[j] + k0 / block * bytes, (size_t)n);
        for (int64_t k = 0; k < n; k++)
            for (int j = 0; j < LANES; j++)
                out[(k0 + k) * LANES + j] = wide[j][k];
    }
}

static void pack_f16(const struct pack *p, char *panel, const char *const source[LANES])
{
    uint16_t *out = (uint16_t *)panel;
    int64_t n_in = p->w->n_in;
    for (int j = 0; j < LANES; j++)
        for (int64_t k = 0; source[j] && k < n_in; k++)
            memcpy(&out[k * LANES + j], source[j] + 2 * k, 2);
}

static void pack_bf16(const struct pack *p, char *panel, const char *const source[LANES])
{
    int64_t n_in = p->w->n_in;
    for (int j = 0; j < LANES; j++)
        for (int64_t k = 0; source[j] && k < n_in; k += 2)
            memcpy(panel + (k / 2 * LANES + j) * 4, source[j] + 2 * k, k + 1 < n_in ? 4 : 2);
}

static void pack_q8_0(const struct pack *p, char *panel, const char *const source[LANES])
{
    char *quants = panel + panel_scale_bytes(DT_Q8_0, p->w->n_in);
    for (int j = 0; j < LANES; j++)
        for (int64_t b = 0; source[j] && b < p->w->n_in / BLOCK; b++) {
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

static void pack_q4(const struct pack *p, char *panel, const char *const source[LANES])
{
    enum dtype t = p->w->type;
    int n_half = t == DT_Q4_1 ? 2 : 1; /* scale, and minimum */
    char *quants = panel + panel_scale_bytes(t, p->w->n_in);
    for (int j = 0; j < LANES; j++)
        for (int64_t b = 0; source[j] && b < p->w->n_in / BLOCK; b++) {
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

static void pack_item(void *ctx, int item, int thread)
{
    (void)thread;
    const struct pack *p = ctx;
    int64_t n_panel = panel_count(p->w->n_out), panel0 = item * p->item_panels;
    for (int64_t i = panel0; i < panel0 + p->item_panels && i < n_panel; i++) {
        const char *source[LANES];
        panel_sources(source, p, i);
        char *panel = (char *)p->w->panels + (size_t)i * p->w->panel_bytes;
        memset(panel, 0, p->w->panel_bytes);
        switch (p->w->type) {
        case DT_F32:
            pack_f32(p, panel, source);
            break;
        case DT_F16:
            pack_f16(p, panel, source);
            break;
        case DT_BF16:
            pack_bf16(p, panel, source);
            break;
        case DT_Q8_0:
            pack_q8_0(p, panel, source);
            break;
        default:
            pack_q4(p, panel, source);
            break;
        }
    }
}

void weight_pack(struct weight *w, const void *rows, enum dtype src, const int32_t *row_of, struct pool *pool)
{
    enum { ITEM_BYTES = 256 << 10 };
    assert(w->type == DT_F32 || w->type == src);
    struct pack p = {.w = w, .rows = rows, .src = src, .row_of = row_of};
    w->panel_bytes = panel_bytes(w->type, w->n_in);
    const struct dtype_row *d = dtype_row(src);
    p.row_bytes = (size_t)(w->n_in / d->block * d->bytes);
    p.item_panels = ITEM_BYTES / (int64_t)w->panel_bytes + 1;
    pool_run(pool, pack_item, &p, (int)((panel_count(w->n_out) + p.item_panels - 1) / p.item_panels));
}

/* ---- gathering ---- */
static float half_at(const char *panel, int64_t i)
{
    uint16_t h;
    memcpy(&h, panel + 2 * i, 2);
    return f16_to_f32(h);
}

static void widen_q8_0(real *out, ptrdiff_t stride, const char *panel, const char *quants, int lane, int64_t k0,
                       int64_t k1)
{
    for (int64_t k = k0; k < k1; k++, out += stride) {
        int q = (uint8_t)quants[k / 4 * 64 + lane * 4 + k % 4] - 128;
        *out = half_at(panel, k / BLOCK * LANES + lane) * (float)q;
    }
}

static void widen_q4(real *out, ptrdiff_t stride, enum dtype t, const char *panel, const char *quants, int lane,
                     int64_t k0, int64_t k1)
{
    for (int64_t k = k0; k < k1; k++, out += stride) {
        int q = (uint8_t)quants[k / 8 * 64 + lane * 4 + k % 4] >> (k % 8 / 4 * 4) & 15;
        int64_t b = k / BLOCK;
        if (t == DT_Q4_0) {
            *out = half_at(panel, b * LANES + lane) * (float)(q - 8);
        } else { /* a product and a sum, each rounded: what the format's own definition says */
            float product = half_at(panel, 2 * b * LANES + lane) * (float)q;
            *out = product + half_at(panel, (2 * b + 1) * LANES + lane);
        }
    }
}

void panel_widen_lane(real *out, ptrdiff_t stride, const struct weight *w, int64_t index, int lane, int64_t k0,
                      int64_t k1)
{
    const char *panel = panel_at(w, index), *quants = panel + panel_scale_bytes(w->type, w->n_in);
    switch (w->type) {
    case DT_F32:
        for (int64_t k = k0; k < k1; k++, out += stride)
            *out = ((const real *)panel)[k * LANES + lane];
        return;
    case DT_F16:
        for (int64_t k = k0; k < k1; k++, out += stride)
            *out = half_at(panel, k * LANES + lane);
        return;
    case DT_BF16:
        for (int64_t k = k0; k < k1; k++, out += stride)
            *out = bf16_to_f32(((const uint16_t *)panel)[(k / 2 * LANES + lane) * 2 + k % 2]);
        return;
    case DT_Q8_0:
        widen_q8_0(out, stride, panel, quants, lane, k0, k1);
        return;
    default:
        widen_q4(out, stride, w->type, panel, quants, lane, k0, k1);
    }
}

void weight_get_row(real *out, const struct weight *w, int64_t r)
{
    assert(r >= 0 && r < w->n_out);
    panel_widen_lane(out, 1, w, r / LANES, (int)(r % LANES), 0, w->n_in);
}

void weight_set_row(struct weight *w, int64_t r, const real *in)
{
    assert(r >= 0 && r < w->n_out && w->type == DT_F32);
    real *panel = (real *)w->panels + r / LANES * LANES * w->n_in;
    for (int64_t k = 0; k < w->n_in; k++)
        panel[k * LANES + r % LANES] = in[k];
}
