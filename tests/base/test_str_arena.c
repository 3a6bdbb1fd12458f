#include "test.h"

#include "base/arena.h"
#include "base/cursor.h"
#include "base/fault.h"
#include "base/mem.h"
#include "base/rng.h"

static struct error err;

/* ---- str ---- */

static void test_str_comparing_and_searching(void **state)
{
    (void)state;
    assert_true(str_starts(STR("abc"), STR("ab")) && str_starts(STR("abc"), STR("")) &&
                !str_starts(STR("a"), STR("ab")));
    assert_true(str_ends(STR("abc"), STR("bc")) && str_ends(STR(""), STR("")) && !str_ends(STR("c"), STR("bc")));
    assert_true(str_cmp(STR("a"), STR("b")) < 0 && str_cmp(STR("b"), STR("a")) > 0 && str_cmp(STR("a"), STR("a")) == 0);
    assert_true(str_cmp(STR("a"), STR("ab")) < 0 && str_cmp(STR("\xff"), STR("a")) > 0 &&
                str_cmp(STR(""), STR("")) == 0);
    assert_int_equal(str_find(STR("abcabc"), STR("bc"), 0), 1);
    assert_int_equal(str_find(STR("abcabc"), STR("bc"), 2), 4);
    assert_int_equal(str_find(STR("abcabc"), STR("bc"), 5), SIZE_MAX);
    assert_int_equal(str_find(STR("abc"), STR(""), 3), 3);
    assert_int_equal(str_find(STR("abc"), STR(""), 4), SIZE_MAX);
    assert_true(str_is(str_trim(STR(" \t\r\n a b \v\f")), "a b"));
    assert_int_equal(str_trim(STR(" \n ")).len, 0);
    assert_int_equal(str_from(STR("abc"), 5).len, 0);
    assert_true(str_is(str_from(STR("abc"), 1), "bc"));
    assert_true(str_eq(str_of(NULL), STR("")));
}

static void test_str_numbers(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        bool good;
        int64_t value;
    } cases[] = {{"0", true, 0},
                 {"-0", true, 0},
                 {"9223372036854775807", true, INT64_MAX},
                 {"-9223372036854775808", true, INT64_MIN},
                 {"9223372036854775808", false, 0},
                 {"-9223372036854775809", false, 0},
                 {"99999999999999999999", false, 0},
                 {"", false, 0},
                 {"-", false, 0},
                 {"+1", false, 0},
                 {" 1", false, 0},
                 {"1x", false, 0}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int64_t v = 77;
        assert_int_equal(str_to_i64(&v, str_of(cases[i].text)), cases[i].good);
        assert_true(v == (cases[i].good ? cases[i].value : 77));
    }
    double d = 0;
    assert_true(str_to_f64(&d, STR("1.5e3")) && d == 1500);
    assert_false(str_to_f64(&d, STR("")) || str_to_f64(&d, STR(" 1")) || str_to_f64(&d, STR("1x")));
    char long_one[80];
    memset(long_one, '1', sizeof long_one);
    assert_false(str_to_f64(&d, str_n(long_one, sizeof long_one)));
}

static void test_str_lines(void **state)
{
    (void)state;
    struct str rest = STR("one\r\n\ntwo\nlast");
    static const char *const want[] = {"one", "", "two", "last"};
    for (int i = 0; i < 4; i++) {
        struct str line = str_next_line(&rest);
        assert_non_null(line.ptr);
        assert_true(str_is(line, want[i]));
    }
    assert_null(str_next_line(&rest).ptr);
    assert_null(str_next_line(&rest).ptr);
}

/* The plain recursive definition. */
static size_t naive_distance(struct str a, struct str b)
{
    if (a.len == 0 || b.len == 0)
        return a.len + b.len;
    size_t change = naive_distance(str_from(a, 1), str_from(b, 1)) + (a.ptr[0] != b.ptr[0]);
    size_t drop = naive_distance(str_from(a, 1), b) + 1, add = naive_distance(a, str_from(b, 1)) + 1;
    size_t best = change < drop ? change : drop;
    return best < add ? best : add;
}

