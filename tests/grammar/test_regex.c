/* Expressions and grammars, byte by byte: what they accept, what they refuse, what stops them. */
#include "vocab.h"

#include "base/rng.h"

struct row {
    const char *source;
    const char *yes[8], *no[8];
};

static void check_rows(enum grammar_kind kind, const struct row *rows, size_t n)
{
    struct grammar_vocab *v = bytes_vocab();
    for (size_t i = 0; i < n; i++) {
        struct grammar *g = compile(v, kind, rows[i].source);
        for (int k = 0; k < 8 && rows[i].yes[k]; k++)
            if (!accepts(g, str_of(rows[i].yes[k])))
                fail_msg("%s refuses \"%s\"", rows[i].source, rows[i].yes[k]);
        for (int k = 0; k < 8 && rows[i].no[k]; k++)
            if (accepts(g, str_of(rows[i].no[k])))
                fail_msg("%s accepts \"%s\"", rows[i].source, rows[i].no[k]);
        grammar_release(g);
    }
    grammar_vocab_destroy(v);
}

static void test_regex_accepts_what_it_says(void **state)
{
    (void)state;
    static const struct row rows[] = {
        {"abc", {"abc"}, {"", "ab", "abcd", "xabc"}},
        {"^abc$", {"abc"}, {"ab", "abcd"}},
        {"a|bc|", {"a", "bc", ""}, {"b", "abc"}},
        {"(ab)*c+", {"c", "abcc", "ababc"}, {"ab", "abab", "aabc"}},
        {"a{2,3}", {"aa", "aaa"}, {"a", "aaaa"}},
        {"a{2}b{0,1}c{1,}", {"aac", "aabccc"}, {"aab", "ac"}},
        {"x{,2}y", {"y", "xxy"}, {"xxxy"}},
        {"[a-c]?\\d\\.[^0-9]", {"a1.x", "2.y", "2.\xC3\xA9"}, {"d1.x", "1.2", "1x"}},
        {"\\w+@\\w+", {"a@b", "A_9@x"}, {"@", "a b@c"}},
        {".", {"x", "\xE2\x82\xAC", "\xF0\x9F\x98\x80"}, {"\n", "", "xx", "\xE2\x82"}},
        {"[\\u00e9-\\u00ff]", {"\xC3\xA9", "\xC3\xBF"}, {"\xC3\xA8", "e"}},
        {"\\u{1F600}|\\uD83D\\uDE01", {"\xF0\x9F\x98\x80", "\xF0\x9F\x98\x81"}, {"\xF0\x9F\x98\x82"}},
        {"(?:a|b)+?(?<n>c)", {"ac", "babc"}, {"c", "ab"}},
        {"\\s\\S", {" x", "\tx", "\xC2\xA0x"}, {"x ", "  "}},
        {"[\\w-.]+", {"a-b.c", "-", "."}, {"a b"}},
        {"a.*b", {"ab", "axxb", "abab"}, {"a", "ba"}},
        {"(?!foo).*", {"", "fo", "bar", "xfoo"}, {"foo", "foobar"}},
        {"^(?=.*\\d)[a-z0-9]{3}$", {"a1b", "123"}, {"abc", "a1"}},
        {"(a|b)*abb", {"abb", "ababb"}, {"ab", "abba"}},
        {"a{0}b", {"b"}, {"ab"}},
        {"{x}", {"{x}"}, {"x"}},
        {"\\x41\\t\\/", {"A\t/"}, {"A"}},
    };
    check_rows(GRAMMAR_REGEX, rows, sizeof rows / sizeof *rows);
}

