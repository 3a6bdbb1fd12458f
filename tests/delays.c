/* delays - holds threads up at random where they meet: a test that counts on who comes first fails under it
 *
 * Preloaded into the tests of rooms with threads by `make check ONLY=delays`. Around locks and waits, at a thread's
 * start and before bytes go in or out, a thread may sleep from 1 us to 131 ms, each power of two as likely as the
 * other. It is in haste or slow for 32 such calls (one in 2, 8, 64 or 512 sleeps), so that one falls far behind
 * another; of all its time but 20 ms it sleeps at most half. Stopping whole processes finds less: their threads keep
 * their order. Each run is another. Python is left alone: its threads share a lock, and all would stand still.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { LENGTHS = 18, CALLS = 32, FREE_NS = 20000000 };
static const uint64_t one_in[] = {2, 8, 64, 512}, NEVER = UINT64_MAX;

static _Thread_local uint64_t state, begin, slept, calls, rare;

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void delay(void)
{
    if (rare == NEVER)
        return;
    if (!state) {
        if (strncmp(program_invocation_short_name, "python", 6) == 0) {
            rare = NEVER;
            return;
        }
        begin = now_ns();
        state = (begin + (uint64_t)gettid()) * 0x9E3779B97F4A7C15u | 1;
    }
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    if (calls++ % CALLS == 0)
        rare = one_in[state >> 50 & 3];
    uint64_t ns = 1000u << (state >> 41) % LENGTHS;
    if (state >> 32 & (rare - 1) || slept + ns > (now_ns() - begin) / 2 + FREE_NS)
        return;
    int before = errno;
    slept += ns;
    nanosleep(&(struct timespec){.tv_nsec = (long)ns}, NULL);
    errno = before;
}

#define NEXT(name)                                                                                                     \
    static __typeof__(&name) next;                                                                                     \
    next = next ? next : (__typeof__(&name))dlsym(RTLD_NEXT, #name)

int pthread_mutex_lock(pthread_mutex_t *m)
{
    NEXT(pthread_mutex_lock);
    delay();
    return next(m);
}

int pthread_mutex_unlock(pthread_mutex_t *m)
{
    NEXT(pthread_mutex_unlock);
    int rc = next(m);
    delay();
    return rc;
}

int pthread_cond_wait(pthread_cond_t *c, pthread_mutex_t *m)
{
    NEXT(pthread_cond_wait);
    delay();
    int rc = next(c, m);
    delay();
    return rc;
}

int pthread_cond_timedwait(pthread_cond_t *c, pthread_mutex_t *m, const struct timespec *until)
{
    NEXT(pthread_cond_timedwait);
    delay();
    int rc = next(c, m, until);
    delay();
    return rc;
}

struct thread {
    void *(*run)(void *);
    void *ctx;
};

static void *begin_late(void *p)
{
    struct thread t = *(struct thread *)p;
    free(p);
    delay();
    return t.run(t.ctx);
}

int pthread_create(pthread_t *id, const pthread_attr_t *how, void *(*run)(void *), void *ctx)
{
    NEXT(pthread_create);
    struct thread *t = malloc(sizeof *t);
    if (!t)
        return EAGAIN;
    *t = (struct thread){run, ctx};
    int rc = next(id, how, begin_late, t);
    if (rc)
        free(t);
    delay();
    return rc;
}

ssize_t read(int fd, void *to, size_t n)
{
    NEXT(read);
    delay();
    return next(fd, to, n);
}

ssize_t write(int fd, const void *from, size_t n)
{
    NEXT(write);
    delay();
    return next(fd, from, n);
}

ssize_t recv(int fd, void *to, size_t n, int flags)
{
    NEXT(recv);
    delay();
    return next(fd, to, n, flags);
}

ssize_t send(int fd, const void *from, size_t n, int flags)
{
    NEXT(send);
    delay();
    return next(fd, from, n, flags);
}

ssize_t readv(int fd, const struct iovec *to, int n)
{
    NEXT(readv);
    delay();
    return next(fd, to, n);
}

ssize_t writev(int fd, const struct iovec *from, int n)
{
    NEXT(writev);
    delay();
    return next(fd, from, n);
}
