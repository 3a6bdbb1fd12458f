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
 * 5. cpu, busy and tid of a worker are hints for moving threads; no result and no wait depends on them.
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
    int n_started; /* of them, the caller among them */
    uint32_t job;  /* the caller's own */
    uint64_t rescues;
    int moving;        /* a thread_move is under way */
    bool room_for_all; /* as many CPUs as threads, when the pool was made */
    struct worker {
        _Alignas(CACHE_LINE) struct pool *pool;
        pthread_t thread;
        int index;
        /* for who waits; hints, relaxed */
        int tid, cpu; /* where it was before its last item */
        int busy;     /* it may hold an item */
    } workers[];      /* [n_thread]; 0 is the caller */
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

static void futex_wait(uint32_t *word, uint32_t value, const struct timespec *most)
{
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, most, NULL, 0);
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

/* ---- rescue: a thread that holds an item, and has lost its CPU to another process ----
 *
 * It would get the CPU back in 3 to 10 ms, and the whole job waits. So whoever waits moves it to the waiting thread's
 * own CPU, and steps aside. bench/neighbour measures it. Affinities stay as they were: a thread is moved by allowing it
 * one CPU for a moment, and only to a CPU it may use.
 */
static int thread_id(void)
{
    static _Thread_local int id;
    return id ? id : (id = (int)syscall(SYS_gettid));
}

/* One at a time: else a second one would take the first one's single CPU for the thread's own affinity. */
static bool thread_move(struct pool *p, int tid, int cpu)
{
    cpu_set_t all, one, any;
    CPU_ZERO(&one);
    memset(&any, 0xff, sizeof any);
    if (cpu < 0 || cpu >= CPU_SETSIZE || __atomic_exchange_n(&p->moving, 1, __ATOMIC_ACQUIRE))
        return false;
    CPU_SET(cpu, &one);
    bool moved = sched_getaffinity(tid, sizeof all, &all) == 0 && CPU_ISSET(cpu, &all) &&
                 sched_setaffinity(tid, sizeof one, &one) == 0;
    /* Its own set no longer allowed (a cpuset changed meanwhile)? Then any that is: never left on one. */
    if (moved && sched_setaffinity(tid, sizeof all, &all) != 0)
        sched_setaffinity(tid, sizeof any, &any);
    __atomic_store_n(&p->moving, 0, __ATOMIC_RELEASE);
    return moved;
}

/* It works, and its CPU time stands still. */
static bool is_stalled(const struct worker *w, int tid)
{
    enum { LOOK_NS = 5000 };
    if (!tid || !__atomic_load_n(&w->busy, __ATOMIC_RELAXED))
        return false;
    uint64_t used = clock_thread_cpu_ns_of(tid), start = clock_ns();
    while (clock_ns() - start < LOOK_NS)
        relax();
    return __atomic_load_n(&w->busy, __ATOMIC_RELAXED) && clock_thread_cpu_ns_of(tid) == used;
}

/* Its tid; 0 when it was not moved. */
static int rescue(struct pool *p, const struct worker *w)
{
    int tid = __atomic_load_n(&w->tid, __ATOMIC_RELAXED);
    if (!is_stalled(w, tid) || !thread_move(p, tid, sched_getcpu()))
        return 0;
    __atomic_add_fetch(&p->rescues, 1, __ATOMIC_RELAXED);
    return tid;
}

/* By the caller, which then sleeps. Returns the worker's tid, or 0; *home is where to send it when it is done: it must
 * not go on beside us. */
static int rescue_worker(struct pool *p, int *home)
{
    for (int i = 1; i < p->n_thread; i++) {
        const struct worker *w = &p->workers[i];
        *home = __atomic_load_n(&w->cpu, __ATOMIC_RELAXED);
        int tid = rescue(p, w);
        if (tid)
            return tid;
    }
    return 0;
}

static void send_home(struct pool *p, int tid, int home)
{
    if (tid && home != sched_getcpu())
        thread_move(p, tid, home);
}

/* By a worker: it changes places with the caller, without which nothing goes on. */
static void rescue_caller(struct pool *p)
{
    const struct worker *caller = &p->workers[0];
    int its = __atomic_load_n(&caller->cpu, __ATOMIC_RELAXED);
    if (its != sched_getcpu() && rescue(p, caller))
        thread_move(p, thread_id(), its);
}

/* By a worker that shares the caller's CPU: it goes where no thread of the pool is. Two threads on one CPU leave
 * another to the neighbour, and the kernel, which sees two busy CPUs, takes its time to change that. */
