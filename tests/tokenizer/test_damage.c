/* Tiny files of every format, cut off at every byte, with every bit flipped, and opened with every allocation failing.
 */
#include "test.h"

#include "base/fault.h"
#include "base/file.h"
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

static size_t memory_bound(size_t file_bytes)
{
    return 8 * file_bytes + (16 << 20);
}

static enum status open_and_use(struct str bytes, const char *name)
{
    struct tokenizer *tok;
    struct error err = {0};
    bool count = fault_armed == 0; /* else a sweep over failing allocations is under way */
    if (count)
        fault_count(FAULT_ALLOC);
    enum status st = tok_open_bytes(&tok, bytes, name, NULL, &err);
    if (count) {
        uint64_t asked = fault_alloc_bytes(); /* whether freed since or not: more than was ever held at once */
        fault_disarm();
        if (asked > memory_bound(bytes.len))
            fail_msg("%s: %zu bytes made the reader ask for %llu", name, bytes.len, (unsigned long long)asked);
    }
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

/* ---- files that are large in little ---- */
static void test_ids_that_the_file_cannot_justify(void **state)
{
    (void)state;
    static const char *const files[] = {
        "YQ== 0\nYg== 2147483646\n",
        "YQ== 0\nYg== 300000\n",
        "{\"added_tokens\":[],\"pre_tokenizer\":null,\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":2147483646},"
        "\"merges\":[]}}",
        "{\"added_tokens\":[],\"model\":{\"type\":\"WordPiece\",\"unk_token\":\"a\",\"vocab\":{\"a\":300000}}}",
        "{\"added_tokens\":[{\"id\":2147483646,\"content\":\"x\"}],\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},"
        "\"merges\":[]}}",
    };
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        struct error err = {0};
        struct tokenizer *tok;
        struct str file = str_of(files[i]);
        FAILS(ST_CORRUPT, tok_open_bytes(&tok, file, "gpt2.tiktoken", NULL, &err));
        if (!strstr(err.text, "has id ") || !strstr(err.text, "it is damaged"))
            fail_msg("the message names no id: %s", err.text);
        assert_int_equal(open_and_use(file, "gpt2.tiktoken"), ST_CORRUPT);
    }
    /* holes are fine within reason: Qwen's special ids begin at 151643 */
    struct str holes = STR("YQ== 0\nYg== 200000\n");
    assert_int_equal(open_and_use(holes, "gpt2.tiktoken"), ST_OK);
}

/* Opens under an outer budget without a limit, which tells what was held at most. */
static enum status peak_of(size_t *peak, struct str bytes, const char *name, struct error *err)
{
    struct mem_budget all;
    struct tokenizer *tok;
    mem_budget_begin(&all, SIZE_MAX);
    enum status st = tok_open_bytes(&tok, bytes, name, NULL, err);
    tokenizer_close(tok);
    assert_false(mem_budget_end(&all));
    assert_int_equal(all.live, 0);
    *peak = all.peak;
    return st;
}

static void base64_of_a(struct buf *out, size_t n) /* of n letters a */
{
    static const char *const rest[] = {"", "YQ==", "YWE="};
    for (size_t i = 0; i < n / 3; i++)
        buf_append(out, "YWFh", 4);
    buf_append_str(out, str_of(rest[n % 3]));
}

static void test_memory_stays_within_the_bound(void **state)
{
    (void)state;
    struct buf file[4] = {{0}};
    static const char *const names[] = {"gpt2.tiktoken", "pieces.model", "words.json", "numbers.json"};
    /* every way to cut a run of letters in two is a merge */
    for (size_t n = 1; n <= 2000; n++) {
        base64_of_a(&file[0], n);
        buf_printf(&file[0], " %zu\n", n - 1);
    }
    /* pieces of two bytes each */
    for (int i = 0; i < 1 << 20; i++)
        buf_append(&file[1], "\n\0", 2);
    /* words that share no beginnings: a node of the trie for every byte */
    buf_append_str(&file[2],
                   STR("{\"added_tokens\":[],\"model\":{\"type\":\"WordPiece\",\"unk_token\":\"u\",\"vocab\":{"));
    uint32_t random = 1;
    for (int i = 0; i < 40000; i++) {
        buf_append_str(&file[2], i ? STR(",\"") : STR("\""));
        for (int k = 0; k < 100; k++) {
            random = random * 1664525 + 1013904223;
            buf_append_char(&file[2], (char)('a' + (random >> 24) % 26));
        }
        buf_printf(&file[2], "\":%d", i);
    }
    buf_append_str(&file[2], STR(",\"u\":40000}}}"));
    buf_append_str(&file[3], STR("{\"added_tokens\":[0"));
    for (int i = 0; i < 4 << 20; i++)
        buf_append(&file[3], ",0", 2);
    buf_append_str(&file[3], STR("],\"model\":{}}"));
    for (int i = 0; i < 4; i++) {
        struct error err = {0};
        size_t peak;
        assert_false(file[i].failed);
        enum status st = peak_of(&peak, buf_str(&file[i]), names[i], &err);
        print_message("%s: %zu bytes, %.1f MiB at most: %s\n", names[i], file[i].len, (double)peak / (1 << 20),
                      st == ST_OK ? "opened" : err.text);
        assert_in_range(peak, 0, memory_bound(file[i].len));
        FAILS(i < 3 ? ST_CORRUPT : ST_UNSUPPORTED, st); /* the last: a model without a type */
        buf_free(&file[i]);
    }
}

/* What real files take, as a share of what they may. */
static double worst_share;
static enum status measure(void *ctx, const char *name, struct error *err)
{
    char path[512];
    struct buf file = {0};
    size_t peak;
    path_join(path, sizeof path, ctx, name);
    if (str_ends(str_of(name), STR(".gguf")) || str_ends(str_of(name), STR(".inp")) ||
        str_ends(str_of(name), STR(".out")))
        return ST_OK;
    TRY(file_read_all(&file, path, 1 << 26, err));
    enum status st = peak_of(&peak, buf_str(&file), path, err);
    double share = (double)peak / (double)memory_bound(file.len);
    if (st == ST_OK)
        print_message("%-28s %8zu bytes, %5.1f MiB: %2.0f %%\n", name, file.len, (double)peak / (1 << 20), 100 * share);
    worst_share = share > worst_share ? share : worst_share;
    buf_free(&file);
    return st;
}

static void test_real_files_stay_far_below_it(void **state)
{
    (void)state;
    static const char *const folders[] = {SHARED("data/tokenizers/hf"), SHARED("data/tokenizers/tiktoken"),
                                          SHARED("data/tokenizers/sentencepiece"), SHARED("data/tokenizers/llama2c")};
    struct error err;
    NEED(SHARED("data/tokenizers"));
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++)
        OK(file_each(folders[i], measure, (void *)(uintptr_t)folders[i], &err));
    assert_true(worst_share > 0.05 && worst_share < 0.75);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_whole_files_work),
        cmocka_unit_test(test_files_cut_off_anywhere),
        cmocka_unit_test(test_files_with_any_bit_flipped),
        cmocka_unit_test(test_every_failed_allocation_is_survived),
        cmocka_unit_test(test_ids_that_the_file_cannot_justify),
        cmocka_unit_test(test_memory_stays_within_the_bound),
        cmocka_unit_test(test_real_files_stay_far_below_it),
    };
    return RUN(tests);
}
