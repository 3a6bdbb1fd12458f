#include "test.h"

#include "base/fault.h"
#include "observe/metrics.h"

#include <math.h>
#include <pthread.h>

static struct error err;

enum { M_TOTAL, M_RUNNING, M_LATENCY, M_BY_LABEL, M_COUNT };
static const double bounds[] = {0.1, 0.5, 1};
static const struct metric_row rows[M_COUNT] = {
    [M_TOTAL] = {METRIC_COUNTER, "t_total", "All of\nthem \\ \"all\"", {NULL}},
    [M_RUNNING] = {METRIC_GAUGE, "t_running", "Now", {NULL}},
    [M_LATENCY] = {METRIC_HISTOGRAM, "t_seconds", "Time", {"model"}, bounds, 3},
    [M_BY_LABEL] = {METRIC_COUNTER, "t_by", "By", {"a", "b"}},
};

static void test_metrics_exposition(void **state)
{
    (void)state;
    struct metrics *m;
    struct buf out = {0};
    OK(metrics_create(&m, rows, M_COUNT, &err));
    metrics_write(m, &out);
    assert_string_equal(out.ptr, "# HELP t_total All of\\nthem \\\\ \"all\"\n# TYPE t_total counter\nt_total 0\n"
                                 "# HELP t_running Now\n# TYPE t_running gauge\nt_running 0\n"
                                 "# HELP t_seconds Time\n# TYPE t_seconds histogram\n"
                                 "# HELP t_by By\n# TYPE t_by counter\n");
    buf_clear(&out);
    metrics_add(m, M_TOTAL, NULL, 2);
    metrics_add(m, M_TOTAL, NULL, 1);
    metrics_set(m, M_RUNNING, NULL, -1.5);
    const char *model[] = {"x\"\\\n"};
    metrics_observe(m, M_LATENCY, model, 0.1); /* a bound belongs to its bucket */
    metrics_observe(m, M_LATENCY, model, 0.75);
    metrics_observe(m, M_LATENCY, model, 7);
    metrics_add(m, M_BY_LABEL, (const char *[]){"1", "2"}, 1);
    metrics_add(m, M_BY_LABEL, (const char *[]){"1", "3"}, 4);
    metrics_add(m, M_BY_LABEL, (const char *[]){"1", "2"}, 1);
    metrics_write(m, &out);
    assert_string_equal(strstr(out.ptr, "# TYPE t_total"),
                        "# TYPE t_total counter\nt_total 3\n"
                        "# HELP t_running Now\n# TYPE t_running gauge\nt_running -1.5\n"
                        "# HELP t_seconds Time\n# TYPE t_seconds histogram\n"
                        "t_seconds_bucket{model=\"x\\\"\\\\\\n\",le=\"0.1\"} 1\n"
                        "t_seconds_bucket{model=\"x\\\"\\\\\\n\",le=\"0.5\"} 1\n"
                        "t_seconds_bucket{model=\"x\\\"\\\\\\n\",le=\"1\"} 2\n"
                        "t_seconds_bucket{model=\"x\\\"\\\\\\n\",le=\"+Inf\"} 3\n"
                        "t_seconds_sum{model=\"x\\\"\\\\\\n\"} 7.85\n"
                        "t_seconds_count{model=\"x\\\"\\\\\\n\"} 3\n"
                        "# HELP t_by By\n# TYPE t_by counter\n"
                        "t_by{a=\"1\",b=\"2\"} 2\nt_by{a=\"1\",b=\"3\"} 4\n");
    assert_true(series_value(metrics_series(m, M_TOTAL, NULL)) == 3);
    assert_int_equal(series_count(metrics_series(m, M_LATENCY, model)), 3);
    metrics_observe(m, M_LATENCY, model, NAN); /* counted beyond every bound, not lost and not in the first */
    assert_int_equal(series_count(metrics_series(m, M_LATENCY, model)), 4);
    metrics_reset(m, M_BY_LABEL);
    buf_clear(&out);
    metrics_write(m, &out);
    assert_non_null(strstr(out.ptr, "t_by{a=\"1\",b=\"2\"} 0\nt_by{a=\"1\",b=\"3\"} 0\n"));
    buf_clear(&out);
    metrics_write_one(&rows[M_BY_LABEL], (const char *[]){"\"", ""}, 7, &out);
    assert_string_equal(out.ptr, "# HELP t_by By\n# TYPE t_by counter\nt_by{a=\"\\\"\",b=\"\"} 7\n");
    buf_free(&out);
    metrics_free(m);
}

