/* Every kind of vocabulary goes into a GGUF and gives the same ids from there, on the texts of all expected-id files.
 */
#include "test.h"

#include "base/fault.h"
#include "base/file.h"
#include "base/mem.h"
#include "tiny.h"

#define DATA SHARED("data/tokenizers/")

static char path[128];

static int make_path(void **state)
{
    (void)state;
    strcpy(path, "/tmp/ingot-gguf-XXXXXX");
    int fd = mkstemp(path);
    return fd < 0 ? -1 : close(fd);
}

static int remove_path(void **state)
{
    (void)state;
    return unlink(path);
}

static enum status write_to(const struct tokenizer *tok, int32_t n_id, struct error *err)
{
    struct gguf_writer *w;
    TRY(gguf_writer_create(&w, err));
    gguf_put_string(w, "general.architecture", STR("llama"));
    enum status st = tokenizer_write_gguf(tok, w, n_id, -1, -1, err);
    if (st == ST_OK)
        st = gguf_writer_commit(w, path, NULL, 0, err);
    gguf_writer_destroy(w);
    return st;
}

struct twins {
    const char *name;
    struct tokenizer *original, *copy;
    size_t n_text, n_id, n_other, n_decoded;
};

static void compare(struct twins *t, struct str text, unsigned flags)
{
    struct error err;
    struct ids want = {0}, got = {0};
    struct buf a = {0}, b = {0};
    OK(tokenizer_encode(t->original, &want, text, flags, &err));
    OK(tokenizer_encode(t->copy, &got, text, flags, &err));
    bool same = want.count == got.count && (!got.count || !memcmp(want.ids, got.ids, got.count * sizeof *got.ids));
    if (!same && t->n_other < 4) {
        size_t at = 0;
        while (at < got.count && at < want.count && got.ids[at] == want.ids[at])
            at++;
        print_error("%s, flags %u: at %zu of %zu: %d, expected %d: %.*s\n", t->name, flags, at, want.count,
                    at < got.count ? got.ids[at] : -1, at < want.count ? want.ids[at] : -1,
                    text.len > 200 ? 200 : (int)text.len, text.ptr);
    }
    OK(tokenizer_decode(t->original, &a, want.ids, want.count, 0, &err));
    OK(tokenizer_decode(t->copy, &b, want.ids, want.count, 0, &err));
    t->n_decoded += str_eq(buf_str(&a), buf_str(&b));
    t->n_other += !same;
    t->n_text++;
    t->n_id += want.count;
    ids_free(&want);
    ids_free(&got);
    buf_free(&a);
    buf_free(&b);
}

/* Without TOKENIZE_SPECIAL, T5's tokenizer.json makes </s> of its pieces; a GGUF, whose control tokens are none, not.
 */
static bool makes_specials(const struct twins *t)
{
    return strcmp(t->name, "hf/t5-small.tokenizer.json") == 0;
}

static void compare_file(struct twins *t, const char *name, bool lines)
{
    char file[300];
    struct error err;
    struct buf all = {0};
    snprintf(file, sizeof file, DATA "%s", name);
    OK(file_read_all(&all, file, 1 << 24, &err));
    struct str rest = buf_str(&all);
    for (struct str line; lines && (line = str_next_line(&rest)).ptr;)
        for (unsigned flags = makes_specials(t); flags < 4; flags += 1 + makes_specials(t))
            compare(t, line, flags);
    compare(t, buf_str(&all), TOKENIZE_SPECIAL | TOKENIZE_ADD);
    buf_free(&all);
}

