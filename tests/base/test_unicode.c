#include "test.h"

#include "base/rng.h"
#include "base/unicode.h"

static void test_utf8_every_code_point(void **state)
{
    (void)state;
    for (uint32_t c = 0; c <= 0x10FFFF; c++) {
        char s[4];
        bool bad, surrogate = c >= 0xD800 && c <= 0xDFFF;
        int n = utf8_encode(s, c), len;
        uint32_t back = utf8_decode(s, (size_t)n, &len, &bad);
        assert_int_equal(back, surrogate ? UTF8_BAD : c);
        assert_int_equal(len, n);
        assert_false(bad);
        assert_true(utf8_valid(str_n(s, (size_t)n)));
        for (int cut = 1; cut < n; cut++) {
            assert_false(utf8_valid(str_n(s, (size_t)cut)));
            assert_int_equal(utf8_incomplete_tail(str_n(s, (size_t)cut)), cut);
            assert_int_equal(utf8_decode(s, (size_t)cut, &len, &bad), UTF8_BAD);
            assert_true(bad && len == 1);
        }
        assert_int_equal(utf8_incomplete_tail(str_n(s, (size_t)n)), 0);
    }
}

/* A second, plain definition of validity: encode what was decoded by shifting and compare. */
static bool naive_valid(const unsigned char *s, size_t n)
{
    for (size_t i = 0; i < n;) {
        int need = s[i] < 0x80 ? 1 : s[i] >> 5 == 6 ? 2 : s[i] >> 4 == 14 ? 3 : s[i] >> 3 == 30 ? 4 : 0;
        static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
        if (need == 0 || n - i < (size_t)need)
            return false;
        uint32_t c = need == 1 ? s[i] : s[i] & (0xFFu >> (need + 1));
        for (int k = 1; k < need; k++) {
            if (s[i + (size_t)k] >> 6 != 2)
                return false;
            c = c << 6 | (s[i + (size_t)k] & 0x3Fu);
        }
        if (c < least[need] || c > 0x10FFFF || (c >= 0xD800 && c <= 0xDFFF))
            return false;
        i += (size_t)need;
    }
    return true;
}

static void test_utf8_valid_equals_naive_twin(void **state)
{
    (void)state;
    static const unsigned char interesting[] = {0x00, 0x41, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF,
                                                0xC0, 0xC1, 0xC2, 0xDF, 0xE0, 0xE1, 0xEC, 0xED, 0xEE,
                                                0xEF, 0xF0, 0xF1, 0xF3, 0xF4, 0xF5, 0xFF};
    struct rng r;
    rng_init(&r, 4);
    int valid = 0;
    for (int i = 0; i < 300000; i++) {
        unsigned char s[24];
        size_t n = rng_below(&r, 6) + (i % 4 ? 0 : 12);
        for (size_t k = 0; k < n; k++)
            s[k] = k + 5 < n ? 'a' : interesting[rng_below(&r, sizeof interesting)];
        bool want = naive_valid(s, n);
        valid += want;
        assert_int_equal(utf8_valid(str_n(s, n)), want);
        struct buf out = {0};
        utf8_append_lossy(&out, str_n(s, n));
        assert_true(utf8_valid(buf_str(&out)));
        if (want)
            assert_true(str_eq(buf_str(&out), str_n(s, n)));
        buf_free(&out);
    }
    assert_true(valid > 1000);
}

static void test_utf8_lossy_takes_maximal_subparts(void **state)
{
    (void)state;
#define R "\xEF\xBF\xBD"
    static const struct {
        const char *in, *out;
    } cases[] = {{"a\xF1\x80\x80\xE1\x80\xC2"
                  "b\x80"
                  "c\x80\xBF"
                  "d",
                  "a" R R R "b" R "c" R R "d"}, /* Unicode table 3-8 */
                 {"\xC0\xAF\xE0\x80\xBF\xF0\x81\x82"
                  "A",
                  R R R R R R R R "A"},
                 {"\xED\xA0\x80\xED\xBF\xBF\xED\xAF"
                  "A",
                  R R R R R R R R "A"},
                 {"\xF4\x91\x92\x93\xFF"
                  "A\x80\xBF"
                  "B",
                  R R R R R "A" R R "B"},
                 {"\xE1\x80\xE2\xF0\x91\x92\xF1\xBF"
                  "A",
                  R R R R "A"},
                 {"", ""}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct buf out = {0};
        utf8_append_lossy(&out, str_of(cases[i].in));
        assert_true(str_is(buf_str(&out), cases[i].out));
        buf_free(&out);
    }
}

static void test_utf8_tail_of_nonsense_is_none(void **state)
{
    (void)state;
    assert_int_equal(utf8_incomplete_tail(str_of("\x80\x80\x80\x80")), 0);
    assert_int_equal(utf8_incomplete_tail(str_of("a\xFF")), 0);
    assert_int_equal(utf8_incomplete_tail(str_of("\xE0\x80")), 0); /* overlong: can never become a character */
    assert_int_equal(utf8_incomplete_tail(str_of("\xC3\xA9\xE2\x82")), 2);
    assert_int_equal(utf8_incomplete_tail(str_of("")), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_utf8_every_code_point),
        cmocka_unit_test(test_utf8_valid_equals_naive_twin),
        cmocka_unit_test(test_utf8_lossy_takes_maximal_subparts),
        cmocka_unit_test(test_utf8_tail_of_nonsense_is_none),
    };
    return RUN(tests);
}
