/* amx_emulated - the matrix unit in C, for kernels that no processor here can
 * run: as Intel's manual defines TILELOADD, TILEZERO, TDPBSUD and TILESTORED,
 * with the shapes checked that the unit would refuse
 *
 * Include it, name the operations with OPS(), then include x86/linear_*_amx.c
 * and the main below (AMX_MAIN).
 */
#ifndef TESTS_KERNELS_AMX_EMULATED_H
#define TESTS_KERNELS_AMX_EMULATED_H

#include "check_linear.h"

#if KERNELS_X86
static struct {
    bool configured, swapped; /* swapped: the mutant, which takes the signs of
                                 both operands the other way round */
    int row_bytes[8], rows[8];
    uint8_t data[8][16][64];
    int64_t products;
} tiles;

static void unit_begin(const void *config)
{
    const uint8_t *byte = config;
    assert(byte[0] == 1 && byte[1] == 0); /* palette, first row */
    for (int i = 0; i < 8; i++) {
        uint16_t row_bytes;
        memcpy(&row_bytes, byte + 16 + 2 * i, 2);
        assert(row_bytes <= 64 && byte[48 + i] <= 16 && (row_bytes == 0) == (byte[48 + i] == 0));
        tiles.row_bytes[i] = row_bytes;
        tiles.rows[i] = byte[48 + i];
    }
    tiles.configured = true;
}
static void unit_end(void)
{
    tiles.configured = false;
}
static void unit_load(int tile, const void *p, int stride)
{
    assert(tiles.configured && tiles.rows[tile] > 0);
    memset(tiles.data[tile], 0, sizeof tiles.data[tile]);
    for (int r = 0; r < tiles.rows[tile]; r++)
        memcpy(tiles.data[tile][r], (const char *)p + r * stride, (size_t)tiles.row_bytes[tile]);
}
static void unit_store(int tile, void *p, int stride)
{
    assert(tiles.configured && tiles.rows[tile] > 0);
    for (int r = 0; r < tiles.rows[tile]; r++)
        memcpy((char *)p + r * stride, tiles.data[tile][r], (size_t)tiles.row_bytes[tile]);
}
static void unit_zero(int tile)
{
    memset(tiles.data[tile], 0, sizeof tiles.data[tile]);
}
/* sum[m][n] += sum over k of signed a[m][k] * unsigned b[k / 4][n][k % 4] */
static void unit_dot(int sum, int a, int b)
{
    assert(tiles.rows[sum] == tiles.rows[a] && tiles.row_bytes[sum] == tiles.row_bytes[b] &&
           tiles.row_bytes[a] == 4 * tiles.rows[b]);
    for (int m = 0; m < tiles.rows[sum]; m++)
        for (int n = 0; n < tiles.row_bytes[sum] / 4; n++) {
            int32_t total;
            memcpy(&total, &tiles.data[sum][m][4 * n], 4);
            for (int k = 0; k < tiles.row_bytes[a]; k++) {
                uint8_t x = tiles.data[a][m][k], w = tiles.data[b][k / 4][4 * n + k % 4];
                total += tiles.swapped ? x * (int8_t)w : (int8_t)x * w;
            }
            memcpy(&tiles.data[sum][m][4 * n], &total, 4);
        }
    tiles.products++;
}

#define AMX_EMULATED
#define ISA(name)            name##__emulated
#define amx_begin(config)    unit_begin(config)
#define amx_end()            unit_end()
#define amx_load_x(p, bytes) unit_load(1, p, bytes)
#define amx_load_w(p, bytes) unit_load(2, p, bytes)
#define amx_zero()           unit_zero(0)
#define amx_dot()            unit_dot(0, 1, 2)
#define amx_store(p, bytes)  unit_store(0, p, bytes)

struct amx_row {
    const char *name;
    enum dtype type;
    linear_fn *emulated;
    void (*check)(struct sink *s, struct pool *pool);
};
#define AMX_ROW(TYPE, name)                                                                                            \
    {                                                                                                                  \
#name, DT_##TYPE, linear_##name##__emulated, check_linear_##name                                               \
    }

/* The row's bits are those of ref; with the unit broken they are not. */
static void amx_equals_ref(const struct amx_row *rows, size_t n)
{
    struct error err;
    for (size_t i = 0; i < n; i++)
        for (int broken = 0; broken < 2; broken++) {
            struct sink ref = {0}, got = {0};
            OK(kernels_init("ref", &err));
            rows[i].check(&ref, NULL);
            *panel_type(rows[i].type)->forward = rows[i].emulated;
            tiles.swapped = broken;
            tiles.products = 0;
            rows[i].check(&got, NULL);
            assert_true(tiles.products > 0 && !tiles.configured);
            if (sink_equal(&ref, &got) == broken)
                fail_msg("linear_%s: %s", rows[i].name, broken ? "a broken unit is not noticed" : "differs from ref");
            sink_free(&ref), sink_free(&got);
        }
    OK(kernels_init("ref", &err));
    print_message("%zu operations equal ref: algorithm only, no processor's unit ran\n", n);
}
#endif /* KERNELS_X86 */
#endif
