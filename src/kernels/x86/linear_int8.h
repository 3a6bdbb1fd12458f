/* linear_int8 - forward products of panels in blocks of 32 with int8 activations; included once for each set
 *
 * Up to FEW_ROWS rows stream whole panels past them; more go through chunks of 512 k, unpacked once for all rows. Every
 * type has its own few-row tiles and unpacking; chunk tiles depend on the width of the weights alone.
 */
#include "kernels/x86/linear_int8_tile.h"

typedef void few_fn(const struct int8_tile *t, int R);
typedef void many_fn(const struct int8_tile *t, int rows);
typedef void unpack_fn(struct chunk *c, const struct int8_tile *t, int group, int64_t block, int64_t n);
struct way {
    enum dtype type;
    int zero;
    bool has_min;
    few_fn *few;
    many_fn *many;
    unpack_fn *unpack;
};

static void tile_at(struct int8_tile *t, const struct linear_job *job, int64_t row, int64_t panel)
{
    int64_t n0 = panel * LANES;
    t->a = act_int8_row(job->x, row);
    t->out = job->out + row * t->n_out + n0;
    t->n_valid = t->n_out - n0;
    t->bias = job->bias ? job->bias + n0 : NULL;
}

static void few_rows(const struct linear_job *job, const struct way *way, struct int8_tile t, int64_t row0,
                     int64_t row1, int64_t panel0, int64_t panel1)
{
    t.n_block = job->w->n_in / BLOCK;
    for (int64_t p = panel0; p < panel1; p++) {
        t.panel = panel_at(job->w, p);
        for (int64_t row = row0; row < row1; row += R_FEW) {
            tile_at(&t, job, row, p);
            way->few(&t, row1 - row < R_FEW ? (int)(row1 - row) : R_FEW);
        }
    }
}

/* What each row's blocks start at, in the order of the activations; with zeros in the panel way->zero is 1. */
static void starts(union start *out, const struct linear_job *job, const struct way *way, int64_t row0, int64_t row1,
                   int64_t block, int64_t n)
{
    for (int64_t row = row0; row < row1; row += TILE_ROWS) {
        struct act_int8 a = act_int8_row(job->x, row);
        const int32_t *minus = a.minus + block * a.rows;
        for (int64_t i = 0; i < n * a.rows; i++) {
            if (way->has_min)
                out[i].sum = (float)-minus[i];
            else
                out[i].zero = way->zero * minus[i];
        }
        out += n * a.rows;
    }
}

/* What an item of many rows keeps on the stack. */
struct many {
    struct chunk chunk;
    union start start[ITEM_ROWS_INT8 * CHUNK];
    _Alignas(64) float sums[ITEM_PANELS_INT8 * PANEL_GROUPS / G_MANY][ITEM_ROWS_INT8][G_MANY][VEC];
};

static void chunk_rows(const struct linear_job *job, const struct way *way, struct int8_tile *t,
                       const union start *start, float *sums, int64_t row0, int64_t row1, int64_t panel, int64_t block,
                       int group)
{
    int64_t n_mine = t->n_valid; /* the panels behind are another item's, at work in another thread */
    t->start = start;
    t->sums = sums;
    for (int64_t row = row0; row < row1; row += TILE_ROWS) {
        tile_at(t, job, row, panel);
        t->n_valid = t->n_valid < n_mine ? t->n_valid : n_mine;
        t->out += group * VEC;
        t->n_valid -= group * VEC;
        t->bias = t->bias ? t->bias + group * VEC : NULL;
        t->a.q += block * t->a.rows * BLOCK;
        t->a.scale += block * t->a.rows;
        way->many(t, (int)(row1 - row < TILE_ROWS ? row1 - row : TILE_ROWS));
        t->start += TILE_ROWS * t->n_block;
        t->sums += TILE_ROWS * G_MANY * VEC;
        t->next += TILE_ROWS / R_MANY * NEXT_LINES * 64;
    }
}

static void many_rows(const struct linear_job *job, const struct way *way, struct int8_tile t, int64_t row0,
                      int64_t row1, int64_t panel0, int64_t panel1)
{
    struct many m;
    int64_t n_block = job->w->n_in / BLOCK;
    assert(row0 % TILE_ROWS == 0 && row1 - row0 <= ITEM_ROWS_INT8 && panel1 - panel0 <= ITEM_PANELS_INT8);
    int64_t n_chunk = (n_block + CHUNK - 1) / CHUNK, even = (n_block + n_chunk - 1) / n_chunk;
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
            /* prefetched, evenly over the rows: the next panel's blocks; the last one's are read as they come */
            t.next = block32_quants(way->type, t.panel + CHUNK_PANELS * t.panel_bytes, block);
            chunk_rows(job, way, &t, m.start, m.sums[i][0][0], row0, row1, panel, block, in_panel);
        }
    }
}

