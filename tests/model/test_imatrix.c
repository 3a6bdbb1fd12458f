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
    char *exact = malloc(n ? n : 1); /* so that a sanitizer sees a read beyond the end */
    memcpy(exact, bytes, n);
    enum status st = imatrix_open_memory(&m, exact, n, &err);
    free(exact);
    if (st != ST_OK) {
        assert_null(m);
        assert_true(err.text[0] && !strchr(err.text, '\n'));
    } else if (imatrix_find(&means, m, STR("blk.0.attn_q.weight"), n_in, 1, 0, &err) == ST_OK && means)
        for (int k = 0; k < n_in; k++)
            assert_true(means[k] >= 0 && isfinite(means[k]));
    imatrix_close(m);
    return st;
}

/* Cut at every byte from which on `spare` are needed; every bit of it turned. */
static void sweep(char *bytes, size_t n, size_t spare)
{
    for (size_t cut = 0; cut + spare < n; cut++)
        assert_int_not_equal(open_bytes(bytes, cut), ST_OK);
    int opened = 0, refused = 0;
    for (size_t bit = 0; bit < 8 * n; bit += n < 4096 ? 1 : 9) {
        bytes[bit / 8] ^= (char)(1 << bit % 8);
        enum status st = open_bytes(bytes, n);
        assert_true(st == ST_OK || st == ST_CORRUPT || st == ST_UNSUPPORTED || st == ST_LIMIT);
        opened += st == ST_OK;
        refused += st != ST_OK;
        bytes[bit / 8] ^= (char)(1 << bit % 8);
    }
    assert_true(opened > 0 && refused > 100);
    assert_int_equal(open_bytes(bytes, n), ST_OK);
}

static void test_damage(void **state)
{
    (void)state;
    struct error err;
    struct buf whole = {0};
    OK(file_read_all(&whole, path, 1 << 20, &err));
    sweep(whole.ptr, whole.len, 31); /* the last of the padding may be missing */
    buf_free(&whole);
}

/* ---- the files of before ---- */
static void put_i32(struct buf *b, int32_t v)
{
    buf_append(b, &v, 4);
}

static void put_dat_entry(struct buf *b, const char *name, int32_t calls, int n, float first)
{
    put_i32(b, (int32_t)strlen(name));
    buf_append_str(b, str_of(name));
    put_i32(b, calls);
    put_i32(b, n);
    for (int i = 0; i < n; i++) {
        float v = first + (float)i;
        buf_append(b, &v, 4);
    }
}

static void make_dat(struct buf *b, bool tail)
{
    put_i32(b, 3);
    put_dat_entry(b, "blk.0.attn_q.weight", 4, 6, 8);
    put_dat_entry(b, "blk.0.ffn_down_exps.weight", 2, 6, 2);
    put_dat_entry(b, "blk.0.attn_v.weight", 0, 6, 1); /* never met: says nothing */
    if (tail) {
        put_i32(b, 12);
        put_i32(b, 8);
        buf_append_str(b, STR("text.txt"));
    }
}

static void check_dat(bool tail)
{
    struct error err;
    struct imatrix *m;
    const float *means;
    struct buf dat = {0};
    make_dat(&dat, tail);
    OK(file_write_all(damaged, buf_str(&dat), &err));
    OK(imatrix_open(&m, damaged, &err));
    assert_int_equal(imatrix_count(m), 2);
    OK(imatrix_find(&means, m, STR("blk.0.attn_q.weight"), 6, 1, 0, &err));
    for (int k = 0; k < 6; k++)
        assert_true(means[k] == (8 + (float)k) / 4);
    OK(imatrix_find(&means, m, STR("blk.0.ffn_down_exps.weight"), 3, 2, 1, &err));
    assert_true(means[0] == (2 + 3) / 2.0f);
    OK(imatrix_find(&means, m, STR("blk.0.attn_v.weight"), 6, 1, 0, &err));
    assert_null(means);
    FAILS(ST_INVALID, imatrix_find(&means, m, STR("blk.0.attn_q.weight"), 5, 1, 0, &err));
    imatrix_close(m);
    buf_free(&dat);
}

static void test_dat_files(void **state)
{
    (void)state;
    check_dat(false);
    check_dat(true);
}

static void test_damaged_dat_files(void **state)
{
    (void)state;
    struct buf dat = {0};
    make_dat(&dat, true);
    int before = n_in;
    n_in = 6;
    for (size_t n = 0; n < dat.len; n++) {
        bool whole = n + 16 == dat.len; /* without its tail */
        assert_int_equal(open_bytes(dat.ptr, n) == ST_OK, whole);
    }
    sweep(dat.ptr, dat.len, dat.len);
    buf_free(&dat);
    put_i32(&dat, 2);
    put_dat_entry(&dat, "blk.0.attn_q.weight", 4, 6, 8);
    put_dat_entry(&dat, "blk.0.attn_q.weight", 4, 6, 8);
    assert_int_equal(open_bytes(dat.ptr, dat.len), ST_CORRUPT); /* one name, two meanings */
    buf_free(&dat);
    put_i32(&dat, 1);
    put_dat_entry(&dat, "blk.0.attn_q.weight", 4, 6, -8);
    assert_int_equal(open_bytes(dat.ptr, dat.len), ST_CORRUPT);
    buf_free(&dat);
    n_in = before;
}

static void out_of_memory(const char *file)
{
    struct error err;
    bool done = false;
    for (uint64_t n = 1; !done; n++) {
        struct imatrix *m;
        fault_arm(FAULT_ALLOC, n);
        enum status st = imatrix_open(&m, file, &err);
        done = !fault_fired();
        fault_disarm();
        assert_int_equal(st, done ? ST_OK : ST_NOMEM);
        imatrix_close(m);
    }
}

static void test_out_of_memory(void **state)
{
    (void)state;
    struct error err;
    struct buf dat = {0};
    make_dat(&dat, true);
    OK(file_write_all(damaged, buf_str(&dat), &err));
    buf_free(&dat);
    out_of_memory(path);
    out_of_memory(damaged);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_means_are_those_of_the_inputs),
        cmocka_unit_test(test_damage),
        cmocka_unit_test(test_dat_files),
        cmocka_unit_test(test_damaged_dat_files),
        cmocka_unit_test(test_out_of_memory),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
