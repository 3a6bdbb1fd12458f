/* imatrix: what is collected is what flowed; damaged files are refused */
#include "model/imatrix.h"

#include "base/fault.h"
#include "model/support.h"

enum { N = 8 };
static char folder[] = "/tmp/ingot-imatrix-XXXXXX", path[64], damaged[64];
static float squares[4096]; /* of the input of attn_q in layer 0 */
static int n_in;

static int setup(void **state)
{
    (void)state;
    struct error err;
    struct bench_model b;
    struct imatrix_sums *sums;
    if (kernels_init(NULL, &err) != ST_OK || !mkdtemp(folder))
        return 1;
    snprintf(path, sizeof path, "%s/im.gguf", folder);
    snprintf(damaged, sizeof damaged, "%s/damaged.gguf", folder);
    struct model_options options = {.exact = true, .keep = true};
    bench_load_with(&b, GOLDEN("formats/packed/awq"), &options, N);
    OK(imatrix_sums_create(&sums, b.model, &err));
    int32_t ids[N] = {1, 7, 3, 40, 22, 9, 11, 30};
    real logits[N * 48];
    bench_logits(&b, logits, ids, N, N);
    imatrix_sums_add(sums, b.run);
    int64_t rows, width;
    const real *x = model_run_value(b.run, "blk.0.attn_norm", &rows, &width);
    assert_non_null(x);
    n_in = (int)width;
    for (int64_t i = 0; i < rows * width; i++)
        squares[i % width] += (float)(x[i] * x[i]);
    OK(imatrix_sums_write(sums, path, "a text", 1, N, &err));
    imatrix_sums_free(sums);
    bench_close(&b);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    char command[96];
    snprintf(command, sizeof command, "rm -r %s", folder);
    return system(command);
}

static void test_means_are_those_of_the_inputs(void **state)
{
    (void)state;
    struct error err;
    struct imatrix *m;
    const float *means;
    OK(imatrix_open(&m, path, &err));
    assert_int_equal(imatrix_count(m), 7); /* q k v o gate up down */
    OK(imatrix_find(&means, m, STR("blk.0.attn_q.weight"), n_in, 1, 0, &err));
    assert_non_null(means);
    for (int k = 0; k < n_in; k++)
        assert_true(fabsf(means[k] - squares[k] / N) <= 1e-5f * squares[k]);
    OK(imatrix_find(&means, m, STR("blk.0.ffn_down.weight"), 96, 1, 0, &err));
    assert_non_null(means);
    OK(imatrix_find(&means, m, STR("blk.9.ffn_down.weight"), 96, 1, 0, &err));
    assert_null(means);
    FAILS(ST_INVALID, imatrix_find(&means, m, STR("blk.0.ffn_down.weight"), 64, 1, 0, &err));
    FAILS(ST_INVALID, imatrix_find(&means, m, STR("blk.0.ffn_down.weight"), 96, 2, 1, &err));
    imatrix_close(m);
}

static enum status open_bytes(const char *bytes, size_t n)
{
    struct error err;
    struct imatrix *m = NULL;
    const float *means;
    OK(file_write_all(damaged, str_n(bytes, n), &err));
    enum status st = imatrix_open(&m, damaged, &err);
    if (st != ST_OK) {
        assert_null(m);
        assert_true(err.text[0] && !strchr(err.text, '\n'));
    } else if (imatrix_find(&means, m, STR("blk.0.attn_q.weight"), n_in, 1, 0, &err) == ST_OK && means)
        for (int k = 0; k < n_in; k++)
            assert_true(means[k] >= 0 && isfinite(means[k]));
    imatrix_close(m);
    return st;
}

static void test_damage(void **state)
{
    (void)state;
    struct error err;
    struct buf whole = {0};
    OK(file_read_all(&whole, path, 1 << 20, &err));
    for (size_t n = 0; n + 32 <= whole.len; n++)
        assert_int_not_equal(open_bytes(whole.ptr, n), ST_OK);
    int opened = 0, refused = 0;
    for (size_t at = 0; at < whole.len; at++) {
        whole.ptr[at] ^= (char)(1 << at % 8);
        enum status st = open_bytes(whole.ptr, whole.len);
        assert_true(st == ST_OK || st == ST_CORRUPT || st == ST_UNSUPPORTED || st == ST_LIMIT);
        opened += st == ST_OK;
        refused += st != ST_OK;
        whole.ptr[at] ^= (char)(1 << at % 8);
    }
    assert_true(opened > 0 && refused > 100);
    assert_int_equal(open_bytes(whole.ptr, whole.len), ST_OK);
    buf_free(&whole);
}

static void test_out_of_memory(void **state)
{
    (void)state;
    struct error err;
    bool done = false;
    for (uint64_t n = 1; !done; n++) {
        struct imatrix *m;
        fault_arm(FAULT_ALLOC, n);
        enum status st = imatrix_open(&m, path, &err);
        done = !fault_fired();
        fault_disarm();
        assert_int_equal(st, done ? ST_OK : ST_NOMEM);
        imatrix_close(m);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_means_are_those_of_the_inputs),
        cmocka_unit_test(test_damage),
        cmocka_unit_test(test_out_of_memory),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
