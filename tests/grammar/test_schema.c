/* Schemas: what the suite does not ask, order, refusals with their places, dead ends, masks over real tokens. */
#include "vocab.h"

#include "base/fault.h"
#include "base/json.h"
#include "base/rng.h"

struct row {
    const char *source;
    const char *yes[8], *no[8];
};

static void check_rows(unsigned flags, const struct row *rows, size_t n)
{
    struct grammar_vocab *v = bytes_vocab();
    for (size_t i = 0; i < n; i++) {
        struct grammar *g;
        struct error err;
        struct grammar_part part = {.kind = GRAMMAR_SCHEMA, .flags = flags, .text = str_of(rows[i].source)};
        if (grammar_compile(&g, v, &part, &err) != ST_OK)
            fail_msg("%s: %s", rows[i].source, err.text);
        for (int k = 0; k < 8 && rows[i].yes[k]; k++)
            if (!accepts(g, str_of(rows[i].yes[k])))
                fail_msg("%s refuses %s", rows[i].source, rows[i].yes[k]);
        for (int k = 0; k < 8 && rows[i].no[k]; k++)
            if (accepts(g, str_of(rows[i].no[k])))
                fail_msg("%s accepts %s", rows[i].source, rows[i].no[k]);
        grammar_release(g);
    }
    grammar_vocab_destroy(v);
}

static void test_values_are_written_so(void **state)
{
    (void)state;
    static const struct row rows[] = {
        {"{\"type\":\"integer\"}", {"0", "-0", "-12", "123456789012345678901"}, {"1.0", "01", "1e3", "+1", "-", ""}},
        {"{\"type\":\"number\"}", {"1.5", "1e30", "-2.50E-7"}, {"1.", ".5", "1e", "NaN"}},
        {"{\"minimum\":-1.5,\"maximum\":2.25,\"type\":\"number\"}",
         {"-1.5", "-1.50", "0", "2.25", "2.249", "-0.0"},
         {"-1.51", "2.26", "3", "10", "1e0", "-2"}},
        {"{\"exclusiveMinimum\":9,\"maximum\":1000,\"type\":\"integer\"}", {"10", "999", "1000"}, {"9", "1001", "-10"}},
        {"{\"multipleOf\":0.25,\"type\":\"number\"}", {"0", "0.25", "1.50", "-3", "2.000"}, {"0.1", "0.255", "1.26"}},
        {"{\"const\":\"a\\\"\\u00e9\\n\"}",
         {"\"a\\\"\xC3\xA9\\n\"", "\"\\u0061\\u0022\\u00E9\\u000a\"", "\"a\\\"\\u00e9\\n\""},
         {"\"a\xC3\xA9\\n\"", "\"a\\\"\\u00ea\\n\"", "\"\\u0062"}},
        {"{\"const\":\"\\ud83d\\ude00\"}",
         {"\"\\ud83d\\uDE00\"", "\"\xF0\x9F\x98\x80\""},
         {"\"\\ud83d\"", "\"\\ud83d\\ude01\"", "\"\\ude00\""}},
        {"{\"type\":\"string\",\"maxLength\":2}",
         {"\"\"", "\"\\u00e9\xF0\x9F\x98\x80\"", "\"\\n\\\\\""},
         {"\"abc\"", "\"\\u00e9bc\"", "\"a\nb\""}},
        {"{\"type\":\"array\"}", {"[ ]", "[1, [], {}]", "[\n  1,\n  2\n]"}, {"[1,]", "[  1]", " []", "[] ", "[1 2]"}},
        {"{\"type\":\"object\"}", {"{}", "{ \"a\": 1 }", "{\"a\":{\"b\":null}}"}, {"{\"a\"}", "{,}", "{\"a\":1,}"}},
    };
    check_rows(0, rows, sizeof rows / sizeof *rows);
}

