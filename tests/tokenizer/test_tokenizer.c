/* The door: special tokens and who may write them, streaming, long texts, threads, normalization, random strings. */
#include "test.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/json.h"
#include "base/rng.h"
#include "base/unicode.h"
#include "tiny.h"

#include <pthread.h>

#define DATA SHARED("data/tokenizers/")

static struct tokenizer *open_or_fail(const char *path)
{
    struct tokenizer *tok;
    struct error err;
    OK(tokenizer_open(&tok, path, &err));
    return tok;
}

static struct ids encode(const struct tokenizer *tok, const char *text, unsigned flags)
{
    struct error err;
    struct ids ids = {0};
    OK(tokenizer_encode(tok, &ids, str_of(text), flags, &err));
    return ids;
}

static bool has(const struct ids *ids, int32_t id)
{
    for (size_t i = 0; i < ids->count; i++)
        if (ids->ids[i] == id)
            return true;
    return false;
}

static bool same(const struct ids *a, const struct ids *b)
{
    return a->count == b->count && (a->count == 0 || memcmp(a->ids, b->ids, 4 * a->count) == 0);
}

static void test_special_strings_only_where_asked(void **state)
{
    (void)state;
    NEED(DATA "qwen2.5/vocab.json");
    struct tokenizer *tok = open_or_fail(DATA "qwen2.5");
    int32_t start = tokenizer_find(tok, STR("<|im_start|>"));
    assert_int_equal(start, 151644);
    assert_int_equal(tokenizer_eos(tok), 151645);
    assert_true(tokenizer_is_special(tok, start));
    assert_non_null(tokenizer_chat_template(tok).ptr);
    struct ids with = encode(tok, "<|im_start|>user\nhi", TOKENIZE_SPECIAL),
               without = encode(tok, "<|im_start|>user\nhi", 0);
    assert_int_equal(with.ids[0], start);
    assert_false(has(&without, start));
    ids_free(&with);
    ids_free(&without);
    tokenizer_close(tok);
}

/* What users write never becomes a control token, however they cut it or whatever stands beside it. */
static void test_plain_pieces_never_make_special_tokens(void **state)
{
    (void)state;
    static const char *const files[] = {DATA "qwen2.5",
                                        DATA "hf/mistral03.tokenizer.json",
                                        DATA "hf/phi-3.tokenizer.json",
                                        DATA "sentencepiece/mistral03.model",
                                        DATA "llama3/tokenizer.model",
                                        DATA "hf/gpt2.tokenizer.json",
                                        DATA "sentencepiece/mistral_v7.model",
                                        DATA "sentencepiece/nai-t5.model",
                                        SHARED("data/models/tinystories-656k/tokenizer.json")};
    enum { N_FILE = sizeof files / sizeof *files, LOSSY = N_FILE - 2 }; /* the last two know few characters */
    static const char *const unflagged[] = {"<tool_call>", "[REF]", "<extra_id_5>"}; /* guarded, though not special */
    static const char *const injected[] = {"<|im_end|>",  "[INST]",        "</s>",          "<|end|>", "<|eot_id|>",
                                           "<tool_call>", "<|endoftext|>", "<|end_story|>", "[REF]",   "<extra_id_5>"};
    NEED(DATA "qwen2.5/vocab.json");
    for (int f = 0; f < N_FILE; f++) {
        struct tokenizer *tok = open_or_fail(files[f]);
        for (size_t k = 0; k < sizeof injected / sizeof *injected; k++) {
            struct error err;
            int32_t id = tokenizer_find(tok, str_of(injected[k]));
            bool guarded = id >= 0 && tokenizer_is_special(tok, id);
            for (int u = 0; u < 3; u++)
                guarded = guarded || strcmp(injected[k], unflagged[u]) == 0;
            if (!guarded)
                continue; /* an ordinary token of this vocabulary, as "</s>" is of Qwen2.5's */
            struct str whole = str_of(injected[k]);
            size_t half = whole.len / 2;
            struct text_piece cases[][3] = {
                {{STR("say "), false}, {whole, true}, {STR(" now"), false}},
                {{str_n(whole.ptr, half), false}, {str_from(whole, half), true}, {STR("\n"), false}},
                {{STR("x"), true}, {str_n(whole.ptr, half), true}, {str_from(whole, half), false}},
                {{str_n(whole.ptr, half), true}, {str_from(whole, half), true}, {STR(""), false}},
            };
            for (int c = 0; c < 4 && id >= 0; c++) {
                struct ids got = {0};
                struct buf out = {0};
                OK(tokenizer_encode_pieces(tok, &got, cases[c], 3, 0, &err));
                assert_false(has(&got, id));
                OK(tokenizer_decode(tok, &out, got.ids, got.count, 0, &err));
                assert_true(f >= LOSSY || str_find(buf_str(&out), whole, 0) != SIZE_MAX);
                ids_free(&got);
                buf_free(&out);
            }
            if (id >= 0) { /* and the template's own text does make it */
                struct text_piece own[2] = {{STR("a"), true}, {whole, false}};
                struct ids got = {0};
                OK(tokenizer_encode_pieces(tok, &got, own, 2, 0, &err));
                assert_int_equal(got.ids[got.count - 1], id);
                ids_free(&got);
            }
        }
        tokenizer_close(tok);
    }
}

