#include "engine/draft.h"

#include "engine/engine_private.h"

#include "base/mem.h"

enum {
    RETRY = 8,
    RETRY_MOST = 64
}; /* turns after which a source is asked again that is not worth it; then twice
    * as many, to the most */

static const float FIRST_RATE = 0.5F, LEARN = 0.125F;

struct wish { /* one sequence that the draft model proposes for */
    struct seq *s;
    int n, n_drawn; /* ids wanted; there */
    int logit;      /* its row of logits in this step; -1 = none: its text is not read to the end yet */
};

struct drafter {
    int n_most;
    int n_cut;                 /* steps in a row of whose proposals none was kept */
    float rate[DRAFT_SOURCES]; /* of all sequences: where a new one begins */
    /* the model; x.forward NULL = none */
    struct executor x;
    struct kv_pool kv;
    real *logits; /* [max_sequences, n_vocab] */
    void *logits_base;
    struct sampler_scratch *scratch; /* [pool threads] */
    int n_scratch, max_sequences, n_wish;
    struct wish *wishes;
    struct sample *samples;
    struct attend_span *spans;
    int32_t *ids, *logit_rows;
    double step_s; /* one row for each sequence: a mean of the last ones */
};

/* ---- life ---- */

static enum status create_model(struct drafter *d, const struct executor *x, struct error *err)
{
    size_t n = (size_t)d->max_sequences, size;
    d->x = *x;
    d->n_scratch = pool_threads(x->pool);
    d->wishes = mem_alloc_zero(n, sizeof *d->wishes);
    d->samples = mem_alloc_zero(n, sizeof *d->samples);
    d->spans = mem_alloc_zero(n, sizeof *d->spans);
    d->ids = mem_alloc_zero(n + DRAFT_MODEL_ROWS, sizeof *d->ids);
    d->logit_rows = mem_alloc_zero(n, sizeof *d->logit_rows);
    d->scratch = mem_alloc_zero((size_t)d->n_scratch, sizeof *d->scratch);
    d->logits =
        size_mul(&size, n * sizeof *d->logits, (size_t)x->n_vocab) ? alloc_untouched(size, &d->logits_base) : NULL;
    if (!d->wishes || !d->samples || !d->spans || !d->ids || !d->logit_rows || !d->scratch || !d->logits)
        return fail_nomem(err, "draft model");
    for (int i = 0; i < d->n_scratch; i++)
        TRY(sampler_scratch_init(&d->scratch[i], x->n_vocab, err));
    return kv_pool_init(&d->kv, x->n_block, false, err);
}

enum status drafter_create(struct drafter **out, const struct executor *model, int n_most, int max_sequences,
                           struct error *err)
{
    *out = NULL;
    struct drafter *d = mem_alloc_zero(1, sizeof *d);
    if (!d)
        return fail_nomem(err, "drafts");
    d->n_most = n_most < DRAFT_MAX ? n_most : DRAFT_MAX;
    d->max_sequences = max_sequences;
    d->rate[DRAFT_LOOKUP] = d->rate[DRAFT_MODEL] = FIRST_RATE;
    enum status st = model ? create_model(d, model, err) : ST_OK;
    if (st != ST_OK) {
        drafter_destroy(d);
        return st;
    }
    *out = d;
    return ST_OK;
}

void drafter_destroy(struct drafter *d)
{
    if (!d)
        return;
    for (int i = 0; d->scratch && i < d->n_scratch; i++)
        sampler_scratch_free(&d->scratch[i]);
    kv_pool_free(&d->kv);
    mem_free(d->scratch);
    mem_free(d->wishes);
    mem_free(d->samples);
    mem_free(d->spans);
    mem_free(d->ids);
    mem_free(d->logit_rows);
    mem_free(d->logits_base);
    mem_free(d);
}

void drafter_forget(struct drafter *d, struct seq *s)
{
    struct draft_state *t = &s->draft;
    if (t->blocks.ids)
        kv_release(&d->kv, &t->blocks);
    mem_free(t->blocks.ids);
    mem_free(t->slots);
    *t = (struct draft_state){0};
}

