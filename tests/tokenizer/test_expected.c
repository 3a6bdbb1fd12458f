/* Every expected-id file of the shared data: texts, the ids their original tokenizers gave, and the decoded texts. */
#include "test.h"

#include "base/file.h"
#include "base/json.h"
#include "base/unicode.h"
#include "tokenizer/tokenizer.h"

#define DATA SHARED("data/tokenizers/")

static struct buf read_file(const char *path)
{
    struct error err;
    struct buf b = {0};
    if (file_kind(path) == FILE_REGULAR)
        OK(file_read_all(&b, path, 1 << 26, &err));
    return b;
}

/* "\n", "\s" and "\\" of the case files. */
static struct buf unescape(struct str s)
{
    struct buf out = {0};
    buf_append(&out, "", 0);
    for (size_t i = 0; i < s.len; i++) {
        char c = s.ptr[i], n = i + 1 < s.len ? s.ptr[i + 1] : 0;
        bool escaped = c == '\\' && (n == 'n' || n == 's' || n == '\\');
        buf_append_char(&out, !escaped ? c : n == 'n' ? '\n' : n == 's' ? ' ' : '\\');
        i += escaped;
    }
    return out;
}

static void parse_ids(struct ids *ids, struct str line, char separator)
{
    ids->count = 0;
    for (size_t i = 0; i < line.len;) {
        int64_t v;
        size_t start = i;
        while (i < line.len && line.ptr[i] != separator)
            i++;
        struct str word = str_trim(str_n(line.ptr + start, i - start));
        i++;
        if (word.len == 0)
            continue;
        assert_true(str_to_i64(&v, word));
        assert_true(ids_push(ids, (int32_t)v));
    }
}

static void streamed(struct buf *out, const struct tokenizer *tok, const struct ids *ids, unsigned flags)
{
    struct decoder d;
    decoder_init(&d, tok, flags);
    for (size_t i = 0; i < ids->count; i++) {
        decoder_next(&d, ids->ids[i], out);
        assert_int_equal(utf8_incomplete_tail(buf_str(out)), 0);
    }
    decoder_end(&d, out);
}

static void same_ids(const char *what, size_t number, const struct ids *got, const struct ids *want)
{
    bool same = got->count == want->count && (got->count == 0 || memcmp(got->ids, want->ids, 4 * got->count) == 0);
    if (!same) {
        size_t at = 0;
        while (at < got->count && at < want->count && got->ids[at] == want->ids[at])
            at++;
        print_error("%s, case %zu: %zu ids, expected %zu; first difference at %zu: %d, expected %d\n", what, number,
                    got->count, want->count, at, at < got->count ? got->ids[at] : -1,
                    at < want->count ? want->ids[at] : -1);
    }
    assert_true(same);
}

static void same_text(const char *what, size_t number, struct str got, struct str want)
{
    if (!str_eq(got, want))
        print_error("%s, case %zu: decoded \"%.*s\", expected \"%.*s\"\n", what, number, STR_ARG(got), STR_ARG(want));
    assert_true(str_eq(got, want));
}

static void check_case(const struct tokenizer *tok, const char *what, size_t number, struct str text, unsigned flags,
                       const struct ids *want, const struct str *decoded)
{
    struct error err;
    struct ids got = {0};
    struct buf whole = {0}, parts = {0};
    OK(tokenizer_encode(tok, &got, text, flags, &err));
    same_ids(what, number, &got, want);
    OK(tokenizer_decode(tok, &whole, want->ids, want->count, 0, &err));
    streamed(&parts, tok, want, 0);
    same_text(what, number, buf_str(&parts), buf_str(&whole));
    if (decoded)
        same_text(what, number, buf_str(&whole), *decoded);
    ids_free(&got);
    buf_free(&whole);
    buf_free(&parts);
}

/* ---- small, mixed and utf8 of three families ---- */
struct original {
    const char *folder, *name, *file;
    unsigned flags;
    size_t padded; /* the original truncates and pads with 0 to this length */
};

