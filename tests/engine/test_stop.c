#include "test.h"

#include "base/rng.h"
#include "engine/engine_private.h"

/* The plain definition: read the whole text letter by letter until some stop string is complete. */
static int naive(struct str text, const struct str *stops, int n, size_t *cut)
{
    for (size_t end = 1; end <= text.len; end++) {
        int best = -1;
        for (int i = 0; i < n; i++)
            if (str_ends(str_n(text.ptr, end), stops[i]) && (best < 0 || stops[i].len > stops[best].len))
                best = i;
        if (best >= 0) {
            *cut = end - stops[best].len;
            return best;
        }
    }
    *cut = text.len;
    return -1;
}

/* What must be held back after `seen`: the longest end that begins a stop string. */
static size_t naive_held(struct str seen, const struct str *stops, int n)
{
    for (size_t k = 0; k < seen.len; k++)
        for (int i = 0; i < n; i++)
            if (seen.len - k < stops[i].len && str_starts(stops[i], str_from(seen, k)))
                return seen.len - k;
    return 0;
}

static void test_stop_equals_naive_twin_whatever_the_borders(void **state)
{
    (void)state;
    struct rng r;
    rng_init(&r, 21);
    int stopped = 0;
    for (int round = 0; round < 20000; round++) {
        char letters[4][8], text[40];
        struct str stops[4], whole = {text, rng_below(&r, sizeof text)};
        int n = (int)rng_below(&r, 5);
        for (int i = 0; i < n; i++) {
            stops[i] = str_n(letters[i], 1 + rng_below(&r, 6));
            for (size_t k = 0; k < stops[i].len; k++)
                letters[i][k] = (char)('a' + rng_below(&r, 2 + round % 2));
        }
        for (size_t k = 0; k < whole.len; k++)
            text[k] = (char)('a' + rng_below(&r, 3));
        size_t cut, at = 0, want_cut;
        int want = naive(whole, stops, n, &want_cut), hit = -1;
        struct stopper s = {.stops = stops, .n_stop = n};
        struct buf got = {0};
        while (at < whole.len && hit < 0) {
            struct str out, piece = str_n(text + at, rng_below(&r, 6));
            piece.len = piece.len < whole.len - at ? piece.len : whole.len - at;
            at += piece.len;
            hit = stop_feed(&s, piece, &out);
            buf_append_str(&got, out);
            if (hit < 0) /* everything that can be certain is handed out */
                assert_int_equal(got.len, at - naive_held(str_n(text, at), stops, n));
        }
        cut = got.len;
        if (hit < 0)
            buf_append_str(&got, stop_flush(&s));
        else
            assert_int_equal(cut, want_cut);
        assert_int_equal(hit, want);
        assert_true(str_eq(buf_str(&got), str_n(text, want_cut)));
        stopped += hit >= 0;
        buf_free(&got);
        buf_free(&s.held);
    }
    assert_true(stopped > 5000);
}

static void test_stop_examples(void **state)
{
    (void)state;
    struct str stops[] = {STR("</s>"), STR("User:")}, out;
    struct stopper s = {.stops = stops, .n_stop = 2};
    assert_int_equal(stop_feed(&s, STR("Hello <"), &out), -1);
    assert_true(str_is(out, "Hello "));
    assert_int_equal(stop_feed(&s, STR("/s"), &out), -1);
    assert_true(str_is(out, ""));
    assert_int_equal(stop_feed(&s, STR("x U"), &out), -1);
    assert_true(str_is(out, "</sx "));
    assert_int_equal(stop_feed(&s, STR("ser: hi"), &out), 1);
    assert_true(str_is(out, ""));
    buf_free(&s.held);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_stop_equals_naive_twin_whatever_the_borders),
        cmocka_unit_test(test_stop_examples),
    };
    return RUN(tests);
}