static void test_ids_are_the_same_from_a_gguf(void **state)
{
    (void)state;
    static const char *const files[] = {
        "sentencepiece/llama2.model",
        "sentencepiece/mistral03.model",
        "sentencepiece/mistral_v7.model",
        "sentencepiece/nai-t5.model",
        "sentencepiece/test_model.model",
        "sentencepiece/test_ja_model.model",
        "llama2c/tokenizer.bin",
        "llama2c/tok4096.bin",
        "hf/llama2.tokenizer.json",
        "hf/mistral03.tokenizer.json",
        "hf/phi-3.tokenizer.json",
        "hf/minicpm3.tokenizer.json",
        "hf/t5-small.tokenizer.json",
        "hf/bert_base_cased.tokenizer.json",
        "hf/gte.tokenizer.json",
        "hf/gpt2.tokenizer.json",
        "hf/gpt_neox.tokenizer.json",
        "hf/phi-2.tokenizer.json",
        "hf/roberta-base.tokenizer.json",
        "qwen2.5",
        "llama3/tokenizer.model",
        "tiktoken/o200k_base.tiktoken",
        "tiktoken/llama4.tiktoken",
        "ggml-vocab/ggml-vocab-llama-spm.gguf",
        "ggml-vocab/ggml-vocab-bert-bge.gguf",
        "ggml-vocab/ggml-vocab-deepseek-llm.gguf",
        "ggml-vocab/ggml-vocab-falcon.gguf",
    };
    NEED(DATA "expected/small_input.txt");
    size_t n_bad = 0;
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        struct twins t = {.name = files[i]};
        struct error err = {0};
        char file[300];
        snprintf(file, sizeof file, DATA "%s", files[i]);
        OK(tokenizer_open(&t.original, file, &err));
        OK(write_to(t.original, tokenizer_vocab_size(t.original) + 3, &err));
        OK(tokenizer_open(&t.copy, path, &err));
        compare_file(&t, "expected/small_input.txt", true);
        compare_file(&t, "expected/mixed_input.txt", true);
        compare_file(&t, "expected/utf8_input.txt", false);
        compare_file(&t, "ggml-vocab/ggml-vocab-gpt-2.gguf.inp", true);
        print_message("%-40s %zu texts, %zu ids, %zu differ, %zu decoded alike\n", t.name, t.n_text, t.n_id, t.n_other,
                      t.n_decoded);
        n_bad += t.n_other != 0;
        assert_int_equal(tokenizer_bos(t.copy), tokenizer_bos(t.original));
        assert_int_equal(tokenizer_eos(t.copy), tokenizer_eos(t.original));
        tokenizer_close(t.original);
        tokenizer_close(t.copy);
    }
    assert_int_equal(n_bad, 0);
}

static void test_what_the_keys_cannot_say_is_refused(void **state)
{
    (void)state;
    static const struct {
        const char *file, *says;
    } rows[] = {{"hf/clip_base.tokenizer.json", "a normalizer of a byte-level BPE"},
                {"hf/xlnet_base_cased.tokenizer.json", "the blanks of a text"},
                {"sentencepiece/xlnet_base_cased.model", "user-defined pieces that are part of"},
                {"tiktoken/cl100k_base.tiktoken", "how this one splits"}};
    NEED(DATA "expected/small_input.txt");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct error err;
        struct tokenizer *tok;
        char file[300];
        snprintf(file, sizeof file, DATA "%s", rows[i].file);
        OK(tokenizer_open(&tok, file, &err));
        FAILS(ST_UNSUPPORTED, write_to(tok, tokenizer_vocab_size(tok), &err));
        if (!strstr(err.text, rows[i].says))
            fail_msg("%s: %s", rows[i].file, err.text);
        FAILS(ST_CORRUPT, write_to(tok, tokenizer_vocab_size(tok) - 1, &err));
        tokenizer_close(tok);
    }
}

/* ---- tiny vocabularies of each kind: written, damaged, and with failing allocations ---- */
static const int tiny_kinds[] = {0, 1, 3, 4, 5}; /* gpt2, llama of merges, bert, t5, llama of scores */
enum { N_KIND = sizeof tiny_kinds / sizeof *tiny_kinds };