static void check_lines(const struct tokenizer *tok, const struct original *o, const char *input)
{
    char path[600];
    bool one = strcmp(input, "utf8") == 0;
    snprintf(path, sizeof path, DATA "expected/%s_input.txt", input);
    struct buf texts = read_file(path);
    snprintf(path, sizeof path, DATA "expected/%s/%s_tokens_%s.txt", o->folder, input, o->name);
    struct buf wants = read_file(path);
    snprintf(path, sizeof path, DATA "expected/%s/%s_output_%s.txt", o->folder, input, o->name);
    struct buf outputs = read_file(path);
    struct str text_rest = buf_str(&texts), want_rest = buf_str(&wants), output_rest = buf_str(&outputs);
    struct ids want = {0};
    assert_true(wants.len > 0);
    for (size_t n = 0; want_rest.len; n++) {
        struct buf text = {0}, output = {0};
        struct str line = str_next_line(&want_rest);
        if (one) {
            buf_append_str(&text, text_rest);
            buf_append_str(&output, outputs.ptr ? output_rest : text_rest);
        } else {
            text = unescape(str_next_line(&text_rest));
            output = outputs.ptr ? unescape(str_next_line(&output_rest)) : unescape(buf_str(&text));
            if (!outputs.ptr) { /* the text as it is, not unescaped twice */
                buf_clear(&output);
                buf_append_str(&output, buf_str(&text));
            }
        }
        parse_ids(&want, line, ',');
        struct str decoded = buf_str(&output);
        if (o->padded) {
            struct ids got = {0};
            struct error err;
            OK(tokenizer_encode(tok, &got, buf_str(&text), o->flags, &err));
            while (got.count < o->padded)
                assert_true(ids_push(&got, 0));
            got.count = o->padded;
            same_ids(o->name, n, &got, &want);
            ids_free(&got);
        } else {
            check_case(tok, o->name, n, buf_str(&text), o->flags, &want, &decoded);
        }
        buf_free(&text);
        buf_free(&output);
    }
    ids_free(&want);
    buf_free(&texts);
    buf_free(&wants);
    buf_free(&outputs);
}

static void test_expected_ids_of_three_families(void **state)
{
    (void)state;
    static const struct original originals[] = {
        {"tokenizers", "bert_base_cased", DATA "hf/bert_base_cased.tokenizer.json", TOKENIZE_SPECIAL, 0},
        {"tokenizers", "clip_base", DATA "hf/clip_base.tokenizer.json", TOKENIZE_SPECIAL, 0},
        {"tokenizers", "gpt2", DATA "hf/gpt2.tokenizer.json", TOKENIZE_SPECIAL, 0},
        {"tokenizers", "gpt_neox", DATA "hf/gpt_neox.tokenizer.json", TOKENIZE_SPECIAL, 0},
        {"tokenizers", "gte", DATA "hf/gte.tokenizer.json", TOKENIZE_SPECIAL, 512},
        {"tokenizers", "llama2", DATA "hf/llama2.tokenizer.json", TOKENIZE_SPECIAL, 0},
        {"tokenizers", "llama32", DATA "llama3/tokenizer.model", TOKENIZE_SPECIAL, 0},
        {"tokenizers", "mistral03", DATA "hf/mistral03.tokenizer.json", TOKENIZE_SPECIAL, 0},
        {"tokenizers", "xlnet_base_cased", DATA "hf/xlnet_base_cased.tokenizer.json", TOKENIZE_SPECIAL, 0},
        {"sentencepiece", "llama2", DATA "sentencepiece/llama2.model", 0, 0},
        {"sentencepiece", "mistral03", DATA "sentencepiece/mistral03.model", 0, 0},
        {"sentencepiece", "nai-t5", DATA "sentencepiece/nai-t5.model", 0, 0},
        {"sentencepiece", "xlnet_base_cased", DATA "sentencepiece/xlnet_base_cased.model", 0, 0},
        {"tiktoken", "cl100k_base", DATA "tiktoken/cl100k_base.tiktoken", TOKENIZE_SPECIAL, 0},
        {"tiktoken", "o200k_base", DATA "tiktoken/o200k_base.tiktoken", TOKENIZE_SPECIAL, 0},
        {"tiktoken", "llama4", DATA "tiktoken/llama4.tiktoken", TOKENIZE_SPECIAL, 0},
    };
    NEED(DATA "expected/small_input.txt");
    for (size_t i = 0; i < sizeof originals / sizeof *originals; i++) {
        struct tokenizer *tok;
        struct error err;
        OK(tokenizer_open(&tok, originals[i].file, &err));
        check_lines(tok, &originals[i], "small");
        check_lines(tok, &originals[i], "mixed");
        check_lines(tok, &originals[i], "utf8");
        tokenizer_close(tok);
    }
}