static void test_conditions_combine(void **state)
{
    (void)state;
    static const struct row rows[] = {
        /* any order, no key twice, nothing else */
        {"{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"integer\"},\"b\":{\"type\":\"boolean\"}},\"required\":"
         "[\"a\"],"
         "\"additionalProperties\":false}",
         {"{\"a\":1}", "{\"b\":true,\"a\":1}", "{\"a\":1,\"b\":false}"},
         {"{}", "{\"b\":true}", "{\"a\":1,\"a\":2}", "{\"a\":1,\"c\":2}", "{\"b\":true,}", "{\"a\":true}"}},
        /* a union, told apart by a later member */
        {"{\"oneOf\":[{\"properties\":{\"k\":{\"const\":\"x\"},\"v\":{\"type\":\"integer\"}},\"required\":[\"k\",\"v\"]"
         ","
         "\"type\":\"object\"},{\"properties\":{\"k\":{\"const\":\"y\"},\"v\":{\"type\":\"string\"}},\"required\":["
         "\"k\",\"v\"],"
         "\"type\":\"object\"}]}",
         {"{\"v\":1,\"k\":\"x\"}", "{\"v\":\"s\",\"k\":\"y\"}", "{\"k\":\"x\",\"v\":1}"},
         {"{\"v\":1,\"k\":\"y\"}", "{\"k\":\"x\",\"v\":\"s\"}", "{\"v\":true"}},
        /* no member is begun that could not be finished */
        {"{\"$defs\":{\"t\":{\"type\":\"object\",\"properties\":{\"n\":{\"$ref\":\"#/$defs/"
         "t\"}},\"required\":[\"n\"]}},"
         "\"type\":\"object\",\"properties\":{\"x\":{\"$ref\":\"#/$defs/t\"}}}",
         {"{}", "{\"y\":1}"},
         {"{\"x\""}},
        {"{\"type\":\"object\",\"properties\":{\"a\":true,\"b\":true,\"c\":true},\"required\":[\"c\"],"
         "\"maxProperties\":2}",
         {"{\"a\":1,\"c\":2}", "{\"c\":2,\"zz\":1}"},
         {"{\"a\":1,\"b\"", "{\"a\":1,\"d", "{\"c\":1,\"a\":1,"}},
        {"{\"patternProperties\":{\"^x-\":{\"type\":\"integer\"}},\"additionalProperties\":false,\"type\":\"object\","
         "\"minProperties\":1}",
         {"{\"x-a\":1}", "{\"x-a\":1,\"x-b\":2}"},
         {"{}", "{\"y", "{\"x-a\":\"s\"}", "{\"x\":"}},
        {"{\"not\":{\"type\":\"object\",\"properties\":{\"a\":{\"enum\":[1,2]}},\"required\":[\"a\"]}}",
         {"{}", "{\"a\":3}", "{\"b\":1}", "7"},
         {"{\"a\":1}", "{\"a\":2,\"b\":1}"}},
        {"{\"type\":\"array\",\"contains\":{\"const\":7},\"maxItems\":2}",
         {"[7]", "[1,7]", "[7,7]"},
         {"[]", "[1]", "[1,2", "[7,1,1"}},
        {"{\"type\":\"string\",\"pattern\":\"^(ab)*$\",\"minLength\":3,\"maxLength\":5}",
         {"\"abab\""},
         {"\"ab\"", "\"ababa", "\"aba\""}},
        {"{\"type\":\"string\",\"pattern\":\"^[a-z]+$\",\"minLength\":2,\"maxLength\":30000}",
         {"\"ab\""},
         {"\"a\"", "\"aB\""}},
    };
    check_rows(0, rows, sizeof rows / sizeof *rows);
}

static void test_order_and_space_as_asked(void **state)
{
    (void)state;
    static const char source[] =
        "{\"type\":\"object\",\"properties\":{\"b\":{\"type\":\"null\"},\"o\":{\"type\":\"null\"},"
        "\"a\":{\"type\":\"null\"}},\"required\":[\"a\",\"b\"]}";
    static const struct row ordered[] = {
        {source,
         {"{\"b\":null,\"a\":null}", "{\"b\":null,\"o\":null,\"a\":null}", "{\"b\":null,\"a\":null,\"zz\":1}"},
         {"{\"a\"", "{\"b\":null,\"a\":null,\"o\"", "{\"o\"", "{\"zz\""}}};
    static const struct row compact[] = {
        {source, {"{\"a\":null,\"b\":null}"}, {"{ \"a\":null,\"b\":null}", "{\"a\": ", "{\"a\":null,\n"}}};
    check_rows(GRAMMAR_ORDERED, ordered, 1);
    check_rows(GRAMMAR_COMPACT, compact, 1);
}

