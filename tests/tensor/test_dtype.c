/* dtype against the gguf package, numpy and torch (tools/golden/tensor_dtypes.py). */
#include "test.h"

#include "tensor/tensor.h"

#include "base/cursor.h"

static uint8_t *load(const char *path, size_t *size)
{
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    fseek(f, 0, SEEK_END);
    *size = (size_t)ftell(f);
    rewind(f);
    uint8_t *p = malloc(*size);
    assert_int_equal(fread(p, 1, *size, f), *size);
    fclose(f);
    return p;
}

static void floats_equal(const float *got, const void *expected, size_t n, const char *name)
{
    for (size_t i = 0; i < n; i++) {
        float e;
        memcpy(&e, (const uint8_t *)expected + 4 * i, 4);
        if (memcmp(&got[i], &e, 4) != 0 && !(got[i] == 0 && e == 0))
            fail_msg("%s element %zu: got %.9g, expected %.9g", name, i, got[i], e);
    }
}

static void test_blocks_equal_the_gguf_package(void **state)
{
    (void)state;
    struct error err;
    size_t size;
    uint8_t *bytes = load(GOLDEN("tensor/blocks.bin"), &size);
    struct cursor c = cursor_of(bytes, size);
    int types = 0;
    while (cursor_left(&c)) {
        struct str name = cursor_bytes(&c, cursor_u32(&c));
        char lower[16] = "";
        for (size_t i = 0; i < name.len && i < 15; i++)
            lower[i] = name.ptr[i] >= 'A' && name.ptr[i] <= 'Z' ? (char)(name.ptr[i] + 32) : name.ptr[i];
        int t = dtype_find(str_of(lower));
        assert_true(t >= 0);
        uint32_t blocks = cursor_u32(&c), per_block = cursor_u32(&c), can = cursor_u32(&c);
        assert_int_equal(per_block, dtype_row(t)->block);
        size_t n = (size_t)blocks * per_block, stored;
        assert_true(dtype_bytes(&stored, t, n));
        struct str raw = cursor_bytes(&c, stored), values = cursor_bytes(&c, 4 * n);
        assert_false(c.failed);
        float *out = malloc(4 * n);
        dtype_to_f32(out, t, raw.ptr, n);
        floats_equal(out, values.ptr, n, lower);
        uint8_t *written = calloc(1, stored);
        if (can) {
            struct str in = cursor_bytes(&c, 4 * n), expected = cursor_bytes(&c, stored);
            memcpy(out, in.ptr, 4 * n);
            OK(dtype_from_f32(written, t, out, n, &err));
            for (size_t i = 0; i < stored; i++)
                if (written[i] != (uint8_t)expected.ptr[i])
                    fail_msg("%s: byte %zu of quantized data is %02x, expected %02x", lower, i, written[i],
                             (uint8_t)expected.ptr[i]);
        } else
            FAILS(ST_UNSUPPORTED, dtype_from_f32(written, t, out, n, &err));
        free(written);
        free(out);
        types++;
    }
    assert_int_equal(types, DT_Q4_Z - DT_Q4_0); /* Q4_Z is in no GGUF: tests/formats/test_packed.c */
    free(bytes);
}