/* ---- GGUF vocabularies: texts between marker lines, ids between blanks ---- */
static void check_ggml(const char *file, const char *cases)
{
    char path[600];
    struct tokenizer *tok;
    struct error err;
    struct ids want = {0};
    OK(tokenizer_open(&tok, file, &err));
    snprintf(path, sizeof path, DATA "ggml-vocab/ggml-vocab-%s.gguf.inp", cases);
    struct buf texts = read_file(path);
    snprintf(path, sizeof path, DATA "ggml-vocab/ggml-vocab-%s.gguf.out", cases);
    struct buf outs = read_file(path);
    struct str rest = buf_str(&texts), lines = buf_str(&outs), mark = STR("\n__ggml_vocab_test__\n");
    size_t n = 0;
    while (n == 0 || rest.ptr) {
        size_t at = str_find(rest, mark, 0);
        struct str text = str_n(rest.ptr, at == SIZE_MAX ? rest.len : at);
        if (at == SIZE_MAX && text.len == 0)
            break; /* the file ends with a marker */
        rest = at == SIZE_MAX ? (struct str){NULL, 0} : str_from(rest, at + mark.len);
        parse_ids(&want, str_next_line(&lines), ' ');
        struct ids got = {0};
        OK(tokenizer_encode(tok, &got, text, TOKENIZE_SPECIAL, &err));
        same_ids(file, n++, &got, &want);
        ids_free(&got);
    }
    assert_true(n > 30);
    ids_free(&want);
    buf_free(&texts);
    buf_free(&outs);
    tokenizer_close(tok);
}

static void test_expected_ids_of_gguf_vocabularies(void **state)
{
    (void)state;
    static const char *const names[] = {"bert-bge",  "deepseek-llm", "falcon", "gpt-2",
                                        "llama-spm", "mpt",          "phi-3",  "refact"};
    NEED(DATA "ggml-vocab/ggml-vocab-gpt-2.gguf");
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char path[600];
        snprintf(path, sizeof path, DATA "ggml-vocab/ggml-vocab-%s.gguf", names[i]);
        check_ggml(path, names[i]);
    }
    check_ggml(DATA "llama3/tokenizer.model", "llama-bpe"); /* vocabularies given in another form */
    check_ggml(DATA "qwen2.5", "qwen2");
    check_ggml(DATA "llama2c/tokenizer.bin", "llama-spm");
    check_ggml(DATA "sentencepiece/llama2.model", "llama-spm");
    check_ggml(DATA "hf/phi-3.tokenizer.json", "phi-3");
}

/* ---- multilingual baselines ---- */
static void ids_of(struct ids *out, const struct json *list)
{
    out->count = 0;
    JSON_EACH (id, list)
        assert_true(ids_push(out, (int32_t)json_int(id, -1)));
}

/* The baselines leave out the texts; GPT-2's decoded ones are the texts, for it loses nothing. */
static struct str text_of(const struct json *originals, struct str id)
{
    JSON_EACH (entry, json_get(originals, "entries"))
        if (str_eq(json_str(json_get(entry, "id")), id))
            return json_str(json_get(entry, "decoded_with_special"));
    fail_msg("no text with the id %.*s", STR_ARG(id));
    return STR("");
}