static void test_refusals_name_their_place(void **state)
{
    (void)state;
    static const struct {
        const char *source, *says;
        enum status st;
    } rows[] = {
        {"{", "no JSON", ST_INVALID},
        {"[]", "#: a schema is", ST_INVALID},
        {"{\"type\":\"int\"}", "#/type", ST_INVALID},
        {"{\"properties\":{\"a~/b\":{\"minLength\":-1}}}", "#/properties/a~0~1b/minLength", ST_INVALID},
        {"{\"properties\":{\"t\":{\"uniqueItems\":true}}}", "#/properties/t/uniqueItems", ST_UNSUPPORTED},
        {"{\"items\":{\"format\":\"regex\"}}", "#/items/format", ST_UNSUPPORTED},
        {"{\"pattern\":\"(a\"}", "#/pattern", ST_INVALID},
        {"{\"pattern\":\"(?<=a)\"}", "#/pattern", ST_UNSUPPORTED},
        {"{\"$ref\":\"http://x.example/y\"}", "#/$ref", ST_UNSUPPORTED},
        {"{\"$ref\":\"#\"}", "refers to itself", ST_INVALID},
        {"{\"$ref\":\"#/$defs/none\"}", "#/$ref", ST_UNSUPPORTED},
        {"{\"$schema\":\"http://x.example/meta\"}", "#/$schema", ST_UNSUPPORTED},
        {"{\"allOf\":[{\"type\":\"string\"},{\"type\":\"null\"}]}", "nothing at all", ST_INVALID},
        {"{\"pattern\":\"^(a|b)*a(a|b){40}$\"}", "too complex", ST_LIMIT},
        {"{\"multipleOf\":0}", "#/multipleOf", ST_INVALID},
    };
    struct grammar_vocab *v = bytes_vocab();
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct grammar *g;
        struct error err = {0};
        struct grammar_part part = {.kind = GRAMMAR_SCHEMA, .text = str_of(rows[i].source)};
        enum status st = grammar_compile(&g, v, &part, &err);
        if (st != rows[i].st || !strstr(err.text, rows[i].says))
            fail_msg("%s: %s (%s)", rows[i].source, status_row(st)->name, st ? err.text : "");
        assert_null(g);
    }
    grammar_vocab_destroy(v);
}

