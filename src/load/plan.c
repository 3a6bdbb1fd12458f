#include "load/load.h"

#include "base/file.h"
#include "base/mem.h"
#include "base/rng.h"
#include "kernels/kernels.h"

#include <math.h>

enum { TRACE_BYTES_MAX = 1 << 30, REQUESTS_MAX = 10000000 };

void load_plan_free(struct load_plan *p)
{
    mem_free(p->items);
    arena_free(&p->arena);
    *p = (struct load_plan){0};
}

static double unit(struct rng *r)
{
    return ((double)(rng_u64(r) >> 11) + 0.5) * 0x1p-53; /* in (0, 1) */
}

/* Poisson arrivals: gaps are exponential. */
static void set_times(struct load_plan *p, double rate, struct rng *r)
{
    double at = 0;
    for (size_t i = 0; i < p->n; i++) {
        p->items[i].at_s = at;
        at += -fn_log64(unit(r)) / rate;
    }
}

static int between(struct rng *r, int least, int most)
{
    return least + (int)rng_below(r, (uint64_t)(most - least) + 1);
}

static enum status make_uniform(struct load_plan *p, const struct load_shape *s, struct rng *r, struct error *err)
{
    double n = s->n_request ? s->n_request : s->rate > 0 ? ceil(s->rate * s->duration_s) : 0;
    if (s->clients && !s->n_request)
        n = 100000; /* more than a duration's worth: the time ends the run */
    if (!(n >= 1 && n <= REQUESTS_MAX))
        return fail(err, ST_INVALID, "%.0f requests: expected 1 to %d; give --requests, or --duration with --rate", n,
                    REQUESTS_MAX);
    p->items = mem_alloc_zero((size_t)n, sizeof *p->items);
    if (!p->items)
        return fail_nomem(err, "requests");
    p->n = p->capacity = (size_t)n;
    for (size_t i = 0; i < p->n; i++) {
        p->items[i].n_in = between(r, s->in_min, s->in_max);
        p->items[i].n_out = between(r, s->out_min, s->out_max);
    }
    return ST_OK;
}

/* The part of a trace that was asked for, its times beginning at 0. */
static void cut(struct load_plan *p, const struct load_shape *s)
{
    size_t kept = 0;
    double speed = s->speed > 0 ? s->speed : 1;
    for (size_t i = 0; i < p->n; i++) {
        struct load_item item = p->items[i];
        if (item.at_s < s->from_s || (s->for_s > 0 && item.at_s >= s->from_s + s->for_s))
            continue;
        if (s->n_request && kept == (size_t)s->n_request)
            break;
        item.at_s = (item.at_s - s->from_s) / speed;
        p->items[kept++] = item;
    }
    p->n = kept;
}

static int scaled(int n, double scale, int most)
{
    double x = floor(n * scale + 0.5);
    if (most > 0 && x > most)
        x = most;
    return x < 1 ? 1 : x > 1e9 ? 1000000000 : (int)x;
}

static void scale_lengths(struct load_plan *p, const struct load_shape *s)
{
    double scale = s->scale > 0 ? s->scale : 1;
    for (size_t i = 0; i < p->n; i++) {
        struct load_item *item = &p->items[i];
        item->n_in = scaled(item->n_in, scale, s->in_most);
        item->n_out = scaled(item->n_out, scale, 0);
        item->n_shared = s->shared < item->n_in ? s->shared : item->n_in;
        if (item->n_block)
            item->block_tokens = scaled(item->block_tokens, scale, 0);
    }
}

static enum status make_items(struct load_plan *p, const struct load_shape *s, struct rng *r, struct error *err)
{
    struct buf text = {0};
    if (!s->trace)
        return make_uniform(p, s, r, err);
    enum status st = file_read_all(&text, s->trace, TRACE_BYTES_MAX, err);
    if (st == ST_OK)
        st = load_trace_read(p, buf_str(&text), err);
    buf_free(&text);
    if (st != ST_OK)
        return fail_context(err, "%s", s->trace);
    cut(p, s);
    return p->n ? ST_OK : fail(err, ST_INVALID, "%s: no request lies in the part that was asked for", s->trace);
}

enum status load_plan_make(struct load_plan *out, const struct load_shape *s, struct error *err)
{
    struct rng r;
    rng_init(&r, s->seed);
    *out = (struct load_plan){.clients = s->clients, .duration_s = s->duration_s};
    arena_init(&out->arena, 0);
    enum status st = make_items(out, s, &r, err);
    if (st != ST_OK) {
        load_plan_free(out);
        return st;
    }
    scale_lengths(out, s);
    if (s->rate > 0)
        set_times(out, s->rate, &r);
    double last = out->items[out->n - 1].at_s;
    out->rate = s->clients ? 0 : s->rate > 0 ? s->rate : last > 0 ? (double)out->n / last : 0;
    while (!s->clients && s->duration_s > 0 && out->n > 1 && out->items[out->n - 1].at_s >= s->duration_s)
        out->n--;
    return ST_OK;
}