static void test_halves_equal_numpy_and_torch(void **state)
{
    (void)state;
    size_t size;
    uint8_t *bytes = load(GOLDEN("tensor/halves.bin"), &size);
    struct cursor c = cursor_of(bytes, size);
    uint32_t n = cursor_u32(&c);
    struct str h = cursor_bytes(&c, 2 * (uint64_t)n), v = cursor_bytes(&c, 4 * (uint64_t)n);
    for (uint32_t i = 0; i < n; i++) {
        uint16_t in;
        float expected;
        memcpy(&in, h.ptr + 2 * i, 2);
        memcpy(&expected, v.ptr + 4 * i, 4);
        float got = f16_to_f32(in);
        assert_memory_equal(&got, &expected, 4);
    }
    n = cursor_u32(&c);
    struct str x = cursor_bytes(&c, 4 * (uint64_t)n), half = cursor_bytes(&c, 2 * (uint64_t)n),
               brain = cursor_bytes(&c, 2 * (uint64_t)n);
    assert_false(c.failed);
    for (uint32_t i = 0; i < n; i++) {
        float in;
        uint16_t f16, bf16;
        memcpy(&in, x.ptr + 4 * i, 4);
        memcpy(&f16, half.ptr + 2 * i, 2);
        memcpy(&bf16, brain.ptr + 2 * i, 2);
        if (f32_to_f16(in) != f16 || f32_to_bf16(in) != bf16)
            fail_msg("%a: f16 %04x (expected %04x), bf16 %04x (expected %04x)", in, f32_to_f16(in), f16,
                     f32_to_bf16(in), bf16);
    }
    free(bytes);
    for (uint32_t i = 0; i < 65536; i++) { /* every half survives the way to f32 and back; NaN stays NaN */
        float f = f16_to_f32((uint16_t)i);
        if (f == f)
            assert_int_equal(f32_to_f16(f), i);
        else
            assert_true((f32_to_f16(f) & 0x7fff) > 0x7c00);
        float b = bf16_to_f32((uint16_t)i);
        if (b == b)
            assert_int_equal(f32_to_bf16(b), i);
        else
            assert_true((f32_to_bf16(b) & 0x7fff) > 0x7f80);
    }
}

static void test_plain_types(void **state)
{
    (void)state;
    float out[2];
    dtype_to_f32(out, DT_I8, (int8_t[]){-128, 127}, 2);
    assert_true(out[0] == -128 && out[1] == 127);
    dtype_to_f32(out, DT_U64, (uint64_t[]){UINT64_MAX, 3}, 2);
    assert_true(out[0] == 0x1p64f && out[1] == 3);
    dtype_to_f32(out, DT_I64, (int64_t[]){-16777217, 5}, 2);
    assert_true(out[0] == -16777216 && out[1] == 5);
    dtype_to_f32(out, DT_F64, (double[]){0.1, -2}, 2);
    assert_true(out[0] == 0.1f && out[1] == -2);
    dtype_to_f32(out, DT_BOOL, (uint8_t[]){0, 2}, 2);
    assert_true(out[0] == 0 && out[1] == 1);
    double d;
    struct error err;
    OK(dtype_from_f32(&d, DT_F64, (float[]){0.1f}, 1, &err));
    assert_true(d == 0.1f);
    FAILS(ST_UNSUPPORTED, dtype_from_f32(&d, DT_I8, (float[]){1}, 1, &err));
}

static void test_sizes_are_checked(void **state)
{
    (void)state;
    size_t n;
    assert_true(dtype_bytes(&n, DT_Q4_0, 64) && n == 36);
    assert_false(dtype_bytes(&n, DT_Q4_0, 33));
    assert_false(dtype_bytes(&n, DT_F32, UINT64_MAX / 2));
    assert_int_equal(dtype_from_gguf(14), DT_Q6_K);
    assert_int_equal(dtype_from_gguf(9), -1);
    assert_string_equal(gguf_type_name(20), "IQ4_NL");
    assert_string_equal(gguf_type_name(39), "MXFP4");
    assert_string_equal(gguf_type_name(1000), "?");
    assert_int_equal(dtype_from_safetensors(STR("BF16")), DT_BF16);
    assert_int_equal(dtype_from_safetensors(STR("F8_E4M3")), -1);
    for (int t = 0; t < DT_COUNT; t++)
        assert_int_equal(dtype_find(str_of(dtype_row(t)->name)), t);
}

static void test_shape_text(void **state)
{
    (void)state;
    char text[96];
    struct tensor t = {.n_dim = 2, .shape = {32000, 64}};
    assert_string_equal(tensor_shape_text(text, sizeof text, &t), "[32000, 64]");
    t.n_dim = 0;
    assert_string_equal(tensor_shape_text(text, sizeof text, &t), "[]");
    t = (struct tensor){.n_dim = 2, .shape = {INT64_MAX, 1}};
    assert_int_equal(strlen(tensor_shape_text(text, 8, &t)), 7);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_blocks_equal_the_gguf_package),
        cmocka_unit_test(test_halves_equal_numpy_and_torch),
        cmocka_unit_test(test_plain_types),
        cmocka_unit_test(test_sizes_are_checked),
        cmocka_unit_test(test_shape_text),
    };
    return RUN(tests);
}