/* Tokens of several bytes, many of them leaving a string and more: each mask bit is what walking its bytes says. */
static void test_masks_are_what_bytes_say(void **state)
{
    (void)state;
    static const char *const schemas[] = {
        "{\"type\":\"object\"}",
        "{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"string\",\"maxLength\":6},\"ab\":{\"enum\":[\"x\","
        "\"xy\",1,null]},"
        "\"c\":{\"type\":\"array\",\"items\":{\"type\":\"integer\"}}},\"required\":[\"ab\"]}",
        "{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"string\",\"minLength\":3},\"ab\":{\"type\":\"number\"}}"
        ","
        "\"additionalProperties\":false,\"maxProperties\":1}",
        "{\"type\":\"array\",\"items\":{\"type\":\"string\",\"pattern\":\"^[ab]+x?\"},\"minItems\":2}",
        ("{\"type\":\"object\",\"patternProperties\":{\"^a\":{\"type\":\"integer\"}},\"additionalProperties\":{"
         "\"type\":"
         "\"string\",\"not\":{\"enum\":[\"a\",\"ab\"]}}}"),
        "{\"anyOf\":[{\"type\":\"string\"},{\"type\":\"array\",\"items\":{\"$ref\":\"#\"}}]}",
    };
    static const char letters[] = "aabbcxy\"\"\",:{}[]1-.n \\u0\n";
    enum { N = 3000 };
    static char text[N][6];
    static struct str tokens[N];
    struct grammar_vocab *v;
    struct rng rng;
    struct error err;
    int32_t eos = N - 1;
    rng_init(&rng, 3);
    for (int i = 0; i < N; i++) {
        int n = i < 128 ? 1 : 1 + (int)rng_below(&rng, 5);
        for (int k = 0; k < n; k++)
            text[i][k] = letters[rng_below(&rng, sizeof letters - 1)];
        if (i < 128)
            text[i][0] = (char)i;
        if (i >= 2900) /* parts of characters */
            text[i][0] = (char)(0x80 + rng_below(&rng, 0x78));
        tokens[i] = str_n(text[i], i == eos ? 0 : (size_t)n);
    }
    OK(grammar_vocab_create_of(&v, tokens, N, &eos, 1, &err));
    for (size_t i = 0; i < sizeof schemas / sizeof *schemas; i++) {
        struct grammar *g = compile(v, GRAMMAR_SCHEMA, schemas[i]);
        for (int walk = 0; walk < 30; walk++) {
            struct grammar_state *s;
            uint64_t bits[(N + 63) / 64];
            OK(grammar_state_create(&s, g, &err));
            for (int step = 0; step < 40; step++) {
                OK(grammar_mask(s, bits, &err));
                int n_allowed = 0, chosen = -1;
                for (int id = 0; id < N; id++) {
                    bool bit = bits[id / 64] >> id % 64 & 1,
                         really = id == eos ? grammar_may_end(s) : grammar_accepts_bytes(s, tokens[id], false);
                    if (bit != really)
                        fail_msg("schema %zu, walk %d, step %d: token \"%.*s\": the mask says %d", i, walk, step,
                                 STR_ARG(tokens[id]), bit);
                    if (bit && rng_below(&rng, (uint64_t)++n_allowed) == 0)
                        chosen = id;
                }
                assert_true(n_allowed > 0); /* no dead ends */
                if (chosen == eos)
                    break;
                OK(grammar_accept(s, chosen, &err));
            }
            grammar_state_destroy(s);
        }
        grammar_release(g);
    }
    grammar_vocab_destroy(v);
}

static void test_compiled_ones_are_kept(void **state)
{
    (void)state;
    struct grammar_vocab *v = bytes_vocab();
    struct grammar_cache *c;
    struct grammar *a, *b, *d;
    struct error err;
    OK(grammar_cache_create(&c, v, 2, &err));
    struct grammar_part one = {.kind = GRAMMAR_SCHEMA, .text = STR("{\"type\":\"null\"}")}, two = one, three = one;
    two.flags = GRAMMAR_COMPACT;
    three.kind = GRAMMAR_REGEX;
    OK(grammar_cache_get(c, &a, &one, &err));
    OK(grammar_cache_get(c, &b, &one, &err));
    assert_ptr_equal(a, b);
    OK(grammar_cache_get(c, &d, &two, &err));
    assert_ptr_not_equal(a, d);
    grammar_release(d);
    OK(grammar_cache_get(c, &d, &three, &err)); /* the oldest leaves, but lives on with its user */
    assert_true(accepts(a, STR("null")));
    grammar_release(d);
    grammar_release(a);
    grammar_release(b);
    OK(grammar_cache_get(c, &a, &one, &err));
    grammar_release(a);
    grammar_cache_destroy(c);
    grammar_vocab_destroy(v);
}

