/* thread - starting a thread: the seam for failure, and a rule: signals go to the main thread alone
 *
 * A new thread blocks every signal (but those that faults raise), so that a Ctrl-C always interrupts what the main
 * thread waits for, never a worker.
 */
#ifndef BASE_THREAD_H
#define BASE_THREAD_H

#include <pthread.h>

/* 0, or an errno value (EAGAIN when a test injects a failure). */
int thread_start(pthread_t *out, void *(*fn)(void *), void *ctx);

#endif
