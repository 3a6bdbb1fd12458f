#include "test.h"

#include "base/clock.h"
#include "base/fault.h"
#include "base/map.h"
#include "base/mem.h"
#include "base/rng.h"

#include <math.h>

/* A naive twin: an array searched from the start. */
static void test_map_equals_naive_twin(void **state)
{
    (void)state;
    enum { KEYS = 700 };
    static char keys[KEYS][40];
    static uint64_t twin[KEYS];
    static bool present[KEYS];
    struct rng r;
    struct map m;
    size_t count = 0;
    rng_init(&r, 5);
    for (int i = 0; i < KEYS; i++)
        snprintf(keys[i], sizeof keys[i], "%.*s%d", i % 17, "abcdefghabcdefghabcd", i);
    keys[0][0] = 0; /* the empty key too */
    assert_true(map_init(&m, 0));
    for (int step = 0; step < 50000; step++) {
        int k = (int)rng_below(&r, KEYS);
        if (rng_below(&r, 3) == 0) {
            uint64_t v = rng_u64(&r);
            assert_true(map_put(&m, str_of(keys[k]), v));
            count += !present[k];
            present[k] = true;
            twin[k] = v;
        }
        const uint64_t *found = map_find(&m, str_of(keys[k]));
        assert_int_equal(found != NULL, present[k]);
        if (found)
            assert_true(*found == twin[k]);
        assert_int_equal(m.count, count);
        assert_true(m.count <= (m.mask + 1) / 4 * 3);
    }
    assert_null(map_find(&m, STR("never put")));
    map_free(&m);
    assert_null(map_find(&m, STR("a"))); /* a freed map is an empty one */
}

static void test_map_expected_count_never_grows(void **state)
{
    (void)state;
    static char keys[1000][24];
    for (size_t expected = 0; expected < 1000; expected += 37) {
        struct map m;
        assert_true(map_init(&m, expected));
        fault_arm(FAULT_ALLOC, 1); /* growing would fail */
        for (size_t i = 0; i < expected; i++) {
            snprintf(keys[i], sizeof keys[i], "%zu", i);
            assert_true(map_put(&m, str_of(keys[i]), i));
        }
        fault_disarm();
        map_free(&m);
    }
}

/* How far from where they belong the keys lie, in all: what finding each of them once costs beyond one look a key. */
static size_t steps(const struct map *m)
{
    size_t total = 0;
    for (size_t i = 0; i <= m->mask; i++)
        if (m->slots[i].key)
            total += (i - m->slots[i].hash) & m->mask;
    return total;
}

/* The keys a client may choose to slow a reader down: counted up, in every shape, for many seeds. Linear probing at
 * most 3/4 full expects 1.5 steps a key (Knuth 6.4, exercise 6.4-M: (1/(1-load) - 1) / 2); growth by the square would
 * be thousands. */
static void test_map_steps_a_key_stay_few(void **state)
{
    static const char *const shapes[] = {"k%d", "%d", "%08d", "%08x", "key_%d", "aaaaaaaa%08d", "%d0000000", "%016d"};
    enum { KEYS = 48000, LENGTH = 24 };
    static char keys[KEYS][LENGTH];
    (void)state;
    for (size_t shape = 0; shape < sizeof shapes / sizeof *shapes; shape++) {
        for (int i = 0; i < KEYS; i++) {
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
            snprintf(keys[i], LENGTH, shapes[shape], i);
#pragma GCC diagnostic pop
        }
        for (uint64_t seed = 1; seed < 24; seed++) {
            struct map m;
            assert_true(map_init(&m, 0));
            m.seed = seed * 0x9e3779b97f4a7c15u;
            for (int i = 0; i < KEYS; i++)
                assert_true(map_put(&m, str_of(keys[i]), 1));
            if (steps(&m) > 3 * (size_t)KEYS)
                fail_msg("%s, seed %d: %zu steps for %d keys", shapes[shape], (int)seed, steps(&m), KEYS);
            map_free(&m);
        }
    }
}

static void test_map_out_of_memory(void **state)
{
    (void)state;
    struct map m;
    char keys[100][16];
    fault_arm(FAULT_ALLOC, 1);
    assert_false(map_init(&m, 10));
    fault_disarm();
    assert_false(map_put(&m, STR("a"), 1));
    assert_false(map_init(&m, SIZE_MAX));
    assert_true(map_init(&m, 0));
    fault_arm(FAULT_ALLOC, 1);
    int put = 0;
    for (int i = 0; i < 100; i++) {
        snprintf(keys[i], sizeof keys[i], "%d", i);
        if (!map_put(&m, str_of(keys[i]), (uint64_t)i))
            break;
        put++;
    }
    assert_true(fault_fired());
    fault_disarm();
    for (int i = 0; i < put; i++) /* the failed growth lost nothing */
        assert_int_equal(*map_find(&m, str_of(keys[i])), i);
    assert_true(map_put(&m, str_of(keys[put]), 1));
    map_free(&m);
}