/* ---- what proposals are worth ---- */

static void learn(struct drafter *d, struct seq *s)
{
    struct draft_state *t = &s->draft;
    int n_right = s->n_ids - t->n_ids - 1; /* the last id was drawn, not proposed */
    int n_seen = n_right < t->n_proposed ? n_right + 1 : n_right;
    for (int i = 0; i < n_seen && n_right >= 0; i++) {
        float right = i < n_right ? 1 : 0;
        t->rate[t->source] += (right - t->rate[t->source]) * LEARN;
        d->rate[t->source] += (right - d->rate[t->source]) * LEARN / 4;
    }
    t->n_proposed = 0;
}

struct prices {      /* seconds */
    double token;    /* what an id takes without proposals */
    double row, key; /* a row more, a position that it looks back at */
};

static struct prices prices_of(const struct seq_list *running, const struct cost_model *cost)
{
    struct cost_work all = {0}, one = {.rows = 1, .logits = 1}, none = {0};
    int n = 0;
    for (const struct seq *s = running->first; s; s = s->next)
        if (s->n_done == s->n_ids - 1) {
            cost_span(&all, s->n_done, 1);
            n++;
        }
    all.logits = n;
    return (struct prices){.token = n ? cost_seconds(cost, &all) / n : 0,
                           .row = cost_seconds(cost, &one) - cost_seconds(cost, &none),
                           .key = cost_span_seconds(cost, 1, 1) - cost_span_seconds(cost, 0, 1)};
}

/* The i-th proposal is verified for nothing unless all before it are right too: it is worth its price as long as
 * rate^i ids' time is more. */
static int worth(const struct drafter *d, struct seq *s, enum draft_source source, const struct prices *p, double extra)
{
    struct draft_state *t = &s->draft;
    double price = p->row + p->key * s->n_ids + extra, chance = 1;
    int most = s->n_limit - s->n_ids - 1, n = 0;
    most = most < d->n_most ? most : d->n_most;
    if (p->token <= 0)
        return 0; /* no step was measured yet */
    while (n < most && (chance *= (double)t->rate[source]) * p->token > price)
        n++;
    int *wait = &t->n_wait[source], idle = ++t->n_idle[source];
    bool cheap = *wait == RETRY || price <= idle * p->token * 0.01;
    t->trial = n == 0;
    if (n)
        *wait = RETRY;
    else if (most > 0 && idle >= *wait && cheap) {
        *wait = 2 * *wait < RETRY_MOST ? 2 * *wait : RETRY_MOST;
        n = 1;
    }
    if (n)
        t->n_idle[source] = 0;
    return n;
}

static void proposed(struct seq *s, enum draft_source source, int n)
{
    s->n_draft = n;
    s->draft.source = source;
    s->draft.n_proposed = n;
    s->draft.n_ids = s->n_ids;
}

/* ---- lookup ---- */

static uint32_t slot_of(const struct draft_state *t, const int32_t *ids)
{
    uint32_t h = 0;
    for (int i = 0; i < DRAFT_NGRAM; i++)
        h = (h ^ (uint32_t)ids[i]) * 0x9E3779B1u;
    return (h ^ h >> 15) & t->mask;
}

static bool create_slots(struct seq *s)
{
    enum { SLOTS_LEAST = 1 << 8, SLOTS_MOST = 1 << 16 };
    uint32_t n = SLOTS_LEAST;
    while (n < SLOTS_MOST && n < 2 * (uint32_t)s->n_limit)
        n *= 2;
    s->draft.slots = mem_alloc_zero(n, sizeof *s->draft.slots);
    s->draft.mask = n - 1;
    s->draft.n_indexed = DRAFT_NGRAM;
    return s->draft.slots;
}

