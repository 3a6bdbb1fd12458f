/* budget - one bound on the bytes that many owners hold
 *
 *   struct budget b = {.max = 1 << 30};
 *   size_t held = 0;                                       // one a holder
 *   if (!budget_hold(&b, &held, bytes_now, b.max)) ...     // grown too much: give something up, held is as before
 *   budget_hold(&b, &held, 0, b.max);                      // shrinking always succeeds
 *
 * Threads  budget: any; a `held` has one owner at a time
 */
#ifndef BASE_BUDGET_H
#define BASE_BUDGET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { BUDGET_NO_LIMIT = -1 }; /* (size_t): for bytes that are there already and cannot be refused */

struct budget {
    size_t max;
    size_t used;      /* atomic */
    uint64_t refused; /* atomic: how often a holder was told no */
};

/* Sets *held to now, and the budget's use with it. False, and nothing changed, when it grows and the use would exceed
 * `limit`. b == NULL: no bound. */
static inline bool budget_hold(struct budget *b, size_t *held, size_t now, size_t limit)
{
    if (b && now > *held) {
        size_t more = now - *held, used = __atomic_load_n(&b->used, __ATOMIC_RELAXED);
        do {
            if (used > limit || more > limit - used) {
                __atomic_add_fetch(&b->refused, 1, __ATOMIC_RELAXED);
                return false;
            }
        } while (!__atomic_compare_exchange_n(&b->used, &used, used + more, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
    } else if (b) {
        __atomic_sub_fetch(&b->used, *held - now, __ATOMIC_RELAXED);
    }
    *held = now;
    return true;
}
/* Would so many more bytes fit? Counts a no, as budget_hold does. */
static inline bool budget_has_room(struct budget *b, size_t more, size_t limit)
{
    size_t used = __atomic_load_n(&b->used, __ATOMIC_RELAXED);
    if (used <= limit && more <= limit - used)
        return true;
    __atomic_add_fetch(&b->refused, 1, __ATOMIC_RELAXED);
    return false;
}
static inline size_t budget_used(const struct budget *b)
{
    return __atomic_load_n(&b->used, __ATOMIC_RELAXED);
}

#endif