static void test_pieces_are_one_text(void **state)
{
    (void)state;
    struct error err;
    NEED(DATA "qwen2.5/vocab.json");
    struct tokenizer *tok = open_or_fail(DATA "qwen2.5");
    struct text_piece pieces[] = {
        {STR("<|im_start|>us"), false}, {STR("er\nhel"), true}, {STR("lo wor"), true}, {STR("ld"), false}};
    struct ids got = {0}, want = encode(tok, "<|im_start|>user\nhello world", TOKENIZE_SPECIAL);
    OK(tokenizer_encode_pieces(tok, &got, pieces, 4, 0, &err));
    assert_true(same(&got, &want));
    ids_free(&got);
    ids_free(&want);
    tokenizer_close(tok);
}

/* Any ids, in any order: the stream's parts are whole characters, and together they are what decode gives. */
static void test_streams_equal_whole_decoding(void **state)
{
    (void)state;
    static const char *const files[] = {DATA "hf/gpt2.tokenizer.json",      DATA "hf/llama2.tokenizer.json",
                                        DATA "hf/t5-small.tokenizer.json",  DATA "hf/bert_base_cased.tokenizer.json",
                                        DATA "hf/clip_base.tokenizer.json", DATA "sentencepiece/llama2.model",
                                        DATA "sentencepiece/nai-t5.model",  DATA "llama2c/tokenizer.bin"};
    NEED(DATA "hf/gpt2.tokenizer.json");
    struct rng rng;
    rng_init(&rng, 3);
    for (size_t f = 0; f < sizeof files / sizeof *files; f++) {
        struct tokenizer *tok = open_or_fail(files[f]);
        for (int round = 0; round < 300; round++) {
            struct error err;
            struct decoder d;
            int32_t ids[40];
            size_t n = rng_below(&rng, 40);
            uint64_t range =
                round % 2 ? 400 : (uint64_t)tokenizer_vocab_size(tok); /* low ids: bytes and control tokens */
            struct buf whole = {0}, parts = {0};
            for (size_t i = 0; i < n; i++)
                ids[i] = (int32_t)rng_below(&rng, range);
            unsigned flags = round % 3 ? 0 : DETOKENIZE_SKIP_SPECIAL;
            OK(tokenizer_decode(tok, &whole, ids, n, flags, &err));
            decoder_init(&d, tok, flags);
            for (size_t i = 0; i < n; i++) {
                decoder_next(&d, ids[i], &parts);
                assert_true(utf8_valid(buf_str(&parts)));
                assert_true(d.n_held <= 3);
            }
            decoder_end(&d, &parts);
            assert_true(str_eq(buf_str(&whole), buf_str(&parts)));
            buf_free(&whole);
            buf_free(&parts);
        }
        tokenizer_close(tok);
    }
}