static struct tokenizer *tiny_open(int which)
{
    struct error err;
    const char *name;
    struct tokenizer *tok;
    struct buf file = tiny_file(which, &name);
    OK(tok_open_bytes(&tok, buf_str(&file), name, NULL, &err));
    buf_free(&file);
    if (tok->model == MODEL_WORDPIECE)
        tok->word_chars_max = 100; /* the one number a GGUF knows */
    for (size_t i = 0; tok->model == MODEL_UNIGRAM && i < tok->vocab.size; i++)
        tok->vocab.flags[i] &= (uint8_t)~TOKEN_BYTE; /* nor has a t5 byte tokens */
    return tok;
}

static enum status open_and_use(size_t size)
{
    struct error err = {0};
    struct tokenizer *tok;
    struct ids ids = {0};
    struct mem_budget memory;
    mem_budget_begin(&memory, SIZE_MAX);
    enum status st = tokenizer_open(&tok, path, &err);
    mem_budget_end(&memory);
    assert_in_range(memory.peak, 0, 2 * (8 * size + (16 << 20))); /* the file's reader and the vocabulary's */
    if (st != ST_OK) {
        assert_true(err.text[0] != 0);
        return st;
    }
    st = tokenizer_encode(tok, &ids, STR("a ab aba <s>[CLS] \xC3\xA9 aa"), TOKENIZE_SPECIAL | TOKENIZE_ADD, &err);
    for (size_t i = 0; st == ST_OK && i < ids.count; i++)
        assert_in_range(ids.ids[i], 0, tokenizer_vocab_size(tok) - 1);
    ids_free(&ids);
    tokenizer_close(tok);
    return st;
}

static void test_damaged_vocabularies(void **state)
{
    (void)state;
    for (int k = 0; k < N_KIND; k++) {
        struct error err;
        struct tokenizer *tok = tiny_open(tiny_kinds[k]);
        struct buf whole = {0};
        OK(write_to(tok, tokenizer_vocab_size(tok) + 1, &err));
        OK(file_read_all(&whole, path, 1 << 20, &err));
        assert_int_equal(open_and_use(whole.len), ST_OK);
        FILE *f = fopen(path, "r+b");
        assert_non_null(f);
        setvbuf(f, NULL, _IONBF, 0);
        for (size_t bit = 0; bit < 8 * whole.len; bit++) {
            fseek(f, (long)(bit / 8), SEEK_SET);
            fputc(whole.ptr[bit / 8] ^ 1 << bit % 8, f);
            (void)open_and_use(whole.len);
            fseek(f, (long)(bit / 8), SEEK_SET);
            fputc(whole.ptr[bit / 8], f);
        }
        size_t refused = 0;
        for (size_t n = whole.len; n-- > 0;) {
            assert_int_equal(ftruncate(fileno(f), (off_t)n), 0);
            refused += open_and_use(n) != ST_OK;
        }
        assert_true(refused > whole.len - 40); /* all but the padding at the end */
        fclose(f);
        buf_free(&whole);
        tokenizer_close(tok);
    }
}

static void test_every_failing_allocation(void **state)
{
    (void)state;
    for (int k = 0; k < N_KIND; k++) {
        struct tokenizer *tok = tiny_open(tiny_kinds[k]);
        uint64_t n = 1;
        for (bool fired = true; fired && n < 2000; n++) {
            struct error err;
            fault_arm(FAULT_ALLOC, n);
            enum status st = write_to(tok, tokenizer_vocab_size(tok) + 1, &err);
            fired = fault_fired();
            fault_disarm();
            assert_int_equal(st, fired ? ST_NOMEM : ST_OK);
        }
        assert_in_range(n, 10, 1999);
        tokenizer_close(tok);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_ids_are_the_same_from_a_gguf, make_path, remove_path),
        cmocka_unit_test_setup_teardown(test_what_the_keys_cannot_say_is_refused, make_path, remove_path),
        cmocka_unit_test_setup_teardown(test_damaged_vocabularies, make_path, remove_path),
        cmocka_unit_test_setup_teardown(test_every_failing_allocation, make_path, remove_path),
    };
    return RUN(tests);
}