static void test_regex_refuses_what_it_cannot_do(void **state)
{
    (void)state;
    static const struct {
        const char *source;
        enum status st;
    } rows[] = {
        {"(a", ST_INVALID},
        {"a)", ST_INVALID},
        {"[a", ST_INVALID},
        {"[z-a]", ST_INVALID},
        {"*a", ST_INVALID},
        {"a\\", ST_INVALID},
        {"a{3,2}", ST_INVALID},
        {"\\1", ST_UNSUPPORTED},
        {"(?<=a)b", ST_UNSUPPORTED},
        {"a\\b", ST_UNSUPPORTED},
        {"\\p{L}", ST_UNSUPPORTED},
        {"a(?=b)c", ST_UNSUPPORTED},
        {"[^\\s\\S]", ST_INVALID},
        {"a{1,1000000000}", ST_LIMIT},
        {"((((a{1,99}){1,99}){1,99}){1,99})", ST_LIMIT},
        {"(a|b)*a(a|b){30}", ST_LIMIT},
        {"(?=.*a.{18})(?=.*b.{18})(?=.*c.{18}).*", ST_LIMIT},
    };
    struct grammar_vocab *v = bytes_vocab();
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct grammar *g;
        struct error err;
        struct grammar_part part = {.kind = GRAMMAR_REGEX, .text = str_of(rows[i].source)};
        enum status st = grammar_compile(&g, v, &part, &err);
        if (st != rows[i].st)
            fail_msg("%s: %s (%s)", rows[i].source, status_row(st)->name, st ? err.text : "");
        assert_null(g);
    }
    grammar_vocab_destroy(v);
}

static void test_gbnf_accepts_what_it_says(void **state)
{
    (void)state;
    static const struct row rows[] = {
        {"root ::= \"a\" b*\nb ::= [bc] # x\n", {"a", "abcb"}, {"", "b", "ad"}},
        {"root ::= (\"x\" | \"y\"\n | \"z\"){2,3}", {"xy", "zzz"}, {"x", "xxxx"}},
        {"root ::= \"(\" root \")\" | \"\"", {"", "()", "((()))"}, {"(", "())", ")("}},
        {"a = \"1\" , b ;\nb = '2' ;", {"12"}, {"1", "21"}},
        {"start: item+\nitem: /[0-9]{2}/ \";\"", {"12;", "12;34;"}, {"1;", "12"}},
        /* left recursion, direct and in a circle, and behind what may be empty */
        {"root ::= root \"+\" n | n\nn ::= [0-9]+", {"1", "1+22+3"}, {"", "+1", "1+", "1++2"}},
        {"root ::= b \"x\" | \"r\"\nb ::= root \"y\" | \"b\"", {"r", "bx", "ryx", "bxyx"}, {"b", "ry", "bxx"}},
        {"root ::= o root \"a\" | \"b\"\no ::= \"o\" | \"\"", {"b", "ba", "oba", "obaa", "oobaa"}, {"ob", "a"}},
        {"root ::= root root | \"a\"", {"a", "aaaaaaaa"}, {"", "b"}},
        {"root ::= (\"a\" | b)*\nb ::= \"\" | \"b\" b", {"", "abba"}, {"c"}},
        {"root ::= dead | \"x\"\ndead ::= \"y\" dead", {"x"}, {"y", "yy"}},
        {"root ::= \"\\x41\\n\\\"\" .", {"A\n\"q", "A\n\"\xC3\xA9"}, {"A\n\""}},
        {"root ::= s\ns ::= \"a\" s \"a\" | \"b\" s \"b\" | \"c\"", {"c", "abcba", "aacaa"}, {"abcab", "ac"}},
        {"# only\nvalue ::= [0-9] | list\nroot ::= list\nlist ::= \"[\" (value (\",\" value)*)? \"]\"",
         {"[]", "[1,[2,[]],3]"},
         {"[", "[1,]", "1", "[1[2]]"}},
    };
    check_rows(GRAMMAR_GBNF, rows, sizeof rows / sizeof *rows);
}

