/* share - how much each tenant was served, of those who have something here */
#include "engine/engine_private.h"

#include "base/mem.h"

#include <assert.h>

enum status shares_init(struct shares *s, const struct engine_options *o, struct error *err)
{
    *s = (struct shares){.tenants_max = engine_live_max(o), .weight = o->weight, .weight_ctx = o->weight_ctx};
    s->tenants = mem_alloc_zero((size_t)s->tenants_max, sizeof *s->tenants);
    return s->tenants ? ST_OK : fail_nomem(err, "tenants");
}

void shares_free(struct shares *s)
{
    mem_free(s->tenants);
    *s = (struct shares){0};
}

/* The entry of a tenant: its own, a new one, or that of one who has nothing here any more. */
static struct tenant *tenant_entry(struct shares *s, uint64_t id)
{
    struct tenant *idle = NULL;
    for (int i = 0; i < s->n_tenant; i++) {
        if (s->tenants[i].id == id)
            return &s->tenants[i];
        if (!s->tenants[i].n_live)
            idle = &s->tenants[i];
    }
    struct tenant *t = s->n_tenant < s->tenants_max ? &s->tenants[s->n_tenant++] : idle;
    assert(t); /* there are as many entries as can be live */
    *t = (struct tenant){.id = id, .served = -1};
    return t;
}

/* Who comes back does not bring what it did not use: it starts level with the least served of those who are here. */
struct tenant *tenant_join(struct shares *s, uint64_t id)
{
    if (!s->weight)
        return NULL;
    struct tenant *t = tenant_entry(s, id);
    if (t->n_live++ == 0) {
        double least = -1;
        for (int i = 0; i < s->n_tenant; i++)
            if (&s->tenants[i] != t && s->tenants[i].n_live && (least < 0 || s->tenants[i].served < least))
                least = s->tenants[i].served;
        t->served = t->served > least ? t->served : least;
        t->served = t->served > 0 ? t->served : 0;
    }
    double weight = s->weight(s->weight_ctx, id);
    t->weight = weight > 0 ? weight : 1;
    return t;
}

void tenant_leave(struct tenant *t)
{
    if (t)
        t->n_live--;
}

void tenant_charge(struct tenant *t, int n_token)
{
    if (t)
        t->served += n_token / t->weight;
}
