#include "test.h"

#include "base/clock.h"
#include "base/fault.h"
#include "base/mem.h"
#include "base/pool.h"
#include "base/rng.h"

#include <sched.h>
#include <signal.h>
#include <sys/wait.h>
#include <time.h>

static struct error err;
enum { ITEMS = 500 };

struct job {
    int done[ITEMS], by_thread[64];
    int n_thread, slow_thread;
    volatile float tiny, subnormal;
    int subnormal_seen;
};

static void count_item(void *ctx, int item, int thread)
{
    struct job *j = ctx;
    assert_true(thread >= 0 && thread < j->n_thread);
    __atomic_add_fetch(&j->done[item], 1, __ATOMIC_RELAXED);
    __atomic_add_fetch(&j->by_thread[thread], 1, __ATOMIC_RELAXED);
}

static void test_pool_every_item_exactly_once(void **state)
{
    (void)state;
    struct rng r;
    rng_init(&r, 7);
    for (int threads = 1; threads <= 8; threads++) {
        struct pool *p;
        OK(pool_create(&p, threads, &err));
        assert_int_equal(pool_threads(p), threads);
        for (int round = 0; round < 400; round++) {
            int n = (int)rng_below(&r, round % 50 == 0 ? ITEMS : 12);
            struct job j = {.n_thread = threads};
            pool_run(p, count_item, &j, n);
            for (int i = 0; i < ITEMS; i++)
                assert_int_equal(j.done[i], i < n);
            if (round % 100 == 99) /* long enough for the workers to fall asleep */
                nanosleep(&(struct timespec){.tv_nsec = 200000}, NULL);
        }
        pool_destroy(p);
    }
}

static void test_pool_null_runs_inline(void **state)
{
    (void)state;
    struct job j = {.n_thread = 1};
    pool_run(NULL, count_item, &j, 10);
    assert_int_equal(j.by_thread[0], 10);
    assert_int_equal(pool_threads(NULL), 1);
    pool_destroy(NULL);
}

