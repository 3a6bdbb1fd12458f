#include "test.h"

#include "base/fault.h"
#include "base/file.h"
#include "base/json.h"
#include "base/rng.h"

#include <math.h>

static struct error err;

static enum status parse(struct arena *a, const struct json **doc, const char *text, unsigned flags)
{
    return json_parse(doc, a, str_of(text), flags, &err);
}

/* Every node reachable through the macros; returns how many. */
static size_t walk(const struct json *v)
{
    size_t n = 1;
    JSON_EACH (item, v)
        n += walk(item);
    JSON_EACH_MEMBER (key, value, v)
        n += 1 + walk(value) + (key.len && !key.ptr);
    return n;
}

static char *write_value(const struct json *v, struct buf *out)
{
    struct json_writer w;
    buf_clear(out);
    json_writer_init(&w, out);
    json_write_value(&w, v);
    assert_false(out->failed);
    return out->ptr;
}

/* ---- JSONTestSuite ---- */

struct suite {
    const char *folder;
    int y, n, i;
};

static enum status suite_file(void *ctx, const char *name, struct error *e)
{
    struct suite *s = ctx;
    char path[1024];
    struct buf text = {0}, again = {0};
    struct arena a, b;
    const struct json *doc, *doc2;
    TRY(file_read_all(&text, path_join(path, sizeof path, s->folder, name), 1 << 20, e));
    arena_init(&a, 0);
    arena_init(&b, 0);
    /* An exact copy on the heap, so that a sanitizer sees a read one byte too far. */
    char *copy = malloc(text.len ? text.len : 1);
    memcpy(copy, text.ptr, text.len);
    enum status st = json_parse(&doc, &a, str_n(copy, text.len), 0, &err);
    if (name[0] == 'y') {
        s->y++;
        if (st != ST_OK)
            fail_msg("%s: %s", name, err.text);
    } else if (name[0] == 'n') {
        s->n++;
        if (st == ST_OK)
            fail_msg("%s: accepted", name);
        assert_true(strncmp(err.text, "line ", 5) == 0);
    } else
        s->i++;
    if (st == ST_OK) { /* what was written reads back as the same */
        write_value(doc, &again);
        OK(json_parse(&doc2, &b, buf_str(&again), 0, &err));
        struct buf third = {0};
        assert_string_equal(write_value(doc2, &third), again.ptr);
        assert_int_equal(walk(doc), walk(doc2));
        buf_free(&third);
    }
    free(copy);
    arena_free(&a);
    arena_free(&b);
    buf_free(&text);
    buf_free(&again);
    return ST_OK;
}

static void test_json_suite(void **state)
{
    (void)state;
    const char *archive = SHARED("data/suites/json-test-suite.tar.xz");
    NEED(archive);
    char folder[] = "/tmp/ingot-json-XXXXXX", command[2048], sub[256];
    assert_non_null(mkdtemp(folder));
    snprintf(command, sizeof command, "tar -xJf '%s' -C '%s'", archive, folder);
    assert_int_equal(system(command), 0);
    struct suite s = {.folder = path_join(sub, sizeof sub, folder, "test_parsing")};
    OK(file_each(s.folder, suite_file, &s, &err));
    assert_int_equal(s.y, 95);
    assert_int_equal(s.n, 188);
    assert_int_equal(s.i, 35);
    snprintf(command, sizeof command, "rm -r '%s'", folder);
    assert_int_equal(system(command), 0);
}

/* ---- reading ---- */

static void test_json_reads(void **state)
{
    (void)state;
    struct arena a;
    const struct json *d;
    arena_init(&a, 0);
    OK(parse(&a, &d,
             " {\"a\": [1, -2.5, true, null, \"x\\u00e9\\ud83d\\ude00\\n\"], \"b\": {}, \"a\": 7,\n"
             "\"big\": 9223372036854775807, \"min\": -9223372036854775808, \"over\": 9223372036854775808, \"e\": 1e2} ",
             0));
    const struct json *list = json_get(d, "a");
    assert_int_equal(json_count(list), 5);
    assert_int_equal(json_int(json_at(list, 0), 0), 1);
    assert_true(json_real(json_at(list, 1), 0) == -2.5);
    assert_true(json_real(json_at(list, 0), 0) == 1.0);
    assert_true(json_bool(json_at(list, 2), false));
    assert_int_equal(json_type(json_at(list, 3)), JSON_NULL);
    assert_true(str_is(json_str(json_at(list, 4)), "x\xC3\xA9\xF0\x9F\x98\x80\n"));
    assert_null(json_at(list, 5));
    assert_null(json_get(d, "zzz"));
    assert_null(json_get(list, "a"));
    assert_null(json_get(NULL, "a"));
    assert_null(json_at(NULL, 0));
    assert_int_equal(json_count(d), 7);
    assert_int_equal(json_count(json_get(d, "b")), 0);
    assert_true(json_int(json_get(d, "big"), 0) == INT64_MAX);
    assert_true(json_int(json_get(d, "min"), 0) == INT64_MIN);
    assert_int_equal(json_type(json_get(d, "over")), JSON_REAL);
    assert_true(json_real(json_get(d, "over"), 0) == 9223372036854775808.0);
    assert_true(json_real(json_get(d, "e"), 0) == 100.0);
    assert_int_equal(json_int(json_get(d, "e"), -1), -1); /* a real is not silently an integer */
    FAILS(ST_CORRUPT, parse(&a, &d, "{\"a\":1,\"b\":{\"k\":1,\"k\":2}}", JSON_UNIQUE));
    assert_non_null(strstr(err.text, "\"k\""));
    OK(parse(&a, &d, "{\"a\":1,\"b\":{\"a\":1}}", JSON_UNIQUE));
    arena_free(&a);
}