static void leave_caller(struct pool *p)
{
    cpu_set_t free_cpus;
    if (sched_getaffinity(0, sizeof free_cpus, &free_cpus) != 0)
        return;
    for (int i = 0; i < p->n_thread; i++)
        if (__atomic_load_n(&p->workers[i].tid, __ATOMIC_RELAXED))
            CPU_CLR(__atomic_load_n(&p->workers[i].cpu, __ATOMIC_RELAXED), &free_cpus);
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
        if (CPU_ISSET(cpu, &free_cpus)) {
            thread_move(p, thread_id(), cpu);
            return;
        }
}

/* Before each item, while none is held. */
static inline void take_place(struct worker *w)
{
    int cpu = sched_getcpu(); /* a load: the C library keeps it in memory */
    if (cpu != __atomic_load_n(&w->cpu, __ATOMIC_RELAXED))
        __atomic_store_n(&w->cpu, cpu, __ATOMIC_RELAXED);
    if (w->index && w->pool->room_for_all && cpu == __atomic_load_n(&w->pool->workers[0].cpu, __ATOMIC_RELAXED))
        leave_caller(w->pool);
}

/* Takes and runs items until none is left unclaimed. */
static void work_all(struct pool *p, struct worker *w)
{
    for (;;) {
        take_place(w);
        uint64_t claim = __atomic_load_n(&p->claim, __ATOMIC_ACQUIRE);
        uint32_t left = (uint32_t)claim;
        if (left == 0)
            return;
        pool_fn *fn = __atomic_load_n(&p->fn, __ATOMIC_RELAXED);
        void *ctx = __atomic_load_n(&p->ctx, __ATOMIC_RELAXED);
        uint32_t n_item = __atomic_load_n(&p->n_item, __ATOMIC_RELAXED);
        if (!__atomic_compare_exchange_n(&p->claim, &claim, claim - 1, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED))
            continue;
        fn(ctx, (int)(n_item - left), w->index);
        finish_item(p, n_item);
    }
}

static void work(struct worker *w)
{
    __atomic_store_n(&w->busy, 1, __ATOMIC_RELAXED);
    work_all(w->pool, w);
    __atomic_store_n(&w->busy, 0, __ATOMIC_RELAXED);
}

static void *worker_main(void *arg)
{
    struct worker *w = arg;
    struct pool *p = w->pool;
    flush_subnormals();
    __atomic_store_n(&w->tid, thread_id(), __ATOMIC_RELAXED);
    while (!__atomic_load_n(&p->stop, __ATOMIC_ACQUIRE)) {
        uint32_t epoch = __atomic_load_n(&p->epoch, __ATOMIC_ACQUIRE);
        work(w);
        if (__atomic_load_n(&p->stop, __ATOMIC_ACQUIRE) || spin_until_changed(&p->epoch, epoch))
            continue;
        rescue_caller(p);
        __atomic_add_fetch(&p->sleepers, 1, __ATOMIC_SEQ_CST);
        futex_wait(&p->epoch, epoch, NULL);
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

/* Until every item is done, whoever holds the last ones. */
static void wait_until_done(struct pool *p, uint32_t n)
{
    static const struct timespec look_again = {.tv_nsec = 500000}; /* another worker may have stalled since */
    uint32_t done;
    int tid = 0, home = -1; /* of the worker moved here */
    while ((done = __atomic_load_n(&p->done, __ATOMIC_ACQUIRE)) != n) {
        if (spin_until_changed(&p->done, done))
            continue;
        send_home(p, tid, home);
        tid = rescue_worker(p, &home);
        __atomic_store_n(&p->caller_waits, 1, __ATOMIC_SEQ_CST);
        if ((done = __atomic_load_n(&p->done, __ATOMIC_SEQ_CST)) != n)
            futex_wait(&p->done, done, &look_again);
        __atomic_store_n(&p->caller_waits, 0, __ATOMIC_SEQ_CST);
    }
    send_home(p, tid, home);
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
    __atomic_store_n(&p->workers[0].tid, thread_id(), __ATOMIC_RELAXED);
    work(&p->workers[0]);
    wait_until_done(p, n);
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
    p->n_started = 1;
    p->room_for_all = n_thread <= cpu_count();
    for (int i = 0; i < n_thread; i++) { /* before any starts: they look at each other */
        p->workers[i].pool = p;
        p->workers[i].index = i;
    }
    for (int i = 1; i < n_thread; i++) {
        struct worker *w = &p->workers[i];
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
    for (int i = 1; i < p->n_started; i++)
        pthread_join(p->workers[i].thread, NULL);
    mem_free(p);
}

uint64_t pool_rescues(const struct pool *p)
{
    return p ? __atomic_load_n(&p->rescues, __ATOMIC_RELAXED) : 0;
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
