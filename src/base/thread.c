#include "base/thread.h"

#include "base/fault.h"

#include <errno.h>
#include <signal.h>

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
