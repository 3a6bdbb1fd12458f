/* state - one sequence's place in its grammar: all places so far, so that any number of tokens can be taken back
 *
 * The frames of every step lie one after the other in `history`; the sets they need are only ever added. So a rollback
 * is a matter of lengths.
 */
#include "grammar/private.h"

enum { ACCEPT_STEPS_MAX = 1000000 };

/* What m->out holds becomes a step. */
static bool push_step(struct grammar_state *s)
{
    struct frame_stack *h = &s->history;
    size_t n = s->m.out.n;
    while (h->capacity < h->n + n)
        if (!mem_grow((void **)&h->at, &h->capacity, h->capacity, sizeof *h->at))
            return false;
    if (!MEM_GROW(s->steps, s->step_capacity, s->n_step))
        return false;
    if (n)
        memcpy(h->at + h->n, s->m.out.at, n * sizeof *h->at);
    s->steps[s->n_step++] = (struct step){h->n, n, machine_mark(&s->m)};
    h->n += n;
    return true;
}

enum status grammar_state_create(struct grammar_state **out, struct grammar *g, struct error *err)
{
    struct grammar_state *s = mem_alloc_zero(1, sizeof *s);
    *out = NULL;
    if (!s)
        return fail_nomem(err, "grammar");
    s->g = grammar_acquire(g);
    bool ok = machine_init(&s->m, g) && MEM_GROW(s->m.out.at, s->m.out.capacity, 0);
    if (ok) {
        s->m.out.at[0] = machine_start(&s->m);
        s->m.out.n = 1;
        ok = push_step(s);
    }
    if (!ok) {
        grammar_state_destroy(s);
        return fail_nomem(err, "grammar");
    }
    *out = s;
    return ST_OK;
}

void grammar_state_destroy(struct grammar_state *s)
{
    if (!s)
        return;
    machine_free(&s->m);
    mem_free(s->history.at);
    mem_free(s->steps);
    grammar_release(s->g);
    mem_free(s);
}

static enum status report(const struct grammar_state *s, struct error *err)
{
    return s->m.status == ST_NOMEM ? fail_nomem(err, "grammar")
                                   : fail(err, s->m.status,
                                          "the answer can be read in too many ways at once: the grammar is too "
                                          "ambiguous, or nested too deep");
}

enum status grammar_mask(struct grammar_state *s, uint64_t *bits, struct error *err)
{
    const struct step *at = state_step(s);
    mask_make(s, s->history.at + at->first, at->n, bits);
    return s->m.status == ST_OK ? ST_OK : report(s, err);
}

/* m->out becomes what the bytes make of the newest step; empty when they may not come. */
static void run(struct grammar_state *s, struct str bytes)
{
    struct machine *m = &s->m;
    const struct step *at = state_step(s);
    size_t from = 0, n = at->n;
    m->status = ST_OK;
    m->steps_left = ACCEPT_STEPS_MAX;
    m->out.n = 0;
    while (m->out.capacity < n)
        if (!mem_grow((void **)&m->out.at, &m->out.capacity, m->out.capacity, sizeof *m->out.at)) {
            m->status = ST_NOMEM;
            return;
        }
    if (n)
        memcpy(m->out.at, s->history.at + at->first, n * sizeof *m->out.at);
    m->out.n = n;
    for (size_t i = 0; i < bytes.len && n && m->status == ST_OK; i++) {
        for (size_t k = 0; k < n; k++)
            machine_step(m, m->out.at[from + k], (uint8_t)bytes.ptr[i]);
        machine_tidy(m, from + n);
        n = m->out.n - (from + n);
        memmove(m->out.at, m->out.at + m->out.n - n, n * sizeof *m->out.at);
        m->out.n = n;
    }
}

static bool is_eos(const struct grammar_vocab *v, int32_t id)
{
    for (int i = 0; i < v->n_eos; i++)
        if (v->eos[i] == id)
            return true;
    return false;
}

enum status grammar_accept(struct grammar_state *s, int32_t id, struct error *err)
{
    const struct grammar_vocab *v = s->g->vocab;
    struct machine_mark mark = machine_mark(&s->m);
    bool eos = is_eos(v, id);
    if (id < 0 || id >= v->n_vocab || (eos ? !grammar_may_end(s) : v->bytes_at[id] == v->bytes_at[id + 1]))
        return fail(err, ST_INVALID, "token %d may not come next in this grammar", id);
    s->m.status = ST_OK;
    s->m.out.n = 0;
    if (!eos)
        run(s, str_n(v->bytes + v->bytes_at[id], v->bytes_at[id + 1] - v->bytes_at[id]));
    enum status st = s->m.status != ST_OK ? report(s, err) : ST_OK;
    if (st == ST_OK && !eos && s->m.out.n == 0)
        st = fail(err, ST_INVALID, "token %d may not come next in this grammar", id);
    if (st == ST_OK && !push_step(s))
        st = fail_nomem(err, "grammar");
    if (st != ST_OK)
        machine_return(&s->m, &mark);
    return st;
}

void grammar_rollback(struct grammar_state *s, int n_token)
{
    size_t n = n_token > 0 ? (size_t)n_token : 0;
    s->n_step -= n < s->n_step ? n : s->n_step - 1;
    const struct step *at = state_step(s);
    s->history.n = at->first + at->n;
    machine_return(&s->m, &at->mark);
}

bool grammar_may_end(const struct grammar_state *s)
{
    const struct step *at = state_step(s);
    return machine_may_end(&s->m, s->history.at + at->first, at->n);
}

bool grammar_accepts_bytes(struct grammar_state *s, struct str bytes, bool whole)
{
    struct machine_mark mark = machine_mark(&s->m);
    run(s, bytes);
    bool ok = s->m.status == ST_OK && s->m.out.n > 0 && (!whole || machine_may_end(&s->m, s->m.out.at, s->m.out.n));
    machine_return(&s->m, &mark);
    return ok;
}
