#include "test.h"

#include "base/fault.h"
#include "base/file.h"
#include "base/mem.h"
#include "tokenizer/tokenizer.h"

static char folder[64];

static int make_folder(void **state)
{
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/ingot-train-XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
    (void)state;
    static const char *const names[] = {"tokenizer.json", "vocab.json", "merges.txt", "tokenizer_config.json"};
    for (int i = 0; i < 4; i++) {
        char path[128];
        unlink(path_join(path, sizeof path, folder, names[i]));
    }
    return rmdir(folder);
}

static struct buf read_file(const char *path)
{
    struct error err;
    struct buf b = {0};
    OK(file_read_all(&b, path, 1 << 26, &err));
    return b;
}

/* The reference is a slow trainer written apart from this one; ties go to the greater bytes in both. */
static void test_merges_equal_the_reference(void **state)
{
    (void)state;
    struct error err;
    char path[128];
    NEED(SHARED("data/tokenizers/bpe-training/corpus.en"));
    struct buf corpus = read_file(SHARED("data/tokenizers/bpe-training/corpus.en"));
    struct buf want = read_file(SHARED("data/tokenizers/bpe-training/train-bpe-reference-merges.txt"));
    struct str special = STR("<|endoftext|>"), text = buf_str(&corpus);
    struct tokenizer_train how = {.vocab_size = 500, .min_frequency = 2, .special = &special, .n_special = 1};
    OK(tokenizer_train(folder, &text, 1, &how, &err));
    struct buf got = read_file(path_join(path, sizeof path, folder, "merges.txt"));
    struct str rest = buf_str(&got), want_rest = str_trim(buf_str(&want));
    (void)str_next_line(&rest); /* #version */
    assert_int_equal(str_cmp(str_trim(rest), want_rest), 0);
    buf_free(&corpus);
    buf_free(&want);
    buf_free(&got);
}

static void test_files_are_read_back(void **state)
{
    (void)state;
    static const char *const splitters[] = {"gpt2", "cl100k", "qwen2", "llama3", "o200k"};
    struct str special[] = {STR("<|end|>"), STR("<|pad|>")};
    struct str texts[] = {STR("the cat sat on the mat<|end|>the cat sat on the hat, 1234 times"),
                          STR("the rat's hat\n\n  \xC3\xA9t\xC3\xA9 ")};
    for (size_t i = 0; i < sizeof splitters / sizeof *splitters; i++) {
        struct error err;
        struct tokenizer *tok;
        struct ids ids = {0};
        struct buf out = {0};
        struct tokenizer_train how = {
            .vocab_size = 290, .min_frequency = 2, .special = special, .n_special = 2, .pretokenizer = splitters[i]};
        OK(tokenizer_train(folder, texts, 2, &how, &err));
        OK(tokenizer_open(&tok, folder, &err));
        assert_in_range(tokenizer_vocab_size(tok), 260, 290);
        assert_int_equal(tokenizer_find(tok, STR("<|pad|>")), 1);
        assert_int_equal(tokenizer_eos(tok), 0);
        struct str text = STR(" the cat<|end|> \xC3\xA9t\xC3\xA9");
        OK(tokenizer_encode(tok, &ids, text, TOKENIZE_SPECIAL, &err));
        assert_int_equal(ids.ids[2], 0);
        OK(tokenizer_decode(tok, &out, ids.ids, ids.count, 0, &err));
        assert_true(str_eq(buf_str(&out), text));
        ids_free(&ids);
        buf_free(&out);
        tokenizer_close(tok);
    }
}

/* Merges that give the bytes of an earlier token must not give it a second id. */
static void test_equal_bytes_are_one_token(void **state)
{
    (void)state;
    struct error err;
    struct tokenizer *tok;
    struct str text = STR("abc abc abc abc abc bc bc bc ab ab ab xab xab yabc yabc zzzz zzzz zzz zz");
    struct tokenizer_train how = {.vocab_size = 400, .min_frequency = 1};
    OK(tokenizer_train(folder, &text, 1, &how, &err));
    OK(tokenizer_open(&tok, folder, &err));
    for (int32_t i = 0; i < tokenizer_vocab_size(tok); i++)
        assert_int_equal(tokenizer_find(tok, tokenizer_token(tok, i)), i);
    tokenizer_close(tok);
}

static void test_bad_arguments_are_named(void **state)
{
    (void)state;
    struct error err;
    struct str text = STR("abc"), twice[] = {STR("<a>"), STR("<a>")};
    struct tokenizer_train how = {.vocab_size = 200};
    assert_int_equal(tokenizer_train(folder, &text, 1, &how, &err), ST_INVALID);
    assert_non_null(strstr(err.text, "256"));
    how = (struct tokenizer_train){.vocab_size = 300, .pretokenizer = "none"};
    assert_int_equal(tokenizer_train(folder, &text, 1, &how, &err), ST_INVALID);
    assert_non_null(strstr(err.text, "none"));
    how = (struct tokenizer_train){.vocab_size = 300, .special = twice, .n_special = 2};
    assert_int_equal(tokenizer_train(folder, &text, 1, &how, &err), ST_INVALID);
}

static void test_every_failed_allocation_is_survived(void **state)
{
    (void)state;
    struct error err;
    struct str text = STR("aa bb aa bb aab"), special = STR("<e>");
    struct tokenizer_train how = {.vocab_size = 262, .special = &special, .n_special = 1};
    uint64_t n = 1;
    for (; n < 10000; n++) {
        fault_arm(FAULT_ALLOC, n);
        enum status st = tokenizer_train(folder, &text, 1, &how, &err);
        bool fired = fault_fired();
        fault_disarm();
        if (!fired) {
            assert_int_equal(st, ST_OK);
            break;
        }
        assert_int_equal(st, ST_NOMEM);
    }
    assert_in_range(n, 10, 9999);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_merges_equal_the_reference),          cmocka_unit_test(test_files_are_read_back),
        cmocka_unit_test(test_equal_bytes_are_one_token),           cmocka_unit_test(test_bad_arguments_are_named),
        cmocka_unit_test(test_every_failed_allocation_is_survived),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
