/* Text files into windows: the order is a permutation, borders move, and a cursor is all a resume needs. */
#include "test.h"

#include "base/fault.h"
#include "base/file.h"
#include "data/data.h"

enum { BLOCK = 8 };

static char file_a[64], file_b[64];
static struct tokenizer *tok;

static int setup(void **state)
{
    (void)state;
    struct error err;
    static const char a[] =
        "the cat sat on the mat, and then the other cat sat there too. it was warm - the hat was not. "
        "a bird sang, a frog croaked and the night was long!";
    static const char b[] = "one day|two days|three";
    snprintf(file_a, sizeof file_a, "/tmp/ingot-data-%d-a", (int)getpid());
    snprintf(file_b, sizeof file_b, "/tmp/ingot-data-%d-b", (int)getpid());
    return file_write_all(file_a, str_of(a), &err) || file_write_all(file_b, str_of(b), &err) ||
           tokenizer_open(&tok, GOLDEN("train/tiny"), &err);
}

static int teardown(void **state)
{
    (void)state;
    tokenizer_close(tok);
    return unlink(file_a) || unlink(file_b);
}

static enum status open_files(struct dataset **d, const char *a, const char *b, struct str separator, struct error *err)
{
    struct str paths[2] = {str_of(a), str_of(b)};
    struct data_source source = {
        .paths = paths, .n_path = b ? 2 : 1, .tokenizer = tok, .block_size = BLOCK, .document_separator = separator};
    return dataset_open(d, &source, err);
}

static void test_the_order_is_a_permutation(void **state)
{
    (void)state;
    static uint8_t seen[70000];
    static const uint64_t sizes[] = {1, 2, 3, 4, 5, 16, 17, 63, 64, 65, 255, 257, 1000, 4096, 4097, 65537};
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++)
        for (uint64_t key = 0; key < 3; key++) {
            memset(seen, 0, sizeof seen);
            uint64_t fixed = 0;
            for (uint64_t i = 0; i < sizes[s]; i++) {
                uint64_t j = data_permute(i, sizes[s], key * 0x9e3779b97f4a7c15u);
                assert_true(j < sizes[s]);
                assert_int_equal(seen[j]++, 0);
                fixed += i == j;
            }
            if (sizes[s] > 60)
                assert_true(fixed < sizes[s] / 4);
        }
}

static void test_documents_end_with_eos(void **state)
{
    (void)state;
    struct error err;
    struct dataset *d;
    struct ids expected = {0};
    static const char *const documents[] = {"one day", "two days", "three"};
    for (int i = 0; i < 3; i++) {
        OK(tokenizer_encode(tok, &expected, str_of(documents[i]), 0, &err));
        assert_true(ids_push(&expected, tokenizer_eos(tok)));
    }
    OK(open_files(&d, file_b, NULL, STR("|"), &err));
    assert_int_equal(dataset_tokens(d), expected.count);
    assert_int_equal(dataset_bytes(d), 22);
    assert_int_equal(dataset_windows_at(d), (expected.count - 1) / BLOCK);
    for (uint64_t i = 0; i < dataset_windows_at(d); i++) {
        int32_t ids[BLOCK + 1];
        dataset_window_at(d, ids, i);
        assert_memory_equal(ids, expected.ids + i * BLOCK, sizeof ids);
    }
    dataset_close(d);
    ids_free(&expected);
}

/* The epoch's windows, sorted, are neighbours BLOCK apart: found again in the token stream. */
static void test_an_epoch_holds_every_window_once(void **state)
{
    (void)state;
    struct error err;
    struct dataset *d;
    OK(open_files(&d, file_a, file_b, STR(""), &err));
    int32_t stream[512], first[BLOCK + 1], again[BLOCK + 1];
    uint64_t n_token = dataset_tokens(d);
    assert_true(n_token < 512);
    for (uint64_t i = 0; i < dataset_windows_at(d); i++)
        dataset_window_at(d, stream + i * BLOCK, i);
    uint64_t covered = dataset_windows_at(d) * BLOCK + 1;
    int moved = 0, reordered = 0;
    for (uint64_t epoch = 0; epoch < 5; epoch++) {
        uint64_t n = dataset_windows(d, 7, epoch), starts = 0, offset = UINT64_MAX;
        assert_true(n >= dataset_windows_at(d) - 1 && n > 5);
        for (uint64_t i = 0; i < n; i++) {
            int32_t ids[BLOCK + 1];
            dataset_window(d, ids, 7, epoch, i);
            uint64_t at = 0;
            while (at + BLOCK + 1 <= covered && memcmp(stream + at, ids, sizeof ids) != 0)
                at++;
            if (at + BLOCK + 1 > covered) /* the last window of an offset order may pass the unshuffled one's end */
                continue;
            offset = offset == UINT64_MAX ? at % BLOCK : offset;
            assert_int_equal(at % BLOCK, offset);
            assert_false(starts >> at / BLOCK & 1);
            starts |= (uint64_t)1 << at / BLOCK;
            reordered += at / BLOCK != i;
        }
        moved += offset != 0;
        dataset_window(d, first, 7, epoch, 2);
        dataset_window(d, again, 7, epoch, 2);
        assert_memory_equal(first, again, sizeof first);
    }
    assert_true(moved > 0 && reordered > 10);
    dataset_window(d, first, 7, 0, 0);
    dataset_window(d, again, 8, 0, 0);
    assert_memory_not_equal(first, again, sizeof first); /* another seed, another order */
    dataset_close(d);
}

static void test_the_hash_knows_the_data(void **state)
{
    (void)state;
    struct error err;
    struct dataset *a, *b, *c;
    OK(open_files(&a, file_a, NULL, STR(""), &err));
    OK(open_files(&b, file_a, file_b, STR(""), &err));
    OK(open_files(&c, file_a, NULL, STR(""), &err));
    assert_true(dataset_hash(a) != dataset_hash(b));
    assert_true(dataset_hash(a) == dataset_hash(c));
    dataset_close(a);
    dataset_close(b);
    dataset_close(c);
}

static void test_what_cannot_be_windows_is_refused(void **state)
{
    (void)state;
    struct error err;
    struct dataset *d;
    char tiny[64];
    snprintf(tiny, sizeof tiny, "/tmp/ingot-data-%d-c", (int)getpid());
    OK(file_write_all(tiny, STR("cat"), &err));
    FAILS(ST_INVALID, open_files(&d, tiny, NULL, STR(""), &err));
    assert_non_null(strstr(err.text, "4 tokens"));
    assert_non_null(strstr(err.text, "9"));
    FAILS(ST_NOT_FOUND, open_files(&d, "/no/such/file", NULL, STR(""), &err));
    assert_non_null(strstr(err.text, "/no/such/file"));
    unlink(tiny);
}

static void test_every_failing_allocation(void **state)
{
    (void)state;
    for (uint64_t n = 1;; n++) {
        struct error err;
        struct dataset *d = NULL;
        fault_arm(FAULT_ALLOC, n);
        enum status st = open_files(&d, file_a, file_b, STR("|"), &err);
        bool fired = fault_fired();
        fault_disarm();
        if (!fired) {
            assert_true(n > 3);
            dataset_close(d);
            return;
        }
        assert_int_equal(st, ST_NOMEM);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_order_is_a_permutation),        cmocka_unit_test(test_documents_end_with_eos),
        cmocka_unit_test(test_an_epoch_holds_every_window_once),  cmocka_unit_test(test_the_hash_knows_the_data),
        cmocka_unit_test(test_what_cannot_be_windows_is_refused), cmocka_unit_test(test_every_failing_allocation),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