/* Where the newest ids stood before and something followed; 0 = nowhere. */
static int find_before(struct seq *s)
{
    struct draft_state *t = &s->draft;
    if (s->n_ids < DRAFT_NGRAM || (!t->slots && !create_slots(s)))
        return 0;
    for (; t->n_indexed < s->n_ids; t->n_indexed++)
        t->slots[slot_of(t, s->ids + t->n_indexed - DRAFT_NGRAM)] = t->n_indexed;
    const int32_t *newest = s->ids + s->n_ids - DRAFT_NGRAM;
    int at = t->slots[slot_of(t, newest)];
    return at && !memcmp(s->ids + at - DRAFT_NGRAM, newest, DRAFT_NGRAM * sizeof *newest) ? at : 0;
}

static bool look_up(struct drafter *d, struct seq *s, const struct prices *p)
{
    int at = find_before(s), n = at ? worth(d, s, DRAFT_LOOKUP, p, 0) : 0;
    for (int i = 0; i < n; i++)
        s->ids[s->n_ids + i] = s->ids[at + i]; /* what it repeats may be what it proposes */
    if (n)
        proposed(s, DRAFT_LOOKUP, n);
    return at > 0;
}

/* ---- a draft model ---- */

static void draw_item(void *ctx, int item, int thread)
{
    struct drafter *d = ctx;
    const struct wish *w = &d->wishes[item];
    if (w->logit < 0)
        return;
    struct sampling how = w->s->r->sampling;
    how.n_logprobs = -1;
    const struct sampler_in in = {
        .how = &how,
        .logits = d->logits + (size_t)w->logit * (size_t)d->x.n_vocab,
        .n_vocab = d->x.n_vocab,
        .ids = w->s->ids,
        .n_prompt = w->s->n_prompt,
        .n_ids = w->s->n_ids + w->n_drawn,
        .choice = w->s->r->choice,
        .eos = d->x.eos,
        .n_eos = d->x.n_eos,
        .given = -1,
    };
    sampler_pick(&d->samples[item], &in, &d->scratch[thread]);
}

/* The rows of one step: of each sequence what it has not read yet, as far as there is room. */
static void fill_step(struct drafter *d, struct model_batch *b)
{
    *b = (struct model_batch){.ids = d->ids, .spans = d->spans, .logit_rows = d->logit_rows};
    for (int i = 0; i < d->n_wish; i++) {
        struct wish *w = &d->wishes[i];
        struct draft_state *t = &w->s->draft;
        int end = w->s->n_ids + w->n_drawn, n = end - t->n_done,
            room = DRAFT_MODEL_ROWS - (d->n_wish - i - 1) - b->n_row;
        w->logit = -1;
        if (w->n_drawn == w->n)
            continue;
        n = n < room ? n : room > 1 ? room : 1;
        d->spans[b->n_span++] =
            (struct attend_span){.row0 = b->n_row, .n_row = n, .pos0 = t->n_done, .blocks = t->blocks.ids};
        memcpy(d->ids + b->n_row, w->s->ids + t->n_done, (size_t)n * sizeof *d->ids);
        b->n_row += n;
        t->n_done += n;
        if (t->n_done == end) {
            w->logit = b->n_logit;
            d->logit_rows[b->n_logit++] = b->n_row - 1;
        }
    }
}

/* One step of the draft model. False: no sequence got an id. */
static bool draft_step(struct drafter *d)
{
    struct model_batch b;
    fill_step(d, &b);
    if (!b.n_row)
        return false;
    uint64_t begin = executor_now(&d->x);
    d->x.forward(d->x.ctx, &b, d->logits);
    pool_run(d->x.pool, draw_item, d, d->n_wish);
    if (b.n_row == b.n_span) {
        double took = (double)(executor_now(&d->x) - begin) * 1e-9;
        d->step_s = d->step_s > 0 ? d->step_s + (took - d->step_s) * (double)LEARN : took;
    }
    for (int i = 0; i < d->n_wish; i++) {
        struct wish *w = &d->wishes[i];
        int32_t id = w->logit >= 0 ? d->samples[i].id : -1;
        if (id < 0)
            w->n = w->n_drawn; /* not there yet, or damaged: what it has is proposed */
        else
            w->s->ids[w->s->n_ids + w->n_drawn++] = id;
    }
    return b.n_logit > 0;
}

