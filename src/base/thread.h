/* thread - starting a thread: the seam for failure, and a rule: signals go to the main thread alone
 *
 * A new thread blocks every signal (but those that faults raise), so that a Ctrl-C always interrupts what the main
 * thread waits for, never a worker.
 */
#ifndef BASE_THREAD_H
#define BASE_THREAD_H

#include <pthread.h>
#include <stdint.h>

/* 0, or an errno value (EAGAIN when a test injects a failure). */
int thread_start(pthread_t *out, void *(*fn)(void *), void *ctx);

/* A condition for thread_wait_ms, which waits so long at most, in real time also when a test has moved clock_ns. */
void thread_cond_init(pthread_cond_t *c);
void thread_wait_ms(pthread_cond_t *c, pthread_mutex_t *lock, int ms);

/* What each thread is at, for whoever finds that nothing moves. A mark costs a look at the clock and two stores; both
 * texts are literals, the thread's first one becomes its name (`top -H`). Threads beyond THREAD_MARKS_MAX go unmarked.
 */
enum { THREAD_MARKS_MAX = 128 };
struct thread_mark {
    int tid;
    const char *thread, *what;
    uint64_t at_ns; /* clock_ns when it was made */
};
void thread_mark(const char *thread, const char *what);
/* The last marks of the threads that live; returns how many, at most max. */
int thread_marks(struct thread_mark *out, int max);

#endif
