/* AWQ and GPTQ folders against what their levels, zeros and scales say (tools/golden/packed.py) */
#include "tiny.h"

#include "base/fault.h"
#include "base/file.h"
#include "base/mem.h"

static const char *const kinds[] = {"awq", "gptq", "gptq_v2", "gptq_order"};
enum { KINDS = 4 };

struct sample {
    struct buf config, weights;
};

static struct sample load(const char *kind)
{
    struct error err;
    struct sample s = {0};
    char path[512];
    snprintf(path, sizeof path, GOLDEN("formats/packed/%s/config.json"), kind);
    OK(file_read_all(&s.config, path, 1 << 20, &err));
    snprintf(path, sizeof path, GOLDEN("formats/packed/%s/model.safetensors"), kind);
    OK(file_read_all(&s.weights, path, 1 << 20, &err));
    return s;
}

static void unload(struct sample *s)
{
    buf_free(&s->config);
    buf_free(&s->weights);
}

static void check_values(const struct checkpoint *ck, const struct checkpoint *expected, enum dtype type)
{
    int checked = 0;
    for (size_t i = 0; i < expected->n_tensor; i++, checked++) {
        const struct tensor *e = &expected->tensors[i], *t = checkpoint_find(ck, e->name);
        assert_non_null(t);
        assert_int_equal(t->type, type);
        assert_int_equal(t->n_dim, 2);
        assert_memory_equal(t->shape, e->shape, 2 * sizeof *t->shape);
        size_t n = (size_t)tensor_count(t);
        float *got = malloc(n * sizeof *got), *want = malloc(n * sizeof *want);
        dtype_to_f32(got, t->type, t->data, n);
        dtype_to_f32(want, e->type, e->data, n);
        for (size_t k = 0; k < n; k++)
            if (got[k] != want[k])
                fail_msg("%.*s, element %zu: %.9g, expected %.9g", STR_ARG(e->name), k, (double)got[k],
                         (double)want[k]);
        free(got);
        free(want);
    }
    assert_int_equal(checked, 2);
}

static void test_values(void **state)
{
    (void)state;
    struct error err;
    struct checkpoint *expected, *ordered, *ck;
    OK(checkpoint_open(&expected, GOLDEN("formats/packed/expected.safetensors"), &err));
    OK(checkpoint_open(&ordered, GOLDEN("formats/packed/expected_order.safetensors"), &err));
    for (int i = 0; i < KINDS; i++) {
        char path[512];
        snprintf(path, sizeof path, GOLDEN("formats/packed/%s"), kinds[i]);
        OK(checkpoint_open(&ck, path, &err));
        check_values(ck, i == 3 ? ordered : expected, i == 3 ? DT_F32 : DT_Q4_Z);
        checkpoint_close(ck);
    }
    checkpoint_close(expected);
    checkpoint_close(ordered);
}

/* `from` in the sample's configuration or header becomes `to`, of the same length. */
static void refused(enum status status, const char *kind, const char *from, const char *to, const char *says)
{
    struct error err;
    struct checkpoint *ck;
    struct sample s = load(kind);
    size_t n = strlen(from);
    assert_int_equal(n, strlen(to));
    size_t at = str_find(buf_str(&s.config), str_of(from), 0);
    if (at != SIZE_MAX)
        memcpy(s.config.ptr + at, to, n);
    else {
        at = str_find(buf_str(&s.weights), str_of(from), 0);
        assert_int_not_equal(at, SIZE_MAX);
        memcpy(s.weights.ptr + at, to, n);
    }
    FAILS(status, checkpoint_open_memory_with(&ck, s.weights.ptr, s.weights.len, buf_str(&s.config), &err));
    if (!strstr(err.text, says))
        fail_msg("\"%s\" does not say \"%s\"", err.text, says);
    unload(&s);
}

