#include "base/arena.h"

#include "base/mem.h"

#include <string.h>

struct arena_chunk {
    struct arena_chunk *next;
    size_t size, used; /* of data */
    _Alignas(16) char data[];
};

void arena_init(struct arena *a, size_t limit)
{
    *a = (struct arena){.limit = limit};
}

static struct arena_chunk *chunk_add(struct arena *a, size_t need)
{
    size_t size = a->chunk ? a->chunk->size * 2 : 4096 - sizeof(struct arena_chunk), total;
    if (size > (size_t)1 << 20)
        size = (size_t)1 << 20;
    if (size < need)
        size = need;
    if (!size_add(&total, size, sizeof(struct arena_chunk)))
        return NULL;
    size_t before = a->held;
    if (!budget_hold(a->budget, &a->held, before + total, a->budget_limit))
        return NULL;
    struct arena_chunk *c = mem_alloc(total);
    if (!c) {
        budget_hold(a->budget, &a->held, before, a->budget_limit);
        return NULL;
    }
    c->next = a->chunk;
    c->size = size;
    c->used = 0;
    return a->chunk = c;
}

void *arena_alloc(struct arena *a, size_t size)
{
    size_t n;
    if (!size_add(&n, size, 15))
        return NULL;
    n = n & ~(size_t)15 ? n & ~(size_t)15 : 16;
    if (a->limit && (n > a->limit || a->used > a->limit - n))
        return NULL;
    struct arena_chunk *c = a->chunk;
    if (!c || c->size - c->used < n)
        c = chunk_add(a, n);
    if (!c)
        return NULL;
    void *p = c->data + c->used;
    c->used += n;
    a->used += n;
    return p;
}

void *arena_alloc_zero(struct arena *a, size_t count, size_t size)
{
    size_t n;
    void *p = size_mul(&n, count, size) ? arena_alloc(a, n) : NULL;
    return p ? memset(p, 0, n) : NULL;
}

char *arena_copy(struct arena *a, struct str s)
{
    char *p = arena_alloc(a, s.len + 1);
    if (p) {
        if (s.len)
            memcpy(p, s.ptr, s.len);
        p[s.len] = 0;
    }
    return p;
}

void arena_reset(struct arena *a)
{
    struct arena_chunk *c = a->chunk;
    while (c && c->next) {
        struct arena_chunk *next = c->next;
        c->next = next->next;
        mem_free(next);
    }
    if (c)
        c->used = 0;
    a->used = 0;
    budget_hold(a->budget, &a->held, c ? c->size + sizeof *c : 0, a->budget_limit);
}

void arena_free(struct arena *a)
{
    while (a->chunk) {
        struct arena_chunk *next = a->chunk->next;
        mem_free(a->chunk);
        a->chunk = next;
    }
    a->used = 0;
    budget_hold(a->budget, &a->held, 0, a->budget_limit);
}