static void test_str_distance_equals_naive_twin(void **state)
{
    (void)state;
    struct rng r;
    rng_init(&r, 1);
    for (int i = 0; i < 500; i++) {
        char a[6], b[6];
        struct str s = {a, rng_below(&r, 6)}, t = {b, rng_below(&r, 6)};
        for (int k = 0; k < 6; k++) {
            a[k] = (char)('a' + rng_below(&r, 3));
            b[k] = (char)('a' + rng_below(&r, 3));
        }
        assert_int_equal(str_distance(s, t, 99), naive_distance(s, t));
        assert_true(str_distance(s, t, 2) <= 2);
    }
    char big[100] = {0};
    assert_int_equal(str_distance(str_n(big, 100), STR("a"), 5), 5);
}

static void test_str_hash_sees_every_byte(void **state)
{
    (void)state;
    char text[40] = {0};
    for (size_t n = 0; n < sizeof text; n++) {
        uint64_t h = str_hash(str_n(text, n), 1);
        assert_true(h != str_hash(str_n(text, n), 2));
        assert_true(h != str_hash(str_n(text, n + 1), 1)); /* zeros of another number */
        for (size_t i = 0; i < n; i++) {
            text[i] = 1;
            assert_true(h != str_hash(str_n(text, n), 1));
            text[i] = 0;
        }
    }
}

/* ---- buf ---- */

static void test_buf_limit_and_failure_stick(void **state)
{
    (void)state;
    struct buf b = {.limit = 10};
    buf_append(&b, "12345", 5);
    buf_printf(&b, "%d", 67890);
    assert_string_equal(b.ptr, "1234567890");
    buf_append_char(&b, 'x');
    assert_true(b.failed);
    buf_append_str(&b, STR(""));
    assert_string_equal(b.ptr, "1234567890");
    buf_clear(&b);
    assert_true(!b.failed && b.len == 0);
    buf_append_char(&b, 'y');
    assert_string_equal(b.ptr, "y");
    buf_free(&b);
    assert_true(b.limit == 10 && str_eq(buf_str(&b), STR("")));
    assert_false(buf_reserve(&(struct buf){0}, SIZE_MAX));
    fault_arm(FAULT_ALLOC, 1);
    buf_append(&b, "1", 1);
    fault_disarm();
    assert_true(b.failed && !b.ptr);
}

/* ---- arena and mem ---- */

static void test_arena_aligns_and_keeps(void **state)
{
    (void)state;
    struct arena a;
    struct rng r;
    char *kept[500];
    size_t sizes[500];
    rng_init(&r, 3);
    arena_init(&a, 0);
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 500; i++) {
            sizes[i] = rng_below(&r, i % 50 ? 100 : 20000);
            kept[i] = arena_alloc(&a, sizes[i]);
            assert_int_equal((uintptr_t)kept[i] % 16, 0);
            memset(kept[i], i, sizes[i]);
        }
        for (int i = 0; i < 500; i++)
            for (size_t k = 0; k < sizes[i]; k++)
                assert_int_equal((unsigned char)kept[i][k], i & 255);
        arena_reset(&a);
        assert_int_equal(a.used, 0);
    }
    assert_string_equal(arena_copy(&a, STR("text")), "text");
    assert_string_equal(arena_copy(&a, str_n(NULL, 0)), "");
    int *zeros = arena_alloc_zero(&a, 1000, sizeof *zeros);
    for (int i = 0; i < 1000; i++)
        assert_int_equal(zeros[i], 0);
    assert_null(arena_alloc_zero(&a, SIZE_MAX / 2, 3));
    assert_null(arena_alloc(&a, SIZE_MAX - 3));
    arena_free(&a);
}

