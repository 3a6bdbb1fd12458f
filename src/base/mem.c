#include "base/mem.h"

#include "base/fault.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

void *mem_alloc(size_t size)
{
    return fault_hit_alloc(size) ? NULL : malloc(size ? size : 1);
}

void *mem_alloc_zero(size_t count, size_t size)
{
    size_t bytes;
    if (!size_mul(&bytes, count, size) || fault_hit_alloc(bytes))
        return NULL;
    return calloc(count ? count : 1, size ? size : 1);
}

void *mem_realloc(void *ptr, size_t count, size_t size)
{
    size_t bytes;
    if (!size_mul(&bytes, count, size) || fault_hit_alloc(bytes))
        return NULL;
    return realloc(ptr, bytes ? bytes : 1);
}

void *mem_alloc_aligned(size_t size)
{
    const size_t huge = (size_t)2 << 20;
    size_t align = size >= huge ? huge : 64, rounded;
    if (!size_add(&rounded, size ? size : 1, align - 1) || fault_hit_alloc(rounded))
        return NULL;
    rounded &= ~(align - 1);
    void *ptr = NULL;
    if (posix_memalign(&ptr, align, rounded))
        return NULL;
    if (align == huge)
        madvise(ptr, rounded, MADV_HUGEPAGE);
    memset(ptr, 0, rounded);
    return ptr;
}

void mem_free(void *ptr)
{
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
