/* linear_int8_items - how the products of one item run, for every type that
 * meets int8 activations
 *
 * Few rows stream whole panels past them; more go through chunks of up to 512
 * k, unpacked once for all rows. Every type has its own few-row tile and
 * unpacking; chunk tiles depend on the width of the weights and on what comes
 * beside scales.
 */
#include "kernels/x86/linear_int8_tile.h"
#ifdef LINEAR_AMX
#include "kernels/x86/linear_amx_tile.h"
#define TILE_WHOLE(t, extra) tile_amx(t, extra)
enum { MATRIX_UNIT = true };
#else
#define TILE_WHOLE(t, extra) (false)
enum { MATRIX_UNIT = false };
#endif

typedef void few_fn(const struct int8_tile *t, int R);
typedef void many_fn(const struct int8_tile *t, int rows);
typedef void unpack_fn(struct chunk *c, const struct int8_tile *t, int group, int64_t block, int64_t n);
struct way {
    enum extra extra;
    int zero;     /* what stands for zero among the weights of a chunk; 1 where each
                     output has its own */
    int together; /* blocks that are only unpacked together */
    few_fn *few;
    many_fn *many;
    unpack_fn *unpack;
};

static void tile_at(struct int8_tile *t, const struct linear_job *job, int64_t row, int64_t panel)
{
    int64_t n0 = panel * LANES;
    t->a = act_int8_row(job->x, row);
    t->out = job->out + row * t->stride + n0;
    t->n_valid = job->w->n_out - n0;
    t->bias = job->bias ? job->bias + n0 : NULL;
}

static void few_rows(const struct linear_job *job, const struct way *way, struct int8_tile t, int64_t row0,
                     int64_t row1, int64_t panel0, int64_t panel1)
{
    t.n_block = job->w->n_in / BLOCK;
    for (int64_t p = panel0; p < panel1; p++) {
        t.panel = panel_at(job->w, p);
        for (int64_t row = row0; row < row1; row += R_FEW) { /* after the first tile the panel is in the cache */
            tile_at(&t, job, row, p);
            way->few(&t, row1 - row < R_FEW ? (int)(row1 - row) : R_FEW);
        }
    }
}

/* What n blocks start at, one after the other; a: at the first. */
INLINE void starts_of(union start *out, const enum extra extra, const int zero, const struct act_int8 *a, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        start_put(out + i * START_PARTS(extra), extra, zero, a, i);
}

/* What each row's blocks start at, in the order of the activations. */
static void starts(union start *out, const struct linear_job *job, const struct way *way, int64_t row0, int64_t row1,
                   int64_t block, int64_t n_block)
{
    for (int64_t row = row0; row < row1; row += TILE_ROWS) {
        const struct act_int8 a = act_int8_at(act_int8_row(job->x, row), block);
        int64_t n = n_block * a.rows;
        switch (way->extra) { /* each its own loop, which the compiler turns into
                                 vectors */
        case MINS:
            starts_of(out, MINS, 0, &a, n);
            break;
        case HALF_SCALES:
            starts_of(out, HALF_SCALES, way->zero, &a, n);
            break;
        case HALF_MINS:
            starts_of(out, HALF_MINS, 0, &a, n);
            break;
        default:
            starts_of(out, NONE, way->zero, &a, n);
        }
        out += n * START_PARTS(way->extra);
    }
}

/* What an item of many rows keeps on the stack. */
struct many {
    struct chunk chunk;
    union start start[ITEM_ROWS_INT8 * CHUNK * 2];
    _Alignas(64) float sums[ITEM_PANELS_INT8 * PANEL_GROUPS / G_MANY][ITEM_ROWS_INT8][G_MANY][VEC];
};

static void chunk_rows(const struct linear_job *job, const struct way *way, struct int8_tile *t,
                       const union start *start, float *sums, int64_t row0, int64_t row1, int64_t panel, int64_t block,
                       int group)
{
    int64_t n_mine = t->n_valid; /* the panels behind are another item's, at work
                                    in another thread */
    t->start = start;
    t->sums = sums;
    for (int64_t row = row0; row < row1; row += TILE_ROWS) {
        tile_at(t, job, row, panel);
        t->n_valid = t->n_valid < n_mine ? t->n_valid : n_mine;
        t->out += group * VEC;
        t->n_valid -= group * VEC;
        t->bias = t->bias ? t->bias + group * VEC : NULL;
        t->a = act_int8_at(t->a, block);
        way->many(t, (int)(row1 - row < TILE_ROWS ? row1 - row : TILE_ROWS));
        t->start += TILE_ROWS * t->n_block * START_PARTS(way->extra);
        t->sums += TILE_ROWS * G_MANY * VEC;
        t->next += TILE_ROWS / R_MANY * t->n_block * t->next_lines * 64;
    }
}

/* The chunk after this one is prefetched evenly over the rows: of the next panels, of the first ones' next k, or of the
 * panels behind this item, whoever takes them. */
static void look_ahead(struct int8_tile *t, const struct weight *w, int64_t panel, int64_t block, int64_t end,
                       int64_t n_row)
{
    int64_t n_block = w->n_in / BLOCK, slots = n_row / R_MANY * t->n_block;
    const char *at = (const char *)w->panels + (size_t)panel * w->panel_bytes;
    t->next = at + w->panel_bytes * (size_t)block / (size_t)n_block;
    t->next_end = panel < panel_count(w->n_out) ? at + w->panel_bytes * (size_t)end / (size_t)n_block : t->next;
    t->next_lines = (int)(((t->next_end - t->next) / 64 + slots - 1) / slots);
}