static void test_gbnf_refuses_with_its_line(void **state)
{
    (void)state;
    static const struct {
        const char *source, *says;
        enum status st;
    } rows[] = {
        {"", "no rules", ST_INVALID},
        {"root ::= x", "\"x\" is used", ST_INVALID},
        {"root ::= \"a\"\nroot ::= \"b\"", "twice", ST_INVALID},
        {"root ::= \"a\n", "line 2", ST_INVALID},
        {"root ::= \"a\"\n  ( \"b\"", "line 2", ST_INVALID},
        {"root ::= <[7]>", "tokens", ST_UNSUPPORTED},
        {"start: \"a\"\n%ignore \" \"", "line 2", ST_UNSUPPORTED},
        {"root ::= root", "nothing", ST_INVALID},
        {"root ::= \"a\" root", "nothing", ST_INVALID},
        {"root ::= \"a\"{2", "repetition", ST_INVALID},
        {"root ::= [a-z]{1,2000000000}", "too large", ST_LIMIT},
    };
    struct grammar_vocab *v = bytes_vocab();
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct grammar *g;
        struct error err = {0};
        struct grammar_part part = {.kind = GRAMMAR_GBNF, .text = str_of(rows[i].source)};
        enum status st = grammar_compile(&g, v, &part, &err);
        if (st != rows[i].st || !strstr(err.text, rows[i].says))
            fail_msg("%s: %s (%s)", rows[i].source, status_row(st)->name, err.text);
    }
    grammar_vocab_destroy(v);
}

static void test_parts_join(void **state)
{
    (void)state;
    struct grammar_vocab *v = bytes_vocab();
    struct grammar_part call = {.kind = GRAMMAR_REGEX, .text = STR("[0-9]+</t>"), .trigger = STR("<t>")};
    struct grammar_part free_text = {.kind = GRAMMAR_TRIGGERED, .parts = &call, .n_part = 1, .min = 0, .max = -1};
    struct grammar_part seq[] = {{.kind = GRAMMAR_TEXT, .text = STR("{")},
                                 {.kind = GRAMMAR_GBNF, .text = STR("root ::= \"x\" root | \"y\"")},
                                 {.kind = GRAMMAR_TEXT, .text = STR("}")}};
    struct grammar_part sequence = {.kind = GRAMMAR_SEQUENCE, .parts = seq, .n_part = 3};
    struct grammar_part repeat = {.kind = GRAMMAR_REPEAT, .parts = &sequence, .n_part = 1, .min = 1, .max = 2};
    struct grammar *g;
    struct error err;
    OK(grammar_compile(&g, v, &free_text, &err));
    assert_true(accepts(g, STR("")));
    assert_true(accepts(g, STR("hello < <t")));
    assert_true(accepts(g, STR("a<t>12</t>b<<t>3</t>")));
    assert_false(accepts(g, STR("a<t>x")));
    assert_false(accepts(g, STR("a<t>12")));
    grammar_release(g);
    free_text.min = free_text.max = 1;
    OK(grammar_compile(&g, v, &free_text, &err));
    assert_false(accepts(g, STR("")));
    assert_true(accepts(g, STR("a<t>12</t>b")));
    assert_false(accepts(g, STR("a<t>12</t>b<t>1</t>")));
    grammar_release(g);
    OK(grammar_compile(&g, v, &repeat, &err));
    assert_true(accepts(g, STR("{xxy}")));
    assert_true(accepts(g, STR("{y}{xy}")));
    assert_false(accepts(g, STR("{y}{y}{y}")));
    assert_false(accepts(g, STR("{x}")));
    grammar_release(g);
    grammar_vocab_destroy(v);
}