static void test_json_errors_say_where(void **state)
{
    (void)state;
    static const struct {
        const char *text, *error;
    } cases[] = {
        {"", "line 1 column 1: expected a value, found the end of the text"},
        {"{\n \"a\": tru }", "line 2 column 7: expected a value, found 't'"},
        {"[1,\n2\n3]", "line 3 column 1: expected ',' or ']', found '3'"},
        {"{\"a\" 1}", "line 1 column 6: expected ':' after the key, found '1'"},
        {"{a:1}", "line 1 column 2: expected a key in quotes, found 'a'"},
        {"\"\\ud800\"", "line 1 column 3: lone surrogate in a string: \\uD800 to \\uDFFF come in pairs"},
        {"[1] x", "line 1 column 5: expected the end of the text, found 'x'"},
        {"1e999", "line 1 column 6: number is larger than any double"},
        {"[01]", "line 1 column 3: expected ',' or ']', found '1'"},
        {"\"a\tb\"", "line 1 column 3: control character in a string: write it as an escape"},
    };
    struct arena a;
    const struct json *d;
    arena_init(&a, 0);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        FAILS(ST_CORRUPT, parse(&a, &d, cases[i].text, 0));
        assert_string_equal(err.text, cases[i].error);
        assert_null(d);
    }
    arena_free(&a);
}

static void test_json_depth(void **state)
{
    (void)state;
    struct arena a;
    const struct json *d;
    for (int extra = 0; extra < 2; extra++) {
        struct buf text = {0}, out = {0};
        for (int i = 0; i < JSON_DEPTH_MAX + extra; i++)
            buf_append_str(&text, i % 2 ? STR("{\"k\":") : STR("["));
        buf_append_char(&text, '1');
        for (int i = JSON_DEPTH_MAX + extra - 1; i >= 0; i--)
            buf_append_char(&text, i % 2 ? '}' : ']');
        arena_init(&a, 0);
        if (extra)
            FAILS(ST_LIMIT, json_parse(&d, &a, buf_str(&text), 0, &err));
        else {
            OK(json_parse(&d, &a, buf_str(&text), JSON_UNIQUE, &err));
            assert_string_equal(write_value(d, &out), text.ptr);
        }
        arena_free(&a);
        buf_free(&text);
        buf_free(&out);
    }
    /* A million brackets: an error, not a stack overflow; and no memory to speak of. */
    struct buf deep = {0};
    for (int i = 0; i < 1000000; i++)
        buf_append_char(&deep, '[');
    arena_init(&a, 0);
    FAILS(ST_LIMIT, json_parse(&d, &a, buf_str(&deep), 0, &err));
    arena_free(&a);
    buf_free(&deep);
}

static void test_json_memory_is_bounded(void **state)
{
    (void)state;
    struct arena a;
    const struct json *d;
    struct buf text = {0};
    buf_append_char(&text, '[');
    for (int i = 0; i < 99999; i++)
        buf_append_str(&text, STR("7,"));
    buf_append_str(&text, STR("7]"));
    arena_init(&a, 0);
    OK(json_parse(&d, &a, buf_str(&text), 0, &err));
    assert_int_equal(json_count(d), 100000);
    assert_true(a.used <= 16 * 100001 + 16); /* 16 bytes a value and nothing else */
    arena_free(&a);
    /* Text that is no JSON gets no more than good text of its size could. */
    memset(text.ptr, ',', text.len);
    arena_init(&a, 0);
    FAILS(ST_CORRUPT, json_parse(&d, &a, buf_str(&text), 0, &err));
    assert_true(a.used <= 8 * text.len + 16 * (JSON_DEPTH_MAX + 2) + 16);
    arena_free(&a);
    buf_free(&text);
}

