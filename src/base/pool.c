/* pool
 *
 * Invariants
 * 1. `claim` is (job number << 32 | items not yet claimed). An item is taken by compare-and-swap on the whole word, so
 * a thread that slept through a job can never take an item of the next one with the last one's fn and ctx: either the
 *    word is unchanged since it read fn and ctx, and the job is still open because this item is not done, or it starts
 * over.
 * 2. fn, ctx and n_item change only while no item is unclaimed and all are done.
 * 3. `done` counts finished items; pool_run returns when it reaches n_item, whoever finished them.
 * 4. A worker sleeps only on `epoch`, having added itself to `sleepers` first; pool_run raises epoch before it reads
 *    sleepers. So either the worker sees the new epoch or pool_run sees the sleeper.
 */
#include "base/pool.h"

#include "base/clock.h"
#include "base/mem.h"
#include "base/thread.h"

#include <linux/futex.h>
#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

/* A futex round trip takes 13-15 us (AMD Zen 4, 2026-11), so waiting twice that before sleeping never doubles a wait.
 */
enum { SPIN_NS = 30000, CACHE_LINE = 64 };

struct pool {
    _Alignas(CACHE_LINE) uint64_t claim;
    pool_fn *fn;
    void *ctx;
    uint32_t n_item;
    _Alignas(CACHE_LINE) uint32_t done;
    uint32_t caller_waits;
    _Alignas(CACHE_LINE) uint32_t epoch;
    uint32_t sleepers, stop;
    _Alignas(CACHE_LINE) int n_thread;
    int n_started;
    uint32_t job; /* the caller's own */
    struct worker {
        struct pool *pool;
        pthread_t thread;
        int index;
    } workers[];
};

/* ---- the machine ---- */

static inline void relax(void)
{
#if defined(__x86_64__)
    _mm_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static void flush_subnormals(void)
{
#if defined(__x86_64__)
    _mm_setcsr(_mm_getcsr() | 0x8040); /* FTZ, DAZ */
#elif defined(__aarch64__)
    uint64_t fpcr;
    __asm__ volatile("mrs %0, fpcr" : "=r"(fpcr));
    __asm__ volatile("msr fpcr, %0" : : "r"(fpcr | (uint64_t)1 << 24));
#endif
}

static void futex_wait(uint32_t *word, uint32_t value)
{
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
}

static void futex_wake(uint32_t *word, int n)
{
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, n, NULL, NULL, 0);
}

/* Waits until *word differs from value: a short spin, then false (the caller decides how to sleep). */
static bool spin_until_changed(const uint32_t *word, uint32_t value)
{
    uint64_t start = clock_ns();
    do {
        for (int i = 0; i < 64; i++) {
            if (__atomic_load_n(word, __ATOMIC_ACQUIRE) != value)
                return true;
            relax();
        }
    } while (clock_ns() - start < SPIN_NS);
    return false;
}

/* ---- work ---- */

static void finish_item(struct pool *p, uint32_t n_item)
{
    if (__atomic_add_fetch(&p->done, 1, __ATOMIC_SEQ_CST) == n_item &&
        __atomic_load_n(&p->caller_waits, __ATOMIC_SEQ_CST))
        futex_wake(&p->done, 1);
}

/* Takes and runs items until none is left unclaimed. */
static void work(struct pool *p, int thread)
{
    for (;;) {
        uint64_t claim = __atomic_load_n(&p->claim, __ATOMIC_ACQUIRE);
        uint32_t left = (uint32_t)claim;
        if (left == 0)
            return;
        pool_fn *fn = __atomic_load_n(&p->fn, __ATOMIC_RELAXED);
        void *ctx = __atomic_load_n(&p->ctx, __ATOMIC_RELAXED);
        uint32_t n_item = __atomic_load_n(&p->n_item, __ATOMIC_RELAXED);
        if (!__atomic_compare_exchange_n(&p->claim, &claim, claim - 1, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED))
            continue;
        fn(ctx, (int)(n_item - left), thread);
        finish_item(p, n_item);
    }
}

