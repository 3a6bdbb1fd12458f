/* mem - the allocation seam: nothing in src/ calls malloc but mem.c
 *
 * Memory   every function returns NULL when out of memory (or when a test injects a failure); mem_free takes NULL
 * Threads  safe
 */
#ifndef BASE_MEM_H
#define BASE_MEM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

void *mem_alloc(size_t size) __attribute__((malloc, alloc_size(1)));
void *mem_alloc_zero(size_t count, size_t size) __attribute__((malloc)); /* NULL when count * size overflows */
void *mem_realloc(void *ptr, size_t count, size_t size);                 /* likewise; ptr stays valid on failure */
void *mem_alloc_aligned(size_t size); /* 64-byte aligned, zeroed, huge pages advised from 2 MiB; free by mem_free */
void mem_free(void *ptr);
char *mem_strdup(const char *text);

/* Overflow-checked size arithmetic for untrusted numbers: false, *out untouched, when the result does not fit. */
static inline bool size_add(size_t *out, size_t a, size_t b)
{
    return !__builtin_add_overflow(a, b, out);
}
static inline bool size_mul(size_t *out, size_t a, size_t b)
{
    return !__builtin_mul_overflow(a, b, out);
}

/* Grow-by-half helper for arrays: makes room for one more; false when out of memory. */
bool mem_grow(void **items, size_t *capacity, size_t count, size_t item_size);
#define MEM_GROW(items, capacity, count) mem_grow((void **)&(items), &(capacity), (count), sizeof *(items))

/* What one thread may hold in blocks it has taken since begin, so that a small file cannot make a reader take much:
 *
 *   struct mem_budget b;  mem_budget_begin(&b, 8 * size + (16 << 20));  st = load();  if (mem_budget_end(&b)) ...
 *
 * What would go beyond is not allocated: the function returns NULL, as out of memory. A block freed is given back.
 * Budgets nest: what an inner one takes counts for the outer one, too. The struct lives until end.
 */
struct mem_budget {
    size_t limit, live, peak; /* bytes; of these, peak is what a test reads afterwards */
    bool exceeded;
    struct mem_budget *outer;
};
void mem_budget_begin(struct mem_budget *b, size_t limit);
void mem_budget_grant(size_t bytes);       /* raises the innermost limit: another file is read with it */
bool mem_budget_end(struct mem_budget *b); /* true when something was refused */

#endif