/* transformers cleans blanks up after its T5 tokenizer has decoded; that is not the tokenizer's doing. */
static struct buf transformers_cleanup(struct str s)
{
    static const char *const pairs[][2] = {{" .", "."},     {" ?", "?"},     {" !", "!"},   {" ,", ","},
                                           {" ' ", "'"},    {" n't", "n't"}, {" 'm", "'m"}, {" 's", "'s"},
                                           {" 've", "'ve"}, {" 're", "'re"}};
    struct buf text = {0};
    buf_append_str(&text, s);
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        struct buf next = {0};
        struct str from = str_of(pairs[i][0]);
        size_t at = 0, found;
        while ((found = str_find(buf_str(&text), from, at)) != SIZE_MAX) {
            buf_append(&next, text.ptr + at, found - at);
            buf_append_str(&next, str_of(pairs[i][1]));
            at = found + from.len;
        }
        buf_append(&next, text.ptr + at, text.len - at);
        buf_free(&text);
        text = next;
    }
    return text;
}

static void check_multilingual(const char *name, const char *file, const struct json *originals)
{
    char path[600];
    struct tokenizer *tok;
    struct error err;
    struct arena arena;
    const struct json *doc;
    struct ids want = {0};
    size_t n = 0;
    arena_init(&arena, 0);
    snprintf(path, sizeof path, DATA "expected/multilingual/%s_multilingual.json", name);
    struct buf text = read_file(path);
    OK(json_parse(&doc, &arena, buf_str(&text), 0, &err));
    OK(tokenizer_open(&tok, file, &err));
    JSON_EACH (entry, json_get(doc, "entries")) {
        static const char *const keys[] = {"decoded_with_special", "decoded_skip_special"};
        struct ids got = {0};
        ids_of(&want, json_get(entry, "input_ids"));
        OK(tokenizer_encode(tok, &got, text_of(originals, json_str(json_get(entry, "id"))),
                            TOKENIZE_SPECIAL | TOKENIZE_ADD, &err));
        same_ids(name, n, &got, &want);
        for (unsigned flags = 0; flags < 2; flags++) {
            struct buf out = {0};
            OK(tokenizer_decode(tok, &out, want.ids, want.count, flags ? DETOKENIZE_SKIP_SPECIAL : 0, &err));
            if (strcmp(name, "t5_small") == 0) {
                struct buf clean = transformers_cleanup(buf_str(&out));
                buf_free(&out);
                out = clean;
            }
            same_text(name, n, buf_str(&out), json_str(json_get(entry, keys[flags])));
            buf_free(&out);
        }
        ids_free(&got);
        n++;
    }
    assert_true(n > 50);
    tokenizer_close(tok);
    ids_free(&want);
    buf_free(&text);
    arena_free(&arena);
}

static void test_expected_ids_of_many_languages(void **state)
{
    (void)state;
    NEED(DATA "expected/multilingual/gpt2_multilingual.json");
    struct arena arena;
    struct error err;
    const struct json *originals;
    arena_init(&arena, 0);
    struct buf text = read_file(DATA "expected/multilingual/gpt2_multilingual.json");
    OK(json_parse(&originals, &arena, buf_str(&text), 0, &err));
    check_multilingual("gpt2", DATA "hf/gpt2.tokenizer.json", originals);
    check_multilingual("qwen2_5", DATA "qwen2.5", originals);
    check_multilingual("t5_small", DATA "hf/t5-small.tokenizer.json", originals);
    check_multilingual("tinyllama", DATA "hf/llama2.tokenizer.json", originals);
    check_multilingual("bge_small", DATA "hf/gte.tokenizer.json", originals);
    buf_free(&text);
    arena_free(&arena);
}

/* ---- cases of several models; decoded by transformers, which cleans blanks up for all but Llama 2 ---- */
static void check_decoded(const struct tokenizer *tok, const char *what, size_t n, const struct ids *ids,
                          unsigned flags, bool clean, struct str want)
{
    struct error err;
    struct buf out = {0};
    OK(tokenizer_decode(tok, &out, ids->ids, ids->count, flags, &err));
    if (clean) {
        struct buf cleaned = transformers_cleanup(buf_str(&out));
        buf_free(&out);
        out = cleaned;
    }
    same_text(what, n, buf_str(&out), want);
    buf_free(&out);
}

