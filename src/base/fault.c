#include "base/fault.h"

#include <errno.h>

int fault_armed;
static enum fault_point armed_point;
static uint64_t armed_nth, calls, alloc_bytes;
static int fired;

static const int fault_errno[FAULT_COUNT] = {
    [FAULT_ALLOC] = ENOMEM,  [FAULT_OPEN] = EIO,        [FAULT_READ] = EIO,    [FAULT_WRITE] = ENOSPC,
    [FAULT_FSYNC] = EIO,     [FAULT_RENAME] = EIO,      [FAULT_MMAP] = ENOMEM, [FAULT_THREAD] = EAGAIN,
    [FAULT_ACCEPT] = EMFILE, [FAULT_RECV] = ECONNRESET, [FAULT_SEND] = EPIPE,
};

bool fault_hit_slow(enum fault_point point)
{
    if (point != __atomic_load_n(&armed_point, __ATOMIC_RELAXED))
        return false;
    uint64_t n = __atomic_add_fetch(&calls, 1, __ATOMIC_RELAXED), nth = __atomic_load_n(&armed_nth, __ATOMIC_RELAXED);
    if (nth == 0 || n != nth)
        return false;
    __atomic_store_n(&fired, 1, __ATOMIC_RELAXED);
    errno = fault_errno[point];
    return true;
}

bool fault_hit_alloc_slow(size_t bytes)
{
    if (__atomic_load_n(&armed_point, __ATOMIC_RELAXED) == FAULT_ALLOC)
        __atomic_add_fetch(&alloc_bytes, bytes, __ATOMIC_RELAXED);
    return fault_hit_slow(FAULT_ALLOC);
}

uint64_t fault_alloc_bytes(void)
{
    return __atomic_load_n(&alloc_bytes, __ATOMIC_RELAXED);
}

static void set(enum fault_point point, uint64_t nth)
{
    __atomic_store_n(&armed_point, point, __ATOMIC_RELAXED);
    __atomic_store_n(&armed_nth, nth, __ATOMIC_RELAXED);
    __atomic_store_n(&calls, 0, __ATOMIC_RELAXED);
    __atomic_store_n(&alloc_bytes, 0, __ATOMIC_RELAXED);
    __atomic_store_n(&fired, 0, __ATOMIC_RELAXED);
    __atomic_store_n(&fault_armed, 1, __ATOMIC_RELEASE);
}

void fault_arm(enum fault_point point, uint64_t nth)
{
    set(point, nth);
}

void fault_count(enum fault_point point)
{
    set(point, 0);
}

void fault_disarm(void)
{
    __atomic_store_n(&fault_armed, 0, __ATOMIC_RELEASE);
}

bool fault_fired(void)
{
    return __atomic_load_n(&fired, __ATOMIC_RELAXED) != 0;
}

uint64_t fault_calls(void)
{
    return __atomic_load_n(&calls, __ATOMIC_RELAXED);
}
