/* guard
 *
 * Invariants
 * 1. A slot is free (data NULL), or its size and flags were written before its data: the handler may read them.
 * 2. The handler changes only the faulting mapping's pages and its slot's `lost`.
 */
#include "base/guard.h"

#include <signal.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

static struct slot {
    const char *data; /* NULL: free; `taken`: being filled */
    size_t size;
    int lost, essential;
} slots[GUARD_MAX];
static const char taken[1];
static void (*on_lost_now)(void);
static size_t page_bytes;

static struct slot *slot_of(const void *data)
{
    for (int i = 0; i < GUARD_MAX; i++)
        if (data && __atomic_load_n(&slots[i].data, __ATOMIC_ACQUIRE) == data)
            return &slots[i];
    return NULL;
}

/* From the lost page to the mapping's end: what lies behind a new end of file is lost as well. */
static bool put_zeros(const struct slot *s, const char *data, const char *at)
{
    size_t offset = (size_t)(at - data) / page_bytes * page_bytes;
    return mmap((void *)(data + offset), s->size - offset, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) !=
           MAP_FAILED;
}

static void on_bus(int number, siginfo_t *info, void *context)
{
    (void)context;
    const char *at = info->si_addr;
    for (int i = 0; i < GUARD_MAX; i++) {
        struct slot *s = &slots[i];
        const char *data = __atomic_load_n(&s->data, __ATOMIC_ACQUIRE);
        if (!data || data == taken || at < data || (size_t)(at - data) >= s->size)
            continue;
        if (__atomic_load_n(&s->essential, __ATOMIC_RELAXED) || !put_zeros(s, data, at))
            on_lost_now();
        __atomic_store_n(&s->lost, 1, __ATOMIC_RELEASE);
        return;
    }
    signal(number, SIG_DFL); /* none of ours: the fault happens again, and ends the program as it would have */
}

void guard_install(void (*on_lost)(void))
{
    struct sigaction action = {.sa_sigaction = on_bus, .sa_flags = SA_SIGINFO};
    on_lost_now = on_lost;
    page_bytes = (size_t)sysconf(_SC_PAGESIZE);
    sigaction(SIGBUS, &action, NULL);
}

void guard_add(const void *data, size_t size)
{
    for (int i = 0; i < GUARD_MAX; i++) {
        const char *free_slot = NULL;
        if (!__atomic_compare_exchange_n(&slots[i].data, &free_slot, taken, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED))
            continue;
        slots[i].size = size;
        slots[i].lost = slots[i].essential = 0;
        __atomic_store_n(&slots[i].data, data, __ATOMIC_RELEASE);
        return;
    }
}

void guard_remove(const void *data)
{
    struct slot *s = slot_of(data);
    if (s)
        __atomic_store_n(&s->data, NULL, __ATOMIC_RELEASE);
}

bool guard_lost(const void *data)
{
    const struct slot *s = slot_of(data);
    return s && __atomic_load_n(&s->lost, __ATOMIC_ACQUIRE);
}

void guard_essential(const void *data)
{
    struct slot *s = slot_of(data);
    if (s)
        __atomic_store_n(&s->essential, 1, __ATOMIC_RELAXED);
}
