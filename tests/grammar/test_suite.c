/* The JSON Schema Test Suite (draft 2020-12, required cases; formats) as a generator test: of every schema that
 * compiles, all valid instances can be written byte by byte, and no invalid one. What does not compile is refused with
 * its keyword; how many of those there are is fixed below, so that the number can only be changed knowingly. */
#include "vocab.h"

#include "base/file.h"
#include "base/json.h"

#define SUITE SHARED("data/suites/json-schema-test-suite/tests/draft2020-12/")

struct counts {
    int schemas, refused, valid, invalid, wrong;
};

/* Where the room is stricter than the format, as docs/grammar.md says: encoded international names, and leap seconds
 * that are not written in UTC. They are valid, and never written. */
static bool is_stricter(const char *file, struct str text)
{
    bool host = !strcmp(file, "optional/format/hostname"), time = strstr(file, "time") != NULL;
    return (host && (str_find(text, STR("xn--"), 0) != SIZE_MAX)) ||
           (time && str_find(text, STR(":60"), 0) != SIZE_MAX && text.ptr[text.len - 2] != 'Z');
}

/* Compact, or as people write it. Whole numbers are written without a fraction, as an integer must be. */
static void write_value(struct buf *out, const struct json *v, bool spaced)
{
    struct json_writer w;
    bool first = true;
    if (v->type == JSON_ARRAY) {
        buf_append_char(out, '[');
        JSON_EACH (item, v) {
            buf_append_str(out, first ? STR("") : spaced ? STR(", ") : STR(","));
            first = false;
            write_value(out, item, spaced);
        }
        buf_append_char(out, ']');
    } else if (v->type == JSON_OBJECT) {
        buf_append_char(out, '{');
        JSON_EACH_MEMBER (key, item, v) {
            buf_append_str(out, first ? STR("") : STR(","));
            buf_append_str(out, spaced ? STR("\n  ") : STR(""));
            first = false;
            json_writer_init(&w, out);
            json_write_str(&w, key);
            buf_append_str(out, spaced ? STR(": ") : STR(":"));
            write_value(out, item, spaced);
        }
        buf_append_str(out, spaced && !first ? STR("\n}") : STR("}"));
    } else if (v->type == JSON_REAL && v->real > -9e15 && v->real < 9e15 && v->real == (double)(int64_t)v->real) {
        buf_printf(out, "%lld", (long long)v->real);
    } else {
        json_writer_init(&w, out);
        json_write_value(&w, v);
    }
}

static void check_test(struct grammar *g, const struct json *schema, const struct json *test, const char *file,
                       struct counts *c)
{
    bool valid = json_bool(json_get(test, "valid"), false);
    struct buf text = {0}, source = {0};
    struct json_writer w;
    for (int spaced = 0; spaced < 2; spaced++) {
        buf_clear(&text);
        write_value(&text, json_get(test, "data"), spaced);
        if (accepts(g, buf_str(&text)) != (valid && !is_stricter(file, buf_str(&text)))) {
            json_writer_init(&w, &source);
            json_write_value(&w, schema);
            print_message("%s: %.*s\n  schema %s\n  %s: %s\n", file, STR_ARG(json_str(json_get(test, "description"))),
                          source.ptr, valid ? "refused" : "accepted", text.ptr);
            c->wrong++;
            break;
        }
    }
    c->valid += valid;
    c->invalid += !valid;
    buf_free(&text);
    buf_free(&source);
}

static void check_file(struct grammar_vocab *v, const char *name, struct counts *c)
{
    char path[400];
    struct arena arena;
    struct buf text = {0};
    struct error err;
    const struct json *doc;
    snprintf(path, sizeof path, "%s%s.json", SUITE, name);
    arena_init(&arena, 0);
    OK(file_read_all(&text, path, 64 << 20, &err));
    OK(json_parse(&doc, &arena, buf_str(&text), 0, &err));
    JSON_EACH (group, doc) {
        const struct json *schema = json_get(group, "schema");
        struct buf source = {0};
        struct json_writer w;
        struct grammar *g;
        json_writer_init(&w, &source);
        json_write_value(&w, schema);
        struct grammar_part part = {.kind = GRAMMAR_SCHEMA, .text = buf_str(&source)};
        c->schemas++;
        enum status st = grammar_compile(&g, v, &part, &err);
        if (st == ST_OK) {
            JSON_EACH (test, json_get(group, "tests"))
                check_test(g, schema, test, name, c);
        } else {
            if (getenv("VERBOSE"))
                print_message("%s: %.*s: %s: %s\n", name, STR_ARG(json_str(json_get(group, "description"))),
                              status_row(st)->name, err.text);
            /* Nothing is accepted at all where nothing is valid. */
            bool none = strstr(err.text, "nothing at all") != NULL;
            JSON_EACH (test, json_get(group, "tests"))
                c->wrong += none && json_bool(json_get(test, "valid"), false);
            assert_true(none || st == ST_UNSUPPORTED || st == ST_INVALID || st == ST_LIMIT);
            assert_true(none || strstr(err.text, "#") != NULL || st == ST_LIMIT);
            c->refused += !none;
        }
        grammar_release(g);
        buf_free(&source);
    }
    buf_free(&text);
    arena_free(&arena);
}

