#include "test.h"

#include "base/fault.h"
#include "base/yaml.h"

static struct error err;

/* YAML in, the same tree as compact JSON out: the expected column is easy to read. */
static void test_yaml_becomes_json(void **state)
{
    (void)state;
    static const struct {
        const char *yaml, *json;
    } cases[] = {
        {"", "null"},
        {"# only a comment\n", "null"},
        {"a: 1\nb: [x, 'y', \"z\\n\"]\n", "{\"a\":1,\"b\":[\"x\",\"y\",\"z\\n\"]}"},
        {"a:\n  b:\n    - 1\n    - c: 2\n      d: ~\n  e: {}\n", "{\"a\":{\"b\":[1,{\"c\":2,\"d\":null}],\"e\":{}}}"},
        {"[true, True, TRUE, false, yes, on, null, Null, ~, '']",
         "[true,true,true,false,\"yes\",\"on\",null,null,null,\"\"]"},
        {"[0x1F, 0o17, 017, +5, -5, +-5, 9223372036854775807, 9223372036854775808]",
         "[31,15,17,5,-5,\"+-5\",9223372036854775807,9.223372036854776e+18]"},
        {"[1e-4, .5, 5., 1.5e3, -0.25, 1e, e1, ., 1.2.3, 0x, 1_000]",
         "[0.0001,0.5,5.0,1500.0,-0.25,\"1e\",\"e1\",\".\",\"1.2.3\",\"0x\",\"1_000\"]"},
        {"['1', \"true\", |\n  line\n]", NULL},
        {"text: |\n  line 1\n  line 2\nfold: >-\n  a\n  b\n", "{\"text\":\"line 1\\nline 2\\n\",\"fold\":\"a b\"}"},
        {"{\"json\": [1, 2.5, \"\\u00e9\"], \"t\": true}", "{\"json\":[1,2.5,\"\xC3\xA9\"],\"t\":true}"},
        {"1: one\ntrue: t\n", "{\"1\":\"one\",\"true\":\"t\"}"},
        {"---\na: 1\n...\n", "{\"a\":1}"},
        {"%YAML 1.2\n---\nx\n", "\"x\""},
        {"limit: .inf", "{\"limit\":null}"}, /* JSON has no infinity; the node does */
        {"version: 1.10", "{\"version\":1.1}"},
        {"a: {b: 1, c: 2}\nd: 3", "{\"a\":{\"b\":1,\"c\":2},\"d\":3}"},
        {"<<: 1", "{\"<<\":1}"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct arena a;
        const struct json *d;
        struct buf out = {0};
        struct json_writer w;
        arena_init(&a, 0);
        enum status st = yaml_parse(&d, &a, str_of(cases[i].yaml), &err);
        if (!cases[i].json)
            assert_int_equal(st, ST_CORRUPT);
        else {
            if (st != ST_OK)
                fail_msg("%s: %s", cases[i].yaml, err.text);
            json_writer_init(&w, &out);
            json_write_value(&w, d);
            assert_string_equal(out.ptr, cases[i].json);
        }
        buf_free(&out);
        arena_free(&a);
    }
}

static void test_yaml_refuses_with_the_line(void **state)
{
    (void)state;
    static const struct {
        const char *yaml;
        enum status status;
        const char *begins;
    } cases[] = {
        {"a: 1\nb: 2\na: 3\n", ST_CORRUPT, "line 3: the key \"a\" is given twice"},
        {"a: 1\nb:\n  c: 1\n  c: 2\n", ST_CORRUPT, "line 4: the key \"c\" is given twice"},
        {"a: &x 1\nb: *x\n", ST_UNSUPPORTED, "line 1: anchors"},
        {"b: &x [1]\n", ST_UNSUPPORTED, "line 1: anchors"},
        {"a: 1\nb: *x\n", ST_UNSUPPORTED, "line 2: aliases"},
        {"a: 1\nb: !!str 2\n", ST_UNSUPPORTED, "line 2: tags"},
        {"a: !x {b: 1}\n", ST_UNSUPPORTED, "line 1: tags"},
        {"%TAG ! tag:x,2000:\n---\na: 1\n", ST_UNSUPPORTED, "line 1: tags"},
        {"a: 1\n---\nb: 2\n", ST_UNSUPPORTED, "line 2: a second document"},
        {"? [a, b]\n: 1\n", ST_UNSUPPORTED, "line 1: a key must be a scalar"},
        {"a: 1\n  b: 2\n", ST_CORRUPT, "line 2: "},
        {"a: [1, 2\nb: 3\n", ST_CORRUPT, "line 2: "},
        {"a: \"unclosed\n", ST_CORRUPT, "line 2: "},
        {"a:\n\t- 1\n", ST_CORRUPT, "line 2: "},
        {"a: \xff\n", ST_CORRUPT, "line 1: "},
        {"@a", ST_CORRUPT, "line 1: "},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct arena a;
        const struct json *d;
        arena_init(&a, 0);
        FAILS(cases[i].status, yaml_parse(&d, &a, str_of(cases[i].yaml), &err));
        if (strncmp(err.text, cases[i].begins, strlen(cases[i].begins)))
            fail_msg("%s: says '%s', expected '%s'", cases[i].yaml, err.text, cases[i].begins);
        assert_null(d);
        arena_free(&a);
    }
}

static void test_yaml_depth(void **state)
{
    (void)state;
    for (int depth = 64; depth <= 65; depth++) {
        struct buf text = {0};
        struct arena a;
        const struct json *d;
        for (int i = 0; i < depth; i++)
            buf_append_char(&text, '[');
        for (int i = 0; i < depth; i++)
            buf_append_char(&text, ']');
        arena_init(&a, 0);
        if (depth == 64)
            OK(yaml_parse(&d, &a, buf_str(&text), &err));
        else
            FAILS(ST_LIMIT, yaml_parse(&d, &a, buf_str(&text), &err));
        arena_free(&a);
        buf_free(&text);
    }
}

static const char tiny[] = "a: [1, x, {b: ~}]\nc:\n  d: \"q\\u00e9\"\n  e: |\n    t\n";

static void try_bytes(const char *bytes, size_t n)
{
    char *copy = malloc(n ? n : 1);
    memcpy(copy, bytes, n);
    struct arena a;
    const struct json *d;
    arena_init(&a, 0);
    enum status st = yaml_parse(&d, &a, str_n(copy, n), &err);
    assert_int_equal(st == ST_OK, d != NULL);
    arena_free(&a);
    free(copy);
}

static void test_yaml_truncated_and_flipped(void **state)
{
    (void)state;
    char text[sizeof tiny];
    for (size_t n = 0; n < sizeof tiny; n++)
        try_bytes(tiny, n);
    for (size_t i = 0; i + 1 < sizeof tiny; i++)
        for (int bit = 0; bit < 8; bit++) {
            memcpy(text, tiny, sizeof tiny);
            text[i] = (char)(text[i] ^ 1 << bit);
            try_bytes(text, sizeof tiny - 1);
        }
}

static void test_yaml_allocation_failures(void **state)
{
    (void)state;
    uint64_t n = 0;
    for (bool fired = true; fired; fired = fault_fired()) {
        struct arena a;
        const struct json *d;
        arena_init(&a, 0);
        fault_arm(FAULT_ALLOC, ++n);
        enum status st = yaml_parse(&d, &a, str_of(tiny), &err);
        fault_disarm();
        assert_int_equal(st, fault_fired() ? ST_NOMEM : ST_OK);
        arena_free(&a);
    }
    assert_true(n > 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_yaml_becomes_json),
        cmocka_unit_test(test_yaml_refuses_with_the_line),
        cmocka_unit_test(test_yaml_depth),
        cmocka_unit_test(test_yaml_truncated_and_flipped),
        cmocka_unit_test(test_yaml_allocation_failures),
    };
    return RUN(tests);
}
