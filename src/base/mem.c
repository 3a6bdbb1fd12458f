#include "base/mem.h"

#include "base/fault.h"

#include <malloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* ---- the budget of the running thread ---- */

static _Thread_local struct mem_budget *budget; /* innermost; NULL: none */

void mem_budget_begin(struct mem_budget *b, size_t limit)
{
    *b = (struct mem_budget){.limit = limit, .outer = budget};
    budget = b;
}

void mem_budget_grant(size_t bytes)
{
    if (budget && !size_add(&budget->limit, budget->limit, bytes))
        budget->limit = SIZE_MAX;
}

bool mem_budget_end(struct mem_budget *b)
{
    budget = b->outer;
    return b->exceeded;
}

static bool budget_allows(size_t bytes)
{
    for (struct mem_budget *b = budget; b; b = b->outer)
        if (b->live > b->limit || bytes > b->limit - b->live) {
            b->exceeded = true;
            return false;
        }
    return true;
}

/* Blocks count as large as the allocator made them. One from before begin may be freed: live does not go below 0. */
static void *taken(void *ptr)
{
    for (struct mem_budget *b = ptr ? budget : NULL; b; b = b->outer) {
        b->live += malloc_usable_size(ptr);
        b->peak = b->live > b->peak ? b->live : b->peak;
    }
    return ptr;
}

static void given_back(size_t bytes)
{
    for (struct mem_budget *b = budget; b; b = b->outer)
        b->live -= bytes < b->live ? bytes : b->live;
}

/* ---- allocation ---- */

void *mem_alloc(size_t size)
{
    return fault_hit_alloc(size) || !budget_allows(size) ? NULL : taken(malloc(size ? size : 1));
}

void *mem_alloc_zero(size_t count, size_t size)
{
    size_t bytes;
    if (!size_mul(&bytes, count, size) || fault_hit_alloc(bytes) || !budget_allows(bytes))
        return NULL;
    return taken(calloc(count ? count : 1, size ? size : 1));
}

void *mem_realloc(void *ptr, size_t count, size_t size)
{
    size_t bytes;
    if (!size_mul(&bytes, count, size) || fault_hit_alloc(bytes))
        return NULL;
    if (!budget)
        return realloc(ptr, bytes ? bytes : 1);
    size_t before = malloc_usable_size(ptr); /* 0 of NULL */
    if (bytes > before && !budget_allows(bytes - before))
        return NULL;
    void *moved = realloc(ptr, bytes ? bytes : 1);
    if (moved) {
        given_back(before);
        taken(moved);
    }
    return moved;
}

void *mem_alloc_aligned(size_t size)
{
    const size_t huge = (size_t)2 << 20;
    size_t align = size >= huge ? huge : 64, rounded;
    if (!size_add(&rounded, size ? size : 1, align - 1) || fault_hit_alloc(rounded) || !budget_allows(rounded))
        return NULL;
    rounded &= ~(align - 1);
    void *ptr = NULL;
    if (posix_memalign(&ptr, align, rounded))
        return NULL;
    if (align == huge)
        madvise(ptr, rounded, MADV_HUGEPAGE);
    memset(ptr, 0, rounded);
    return taken(ptr);
}

void mem_free(void *ptr)
{
    if (budget)
        given_back(malloc_usable_size(ptr));
    free(ptr);
}

char *mem_strdup(const char *text)
{
    size_t n = strlen(text) + 1;
    char *copy = mem_alloc(n);
    if (copy)
        memcpy(copy, text, n);
    return copy;
}

bool mem_grow(void **items, size_t *capacity, size_t count, size_t item_size)
{
    if (count < *capacity)
        return true;
    size_t wanted = *capacity + *capacity / 2 + 8;
    void *bigger = mem_realloc(*items, wanted, item_size);
    if (!bigger)
        return false;
    *items = bigger;
    *capacity = wanted;
    return true;
}