static void check_encoded(const struct tokenizer *tok, const char *what, size_t n, struct str text,
                          const struct json *want_ids, struct ids *want)
{
    struct error err;
    struct ids got = {0};
    ids_of(want, want_ids);
    OK(tokenizer_encode(tok, &got, text, TOKENIZE_SPECIAL | TOKENIZE_ADD, &err));
    same_ids(what, n, &got, want);
    ids_free(&got);
}

static void test_expected_ids_of_several_models(void **state)
{
    (void)state;
    static const struct {
        const char *name, *file; /* a .json name is a file with one long case; else a key of tokenizer_tests.json */
        bool clean;
    } models[] = {
        {"bert-base-uncased", DATA "hf/gte.tokenizer.json", true},
        {"google-bert/bert-base-uncased", DATA "hf/gte.tokenizer.json", true},
        {"distilgpt2", DATA "hf/gpt2.tokenizer.json", true},
        {"coreml-projects/Llama-2-7b-chat-coreml", DATA "hf/llama2.tokenizer.json", false},
        {"tiiuae/falcon-7b", DATA "ggml-vocab/ggml-vocab-falcon.gguf", true},
        {"t5-base", DATA "hf/t5-small.tokenizer.json", true},
        {"pcuenq/Llama-3.2-1B-Instruct-tokenizer", DATA "llama3/tokenizer.model", true},
        {"bert_uncased_encoded.json", DATA "hf/gte.tokenizer.json", true},
        {"gpt2_encoded_tokens.json", DATA "hf/gpt2.tokenizer.json", false},
        {"llama_3.2_encoded.json", DATA "llama3/tokenizer.model", false},
        {"llama_encoded.json", DATA "hf/llama2.tokenizer.json", false},
        {"t5_base_encoded.json", DATA "hf/t5-small.tokenizer.json", false},
    };
    NEED(DATA "expected/swift/tokenizer_tests.json");
    for (size_t m = 0; m < sizeof models / sizeof *models; m++) {
        char path[600];
        struct error err;
        struct arena arena;
        struct tokenizer *tok;
        const struct json *doc;
        struct ids want = {0};
        size_t n = 0;
        bool one = strstr(models[m].name, ".json") != NULL;
        arena_init(&arena, 0);
        snprintf(path, sizeof path, DATA "expected/swift/%s", one ? models[m].name : "tokenizer_tests.json");
        struct buf text = read_file(path);
        OK(json_parse(&doc, &arena, buf_str(&text), 0, &err));
        OK(tokenizer_open(&tok, models[m].file, &err));
        if (one) {
            check_encoded(tok, models[m].name, 0, json_str(json_get(doc, "text")), json_get(doc, "token_ids"), &want);
            check_decoded(tok, models[m].name, 0, &want, 0, models[m].clean, json_str(json_get(doc, "decoded_text")));
            n = 18;
        }
        JSON_EACH (row, one ? NULL : json_get(doc, models[m].name)) {
            check_encoded(tok, models[m].name, n, json_str(json_get(row, "input")),
                          json_get(json_get(row, "encoded"), "input_ids"), &want);
            check_decoded(tok, models[m].name, n, &want, 0, models[m].clean,
                          json_str(json_get(row, "decoded_with_special")));
            check_decoded(tok, models[m].name, n, &want, DETOKENIZE_SKIP_SPECIAL, models[m].clean,
                          json_str(json_get(row, "decoded_without_special")));
            n++;
        }
        assert_true(n >= 18);
        tokenizer_close(tok);
        ids_free(&want);
        buf_free(&text);
        arena_free(&arena);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_expected_ids_of_three_families),
        cmocka_unit_test(test_expected_ids_of_gguf_vocabularies),
        cmocka_unit_test(test_expected_ids_of_many_languages),
        cmocka_unit_test(test_expected_ids_of_several_models),
    };
    return RUN(tests);
}