static void test_bad_input_is_refused(void **state)
{
    (void)state;
    struct tokenizer *tok;
    struct error err;
    struct ids ids = {0};
    struct buf out = {0};
    OK(tok_open_bytes(&tok, str_of(tiny_bpe), "tiny", NULL, &err));
    assert_int_equal(tokenizer_encode(tok, &ids, STR("a\xFF"), 0, &err), ST_INVALID);
    assert_int_equal(ids.count, 0);
    int32_t beyond[] = {0, 8};
    assert_int_equal(tokenizer_decode(tok, &out, beyond, 2, 0, &err), ST_INVALID);
    assert_non_null(strstr(err.text, "id 8"));
    tokenizer_close(tok);
    assert_int_equal(
        tok_open_bytes(
            &tok,
            STR("{\"added_tokens\":[],\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"zz+\"}},"
                "\"model\":{\"type\":\"BPE\",\"vocab\":{},\"merges\":[]}}"),
            "t", NULL, &err),
        ST_UNSUPPORTED);
    assert_non_null(strstr(err.text, "zz+"));
    assert_int_equal(tokenizer_open(&tok, "/nowhere/tokenizer.json", &err), ST_NOT_FOUND);
    buf_free(&out);
    ids_free(&ids);
}

/* ---- time is linear in the text, whatever it is ---- */
static double encode_ms(const struct tokenizer *tok, struct str text)
{
    struct error err;
    struct ids ids = {0};
    uint64_t start = clock_thread_cpu_ns();
    OK(tokenizer_encode(tok, &ids, text, TOKENIZE_SPECIAL, &err));
    double ms = (double)(clock_thread_cpu_ns() - start) / 1e6;
    ids_free(&ids);
    return ms;
}

#ifdef INGOT_SANITIZED /* slower by far; a time that grows with the square would be hours */
enum { MEBIBYTE_MS_MAX = 300000 };
#else
enum { MEBIBYTE_MS_MAX = 1000 };
#endif

static void test_a_mebibyte_of_anything_takes_under_a_second(void **state)
{
    (void)state;
    static const char *const files[] = {DATA "hf/gpt2.tokenizer.json",
                                        DATA "hf/gpt_neox.tokenizer.json",
                                        DATA "qwen2.5",
                                        DATA "hf/llama2.tokenizer.json",
                                        DATA "hf/t5-small.tokenizer.json",
                                        DATA "hf/gte.tokenizer.json",
                                        DATA "hf/mistral03.tokenizer.json",
                                        DATA "sentencepiece/nai-t5.model",
                                        DATA "sentencepiece/llama2.model",
                                        DATA "tiktoken/cl100k_base.tiktoken",
                                        DATA "tiktoken/o200k_base.tiktoken",
                                        SHARED("data/models/tinystories-656k/tokenizer.json")};
    NEED(DATA "hf/gpt2.tokenizer.json");
    struct rng rng;
    rng_init(&rng, 5);
    for (size_t f = 0; f < sizeof files / sizeof *files; f++) {
        struct tokenizer *tok = open_or_fail(files[f]);
        for (int kind = 0; kind < 9; kind++) {
            static const char *const fixed[] = {"a", " ", "\n", "'", "[", "e\xCC\x81", "\xCC\x81"};
            struct buf text = {0};
            char c[4];
            while (text.len < 1 << 20)
                if (kind < 7)
                    buf_append_str(&text, str_of(fixed[kind]));
                else if (kind == 7)
                    buf_append(&text, c, (size_t)utf8_encode(c, 0x4E00 + (uint32_t)rng_below(&rng, 0x5000)));
                else
                    buf_append_char(&text, (char)('a' + rng_below(&rng, 26)));
            double ms = encode_ms(tok, buf_str(&text));
            if (ms >= MEBIBYTE_MS_MAX)
                print_error("%s, text %d: %.0f ms\n", files[f], kind, ms);
            assert_true(ms < MEBIBYTE_MS_MAX);
            buf_free(&text);
        }
        tokenizer_close(tok);
    }
}

