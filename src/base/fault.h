/* fault - the seams: every allocation and system call that can fail passes one, so that tests can make the n-th fail
 *
 *   for (n = 1; fault_arm(FAULT_ALLOC, n), run(), fault_fired(); n++) check_no_leak_no_crash();
 *
 * Disarmed, a seam costs one relaxed load. A fired fault sets errno (ENOMEM, EIO, ENOSPC ...) as the real one would.
 * Threads  safe; the count is shared by all threads
 */
#ifndef BASE_FAULT_H
#define BASE_FAULT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum fault_point {
    FAULT_ALLOC,
    FAULT_OPEN,
    FAULT_READ,
    FAULT_WRITE,
    FAULT_FSYNC,
    FAULT_RENAME,
    FAULT_MMAP,
    FAULT_THREAD,
    FAULT_ACCEPT,
    FAULT_RECV,
    FAULT_SEND,
    FAULT_COUNT
};

bool fault_hit_slow(enum fault_point point);
extern int fault_armed; /* read relaxed; written by fault_arm and fault_disarm only */

static inline bool fault_hit(enum fault_point point)
{
    return __builtin_expect(__atomic_load_n(&fault_armed, __ATOMIC_RELAXED), 0) && fault_hit_slow(point);
}

/* The seam of an allocation also adds up what is asked for while FAULT_ALLOC is armed or counted. */
bool fault_hit_alloc_slow(size_t bytes);
static inline bool fault_hit_alloc(size_t bytes)
{
    return __builtin_expect(__atomic_load_n(&fault_armed, __ATOMIC_RELAXED), 0) && fault_hit_alloc_slow(bytes);
}

void fault_arm(enum fault_point point, uint64_t nth); /* the nth call from now fails (1 = the next), once */
void fault_count(enum fault_point point);             /* count calls, fail none */
void fault_disarm(void);
bool fault_fired(void);
uint64_t fault_calls(void);       /* calls of the armed point since armed */
uint64_t fault_alloc_bytes(void); /* bytes asked for since armed, whether freed since or not */

#endif
