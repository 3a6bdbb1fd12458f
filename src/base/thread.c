#include "base/thread.h"

#include "base/clock.h"
#include "base/fault.h"

#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <time.h>
#include <unistd.h>

int thread_start(pthread_t *out, void *(*fn)(void *), void *ctx)
{
    if (fault_hit(FAULT_THREAD))
        return EAGAIN;
    sigset_t all, old;
    sigfillset(&all);
    sigdelset(&all, SIGSEGV);
    sigdelset(&all, SIGBUS);
    sigdelset(&all, SIGFPE);
    sigdelset(&all, SIGILL);
    pthread_sigmask(SIG_BLOCK, &all, &old); /* inherited by the thread */
    int e = pthread_create(out, NULL, fn, ctx);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return e;
}

void thread_cond_init(pthread_cond_t *c)
{
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(c, &monotonic);
    pthread_condattr_destroy(&monotonic);
}

void thread_wait_ms(pthread_cond_t *c, pthread_mutex_t *lock, int ms)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += ms / 1000;
    until.tv_nsec += ms % 1000 * 1000000L;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    pthread_cond_timedwait(c, lock, &until);
}

/* A thread owns the slot that holds its number, from its first mark to its end. Fields are relaxed atomics: a reader
 * may see a new mark with the old time, never anything that is not a mark. */
static struct thread_mark slots[THREAD_MARKS_MAX];
static _Thread_local struct thread_mark *mine;
static pthread_key_t at_end;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void give_back(void *slot)
{
    struct thread_mark *s = slot;
    __atomic_store_n(&s->what, NULL, __ATOMIC_RELAXED);
    __atomic_store_n(&s->tid, 0, __ATOMIC_RELEASE);
}

static void make_key(void)
{
    pthread_key_create(&at_end, give_back);
}

static struct thread_mark *take_slot(const char *thread)
{
    int tid = gettid();
    pthread_once(&once, make_key);
    for (int i = 0; i < THREAD_MARKS_MAX; i++) {
        int nobody = 0;
        if (!__atomic_compare_exchange_n(&slots[i].tid, &nobody, tid, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED))
            continue;
        __atomic_store_n(&slots[i].thread, thread, __ATOMIC_RELAXED);
        pthread_setspecific(at_end, &slots[i]);
        if (tid != getpid()) /* the main thread's name is the program's */
            pthread_setname_np(pthread_self(), thread);
        return &slots[i];
    }
    return NULL;
}

void thread_mark(const char *thread, const char *what)
{
    if (!mine)
        mine = take_slot(thread);
    if (!mine)
        return;
    __atomic_store_n(&mine->at_ns, clock_ns(), __ATOMIC_RELAXED);
    __atomic_store_n(&mine->what, what, __ATOMIC_RELAXED);
}

int thread_marks(struct thread_mark *out, int max)
{
    int n = 0;
    for (int i = 0; i < THREAD_MARKS_MAX && n < max; i++) {
        struct thread_mark m = {.tid = __atomic_load_n(&slots[i].tid, __ATOMIC_ACQUIRE),
                                .thread = __atomic_load_n(&slots[i].thread, __ATOMIC_RELAXED),
                                .what = __atomic_load_n(&slots[i].what, __ATOMIC_RELAXED),
                                .at_ns = __atomic_load_n(&slots[i].at_ns, __ATOMIC_RELAXED)};
        if (m.tid && m.what)
            out[n++] = m;
    }
    return n;
}
