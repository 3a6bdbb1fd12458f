/* Tiny files of every format, cut off at every byte, with every bit flipped, and opened with every allocation failing.
 */
#include "test.h"

#include "base/fault.h"
#include "tiny.h"

static const char text[] = "a ab aba  \xC3\xA9 <s><|e|>[CLS] [x] .A\xCC\x81 \xF0\x9F\x98\x80 "
                           "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

/* Whatever could be opened is used, too. */
static enum status use(const struct tokenizer *tok)
{
    struct error err;
    struct ids ids = {0};
    struct buf out = {0};
    enum status st = tokenizer_encode(tok, &ids, str_n(text, sizeof text - 1), TOKENIZE_SPECIAL | TOKENIZE_ADD, &err);
    if (st == ST_OK)
        st = tokenizer_decode(tok, &out, ids.ids, ids.count, 0, &err);
    for (size_t i = 0; st == ST_OK && i < ids.count; i++)
        assert_in_range(ids.ids[i], 0, tokenizer_vocab_size(tok) - 1);
    ids_free(&ids);
    buf_free(&out);
    return st;
}

static enum status open_and_use(struct str bytes, const char *name)
{
    struct tokenizer *tok;
    struct error err = {0};
    enum status st = tok_open_bytes(&tok, bytes, name, NULL, &err);
    if (st == ST_OK) {
        st = use(tok);
        tokenizer_close(tok);
    } else {
        assert_true(err.text[0] != 0);
    }
    return st;
}

static void test_whole_files_work(void **state)
{
    (void)state;
    for (int i = 0; i < TINY_COUNT; i++) {
        const char *name;
        struct buf file = tiny_file(i, &name);
        assert_int_equal(open_and_use(buf_str(&file), name), ST_OK);
        buf_free(&file);
    }
}

static void test_files_cut_off_anywhere(void **state)
{
    (void)state;
    for (int i = 0; i < TINY_COUNT; i++) {
        const char *name;
        struct buf file = tiny_file(i, &name);
        size_t refused = 0;
        for (size_t n = 0; n < file.len; n++) {
            char *copy = malloc(n + 1); /* exactly as long, so that a sanitizer sees a read beyond */
            memcpy(copy, file.ptr, n);
            char *tight = malloc(n ? n : 1);
            memcpy(tight, copy, n);
            refused += open_and_use(str_n(tight, n), name) != ST_OK;
            free(tight);
            free(copy);
        }
        assert_true(refused > 0);
        if (i < 4)
            assert_int_equal(refused, file.len); /* JSON without its end is never whole */
        buf_free(&file);
    }
}

static void test_files_with_any_bit_flipped(void **state)
{
    (void)state;
    for (int i = 0; i < TINY_COUNT; i++) {
        const char *name;
        struct buf file = tiny_file(i, &name);
        for (size_t bit = 0; bit < 8 * file.len; bit++) {
            file.ptr[bit / 8] ^= (char)(1 << bit % 8);
            (void)open_and_use(buf_str(&file), name);
            file.ptr[bit / 8] ^= (char)(1 << bit % 8);
        }
        buf_free(&file);
    }
}

static void test_every_failed_allocation_is_survived(void **state)
{
    (void)state;
    for (int i = 0; i < TINY_COUNT; i++) {
        const char *name;
        struct buf file = tiny_file(i, &name);
        uint64_t n = 1;
        for (bool fired = true; fired && n < 5000; n++) {
            fault_arm(FAULT_ALLOC, n);
            enum status st = open_and_use(buf_str(&file), name);
            fired = fault_fired();
            fault_disarm();
            assert_true(st == ST_OK || st == ST_NOMEM); /* OK: the piece cache is done without */
        }
        assert_in_range(n, 10, 4999);
        buf_free(&file);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_whole_files_work),
        cmocka_unit_test(test_files_cut_off_anywhere),
        cmocka_unit_test(test_files_with_any_bit_flipped),
        cmocka_unit_test(test_every_failed_allocation_is_survived),
    };
    return RUN(tests);
}
