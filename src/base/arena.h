/* arena - memory by lifetime: allocate many, free all at once
 *
 *   struct arena a; arena_init(&a, 16 << 20); ... p = arena_alloc(&a, n); ... arena_free(&a);
 *
 * Memory   16-byte aligned; arena_alloc returns NULL beyond `limit` bytes in total (0 = none), beyond what its budget
 *          has left, or when out of memory
 * Threads  one owner
 */
#ifndef BASE_ARENA_H
#define BASE_ARENA_H

#include "base/budget.h"
#include "base/str.h"

struct arena_chunk;
struct arena {
    struct arena_chunk *chunk;
    size_t used, limit; /* bytes handed out; at most */
    /* Set after arena_init, if at all: the chunks are held in it too, up to budget_limit of its use. */
    struct budget *budget;
    size_t budget_limit, held;
};

void arena_init(struct arena *a, size_t limit);
void *arena_alloc(struct arena *a, size_t size);
void *arena_alloc_zero(struct arena *a, size_t count, size_t size); /* NULL on overflow too */
char *arena_copy(struct arena *a, struct str s);                    /* with a final NUL */
void arena_reset(struct arena *a);                                  /* keeps the newest chunk */
void arena_free(struct arena *a);

#endif