static void *worker_main(void *arg)
{
    struct worker *w = arg;
    struct pool *p = w->pool;
    flush_subnormals();
    while (!__atomic_load_n(&p->stop, __ATOMIC_ACQUIRE)) {
        uint32_t epoch = __atomic_load_n(&p->epoch, __ATOMIC_ACQUIRE);
        work(p, w->index);
        if (__atomic_load_n(&p->stop, __ATOMIC_ACQUIRE) || spin_until_changed(&p->epoch, epoch))
            continue;
        __atomic_add_fetch(&p->sleepers, 1, __ATOMIC_SEQ_CST);
        futex_wait(&p->epoch, epoch);
        __atomic_sub_fetch(&p->sleepers, 1, __ATOMIC_SEQ_CST);
    }
    return NULL;
}

static void wake_workers(struct pool *p, int n)
{
    __atomic_add_fetch(&p->epoch, 1, __ATOMIC_SEQ_CST);
    if (__atomic_load_n(&p->sleepers, __ATOMIC_SEQ_CST))
        futex_wake(&p->epoch, n);
}

void pool_run(struct pool *p, pool_fn *fn, void *ctx, int n_item)
{
    flush_subnormals();
    if (!p || p->n_thread == 1 || n_item <= 1) {
        for (int i = 0; i < n_item; i++)
            fn(ctx, i, 0);
        return;
    }
    uint32_t n = (uint32_t)n_item;
    __atomic_store_n(&p->fn, fn, __ATOMIC_RELAXED);
    __atomic_store_n(&p->ctx, ctx, __ATOMIC_RELAXED);
    __atomic_store_n(&p->n_item, n, __ATOMIC_RELAXED);
    __atomic_store_n(&p->done, 0, __ATOMIC_RELAXED);
    __atomic_store_n(&p->claim, (uint64_t)++p->job << 32 | n, __ATOMIC_RELEASE);
    wake_workers(p, n_item - 1);
    work(p, 0);
    uint32_t done;
    while ((done = __atomic_load_n(&p->done, __ATOMIC_ACQUIRE)) != n) {
        if (spin_until_changed(&p->done, done))
            continue;
        __atomic_store_n(&p->caller_waits, 1, __ATOMIC_SEQ_CST);
        if ((done = __atomic_load_n(&p->done, __ATOMIC_SEQ_CST)) != n)
            futex_wait(&p->done, done);
        __atomic_store_n(&p->caller_waits, 0, __ATOMIC_SEQ_CST);
    }
}

/* ---- life ---- */

enum status pool_create(struct pool **out, int n_thread, struct error *err)
{
    *out = NULL;
    if (n_thread < 1 || n_thread > 1024)
        return fail(err, ST_INVALID, "thread count %d: expected 1 to 1024", n_thread);
    struct pool *p = mem_alloc_aligned(sizeof *p + (size_t)n_thread * sizeof *p->workers);
    if (!p)
        return fail_nomem(err, "thread pool");
    p->n_thread = n_thread;
    for (int i = 1; i < n_thread; i++) {
        struct worker *w = &p->workers[p->n_started];
        *w = (struct worker){.pool = p, .index = i};
        int e = thread_start(&w->thread, worker_main, w);
        if (e) {
            pool_destroy(p);
            return fail(err, ST_LIMIT, "cannot start thread %d of %d: %s; try fewer threads", i + 1, n_thread,
                        strerror(e));
        }
        p->n_started++;
    }
    *out = p;
    return ST_OK;
}

void pool_destroy(struct pool *p)
{
    if (!p)
        return;
    __atomic_store_n(&p->stop, 1, __ATOMIC_RELEASE);
    wake_workers(p, INT_MAX);
    for (int i = 0; i < p->n_started; i++)
        pthread_join(p->workers[i].thread, NULL);
    mem_free(p);
}

int pool_threads(const struct pool *p)
{
    return p ? p->n_thread : 1;
}

int cpu_count(void)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0)
        return CPU_COUNT(&set) > 0 ? CPU_COUNT(&set) : 1;
    long n = sysconf(_SC_NPROCESSORS_ONLN); /* more CPUs than a cpu_set_t holds */
    return n > 0 ? (int)n : 1;
}
