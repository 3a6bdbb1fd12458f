/* clock - the time seam. Limits and durations use the monotonic clock; the wall clock is for people and tokens. */
#ifndef BASE_CLOCK_H
#define BASE_CLOCK_H

#include <stdint.h>

uint64_t clock_ns(void);                                /* monotonic */
uint64_t clock_wall_ns(void);                           /* since 1970 */
void clock_jump(int64_t monotonic_ns, int64_t wall_ns); /* tests: shift what the two return from now on */
uint64_t clock_thread_cpu_ns(void);
uint64_t clock_thread_cpu_ns_of(int tid);  /* of another thread of this process */
uint64_t clock_process_cpu_ns_of(int pid); /* of a process on this machine, all its threads; 0 when unknown */

#endif
