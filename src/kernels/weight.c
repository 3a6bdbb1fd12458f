/* weight - panels of 16 output rows: how stored rows are packed into them and gathered back; types: panels.def */
#include "kernels/kernels_private.h"

static const struct panel_type types[DT_COUNT] = {
#define PANEL(TYPE, name, act, few_rows, block, scale_bytes, quant_bytes)                                              \
    [DT_##TYPE] = {ACT_##act,   few_rows,    block,        scale_bytes,                                                \
                   quant_bytes, name##_pack, name##_widen, &kernels.linear_##name},
#include "kernels/panels.def"
};

const struct panel_type *panel_type(enum dtype t)
{
    assert(types[t].pack);
    return &types[t];
}

enum dtype weight_type(enum dtype src)
{
    return types[src].pack ? src : DT_F32;
}

static size_t panel_blocks(enum dtype t, int64_t n_in)
{
    size_t block = (size_t)panel_type(t)->block;
    return ((size_t)n_in + block - 1) / block;
}

size_t panel_scale_bytes(enum dtype t, int64_t n_in)
{
    return (panel_blocks(t, n_in) * panel_type(t)->scale_bytes + PANEL_ALIGN - 1) / PANEL_ALIGN * PANEL_ALIGN;
}

size_t panel_bytes(enum dtype t, int64_t n_in)
{
    return panel_scale_bytes(t, n_in) + panel_blocks(t, n_in) * panel_type(t)->quant_bytes;
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
        panel_type(p->w->type)->pack(panel, source, p->src, p->w->n_in);
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
void panel_widen_lane(real *out, ptrdiff_t stride, const struct weight *w, int64_t index, int lane, int64_t k0,
                      int64_t k1)
{
    const char *panel = panel_at(w, index);
    const struct lane at = {panel, panel + panel_scale_bytes(w->type, w->n_in), lane};
    panel_type(w->type)->widen(out, stride, &at, k0, k1);
}

void weight_get_row(real *out, const struct weight *w, int64_t r)
{
    assert(r >= 0 && r < w->n_out);
    panel_widen_lane(out, 1, w, r / LANES, (int)(r % LANES), 0, w->n_in);
}