static void many_rows(const struct linear_job *job, const struct way *way, struct int8_tile t, int64_t row0,
                      int64_t row1, int64_t panel0, int64_t panel1)
{
    struct many m;
    int64_t n_block = job->w->n_in / BLOCK;
    assert(row0 % TILE_ROWS == 0 && row1 - row0 <= ITEM_ROWS_INT8 && panel1 - panel0 <= ITEM_PANELS_INT8);
    int64_t n_chunk = (n_block + CHUNK - 1) / CHUNK, even = (n_block + n_chunk - 1) / n_chunk;
    even = (even + way->together - 1) / way->together * way->together;
    t.chunk = &m.chunk;
    for (int64_t block = 0; block < n_block; block += even) {
        t.n_block = n_block - block < even ? n_block - block : even;
        t.first = block == 0;
        t.last = block + t.n_block == n_block;
        starts(m.start, job, way, row0, row1, block, t.n_block);
        for (int64_t group = panel0 * PANEL_GROUPS, i = 0; group < panel1 * PANEL_GROUPS; group += G_MANY, i++) {
            int64_t panel = group / PANEL_GROUPS;
            int in_panel = (int)(group % PANEL_GROUPS);
            t.panel = panel_at(job->w, panel);
            t.n_valid = (panel1 - panel) * LANES; /* do not unpack beyond */
            way->unpack(&m.chunk, &t, in_panel, block, t.n_block);
            int64_t next = block + t.n_block;
            if (group + G_MANY < panel1 * PANEL_GROUPS)
                look_ahead(&t, job->w, (group + G_MANY) / PANEL_GROUPS, block, next, row1 - row0);
            else if (!t.last)
                look_ahead(&t, job->w, panel0, next, next + even < n_block ? next + even : n_block, row1 - row0);
            else
                look_ahead(&t, job->w, panel1, 0, even < n_block ? even : n_block, row1 - row0);
            chunk_rows(job, way, &t, m.start, m.sums[i][0][0], row0, row1, panel, block, in_panel);
        }
    }
}

static void linear_int8(const struct linear_job *job, const struct way *way, int64_t row0, int64_t row1, int64_t panel0,
                        int64_t panel1)
{
    struct int8_tile t = {.panel_bytes = job->w->panel_bytes, .stride = job->stride};
    int64_t n_row = row1 - row0;
    if (n_row <= weight_few_rows(job->w) && !(MATRIX_UNIT && n_row == TILE_ROWS)) {
        few_rows(job, way, t, row0, row1, panel0, panel1);
        return;
    }
    for (int64_t p = panel0; p < panel1; p += ITEM_PANELS_INT8)
        many_rows(job, way, t, row0, row1, p, panel1 - p < ITEM_PANELS_INT8 ? panel1 : p + ITEM_PANELS_INT8);
}

/* ---- chunk tiles: many_4m takes weights of 4 bits with minima ---- */
#define MANY(name, bits, extra)                                                                                        \
    static void many_##name(const struct int8_tile *t, int rows)                                                       \
    {                                                                                                                  \
        int row = 0;                                                                                                   \
        if (rows == TILE_ROWS && TILE_WHOLE(t, extra))                                                                 \
            return;                                                                                                    \
        for (; row + R_MANY <= rows; row += R_MANY)                                                                    \
            tile_many(t, bits, extra, row, R_MANY);                                                                    \
        for (; row < rows; row++)                                                                                      \
            tile_many(t, bits, extra, row, 1);                                                                         \
    }

#define FEW_CASE(r)                                                                                                    \
    case r:                                                                                                            \
        tile_few(t, format, r);                                                                                        \
        return;
#ifdef __AVX512F__
#define FEW_CASES                                                                                                      \
    FEW_CASE(1)                                                                                                        \
    FEW_CASE(2) FEW_CASE(3) FEW_CASE(4) FEW_CASE(5) FEW_CASE(6) FEW_CASE(7) FEW_CASE(8)
#else
#define FEW_CASES FEW_CASE(1) FEW_CASE(2) FEW_CASE(3) FEW_CASE(4)
#endif

/* FORMAT(name, width, together, the fields of a struct format): linear_name,
 * from the tile_few, chunk_unpack and format_extra of the file that includes
 * this and many_width */
#define FORMAT(name, width, together, ...)                                                                             \
    static void few_##name(const struct int8_tile *t, int R)                                                           \
    {                                                                                                                  \
        static const struct format format = {__VA_ARGS__};                                                             \
        switch (R) {                                                                                                   \
            FEW_CASES                                                                                                  \
        }                                                                                                              \
    }                                                                                                                  \
    static void unpack_##name(struct chunk *c, const struct int8_tile *t, int group, int64_t block, int64_t n)         \
    {                                                                                                                  \
        static const struct format format = {__VA_ARGS__};                                                             \
        chunk_unpack(format, c, t, group, block, n);                                                                   \
    }                                                                                                                  \
    void ISA(linear_##name)(const struct linear_job *job, int64_t row0, int64_t row1, int64_t panel0, int64_t panel1)  \
    {                                                                                                                  \
        static const struct format format = {__VA_ARGS__};                                                             \
        const struct way way = {format_extra(format), format.zero, together, few_##name, many_##width, unpack_##name}; \
        linear_int8(job, &way, row0, row1, panel0, panel1);                                                            \
    }