/* Known answers published with Random123 (kat_vectors: philox 4x32 10). */
static void test_rng_philox_known_answers(void **state)
{
    (void)state;
    static const struct {
        uint32_t counter[4], key[2], out[4];
    } kat[] = {
        {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
         {0xffffffff, 0xffffffff},
         {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {0xa4093822, 0x299f31d0},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (size_t i = 0; i < sizeof kat / sizeof *kat; i++) {
        uint32_t out[4];
        philox4x32(out, kat[i].counter, kat[i].key);
        assert_memory_equal(out, kat[i].out, sizeof out);
    }
    struct rng r;
    rng_init(&r, 0);
    for (int i = 0; i < 4; i++)
        assert_int_equal(rng_u32(&r), kat[0].out[i]);
}

static void test_rng_below_is_even(void **state)
{
    (void)state;
    struct rng r;
    rng_init(&r, 9);
    int counts[7] = {0};
    for (int i = 0; i < 70000; i++) {
        uint64_t v = rng_below(&r, 7);
        assert_true(v < 7);
        counts[v]++;
    }
    for (int i = 0; i < 7; i++)
        assert_true(counts[i] > 9600 && counts[i] < 10400); /* four standard deviations */
    for (int i = 0; i < 1000; i++)                          /* half of all words are rejected here */
        assert_true(rng_below(&r, (UINT64_MAX / 2) + 2) <= UINT64_MAX / 2 + 1);
    assert_int_equal(rng_below(&r, 1), 0);
    for (int i = 0; i < 1000; i++) {
        float u = rng_unit(rng_u32(&r));
        assert_true(u >= 0 && u < 1);
    }
    assert_true(rng_unit(UINT32_MAX) < 1.0f);
}

/* A normal deviate is the quantile of its uniform word: the normal distribution function must take it back. */
static void test_rng_normal_is_the_quantile(void **state)
{
    (void)state;
    struct rng a, b;
    rng_init(&a, 3);
    rng_init(&b, 3);
    double sum = 0, sum2 = 0;
    enum { N = 200000 };
    for (int i = 0; i < N; i++) {
        double p = ((double)rng_u32(&a) + 0.5) * 0x1p-32;
        float x = rng_normal(&b);
        double back = x < 0 ? 0.5 * erfc(-(double)x / sqrt(2)) : 1 - 0.5 * erfc((double)x / sqrt(2));
        double tail = p < 0.5 ? p : 1 - p, got = p < 0.5 ? back : 1 - back;
        assert_true(fabs(got - tail) < 4e-6 * tail); /* float rounding of x, times the slope in the tails */
        sum += (double)x;
        sum2 += (double)x * (double)x;
    }
    assert_true(fabs(sum / N) < 0.01 && fabs(sum2 / N - 1) < 0.02);
}

static void test_rng_entropy_differs(void **state)
{
    (void)state;
    assert_true(rng_entropy() != rng_entropy());
}

static void test_clock_jumps(void **state)
{
    (void)state;
    uint64_t t0 = clock_ns(), w0 = clock_wall_ns();
    assert_true(clock_ns() >= t0);
    clock_jump(5000000000, -7000000000000);
    assert_true(clock_ns() >= t0 + 5000000000);
    assert_true(clock_wall_ns() < w0 - 6000000000000);
    clock_jump(0, 0);
    assert_true(clock_ns() < t0 + 4000000000);
    assert_true(w0 > (uint64_t)1600000000 * 1000000000);
    assert_true(clock_thread_cpu_ns() > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_map_equals_naive_twin),
        cmocka_unit_test(test_map_expected_count_never_grows),
        cmocka_unit_test(test_map_steps_a_key_stay_few),
        cmocka_unit_test(test_map_out_of_memory),
        cmocka_unit_test(test_rng_philox_known_answers),
        cmocka_unit_test(test_rng_below_is_even),
        cmocka_unit_test(test_rng_normal_is_the_quantile),
        cmocka_unit_test(test_rng_entropy_differs),
        cmocka_unit_test(test_clock_jumps),
    };
    return RUN(tests);
}