static void test_metrics_series_are_bounded(void **state)
{
    (void)state;
    struct metrics *m;
    OK(metrics_create(&m, rows, M_COUNT, &err));
    for (int i = 0; i < 3 * METRIC_SERIES_MAX; i++) {
        char value[16];
        snprintf(value, sizeof value, "%d", i);
        metrics_add(m, M_BY_LABEL, (const char *[]){value, "x"}, 1);
    }
    struct buf out = {0};
    metrics_write(m, &out);
    int lines = 0;
    for (char *c = out.ptr; *c; c++)
        lines += *c == '\n';
    assert_true(lines <= METRIC_SERIES_MAX + 20);
    assert_true(series_value(metrics_series(m, M_BY_LABEL, (const char *[]){"other", "other"})) ==
                2 * METRIC_SERIES_MAX);
    buf_free(&out);
    metrics_free(m);
}

struct recorder {
    struct metrics *m;
    int index;
};

static void *record(void *arg)
{
    struct recorder *r = arg;
    for (int i = 0; i < 2000; i++) {
        char value[16];
        snprintf(value, sizeof value, "%d", i % 37);
        metrics_add(r->m, M_TOTAL, NULL, 1);
        metrics_add(r->m, M_BY_LABEL, (const char *[]){value, "same"}, 1);
        metrics_observe(r->m, M_LATENCY, (const char *[]){"m"}, 0.25);
        if (i % 500 == 0) {
            struct buf out = {0};
            metrics_write(r->m, &out);
            assert_false(out.failed);
            buf_free(&out);
        }
    }
    return NULL;
}

static void test_metrics_threads_lose_nothing(void **state)
{
    (void)state;
    struct metrics *m;
    pthread_t threads[4];
    struct recorder r[4];
    OK(metrics_create(&m, rows, M_COUNT, &err));
    for (int i = 0; i < 4; i++) {
        r[i] = (struct recorder){m, i};
        pthread_create(&threads[i], NULL, record, &r[i]);
    }
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    assert_true(series_value(metrics_series(m, M_TOTAL, NULL)) == 8000);
    assert_int_equal(series_count(metrics_series(m, M_LATENCY, (const char *[]){"m"})), 8000);
    assert_true(series_value(metrics_series(m, M_LATENCY, (const char *[]){"m"})) == 2000);
    double sum = 0;
    for (int i = 0; i < 37; i++) {
        char value[16];
        snprintf(value, sizeof value, "%d", i);
        sum += series_value(metrics_series(m, M_BY_LABEL, (const char *[]){value, "same"}));
    }
    assert_true(sum == 8000);
    struct buf out = {0};
    metrics_write(m, &out);
    char *first = strstr(out.ptr, "t_by{a=\"0\"");
    assert_non_null(first);
    assert_null(strstr(first + 1, "t_by{a=\"0\"")); /* one series a combination, whoever came first */
    buf_free(&out);
    metrics_free(m);
}

static void test_metrics_allocation_failures(void **state)
{
    (void)state;
    uint64_t n = 0;
    for (bool fired = true; fired; fired = fault_fired()) {
        struct metrics *m;
        fault_arm(FAULT_ALLOC, ++n);
        enum status st = metrics_create(&m, rows, M_COUNT, &err);
        if (st == ST_OK) {
            metrics_add(m, M_BY_LABEL, (const char *[]){"1", "2"}, 1);
            metrics_observe(m, M_LATENCY, (const char *[]){"1"}, 1);
            struct buf out = {0};
            metrics_write(m, &out);
            buf_free(&out);
        }
        fault_disarm();
        metrics_free(m);
    }
    assert_true(n > 6);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_metrics_exposition),
        cmocka_unit_test(test_metrics_series_are_bounded),
        cmocka_unit_test(test_metrics_threads_lose_nothing),
        cmocka_unit_test(test_metrics_allocation_failures),
    };
    return RUN(tests);
}