/* The draft model's blocks of what is known and will be proposed. */
static bool take_room(struct drafter *d, struct seq *s, int n)
{
    struct draft_state *t = &s->draft;
    if (s->n_ids + n > d->x.n_ctx)
        return false;
    if (!t->blocks.ids) {
        t->blocks.capacity = kv_blocks_for(s->n_limit);
        t->blocks.ids = mem_alloc_zero((size_t)t->blocks.capacity, sizeof *t->blocks.ids);
        if (!t->blocks.ids)
            return false;
    }
    t->n_done = t->n_done < s->n_ids - 1 ? t->n_done : s->n_ids - 1; /* proposals that were wrong are read again */
    return kv_reserve(&d->kv, &t->blocks, t->n_done, s->n_ids + n);
}

static void ask_model(struct drafter *d)
{
    while (draft_step(d))
        ;
    for (int i = 0; i < d->n_wish; i++)
        if (d->wishes[i].n_drawn)
            proposed(d->wishes[i].s, DRAFT_MODEL, d->wishes[i].n_drawn);
}

/* ---- both ---- */

/* Ids a second that a step gives in which no sequence has more than `most` proposals. */
static double pace(const struct seq_list *running, const struct cost_model *cost, int most)
{
    struct cost_work w = {0};
    double n_id = 0;
    for (const struct seq *s = running->first; s; s = s->next) {
        if (s->n_done != s->n_ids - 1)
            continue;
        int n = s->n_draft < most || s->draft.trial ? s->n_draft : most;
        double chance = 1;
        for (int i = 0; i <= n; i++, chance *= (double)s->draft.rate[s->draft.source])
            n_id += chance;
        cost_span(&w, s->n_done, 1 + n);
    }
    w.logits = w.rows;
    double seconds = cost_seconds_at_most(cost, &w);
    return seconds > 0 ? n_id / seconds : 0;
}

/* Each was worth the price of its rows. All together they may be as many as make steps jump: the number that each may
 * have at most is the one that gives most ids a second. */
static void keep_best(struct drafter *d, const struct seq_list *running, const struct cost_model *cost)
{
    int most = 0, best = 0;
    for (const struct seq *s = running->first; s; s = s->next)
        most = s->n_draft > most ? s->n_draft : most;
    double best_pace = most ? pace(running, cost, 0) : 0;
    for (int n = 1; n <= most; n++) {
        double pace_n = pace(running, cost, n);
        if (pace_n > best_pace) {
            best = n;
            best_pace = pace_n;
        }
    }
    d->n_cut = most && !best ? d->n_cut + 1 : 0;
    if (d->n_cut == 2 * RETRY_MOST) { /* one is tried: no rate would be learned again otherwise */
        best = 1;
        d->n_cut = 0;
    }
    for (struct seq *s = running->first; s; s = s->next)
        if (s->n_draft > best && !s->draft.trial)
            s->n_draft = s->draft.n_proposed = best;
}

static void begin_seq(const struct drafter *d, struct seq *s)
{
    struct draft_state *t = &s->draft;
    for (int i = 0; i < DRAFT_SOURCES && !t->known; i++) {
        t->rate[i] = d->rate[i];
        t->n_wait[i] = RETRY;
    }
    t->known = true;
}

void drafter_propose(struct drafter *d, const struct seq_list *running, const struct cost_model *cost)
{
    struct prices p = prices_of(running, cost);
    d->n_wish = 0;
    for (struct seq *s = running->first; s; s = s->next) {
        begin_seq(d, s);
        if (s->draft.n_proposed)
            learn(d, s);
        if (s->n_done != s->n_ids - 1 || s->n_ids == s->n_prompt || look_up(d, s, &p) || !d->x.forward)
            continue;
        int n = worth(d, s, DRAFT_MODEL, &p, d->step_s / running->count);
        n = d->step_s > 0 || n < 2 ? n : 2; /* the second id's step is the first that tells what one takes */
        if (n && d->n_wish < d->max_sequences && take_room(d, s, n))
            d->wishes[d->n_wish++] = (struct wish){.s = s, .n = n};
    }
    if (d->n_wish)
        ask_model(d);
    keep_best(d, running, cost);
}
