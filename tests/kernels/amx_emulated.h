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

static struct {
    bool configured, swapped; /* swapped: the mutant, which takes the signs of
                                 both operands the other way round */
    int row_bytes[8], rows[8];
    uint8_t data[8][16][64];
    int64_t products;
} unit;

static void unit_begin(const void *config)
{
    const uint8_t *byte = config;
    assert(byte[0] == 1 && byte[1] == 0); /* palette, first row */
    for (int i = 0; i < 8; i++) {
        uint16_t row_bytes;
        memcpy(&row_bytes, byte + 16 + 2 * i, 2);
        assert(row_bytes <= 64 && byte[48 + i] <= 16 && (row_bytes == 0) == (byte[48 + i] == 0));
        unit.row_bytes[i] = row_bytes;
        unit.rows[i] = byte[48 + i];
    }
    unit.configured = true;
}
static void unit_end(void)
{
    unit.configured = false;
}
static void unit_load(int tile, const void *p, int stride)
{
    assert(unit.configured && unit.rows[tile] > 0);
    memset(unit.data[tile], 0, sizeof unit.data[tile]);
    for (int r = 0; r < unit.rows[tile]; r++)
        memcpy(unit.data[tile][r], (const char *)p + r * stride, (size_t)unit.row_bytes[tile]);
}
static void unit_store(int tile, void *p, int stride)
{
    assert(unit.configured && unit.rows[tile] > 0);
    for (int r = 0; r < unit.rows[tile]; r++)
        memcpy((char *)p + r * stride, unit.data[tile][r], (size_t)unit.row_bytes[tile]);
}
static void unit_zero(int tile)
{
    memset(unit.data[tile], 0, sizeof unit.data[tile]);
}
/* sum[m][n] += sum over k of signed a[m][k] * unsigned b[k / 4][n][k % 4] */
static void unit_dot(int sum, int a, int b)
{
    assert(unit.rows[sum] == unit.rows[a] && unit.row_bytes[sum] == unit.row_bytes[b] &&
           unit.row_bytes[a] == 4 * unit.rows[b]);
    for (int m = 0; m < unit.rows[sum]; m++)
        for (int n = 0; n < unit.row_bytes[sum] / 4; n++) {
            int32_t total;
            memcpy(&total, &unit.data[sum][m][4 * n], 4);
            for (int k = 0; k < unit.row_bytes[a]; k++) {
                uint8_t x = unit.data[a][m][k], w = unit.data[b][k / 4][4 * n + k % 4];
                total += unit.swapped ? x * (int8_t)w : (int8_t)x * w;
            }
            memcpy(&unit.data[sum][m][4 * n], &total, 4);
        }
    unit.products++;
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
            unit.swapped = broken;
            unit.products = 0;
            rows[i].check(&got, NULL);
            assert_true(unit.products > 0 && !unit.configured);
            if (sink_equal(&ref, &got) == broken)
                fail_msg("linear_%s: %s", rows[i].name, broken ? "a broken unit is not noticed" : "differs from ref");
            sink_free(&ref), sink_free(&got);
        }
    OK(kernels_init("ref", &err));
    print_message("%zu operations equal ref: algorithm only, no processor's unit ran\n", n);
}

#endif