/* Strings as they are: what the schema accepts of the decoded text, and the mark nowhere in it. */
static void test_parts_strings(void **state)
{
    static const struct {
        const char *schema, *text;
        bool good;
    } rows[] = {
        {"{\"type\":\"string\"}", "", true},
        {"{\"type\":\"string\"}", "a\n\"b\" </p", true},
        {"{\"type\":\"string\"}", "a</p>", false},
        {"{\"type\":[\"string\",\"null\"],\"maxLength\":2}", "\xC3\xA9\xC3\xA9", true},
        {"{\"type\":\"string\",\"maxLength\":2}", "abc", false},
        {"{\"type\":\"string\",\"minLength\":2}", "a", false},
        {"{\"anyOf\":[{\"enum\":[\"x\\ny\"]},{\"pattern\":\"^[0-9]{2}$\",\"type\":\"string\"}]}", "x\ny", true},
        {"{\"anyOf\":[{\"enum\":[\"x\\ny\"]},{\"pattern\":\"^[0-9]{2}$\",\"type\":\"string\"}]}", "42", true},
        {"{\"anyOf\":[{\"enum\":[\"x\\ny\"]},{\"pattern\":\"^[0-9]{2}$\",\"type\":\"string\"}]}", "4", false},
    };
    struct grammar_vocab *v = bytes_vocab();
    struct grammar *g;
    struct error err;
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct grammar_part part = {.kind = GRAMMAR_STRING, .text = str_of(rows[i].schema), .trigger = STR("</p>")};
        OK(grammar_compile(&g, v, &part, &err));
        if (accepts(g, str_of(rows[i].text)) != rows[i].good)
            fail_msg("%s, %s", rows[i].schema, rows[i].text);
        grammar_release(g);
    }
    struct grammar_part none = {.kind = GRAMMAR_STRING, .text = STR("{\"type\":\"integer\"}")};
    FAILS(ST_INVALID, grammar_compile(&g, v, &none, &err));
    struct grammar_part marked = {.kind = GRAMMAR_STRING, .text = STR("{\"const\":\"a</p>\"}"), .trigger = STR("</p>")};
    FAILS(ST_INVALID, grammar_compile(&g, v, &marked, &err));
    grammar_vocab_destroy(v);
}

/* Rolling back any number of tokens gives the masks that stood there before. */
static void test_rollback_returns(void **state)
{
    (void)state;
    struct grammar_vocab *v = bytes_vocab();
    struct grammar *g = compile(v, GRAMMAR_GBNF, "root ::= v\nv ::= [0-9]+ | \"[\" (v (\",\" v)*)? \"]\"");
    struct grammar_state *s;
    struct error err;
    struct rng rng;
    static uint64_t seen[4000][5];
    uint64_t bits[5];
    int n = 0;
    rng_init(&rng, 5);
    OK(grammar_state_create(&s, g, &err));
    for (int round = 0; round < 20000; round++) {
        OK(grammar_mask(s, bits, &err));
        if (n > 3990 || rng_below(&rng, 5) == 0) {
            int back = (int)rng_below(&rng, (uint64_t)n + 1);
            grammar_rollback(s, back);
            n -= back;
            OK(grammar_mask(s, bits, &err));
            assert_memory_equal(bits, n ? seen[n] : bits, sizeof bits);
            continue;
        }
        int id = (int)rng_below(&rng, 256);
        while (!(bits[id / 64] >> id % 64 & 1))
            id = (id + 1) % 257;
        if (id == 256) {
            FAILS(ST_INVALID, grammar_accept(s, 'x', &err));
            grammar_rollback(s, n);
            n = 0;
            continue;
        }
        OK(grammar_accept(s, id, &err));
        n++;
        OK(grammar_mask(s, seen[n], &err));
    }
    grammar_state_destroy(s);
    grammar_release(g);
    grammar_vocab_destroy(v);
}

static void test_allocation_failures_leave_nothing(void **state)
{
    (void)state;
    check_allocation_failures(
        &(struct grammar_part){.kind = GRAMMAR_GBNF,
                               .text = STR("root ::= root \"+\" [a-z]+ | \"(\" root \")\" | \"x\"")},
        "((x)+abc)");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_regex_accepts_what_it_says),
        cmocka_unit_test(test_regex_refuses_what_it_cannot_do),
        cmocka_unit_test(test_gbnf_accepts_what_it_says),
        cmocka_unit_test(test_gbnf_refuses_with_its_line),
        cmocka_unit_test(test_parts_join),
        cmocka_unit_test(test_parts_strings),
        cmocka_unit_test(test_rollback_returns),
        cmocka_unit_test(test_allocation_failures_leave_nothing),
    };
    return RUN(tests);
}