static void linear_int8(const struct linear_job *job, const struct way *way, int64_t row0, int64_t row1, int64_t panel0,
                        int64_t panel1)
{
    struct int8_tile t = {.panel_bytes = job->w->panel_bytes, .n_out = job->w->n_out};
    if (row1 - row0 <= FEW_ROWS)
        few_rows(job, way, t, row0, row1, panel0, panel1);
    else
        many_rows(job, way, t, row0, row1, panel0, panel1);
}

/* ---- chunk tiles: one a width ---- */
#define MANY(name, bits, extra)                                                                                        \
    static void many_##name(const struct int8_tile *t, int rows)                                                       \
    {                                                                                                                  \
        int row = 0;                                                                                                   \
        for (; row + R_MANY <= rows; row += R_MANY)                                                                    \
            tile_many(t, bits, extra, row, R_MANY);                                                                    \
        for (; row < rows; row++)                                                                                      \
            tile_many(t, bits, extra, row, 1);                                                                         \
    }
MANY(8, 8, NONE)
#ifdef __AVX512VNNI__ /* one instruction for every width */
MANY(8m, 8, MINS)
MANY(8z, 8, ZEROS)
#define many_4  many_8
#define many_4m many_8m
#define many_4z many_8z
#define many_5  many_8
#define many_5m many_8m
#else
MANY(4, 4, NONE)
MANY(4m, 4, MINS)
MANY(4z, 4, ZEROS)
MANY(5, 5, NONE)
MANY(5m, 5, MINS)
#endif

/* ---- types ---- */
#ifdef __AVX512VNNI__
enum { ZERO_8 = 128 };
#else
enum { ZERO_8 = 0 }; /* signed */
#endif
static const int8_t iq4_table[16] = {/* iq4_values + ZERO_8, modulo 256 */
#define IQ4(v) (int8_t)((v) + ZERO_8 > 127 ? (v) + ZERO_8 - 256 : (v) + ZERO_8)
                                     IQ4(-127), IQ4(-104), IQ4(-83), IQ4(-65), IQ4(-49), IQ4(-35), IQ4(-22), IQ4(-10),
                                     IQ4(1),    IQ4(13),   IQ4(25),  IQ4(38),  IQ4(53),  IQ4(69),  IQ4(89),  IQ4(113)};
static const int8_t fp4_table[16] = {12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0}; /* fp4_values + 12 */

#define FEW_CASE(r)                                                                                                    \
    case r:                                                                                                            \
        tile_few(t, format, r);                                                                                        \
        return;
#ifdef __AVX512F__
#define FEW_CASES FEW_CASE(1) FEW_CASE(2) FEW_CASE(3) FEW_CASE(4) FEW_CASE(5) FEW_CASE(6) FEW_CASE(7) FEW_CASE(8)
#else
#define FEW_CASES FEW_CASE(1) FEW_CASE(2) FEW_CASE(3) FEW_CASE(4)
#endif

/* TYPE(name, chunk tile, the format's fields): linear_name */
#define TYPE(name, width, ...)                                                                                         \
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
        const struct way way = {format.type, format.zero,  block32_has_min(format.type),                               \
                                few_##name,  many_##width, unpack_##name};                                             \
        linear_int8(job, &way, row0, row1, panel0, panel1);                                                            \
    }

TYPE(q8_0, 8, DT_Q8_0, 8, ZERO_8, Q_BYTES)
TYPE(q4_0, 4, DT_Q4_0, 4, 8, Q_NIBBLES)
TYPE(q4_1, 4m, DT_Q4_1, 4, 0, Q_NIBBLES)
TYPE(q5_0, 5, DT_Q5_0, 5, 16, Q_FIFTH)
TYPE(q5_1, 5m, DT_Q5_1, 5, 0, Q_FIFTH)
TYPE(iq4_nl, 8, DT_IQ4_NL, 8, ZERO_8, Q_TABLE, iq4_table)
TYPE(mxfp4, 5, DT_MXFP4, 5, 12, Q_TABLE, fp4_table)
TYPE(q4_z, 4z, DT_Q4_Z, 4, 1, Q_NIBBLES)