/* Its references still find all of the schema. */
static void test_one_property_counts(void **state)
{
    (void)state;
    struct grammar_vocab *v = bytes_vocab();
    struct grammar_cache *c;
    struct grammar *g, *other;
    struct error err;
    OK(grammar_cache_create(&c, v, 2, &err));
    struct grammar_part parts[3] = {
        {.kind = GRAMMAR_SCHEMA,
         .property = STR("low"),
         .text = STR("{\"properties\":{\"n\":{\"type\":\"integer\",\"minimum\":3},\"low\":{\"not\":{\"$ref\":"
                     "\"#/properties/n\"},\"type\":\"integer\"},\"word\":{\"const\":\"x\"}}}")}};
    parts[1] = parts[2] = parts[0];
    parts[1].property = STR("word");
    const struct grammar_part all = {.kind = GRAMMAR_SEQUENCE, .parts = parts, .n_part = 3};
    OK(grammar_cache_get(c, &g, &all, &err));
    assert_true(accepts(g, STR("2\"x\"1")) && !accepts(g, STR("3\"x\"1")) && !accepts(g, STR("2\"y\"1")));
    grammar_release(g);
    OK(grammar_cache_get(c, &g, &parts[0], &err));
    OK(grammar_cache_get(c, &other, &parts[1], &err));
    assert_true(accepts(g, STR("2")) && accepts(other, STR("\"x\"")));
    grammar_release(g);
    grammar_release(other);
    parts[0].property = STR("none");
    FAILS(ST_INVALID, grammar_cache_get(c, &g, &all, &err));
    assert_non_null(strstr(err.text, "no property \"none\""));
    grammar_cache_destroy(c);
    grammar_vocab_destroy(v);
}

/* Many parts of one long schema would fill the cache with their key. */
static void test_long_sources_are_not_kept(void **state)
{
    (void)state;
    enum { PARTS = 8, LENGTH = 1 << 20 };
    struct grammar_vocab *v = bytes_vocab();
    struct grammar_cache *c;
    struct grammar *a, *b;
    struct grammar_part parts[PARTS];
    struct error err;
    char *text = malloc(LENGTH);
    memset(text, ' ', LENGTH);
    memcpy(text, "true", 4);
    OK(grammar_cache_create(&c, v, 2, &err));
    for (int i = 0; i < PARTS; i++)
        parts[i] = (struct grammar_part){.kind = GRAMMAR_SCHEMA, .text = str_n(text, LENGTH)};
    for (int n = 1; n <= PARTS; n += PARTS - 1) {
        const struct grammar_part all = {.kind = GRAMMAR_SEQUENCE, .parts = parts, .n_part = (size_t)n};
        OK(grammar_cache_get(c, &a, &all, &err));
        OK(grammar_cache_get(c, &b, &all, &err));
        assert_int_equal(a == b, n == 1);
        grammar_release(a);
        grammar_release(b);
    }
    grammar_cache_destroy(c);
    grammar_vocab_destroy(v);
    free(text);
}

static void test_allocation_failures_leave_nothing(void **state)
{
    (void)state;
    check_allocation_failures(
        &(struct grammar_part){.kind = GRAMMAR_SCHEMA,
                               .text = STR("{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"string\",\"not\":{"
                                           "\"const\":\"q\"}},\"b\":{\"$ref\":\"x#/$defs/y\"}},\"$id\":\"x\",\"$defs\":"
                                           "{\"y\":{\"minimum\":3}}}")},
        "{\"a\":\"x\",\"b\":12}");
    struct grammar_vocab *v;
    static struct str tokens[] = {{"a", 1}, {"\"b", 2}, {"", 0}, {"a\"", 2}};
    int32_t eos = 2;
    for (uint64_t n = 1; n < 1000; n++) {
        struct error err;
        fault_arm(FAULT_ALLOC, n);
        enum status st = grammar_vocab_create_of(&v, tokens, 4, &eos, 1, &err);
        bool fired = fault_fired();
        fault_disarm();
        assert_int_equal(st, fired ? ST_NOMEM : ST_OK);
        if (!fired) {
            grammar_vocab_destroy(v);
            break;
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values_are_written_so),
        cmocka_unit_test(test_conditions_combine),
        cmocka_unit_test(test_order_and_space_as_asked),
        cmocka_unit_test(test_refusals_name_their_place),
        cmocka_unit_test(test_masks_are_what_bytes_say),
        cmocka_unit_test(test_compiled_ones_are_kept),
        cmocka_unit_test(test_one_property_counts),
        cmocka_unit_test(test_long_sources_are_not_kept),
        cmocka_unit_test(test_allocation_failures_leave_nothing),
    };
    return RUN(tests);
}