struct expected {
    const char *file;
    int refused;
};

static void check_files(const struct expected *files, size_t n)
{
    NEED(SUITE "type.json");
    struct grammar_vocab *v = bytes_vocab();
    struct counts all = {0};
    int unexpected = 0;
    for (size_t i = 0; i < n; i++) {
        struct counts c = {0};
        check_file(v, files[i].file, &c);
        if (c.refused != files[i].refused)
            print_message("%s: %d schemas are refused, not %d\n", files[i].file, c.refused, files[i].refused);
        unexpected += c.refused != files[i].refused;
        all.schemas += c.schemas;
        all.refused += c.refused;
        all.valid += c.valid;
        all.invalid += c.invalid;
        all.wrong += c.wrong;
    }
    print_message("%d schemas, %d of them refused; %d valid and %d invalid instances, %d wrong\n", all.schemas,
                  all.refused, all.valid, all.invalid, all.wrong);
    grammar_vocab_destroy(v);
    assert_int_equal(all.wrong, 0);
    assert_int_equal(unexpected, 0);
}

static void test_required_cases(void **state)
{
    (void)state;
    static const struct expected files[] = {
        {"additionalProperties", 0},
        {"allOf", 0},
        {"anchor", 0},
        {"anyOf", 0},
        {"boolean_schema", 0},
        {"const", 0},
        {"contains", 0},
        {"content", 0},
        {"default", 0},
        {"defs", 1},
        {"dependentRequired", 0},
        {"dependentSchemas", 0},
        {"dynamicRef", 12},
        {"enum", 0},
        {"exclusiveMaximum", 0},
        {"exclusiveMinimum", 0},
        {"if-then-else", 0},
        {"infinite-loop-detection", 0},
        {"items", 0},
        {"maxContains", 0},
        {"maxItems", 0},
        {"maxLength", 0},
        {"maxProperties", 0},
        {"maximum", 0},
        {"minContains", 0},
        {"minItems", 0},
        {"minLength", 0},
        {"minProperties", 0},
        {"minimum", 0},
        {"multipleOf", 1},
        {"not", 1},
        {"oneOf", 0},
        {"pattern", 1},
        {"patternProperties", 1},
        {"prefixItems", 0},
        {"properties", 0},
        {"propertyNames", 0},
        {"ref", 1},
        {"refRemote", 15},
        {"required", 0},
        {"type", 0},
        {"unevaluatedItems", 5},
        {"unevaluatedProperties", 2},
        {"uniqueItems", 3},
        {"vocabulary", 2},
    };
    check_files(files, sizeof files / sizeof *files);
}

static void test_formats(void **state)
{
    (void)state;
    static const struct expected files[] = {
        {"optional/format/date-time", 0},
        {"optional/format/date", 0},
        {"optional/format/duration", 0},
        {"optional/format/email", 0},
        {"optional/format/hostname", 0},
        {"optional/format/ipv4", 0},
        {"optional/format/ipv6", 0},
        {"optional/format/iri-reference", 0},
        {"optional/format/iri", 0},
        {"optional/format/json-pointer", 0},
        {"optional/format/relative-json-pointer", 0},
        {"optional/format/time", 0},
        {"optional/format/uri-reference", 0},
        {"optional/format/uri-template", 0},
        {"optional/format/uri", 0},
        {"optional/format/uuid", 0},
        {"optional/format/unknown", 0},
    };
    check_files(files, sizeof files / sizeof *files);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_required_cases),
        cmocka_unit_test(test_formats),
    };
    return RUN(tests);
}
