#include "base/clock.h"

#include <time.h>

static int64_t monotonic_shift, wall_shift; /* relaxed atomics: tests jump while threads read */

static uint64_t read_clock(clockid_t id)
{
    struct timespec t = {0};
    clock_gettime(id, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

uint64_t clock_ns(void)
{
    return read_clock(CLOCK_MONOTONIC) + (uint64_t)__atomic_load_n(&monotonic_shift, __ATOMIC_RELAXED);
}

uint64_t clock_wall_ns(void)
{
    return read_clock(CLOCK_REALTIME) + (uint64_t)__atomic_load_n(&wall_shift, __ATOMIC_RELAXED);
}

void clock_jump(int64_t monotonic_ns, int64_t wall_ns)
{
    __atomic_store_n(&monotonic_shift, monotonic_ns, __ATOMIC_RELAXED);
    __atomic_store_n(&wall_shift, wall_ns, __ATOMIC_RELAXED);
}

uint64_t clock_thread_cpu_ns(void)
{
    return read_clock(CLOCK_THREAD_CPUTIME_ID);
}

uint64_t clock_thread_cpu_ns_of(int tid)
{
    enum { PER_THREAD = 4, SCHED = 2 }; /* linux/posix-timers_types.h: how a clock is made from a thread's number */
    return read_clock((clockid_t)(~(unsigned)tid << 3 | PER_THREAD | SCHED));
}

uint64_t clock_process_cpu_ns_of(int pid)
{
    clockid_t id;
    return clock_getcpuclockid((pid_t)pid, &id) == 0 ? read_clock(id) : 0;
}