static void test_arena_limit(void **state)
{
    (void)state;
    struct arena a;
    arena_init(&a, 100);
    assert_non_null(arena_alloc(&a, 60)); /* 64 with alignment */
    assert_null(arena_alloc(&a, 40));
    assert_non_null(arena_alloc(&a, 32));
    assert_null(arena_alloc(&a, 1));
    arena_free(&a);
    fault_arm(FAULT_ALLOC, 1);
    assert_null(arena_alloc(&a, 1));
    fault_disarm();
    arena_free(&a);
}

static void test_budget_is_one_bound_for_many(void **state)
{
    (void)state;
    struct budget b = {.max = 10000};
    size_t one = 0, two = 0;
    assert_true(budget_hold(&b, &one, 6000, b.max));
    assert_false(budget_hold(&b, &two, 4001, b.max));
    assert_int_equal(two, 0);
    assert_int_equal(b.refused, 1);
    assert_true(budget_hold(&b, &two, 4000, b.max));
    assert_false(budget_hold(&b, &one, 6001, b.max)); /* growing is refused as a whole ... */
    assert_int_equal(one, 6000);
    assert_true(budget_hold(&b, &one, 6001, (size_t)BUDGET_NO_LIMIT)); /* ... but for what is there already, */
    assert_true(budget_hold(&b, &two, 3999, 0));                       /* and shrinking never */
    assert_false(budget_has_room(&b, 1, b.max));
    assert_true(budget_hold(&b, &one, 0, 0) && budget_hold(&b, &two, 0, 0));
    assert_int_equal(budget_used(&b), 0);
    struct arena a;
    arena_init(&a, 0);
    a.budget = &b;
    a.budget_limit = 9000;
    assert_non_null(arena_alloc(&a, 100)); /* a chunk of 4096 */
    assert_int_equal(budget_used(&b), 4096);
    assert_null(arena_alloc(&a, 5000));
    assert_non_null(arena_alloc(&a, 100));
    fault_arm(FAULT_ALLOC, 1);
    assert_null(arena_alloc(&a, 4000));
    fault_disarm();
    assert_int_equal(budget_used(&b), 4096);
    arena_reset(&a);
    assert_int_equal(budget_used(&b), 4096);
    arena_free(&a);
    assert_int_equal(budget_used(&b), 0);
}

static void test_mem_checks_sizes(void **state)
{
    (void)state;
    size_t n = 5;
    assert_false(size_add(&n, SIZE_MAX, 1));
    assert_false(size_mul(&n, SIZE_MAX / 2, 3));
    assert_null(mem_alloc_zero(SIZE_MAX / 2, 3));
    assert_null(mem_realloc(NULL, SIZE_MAX / 2, 3));
    assert_null(mem_alloc_aligned(SIZE_MAX - 5));
    for (size_t size = 1; size < ((size_t)5 << 20); size = size * 3 + 1) {
        unsigned char *p = mem_alloc_aligned(size);
        assert_int_equal((uintptr_t)p % 64, 0);
        assert_int_equal(p[0] | p[size - 1], 0);
        mem_free(p);
    }
    int *items = NULL;
    size_t capacity = 0;
    for (size_t i = 0; i < 1000; i++) {
        assert_true(MEM_GROW(items, capacity, i));
        items[i] = (int)i;
    }
    fault_arm(FAULT_ALLOC, 1);
    assert_false(MEM_GROW(items, capacity, capacity));
    fault_arm(FAULT_ALLOC, 1);
    assert_null(mem_strdup("x"));
    fault_disarm();
    assert_int_equal(items[999], 999); /* still there after the failure */
    mem_free(items);
}

/* ---- cursor ---- */