/* A worker that holds an item does not hold the others: the rest finishes meanwhile on whoever is left. */
static void slow_item(void *ctx, int item, int thread)
{
    struct job *j = ctx;
    int first = -1;
    if (thread != 0 &&
        __atomic_compare_exchange_n(&j->slow_thread, &first, thread, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
        nanosleep(&(struct timespec){.tv_nsec = 500000000}, NULL);
    } else
        nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
    count_item(ctx, item, thread);
}

static void test_pool_survives_a_descheduled_worker(void **state)
{
    (void)state;
    for (int threads = 2; threads <= 4; threads++) {
        struct pool *p;
        OK(pool_create(&p, threads, &err));
        struct job j = {.n_thread = threads, .slow_thread = -1};
        pool_run(p, slow_item, &j, 100);
        for (int i = 0; i < 100; i++)
            assert_int_equal(j.done[i], 1);
        if (j.slow_thread > 0) /* it lost one item's time, and the others did the rest */
            assert_int_equal(j.by_thread[j.slow_thread] < 40, 1);
        pool_destroy(p);
    }
}

/* The lowest scheduling class: workers hardly run, and the caller finishes alone. */
static void idle_class(void *ctx, int item, int thread)
{
    if (thread != 0)
        sched_setscheduler(0, SCHED_IDLE, &(struct sched_param){0});
    count_item(ctx, item, thread);
}

static void test_pool_with_idle_class_workers(void **state)
{
    (void)state;
    struct pool *p;
    OK(pool_create(&p, 4, &err));
    for (int round = 0; round < 2000; round++) {
        struct job j = {.n_thread = 4};
        pool_run(p, idle_class, &j, 16);
        for (int i = 0; i < 16; i++)
            assert_int_equal(j.done[i], 1);
    }
    pool_destroy(p);
}

/* A neighbour shares one CPU: a thread that loses it with an item in hand is moved, and may run where it might before.
 */
struct burn {
    int done, tids[2];
};

static void burn_item(void *ctx, int item, int thread)
{
    struct burn *b = ctx;
    (void)item;
    b->tids[thread] = gettid();
    for (uint64_t start = clock_thread_cpu_ns(); clock_thread_cpu_ns() - start < 1000000;)
        ;
    __atomic_add_fetch(&b->done, 1, __ATOMIC_RELAXED);
}

static void test_pool_moves_a_thread_that_lost_its_cpu(void **state)
{
    (void)state;
    enum { JOBS = 4000, ITEMS_EACH = 3 };
    struct pool *p;
    struct burn b = {.done = 0};
    cpu_set_t one, whole, allowed, after;
    assert_int_equal(sched_getaffinity(0, sizeof whole, &whole), 0);
    if (CPU_COUNT(&whole) < 2)
        skip();
    int cpu = 0;
    CPU_ZERO(&allowed); /* two of them: else the kernel finds every thread a CPU without the neighbour */
    for (int i = 0; i < CPU_SETSIZE && CPU_COUNT(&allowed) < 2; i++)
        if (CPU_ISSET(i, &whole)) {
            CPU_SET(i, &allowed);
            cpu = i;
        }
    assert_int_equal(sched_setaffinity(0, sizeof allowed, &allowed), 0);
    pid_t neighbour = fork();
    if (neighbour == 0) {
        CPU_ZERO(&one);
        CPU_SET(cpu, &one);
        sched_setaffinity(0, sizeof one, &one);
        for (volatile int i = 0;; i++)
            ;
    }
    OK(pool_create(&p, 2, &err));
    int jobs = 0;
    while (jobs < JOBS && (jobs < 50 || pool_rescues(p) == 0)) {
        pool_run(p, burn_item, &b, ITEMS_EACH);
        jobs++;
    }
    kill(neighbour, SIGKILL);
    waitpid(neighbour, NULL, 0);
    assert_int_equal(b.done, jobs * ITEMS_EACH);
    assert_true(pool_rescues(p) > 0);
    nanosleep(&(struct timespec){.tv_nsec = 100000000}, NULL); /* workers sleep: no move is under way */
    for (int i = 0; i < pool_threads(p); i++)
        if (b.tids[i]) {
            assert_int_equal(sched_getaffinity(b.tids[i], sizeof after, &after), 0);
            assert_true(CPU_EQUAL(&after, &allowed));
        }
    pool_destroy(p);
    assert_int_equal(sched_setaffinity(0, sizeof whole, &whole), 0);
}

/* Results of one job are visible to the next without further care: a chain of sums. */
struct chain {
    long cells[64], total;
};

static void add_one(void *ctx, int item, int thread)
{
    (void)thread;
    ((struct chain *)ctx)->cells[item] += item;
}

static void test_pool_orders_memory_between_jobs(void **state)
{
    (void)state;
    struct pool *p;
    struct chain c = {{0}, 0};
    OK(pool_create(&p, 3, &err));
    for (int round = 1; round <= 3000; round++) {
        pool_run(p, add_one, &c, 64);
        long sum = 0;
        for (int i = 0; i < 64; i++)
            sum += c.cells[i];
        assert_int_equal(sum, round * (63 * 64 / 2));
    }
    pool_destroy(p);
}

static void multiply_tiny(void *ctx, int item, int thread)
{
    (void)item, (void)thread;
    struct job *j = ctx;
    if (j->tiny * 0.5f != 0 || j->subnormal * 1e30f != 0) /* results are flushed, and operands */
        __atomic_store_n(&j->subnormal_seen, 1, __ATOMIC_RELAXED);
    nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL); /* lets every thread take some */
}

static void test_pool_flushes_subnormals_everywhere(void **state)
{
    (void)state;
    struct pool *p;
    struct job j = {.tiny = 0x1p-126f, .subnormal = 0x1p-140f};
    OK(pool_create(&p, 3, &err));
    pool_run(p, multiply_tiny, &j, 50);
    assert_int_equal(j.subnormal_seen, 0);
    pool_destroy(p);
}

static void test_pool_refuses_and_survives_faults(void **state)
{
    (void)state;
    struct pool *p;
    FAILS(ST_INVALID, pool_create(&p, 0, &err));
    FAILS(ST_INVALID, pool_create(&p, 100000, &err));
    fault_arm(FAULT_ALLOC, 1);
    FAILS(ST_NOMEM, pool_create(&p, 2, &err));
    for (uint64_t n = 1; n <= 3; n++) {
        fault_arm(FAULT_THREAD, n);
        FAILS(ST_LIMIT, pool_create(&p, 4, &err));
        assert_null(p);
    }
    fault_disarm();
    assert_true(cpu_count() >= 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pool_every_item_exactly_once),
        cmocka_unit_test(test_pool_null_runs_inline),
        cmocka_unit_test(test_pool_survives_a_descheduled_worker),
        cmocka_unit_test(test_pool_with_idle_class_workers),
        cmocka_unit_test(test_pool_moves_a_thread_that_lost_its_cpu),
        cmocka_unit_test(test_pool_orders_memory_between_jobs),
        cmocka_unit_test(test_pool_flushes_subnormals_everywhere),
        cmocka_unit_test(test_pool_refuses_and_survives_faults),
    };
    return RUN(tests);
}
