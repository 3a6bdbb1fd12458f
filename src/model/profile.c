/* profile - the time of every step, added up by operation and weight */
#include "model/private.h"

#include "base/clock.h"

#include <assert.h>

static const char *const op_names[OP_COUNT] = {
    [OP_EMBED] = "embed",       [OP_POSITION] = "position", [OP_NORM] = "norm",     [OP_NORM_HEAD] = "norm-head",
    [OP_LINEAR] = "linear",     [OP_ROPE] = "rope",         [OP_ATTEND] = "attend", [OP_FN] = "activation",
    [OP_GLU] = "glu",           [OP_ADD] = "add",           [OP_SELECT] = "select", [OP_ROUTE] = "route",
    [OP_DISPATCH] = "dispatch", [OP_COMBINE] = "combine",   [OP_GATE] = "gate",     [OP_TYPE] = "type",
    [OP_POOL] = "pool",         [OP_TANH] = "tanh",
};

static const char *const fuse_names[FUSE_COUNT] = {
    [FUSE_NORM] = "norm",      [FUSE_SET] = "linears", [FUSE_GLU] = "linear+glu",
    [FUSE_ADD] = "linear+add", [FUSE_ROPE] = "attend",
};

void model_run_profile(struct model_run *r, struct model_profile *profile)
{
    r->profile = profile;
}

/* NULL when there are more kinds than rows: what does not fit is left out. */
static struct model_profile_row *row_of(struct model_profile *p, const char *op, const char *name)
{
    for (int i = 0; i < p->n_row; i++)
        if (p->rows[i].op == op && p->rows[i].name == name)
            return &p->rows[i];
    if (p->n_row == (int)(sizeof p->rows / sizeof *p->rows))
        return NULL;
    p->rows[p->n_row] = (struct model_profile_row){.op = op, .name = name};
    return &p->rows[p->n_row++];
}

void profile_step(struct model_run *r, const struct step *s, uint64_t start_ns)
{
    static const char begin[] = "begin";
    uint64_t ns = clock_ns() - start_ns;
    const struct param *p = s && s->param >= 0 ? &r->m->plan.params[s->param] : NULL;
    struct model_profile_row *row = row_of(r->profile, s ? s->fuse ? fuse_names[s->fuse] : op_names[s->op] : begin,
                                           p ? role_rows[p->role].gguf : NULL);
    r->profile->forwards += !s;
    if (!row)
        return;
    row->ns += ns;
    row->calls++;
    row->product = s && s->op == OP_LINEAR;
    assert(!row->product || r->m->plan.params);
    for (int k = 0; s && row->product && k < s->n_fused; k++)
        for (int i = 0; s[k].op == OP_LINEAR && i < s[k].n_param; i++)
            row->bytes += r->m->plan.params[s[k].param + i].weight.bytes;
}