static void test_cursor_never_leaves(void **state)
{
    (void)state;
    uint8_t bytes[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 0, 0, 128, 63, 255};
    struct cursor c = cursor_of(bytes, sizeof bytes);
    assert_int_equal(cursor_u8(&c), 1);
    assert_int_equal(cursor_u16(&c), 0x0302);
    assert_int_equal(cursor_u32(&c), 0x07060504);
    cursor_skip(&c, 3);
    assert_true(cursor_f32(&c) == 1.0f);
    assert_int_equal(cursor_left(&c), 1);
    assert_int_equal(cursor_offset(&c), 14);
    assert_int_equal(cursor_i8(&c), -1);
    assert_false(c.failed);
    assert_int_equal(cursor_u8(&c), 0);
    assert_true(c.failed);
    cursor_seek(&c, 0); /* the failure sticks */
    assert_int_equal(cursor_u64(&c), 0);
    c = cursor_of(bytes, sizeof bytes);
    cursor_seek(&c, sizeof bytes + 1);
    assert_true(c.failed);
    c = cursor_of(bytes, sizeof bytes);
    assert_int_equal(cursor_bytes(&c, UINT64_MAX).len, 0);
    assert_true(c.failed);
}

/* ---- status and fault ---- */

static void test_status_sentences(void **state)
{
    (void)state;
    assert_int_equal(fail(&err, ST_CORRUPT, "a\nb%c%d", 7, 3), ST_CORRUPT);
    assert_string_equal(err.text, "a b 3"); /* one line, whatever an untrusted name held */
    assert_int_equal(fail_context(&err, "file %s", "x"), ST_CORRUPT);
    assert_string_equal(err.text, "file x: a b 3");
    assert_int_equal(fail(NULL, ST_IO, "x"), ST_IO);
    assert_int_equal(fail_nomem(&err, "thing"), ST_NOMEM);
    assert_string_equal(err.text, "thing: out of memory");
    static const struct {
        enum status st;
        const char *name, *grpc;
        int http, exit_code;
    } table[] = {{ST_OK, "ok", "OK", 200, 0},
                 {ST_INVALID, "invalid", "INVALID_ARGUMENT", 400, 2},
                 {ST_CORRUPT, "corrupt", "DATA_LOSS", 422, 65},
                 {ST_LIMIT, "limit", "RESOURCE_EXHAUSTED", 429, 75},
                 {ST_CANCELED, "canceled", "CANCELLED", 499, 130},
                 {ST_DEVICE, "device", "UNAVAILABLE", 503, 70}};
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        const struct status_row *row = status_row(table[i].st);
        assert_string_equal(row->name, table[i].name);
        assert_string_equal(row->grpc, table[i].grpc);
        assert_int_equal(row->http, table[i].http);
        assert_int_equal(row->exit_code, table[i].exit_code);
    }
    for (int st = 0; st < ST_COUNT; st++)
        assert_non_null(status_row((enum status)st)->name);
}

static void test_fault_counts(void **state)
{
    (void)state;
    fault_count(FAULT_ALLOC);
    for (int i = 0; i < 5; i++)
        mem_free(mem_alloc(1));
    assert_int_equal(fault_calls(), 5);
    assert_false(fault_fired());
    fault_arm(FAULT_ALLOC, 3);
    for (int i = 1; i <= 5; i++) {
        void *p = mem_alloc(1);
        assert_int_equal(p == NULL, i == 3); /* once, and only once */
        mem_free(p);
    }
    assert_true(fault_fired());
    fault_disarm();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_str_comparing_and_searching),
        cmocka_unit_test(test_str_numbers),
        cmocka_unit_test(test_str_lines),
        cmocka_unit_test(test_str_distance_equals_naive_twin),
        cmocka_unit_test(test_str_hash_sees_every_byte),
        cmocka_unit_test(test_buf_limit_and_failure_stick),
        cmocka_unit_test(test_arena_aligns_and_keeps),
        cmocka_unit_test(test_arena_limit),
        cmocka_unit_test(test_budget_is_one_bound_for_many),
        cmocka_unit_test(test_mem_checks_sizes),
        cmocka_unit_test(test_cursor_never_leaves),
        cmocka_unit_test(test_status_sentences),
        cmocka_unit_test(test_fault_counts),
    };
    return RUN(tests);
}
