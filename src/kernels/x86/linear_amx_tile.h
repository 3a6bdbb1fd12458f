/* linear_amx_tile - sixteen rows against a chunk of unpacked panels by the
 * matrix unit's int8 products
 *
 * A block of a chunk lies as the unit wants its right operand: eight rows of 16
 * outputs x 4 k, unsigned; sixteen rows of activations are its left one,
 * signed. One product gives the exact integers of 16 x 16 outputs, which leave
 * the unit through memory for the f32 steps; where 16 k have a scale, two
 * products of half the length do. bf16 is not done here: the unit keeps sums of
 * odd and even k apart, which is not the order of docs/numerics.md section 1.
 * Never run on a processor that has the unit: tests/kernels/test_amx_*_vnni.c
 * run this source on one written in C.
 */
#ifndef AMX_EMULATED
/* gcc 12 says of _tile_loadconfig that it reads 8 bytes: what else was written could be left out. */
#define amx_begin(config)    (amx_written(config), _tile_loadconfig(config))
#define amx_end()            _tile_release()
#define amx_load_x(p, bytes) _tile_loadd(1, p, bytes)
#define amx_load_w(p, bytes) _tile_loadd(2, p, bytes)
#define amx_zero()           _tile_zero(0)
#define amx_dot()            _tile_dpbsud(0, 1, 2)
#define amx_store(p, bytes)  _tile_stored(0, p, bytes)
INLINE void amx_written(const void *p)
{
    __asm__ volatile("" : : "r"(p) : "memory");
}
#endif

/* Shapes of registers 0 (sums), 1 (activations) and 2 (weights), for products
 * of k. */
struct amx_config {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
};
INLINE struct amx_config amx_shape(const int k)
{
    return (struct amx_config){
        .palette = 1, .row_bytes = {64, (uint16_t)k, 64}, .rows = {TILE_ROWS, TILE_ROWS, (uint8_t)(k / 4)}};
}

/* Integers of 16 rows and one group over words from .. of a block. */
INLINE void amx_product(int32_t sum[TILE_ROWS][VEC], const char (*w)[VEC * 4], const int8_t *q, const int from)
{
    amx_load_x(q + 4 * from, BLOCK);
    amx_load_w(w[from], VEC * 4);
    amx_zero();
    amx_dot();
    amx_store(sum, VEC * 4);
}

INLINE vi amx_sum(const enum extra extra, int32_t sum[2][TILE_ROWS][VEC], int r, const struct side *side,
                  const union start *start)
{
    vi first = vi_load(sum[0][r]);
    if (extra != HALF_SCALES)
        return V(add_epi32)(first, sum_start(extra, side, start));
    vi last = V(add_epi32)(vi_load(sum[1][r]), V(set1_epi32)(start[1].zero));
    first = V(add_epi32)(first, V(set1_epi32)(start[0].zero));
    return V(add_epi32)(V(mullo_epi32)(first, side->x[0]), V(mullo_epi32)(last, side->x[1]));
}

/* One group of the chunk past the sixteen rows of a tile of the activations. */
INLINE void tile_amx_group(const struct int8_tile *t, const enum extra extra, const int g)
{
    const int parts = START_PARTS(extra);
    const struct chunk *c = t->chunk;
    struct act_int8 a = t->a;
    const union start *start = t->start;
    vf acc[TILE_ROWS];
    UNROLL for (int r = 0; r < TILE_ROWS; r++)
    {
        acc[r] = t->first ? V(setzero_ps)() : V(loadu_ps)(t->sums + (r * G_MANY + g) * VEC);
    }
    for (int64_t b = 0; b < t->n_block; b++) {
        _Alignas(64) int32_t sum[2][TILE_ROWS][VEC];
        struct side side = {.d = V(load_ps)(c->d[g][b])};
        UNROLL for (int i = 0; i < EXTRAS; i++) side.x[i] = vi_load(c->x[i][g][b]); /* what is not used folds */
        amx_product(sum[0], c->w[g][b], a.q, 0);
        if (extra == HALF_SCALES)
            amx_product(sum[1], c->w[g][b], a.q, WORDS / 2);
        UNROLL for (int r = 0; r < TILE_ROWS; r++)
        {
            vi whole = amx_sum(extra, sum, r, &side, start + r * parts);
            row_step(extra, 1, &acc[r], &whole, &side, a.scale[r], start + r * parts);
        }
        a = act_int8_at(a, 1);
        start += TILE_ROWS * parts;
    }
    if (t->last) {
        group_end(t, 0, TILE_ROWS, g, acc, 1);
        return;
    }
    UNROLL for (int r = 0; r < TILE_ROWS; r++) V(storeu_ps)(t->sums + (r * G_MANY + g) * VEC, acc[r]);
}

INLINE bool tile_amx(const struct int8_tile *t, const enum extra extra)
{
    const struct amx_config config = amx_shape(extra == HALF_SCALES ? BLOCK / 2 : BLOCK);
    amx_begin(&config);
    for (int g = 0; g < G_MANY; g++)
        tile_amx_group(t, extra, g);
    amx_end();
    return true;
}