/* ---- writing ---- */

static double read_back(const char *text)
{
    struct arena a;
    const struct json *d;
    arena_init(&a, 0);
    OK(parse(&a, &d, text, 0));
    assert_int_equal(json_type(d), JSON_REAL);
    double v = json_real(d, NAN);
    arena_free(&a);
    return v;
}

static int significant_digits(const char *text)
{
    char digits[64];
    int n = 0;
    for (const char *c = text; *c && *c != 'e'; c++)
        if (*c >= '0' && *c <= '9' && (n || *c != '0'))
            digits[n++] = *c;
    while (n > 1 && digits[n - 1] == '0')
        n--;
    return n;
}

/* Is there any decimal of this many digits that reads back? Those next to the nearest one are the only candidates. */
static bool some_decimal_reads_back(double v, int digits)
{
    char text[64];
    snprintf(text, sizeof text, "%.*e", digits - 1, v);
    int exponent = atoi(strchr(text, 'e') + 1) - (digits - 1);
    long long mantissa = 0;
    for (char *c = text; *c != 'e'; c++)
        if (*c >= '0' && *c <= '9')
            mantissa = mantissa * 10 + (*c - '0');
    for (int d = -1; d <= 1; d++) {
        snprintf(text, sizeof text, "%s%llde%d", v < 0 ? "-" : "", mantissa + d, exponent);
        if (strtod(text, NULL) == v)
            return true;
    }
    return false;
}

static void check_shortest(double v)
{
    struct buf out = {0};
    struct json_writer w;
    json_writer_init(&w, &out);
    json_write_real(&w, v);
    double back = read_back(out.ptr);
    assert_memory_equal(&back, &v, sizeof v);
    int n = significant_digits(out.ptr);
    if (n > 1 && some_decimal_reads_back(v, n - 1))
        fail_msg("%a was written %s, but %d digits are enough", v, out.ptr, n - 1);
    buf_free(&out);
}

static void test_json_doubles_are_shortest(void **state)
{
    (void)state;
    static const struct {
        double v;
        const char *text;
    } known[] = {{0.1, "0.1"},
                 {1.0, "1.0"},
                 {-0.0, "-0.0"},
                 {5e-324, "5e-324"},
                 {1e22, "1e+22"},
                 {0x1p-44, "5.684341886080802e-14"}, /* the asymmetric case */
                 {1.0 / 3, "0.3333333333333333"},
                 {1.7976931348623157e308, "1.7976931348623157e+308"}};
    struct buf out = {0};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        struct json_writer w;
        buf_clear(&out);
        json_writer_init(&w, &out);
        json_write_real(&w, known[i].v);
        assert_string_equal(out.ptr, known[i].text);
        check_shortest(known[i].v);
    }
    buf_free(&out);
    for (int e = -1074; e <= 1023; e++)
        check_shortest(ldexp(1, e));
    struct rng r;
    rng_init(&r, 1);
    for (int i = 0; i < 20000; i++) {
        uint64_t bits = rng_u64(&r);
        double v;
        memcpy(&v, &bits, sizeof v);
        if (isfinite(v))
            check_shortest(v);
        if (isfinite((float)v) && (double)(float)v != 0)
            check_shortest((double)(float)v);
        check_shortest((double)(bits % 1000000) / 1000);
    }
}

/* The short-number path must give strtod's bits. */
static void test_json_numbers_read_exactly(void **state)
{
    (void)state;
    struct rng r;
    rng_init(&r, 2);
    for (int i = 0; i < 100000; i++) {
        char text[64];
        int before = 1 + (int)rng_below(&r, 18), after = 1 + (int)rng_below(&r, 18), n = 0;
        if (rng_below(&r, 2))
            text[n++] = '-';
        for (int k = 0; k < before; k++)
            text[n++] = (char)('0' + (k == 0 && before > 1 ? 1 + rng_below(&r, 9) : rng_below(&r, 10)));
        text[n++] = '.';
        for (int k = 0; k < after; k++)
            text[n++] = (char)('0' + rng_below(&r, 10));
        text[n] = 0;
        if (rng_below(&r, 3) == 0)
            snprintf(text + n, sizeof text - (size_t)n, "e%d", (int)rng_below(&r, 580) - 300);
        double want = strtod(text, NULL), got = read_back(text);
        if (memcmp(&want, &got, sizeof want))
            fail_msg("%s: %a, expected %a", text, got, want);
    }
}