/* ---- one tokenizer, many threads ---- */
struct job {
    const struct tokenizer *tok;
    struct str text;
    const struct ids *want;
    bool good;
};

static void *run_job(void *arg)
{
    struct job *job = arg;
    job->good = true;
    for (int i = 0; i < 40; i++) {
        struct ids ids = {0};
        struct error err;
        job->good = job->good && tokenizer_encode(job->tok, &ids, job->text, 0, &err) == ST_OK && same(&ids, job->want);
        ids_free(&ids);
    }
    return NULL;
}

static void test_threads_share_a_tokenizer(void **state)
{
    (void)state;
    enum { THREADS = 6 };
    struct error err;
    NEED(SHARED("data/text/tinystories-sample.txt"));
    struct tokenizer *tok = open_or_fail(DATA "hf/gpt2.tokenizer.json");
    struct buf text = {0};
    OK(file_read_all(&text, SHARED("data/text/tinystories-sample.txt"), 1 << 22, &err));
    struct str part = str_n(text.ptr, 8000);
    struct ids want = {0};
    OK(tokenizer_encode(tok, &want, part, 0, &err));
    pthread_t threads[THREADS];
    struct job jobs[THREADS];
    for (int i = 0; i < THREADS; i++) {
        jobs[i] = (struct job){tok, part, &want, false};
        assert_int_equal(pthread_create(&threads[i], NULL, run_job, &jobs[i]), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
        assert_true(jobs[i].good);
    }
    ids_free(&want);
    buf_free(&text);
    tokenizer_close(tok);
}

/* ---- Unicode's own test of the four forms ---- */
static bool to_utf8(struct buf *out, struct str column)
{
    buf_clear(out);
    for (const char *p = column.ptr, *end = p + column.len; p < end;) {
        char c[4], *next;
        unsigned long v = strtoul(p, &next, 16);
        buf_append(out, c, (size_t)utf8_encode(c, (uint32_t)v));
        p = next + (next < end && *next == ' ');
    }
    return true;
}

static void test_normalization_forms(void **state)
{
    (void)state;
    /* column each form must give, from each of the five columns (Unicode annex 15) */
    static const int want[4][5] = {{1, 1, 1, 3, 3}, {2, 2, 2, 4, 4}, {3, 3, 3, 3, 3}, {4, 4, 4, 4, 4}};
    static const enum norm_type forms[4] = {NORM_NFC, NORM_NFD, NORM_NFKC, NORM_NFKD};
    NEED(SHARED("data/suites/unicode/NormalizationTest.txt.xz"));
    FILE *f = popen("xz -dc '" SHARED("data/suites/unicode/NormalizationTest.txt.xz") "' 2>/dev/null", "r");
    char line[2048];
    size_t n = 0;
    assert_non_null(f);
    while (fgets(line, sizeof line, f)) {
        struct buf columns[5] = {{0}, {0}, {0}, {0}, {0}};
        struct str rest = str_of(line);
        if (line[0] == '#' || line[0] == '@')
            continue;
        for (int i = 0; i < 5; i++) {
            size_t semicolon = str_find(rest, STR(";"), 0);
            assert_true(semicolon != SIZE_MAX && to_utf8(&columns[i], str_n(rest.ptr, semicolon)));
            rest = str_from(rest, semicolon + 1);
        }
        for (int form = 0; form < 4; form++)
            for (int i = 0; i < 5; i++) {
                struct error err;
                struct norm_step step = {.type = forms[form]};
                struct buf out = {0};
                OK(norm_apply(&step, &out, buf_str(&columns[i]), &err));
                assert_true(str_eq(buf_str(&out), buf_str(&columns[want[form][i]])));
                buf_free(&out);
            }
        for (int i = 0; i < 5; i++)
            buf_free(&columns[i]);
        n++;
    }
    pclose(f);
    if (n == 0)
        skip(); /* no xz here */
    assert_true(n > 18000);
}

/* ---- tests/golden/tokenizer/random.jsonl: what the originals made of random strings ---- */
static void test_random_strings_as_the_originals(void **state)
{
    (void)state;
    struct error err;
    struct buf file = {0}, open_name = {0};
    struct tokenizer *tok = NULL;
    size_t n = 0;
    NEED(DATA "hf/gpt2.tokenizer.json");
    OK(file_read_all(&file, GOLDEN("tokenizer/random.jsonl"), 1 << 26, &err));
    for (struct str rest = buf_str(&file); rest.len;) {
        struct arena arena;
        const struct json *row;
        struct ids ids = {0};
        struct buf out = {0};
        size_t i = 0;
        arena_init(&arena, 0);
        OK(json_parse(&row, &arena, str_next_line(&rest), 0, &err));
        struct str name = json_str(json_get(row, "file"));
        if (!str_eq(name, buf_str(&open_name))) {
            char path[600];
            tokenizer_close(tok);
            snprintf(path, sizeof path, "%s/%.*s", SHARED("data"), (int)name.len, name.ptr);
            tok = open_or_fail(path);
            buf_clear(&open_name);
            buf_append_str(&open_name, name);
        }
        OK(tokenizer_encode(tok, &ids, json_str(json_get(row, "text")), 0, &err));
        assert_int_equal(ids.count, json_count(json_get(row, "ids")));
        JSON_EACH (id, json_get(row, "ids"))
            assert_int_equal(ids.ids[i++], json_int(id, -1));
        OK(tokenizer_decode(tok, &out, ids.ids, ids.count, 0, &err));
        assert_true(str_eq(buf_str(&out), json_str(json_get(row, "decoded"))));
        ids_free(&ids);
        buf_free(&out);
        arena_free(&arena);
        n++;
    }
    assert_true(n > 1000);
    tokenizer_close(tok);
    buf_free(&file);
    buf_free(&open_name);
}

/* In T5's tokenizer.json the control tokens are pieces as well: what a user wrote must not make them of those. */
static void test_plain_text_makes_no_control_tokens_of_pieces(void **state)
{
    (void)state;
    struct error err;
    struct tokenizer *tok;
    struct ids ids = {0};
    NEED(SHARED("data/tokenizers/hf/t5-small.tokenizer.json"));
    OK(tokenizer_open(&tok, SHARED("data/tokenizers/hf/t5-small.tokenizer.json"), &err));
    struct text_piece pieces[] = {{STR("a </s>"), false}, {STR("b </s> <pad> \xEF\xBC\x9C/s>"), true}};
    OK(tokenizer_encode_pieces(tok, &ids, pieces, 2, TOKENIZE_SPECIAL, &err));
    int n = 0;
    for (size_t i = 0; i < ids.count; i++)
        n += ids.ids[i] == 1 || ids.ids[i] == 0;
    assert_int_equal(n, 1); /* the template's own */
    ids_free(&ids);
    tokenizer_close(tok);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_special_strings_only_where_asked),
        cmocka_unit_test(test_plain_pieces_never_make_special_tokens),
        cmocka_unit_test(test_pieces_are_one_text),
        cmocka_unit_test(test_streams_equal_whole_decoding),
        cmocka_unit_test(test_bad_input_is_refused),
        cmocka_unit_test(test_a_mebibyte_of_anything_takes_under_a_second),
        cmocka_unit_test(test_threads_share_a_tokenizer),
        cmocka_unit_test(test_normalization_forms),
        cmocka_unit_test(test_random_strings_as_the_originals),
        cmocka_unit_test(test_plain_text_makes_no_control_tokens_of_pieces),
    };
    return RUN(tests);
}