static void test_what_is_refused(void **state)
{
    (void)state;
    refused(ST_UNSUPPORTED, "awq", "\"quant_method\": \"awq\"", "\"quant_method\": \"hqq\"", "quant_method hqq");
    refused(ST_UNSUPPORTED, "gptq", "\"bits\": 4", "\"bits\": 8", "8 bits");
    refused(ST_UNSUPPORTED, "awq", "\"gemm\"", "\"gemv\"", "gemv");
    refused(ST_UNSUPPORTED, "gptq_v2", "\"gptq_v2\"", "\"gptq_v9\"", "gptq_v9");
    refused(ST_CORRUPT, "gptq", "\"group_size\": 32", "\"group_size\": 64", "expected");
    refused(ST_CORRUPT, "gptq", "\"group_size\": 32", "\"group_size\": -7", "group_size");
    refused(ST_CORRUPT, "gptq", "self_attn.q_proj.scales", "self_attn.q_proj.skales", "q_proj.scales is missing");
    refused(ST_CORRUPT, "awq", "self_attn.q_proj.qzeros", "self_attn.q_proj.qzeroz", "q_proj.qzeros is missing");
    refused(ST_CORRUPT, "gptq", "self_attn.q_proj.scales\":{\"dtype\":\"F16\"",
            "self_attn.q_proj.scales\":{\"dtype\":\"I16\"", "expected f16");
}

static void test_groups_are_checked(void **state)
{
    (void)state;
    struct error err;
    struct checkpoint *ck;
    struct sample s = load("gptq_order");
    OK(checkpoint_open_memory_with(&ck, s.weights.ptr, s.weights.len, buf_str(&s.config), &err));
    const struct tensor *t = checkpoint_find(ck, STR("model.layers.0.mlp.up_proj.g_idx"));
    assert_non_null(t);
    size_t at = (size_t)((const char *)t->data - s.weights.ptr);
    checkpoint_close(ck);
    static const int32_t bad[] = {2, -1, INT32_MAX};
    for (int i = 0; i < 3; i++) {
        memcpy(s.weights.ptr + at + 8, &bad[i], 4);
        FAILS(ST_CORRUPT, checkpoint_open_memory_with(&ck, s.weights.ptr, s.weights.len, buf_str(&s.config), &err));
        assert_non_null(strstr(err.text, "of column 2"));
    }
    unload(&s);
}

/* Opened, refused, or out of memory: never a byte outside. */
static void open_damaged(const struct sample *s, size_t size, size_t config)
{
    struct error err = {0};
    struct checkpoint *ck;
    char *bytes = malloc(size ? size : 1);
    memcpy(bytes, s->weights.ptr, size);
    enum status st = checkpoint_open_memory_with(&ck, bytes, size, str_n(s->config.ptr, config), &err);
    assert_true(st == ST_OK || st == ST_CORRUPT || st == ST_UNSUPPORTED || st == ST_LIMIT);
    if (st == ST_OK)
        tiny_touch(ck);
    checkpoint_close(ck);
    free(bytes);
}

static void test_damage(void **state)
{
    (void)state;
    for (int i = 0; i < KINDS; i += 3) {
        struct sample s = load(kinds[i]);
        uint64_t header;
        memcpy(&header, s.weights.ptr, 8);
        for (size_t n = 0; n < s.weights.len; n += n < header + 8 ? 1 : 251)
            open_damaged(&s, n, s.config.len);
        for (size_t n = 0; n < s.config.len; n++)
            open_damaged(&s, s.weights.len, n);
        for (size_t at = 0; at < header + 8; at++) {
            s.weights.ptr[at] ^= (char)(1 << at % 8);
            open_damaged(&s, s.weights.len, s.config.len);
            s.weights.ptr[at] ^= (char)(1 << at % 8);
        }
        for (size_t bit = 0; bit < 8 * s.config.len; bit++) {
            s.config.ptr[bit / 8] ^= (char)(1 << bit % 8);
            open_damaged(&s, s.weights.len, s.config.len);
            s.config.ptr[bit / 8] ^= (char)(1 << bit % 8);
        }
        unload(&s);
    }
}

static void test_out_of_memory(void **state)
{
    (void)state;
    struct error err;
    struct checkpoint *ck;
    struct sample s = load("awq");
    bool done = false;
    for (uint64_t n = 1; !done; n++) {
        fault_arm(FAULT_ALLOC, n);
        enum status st = checkpoint_open_memory_with(&ck, s.weights.ptr, s.weights.len, buf_str(&s.config), &err);
        done = !fault_fired();
        fault_disarm();
        assert_int_equal(st, done ? ST_OK : ST_NOMEM);
        checkpoint_close(ck);
    }
    unload(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_what_is_refused),
        cmocka_unit_test(test_groups_are_checked),
        cmocka_unit_test(test_damage),
        cmocka_unit_test(test_out_of_memory),
    };
    return RUN(tests);
}