static void test_json_writes(void **state)
{
    (void)state;
    struct buf out = {0};
    struct json_writer w;
    json_writer_init(&w, &out);
    json_begin_object(&w);
    json_put_str(&w, "s", str_n("a\"\\\n\x01\xff\xE2\x82", 8));
    json_put_int(&w, "i", INT64_MIN);
    json_key(&w, "list");
    json_begin_array(&w);
    json_write_null(&w);
    json_begin_array(&w);
    json_end_array(&w);
    json_write_raw(&w, STR("{\"x\":1}"));
    json_write_real(&w, NAN);
    json_end_array(&w);
    json_put_bool(&w, "b", false);
    json_put_real(&w, "r", 0.25);
    json_end_object(&w);
    assert_string_equal(out.ptr, "{\"s\":\"a\\\"\\\\\\n\\u0001\xEF\xBF\xBD\xEF\xBF\xBD\",\"i\":-9223372036854775808,"
                                 "\"list\":[null,[],{\"x\":1},null],\"b\":false,\"r\":0.25}");
    buf_clear(&out);
    json_writer_init(&w, &out);
    w.indent = 2;
    json_begin_object(&w);
    json_put_int(&w, "a", 1);
    json_key(&w, "e");
    json_begin_object(&w);
    json_end_object(&w);
    json_key(&w, "l");
    json_begin_array(&w);
    json_write_int(&w, 1);
    json_end_array(&w);
    json_end_object(&w);
    assert_string_equal(out.ptr, "{\n  \"a\": 1,\n  \"e\": {},\n  \"l\": [\n    1\n  ]\n}");
    buf_free(&out);
    /* Too deep: the sink fails, nothing is overrun. */
    json_writer_init(&w, &out);
    for (int i = 0; i < 2 * JSON_DEPTH_MAX; i++)
        json_begin_array(&w);
    for (int i = 0; i < 2 * JSON_DEPTH_MAX; i++)
        json_end_array(&w);
    assert_true(out.failed);
    buf_free(&out);
}

/* ---- hostile input ---- */

static const char tiny[] =
    "{\"k\":[1,-2.5e3,\"a\\u00e9\\ud83d\\ude00\xC3\xA9\",{\"z\":null,\"t\":true}],\"f\":false,\"n\":{}}";

static void try_bytes(const char *text, size_t n)
{
    char *copy = malloc(n ? n : 1);
    memcpy(copy, text, n);
    struct arena a;
    const struct json *d;
    arena_init(&a, 0);
    if (json_parse(&d, &a, str_n(copy, n), JSON_UNIQUE, &err) == ST_OK)
        walk(d);
    else
        assert_null(d);
    arena_free(&a);
    free(copy);
}

static void test_json_truncated_and_flipped(void **state)
{
    (void)state;
    char text[sizeof tiny];
    struct arena a;
    const struct json *d;
    for (size_t n = 0; n < sizeof tiny - 1; n++) {
        arena_init(&a, 0);
        FAILS(ST_CORRUPT, json_parse(&d, &a, str_n(tiny, n), 0, &err)); /* no proper prefix of an object is JSON */
        arena_free(&a);
        try_bytes(tiny, n);
    }
    for (size_t i = 0; i < sizeof tiny - 1; i++)
        for (int bit = 0; bit < 8; bit++) {
            memcpy(text, tiny, sizeof tiny);
            text[i] = (char)(text[i] ^ 1 << bit);
            try_bytes(text, sizeof tiny - 1);
        }
}

static void test_json_allocation_failures(void **state)
{
    (void)state;
    int n = 0;
    for (bool fired = true; fired; fired = fault_fired()) {
        struct arena a;
        const struct json *d;
        struct buf out = {0};
        struct json_writer w;
        arena_init(&a, 0);
        fault_arm(FAULT_ALLOC, (uint64_t)++n);
        enum status st = json_parse(&d, &a, str_of(tiny), JSON_UNIQUE, &err);
        json_writer_init(&w, &out);
        if (st == ST_OK)
            json_write_value(&w, d);
        fault_disarm();
        if (fault_fired())
            assert_true(st == ST_NOMEM || out.failed);
        else
            assert_true(st == ST_OK && !out.failed);
        buf_free(&out);
        arena_free(&a);
    }
    assert_true(n > 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_json_suite),
        cmocka_unit_test(test_json_reads),
        cmocka_unit_test(test_json_errors_say_where),
        cmocka_unit_test(test_json_depth),
        cmocka_unit_test(test_json_memory_is_bounded),
        cmocka_unit_test(test_json_doubles_are_shortest),
        cmocka_unit_test(test_json_numbers_read_exactly),
        cmocka_unit_test(test_json_writes),
        cmocka_unit_test(test_json_truncated_and_flipped),
        cmocka_unit_test(test_json_allocation_failures),
    };
    return RUN(tests);
}
