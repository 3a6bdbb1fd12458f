/* build - the budget of a compile, and the small structures that every source is parsed into */
#include "grammar/private.h"

#include <stdarg.h>
#include <stdio.h>

bool(build_fail)(struct build *b, enum status st, const char *fmt, ...)
{
    if (b->status != ST_OK)
        return false;
    char text[400];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    b->status = fail(b->err, st, "%s: %s", b->what, text);
    return false;
}

bool build_step(struct build *b, uint64_t n)
{
    if (b->status != ST_OK)
        return false;
    if (n > b->steps_left) {
        b->steps_left = 0;
        return build_fail(b, ST_LIMIT, "too complex: it takes more than %d steps to compile; simplify it",
                          GRAMMAR_STEPS_MAX);
    }
    b->steps_left -= n;
    return true;
}

static void *take(struct build *b, struct arena *a, size_t count, size_t size)
{
    size_t n;
    if (b->status != ST_OK)
        return NULL;
    bool fits = size_mul(&n, count, size) && n <= GRAMMAR_BYTES_MAX && a->used <= GRAMMAR_BYTES_MAX - n;
    void *p = fits ? arena_alloc_zero(a, count, size) : NULL;
    if (!fits)
        build_fail(b, ST_LIMIT, "too large: it takes more than %d MiB to compile; simplify it",
                   GRAMMAR_BYTES_MAX >> 20);
    else if (!p)
        b->status = fail_nomem(b->err, b->what);
    return p;
}

void *build_temp(struct build *b, size_t count, size_t size)
{
    return take(b, &b->temp, count, size);
}

void *build_keep(struct build *b, size_t count, size_t size)
{
    return take(b, b->keep, count, size);
}

bool vec_room(struct build *b, void **at, size_t *capacity, size_t n, size_t more, size_t item_size)
{
    if (b->status != ST_OK)
        return false;
    if (n + more <= *capacity)
        return true;
    size_t want = *capacity ? *capacity * 2 : 8;
    while (want < n + more)
        want *= 2;
    void *bigger = build_temp(b, want, item_size);
    if (!bigger)
        return false;
    if (n)
        memcpy(bigger, *at, n * item_size);
    *at = bigger;
    *capacity = want;
    return true;
}

/* ---- code points ---- */

bool charset_add(struct build *b, struct charset *c, uint32_t lo, uint32_t hi)
{
    struct range *r = VEC_ADD(b, &c->r);
    if (r)
        *r = (struct range){lo, hi};
    return r != NULL;
}

static int by_low(const void *x, const void *y)
{
    const struct range *a = x, *b = y;
    return a->lo < b->lo ? -1 : a->lo > b->lo;
}

/* Adds what of [lo, hi] is no surrogate: those are no characters, and have no UTF-8. */
static bool add_characters(struct build *b, struct charset *c, uint32_t lo, uint32_t hi)
{
    if (lo < 0xD800 && !charset_add(b, c, lo, hi < 0xD800 ? hi : 0xD7FF))
        return false;
    return hi <= 0xDFFF || charset_add(b, c, lo > 0xDFFF ? lo : 0xE000, hi);
}

bool charset_finish(struct build *b, struct charset *c, bool negate)
{
    struct charset out = {0};
    uint32_t next = 0; /* the first code point not decided yet */
    if (c->r.n)
        qsort(c->r.at, c->r.n, sizeof *c->r.at, by_low);
    for (size_t i = 0; i < c->r.n;) {
        uint32_t lo = c->r.at[i].lo, hi = c->r.at[i].hi;
        for (i++; i < c->r.n && c->r.at[i].lo <= hi + 1; i++)
            hi = c->r.at[i].hi > hi ? c->r.at[i].hi : hi;
        if (!negate && !add_characters(b, &out, lo, hi))
            return false;
        if (negate && lo > next && !add_characters(b, &out, next, lo - 1))
            return false;
        next = hi + 1;
    }
    if (negate && next <= 0x10FFFF && !add_characters(b, &out, next, 0x10FFFF))
        return false;
    *c = out;
    return b->status == ST_OK;
}

/* ---- ast ---- */

struct ast *ast_new(struct build *b, enum ast_kind kind)
{
    struct ast *a = build_temp(b, 1, sizeof *a);
    if (a)
        a->kind = kind;
    return a;
}

struct ast *ast_add(struct ast *parent, struct ast *child)
{
    if (!parent || !child)
        return NULL;
    *(parent->last ? &parent->last->next : &parent->child) = child;
    parent->last = child;
    return parent;
}

struct ast *ast_text(struct build *b, struct str text)
{
    struct ast *a = ast_new(b, AST_TEXT);
    if (a)
        a->text = text;
    return a;
}

struct ast *ast_repeat(struct build *b, struct ast *child, uint32_t min, uint32_t max)
{
    struct ast *a = ast_add(ast_new(b, AST_REPEAT), child);
    if (a) {
        a->min = min;
        a->max = max;
    }
    return a;
}
