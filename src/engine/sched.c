/* sched - who runs in the next step
 *
 *   sched_add -> waiting -- admit --> running -- sched_remove -->
 *                   ^------ preempt ----'
 *
 * Invariants
 * 1. Both lists are in order of rank: the time of arrival, 10 s earlier for each step of priority, so that whoever
 * waits long enough goes first, and the order of two never changes. The first of `running` is never preempted for
 * another: it always advances, and everything ends.
 * 2. A running sequence holds the blocks of all its known ids (of a new one from the step that computes it); a waiting
 *    one holds none, but those it had stay in the cache while nobody needs the room.
 * 3. A batch has decode rows first (one a sequence whose last id alone is missing, and its proposed ids), then prompt
 *    chunks: at most prefill_chunk rows that are no such last id; at most sched_logits_max rows of logits.
 *    Prompts are read one after the other, by rank. Their rows beside decode rows take no longer than the time between
 *    tokens that is wanted, as far as is known: full_step_seconds says what that is, unless it was asked for.
 * 4. submit has checked that any sequence fits the empty pool, so one that waits is admitted when nothing runs.
 * 5. Nobody overtakes who lacks blocks. Only one that waits for its own prompt to be computed by another is passed.
 */
#include "engine/engine_private.h"

#include "base/mem.h"

#include <assert.h>

static const double AUTO_RATIO = 1.6, AUTO_LEAST_S = 0.02; /* see engine_options.itl_ms */

/* ---- lists ---- */

static bool ranks_before(const struct seq *a, const struct seq *b)
{
    return a->rank != b->rank ? a->rank < b->rank : a->order < b->order;
}

static void list_insert(struct seq_list *l, struct seq *q)
{
    struct seq *after = l->last; /* nearly always the right place */
    while (after && ranks_before(q, after))
        after = after->prev;
    q->prev = after;
    q->next = after ? after->next : l->first;
    *(q->prev ? &q->prev->next : &l->first) = q;
    *(q->next ? &q->next->prev : &l->last) = q;
    l->count++;
}

static void list_remove(struct seq_list *l, struct seq *q)
{
    *(q->prev ? &q->prev->next : &l->first) = q->next;
    *(q->next ? &q->next->prev : &l->last) = q->prev;
    q->next = q->prev = NULL;
    l->count--;
}

/* ---- life ---- */

enum status sched_init(struct sched *s, const struct engine_options *o, int n_block, struct error *err)
{
    *s = (struct sched){.max_sequences = o->max_sequences > 0 ? o->max_sequences : 64,
                        .prefill_chunk = o->prefill_chunk > 0 ? o->prefill_chunk : 256,
                        .itl_s = o->itl_ms / 1000};
    struct batch *b = &s->batch;
    size_t rows = (size_t)sched_rows_max(s), sequences = (size_t)s->max_sequences;
    b->ids = mem_alloc_zero(rows, sizeof *b->ids);
    b->logit_rows = mem_alloc_zero((size_t)sched_logits_max(s), sizeof *b->logit_rows);
    b->spans = mem_alloc_zero(sequences, sizeof *b->spans);
    b->loras = mem_alloc_zero(sequences, sizeof *b->loras);
    b->items = mem_alloc_zero(sequences, sizeof *b->items);
    enum status st = b->ids && b->logit_rows && b->spans && b->loras && b->items ? shares_init(&s->shares, o, err)
                                                                                 : fail_nomem(err, "scheduler");
    if (st == ST_OK)
        st = kv_pool_init(&s->kv, n_block, !o->no_prefix_cache, err);
    if (st != ST_OK)
        sched_free(s);
    return st;
}

void sched_free(struct sched *s)
{
    struct batch *b = &s->batch;
    mem_free(b->ids);
    mem_free(b->logit_rows);
    mem_free(b->spans);
    mem_free(b->loras);
    mem_free(b->items);
    shares_free(&s->shares);
    kv_pool_free(&s->kv);
    *s = (struct sched){0};
}

static void set_running(struct seq *q, bool running)
{
    q->running = running;
    __atomic_store_n(&q->r->running, running, __ATOMIC_RELAXED);
}

void sched_add(struct sched *s, struct seq *q)
{
    enum { PRIORITY_MAX = 100000000 };
    const int64_t step_ns = (int64_t)10 * 1000000000;
    int priority = q->r->priority;
    priority = priority > PRIORITY_MAX ? PRIORITY_MAX : priority < -PRIORITY_MAX ? -PRIORITY_MAX : priority;
    q->rank = (int64_t)q->submit_ns - priority * step_ns;
    q->root = prefix_root(&s->kv, q->r->cache_salt, q->r->adapter);
    q->tenant = tenant_join(&s->shares, q->r->tenant);
    set_running(q, false);
    list_insert(&s->waiting, q);
}

void sched_remove(struct sched *s, struct seq *q)
{
    list_remove(q->running ? &s->running : &s->waiting, q);
    set_running(q, false);
    kv_release(&s->kv, &q->blocks);
    tenant_leave(q->tenant);
}

void sched_commit(struct sched *s, struct seq *q, int n)
{
    q->n_done += n;
    if (q->n_done > q->n_paid) {
        tenant_charge(q->tenant, q->n_done - q->n_paid);
        q->n_paid = q->n_done;
    }
    prefix_commit(&s->kv, &q->blocks, &q->root, q->ids, q->n_done);
}

/* ---- one step ---- */

static void put_rows(struct sched *s, struct seq *q, int n, int n_draft)
{
    struct batch *b = &s->batch;
    struct model_batch *m = &b->model;
    assert(m->n_row + n <= sched_rows_max(s) && m->n_span < s->max_sequences);
    b->spans[m->n_span] =
        (struct attend_span){.row0 = m->n_row, .n_row = n, .pos0 = q->n_done, .blocks = q->blocks.ids};
    b->loras[m->n_span] = q->r->lora;
    if (q->r->lora)
        m->loras = b->loras;
    struct batch_item *item = &b->items[m->n_span++];
    *item = (struct batch_item){.seq = q, .n_row = n, .n_draft = n_draft, .logit0 = m->n_logit};
    for (int i = 0; i < n; i++) {
        int position = q->n_done + i;
        b->ids[m->n_row + i] = q->ids[position];
        if (position >= q->n_ids - 1 || seq_wants_echo(q, position)) {
            assert(m->n_logit < sched_logits_max(s));
            b->logit_rows[m->n_logit++] = m->n_row + i;
        }
    }
    item->n_logit = m->n_logit - item->logit0;
    m->n_row += n;
}

static void preempt(struct sched *s, struct seq *q)
{
    list_remove(&s->running, q);
    kv_release(&s->kv, &q->blocks);
    q->n_done = 0; /* found in the cache later, or computed again, to the same bits */
    q->n_draft = 0;
    set_running(q, false);
    list_insert(&s->waiting, q);
    s->preemptions++;
}

/* Room for the newest id; what is only proposed gives way first, then the newest sequences, in the end q itself. */
static bool make_room(struct sched *s, struct seq *q)
{
    if (q->n_draft && !kv_reserve(&s->kv, &q->blocks, q->n_done, q->n_ids + q->n_draft))
        q->n_draft = 0;
    while (!kv_reserve(&s->kv, &q->blocks, q->n_done, q->n_ids + q->n_draft)) {
        struct seq *victim = s->running.last;
        preempt(s, victim);
        if (victim == q)
            return false;
    }
    return true;
}

/* Decode rows. Returns how many rows proposals took. */
static int add_decodes(struct sched *s)
{
    int drafts = 0, half = s->prefill_chunk / 2, drafts_max = DRAFT_ROWS < half ? DRAFT_ROWS : half;
    for (struct seq *q = s->running.first, *next; q; q = next) {
        bool decodes = q->n_ids - q->n_done == 1;
        if (decodes && q->n_draft > drafts_max - drafts)
            q->n_draft = drafts_max - drafts;
        bool kept = !decodes || make_room(s, q);
        next = kept ? q->next : NULL; /* q gave way itself: it was the last */
        if (!decodes || !kept)
            continue;
        put_rows(s, q, 1 + q->n_draft, q->n_draft);
        drafts += q->n_draft;
    }
    return drafts;
}

/* What is left of a step for prompts. */
struct budget_left {
    int rows, echo; /* of them prompt log-probabilities */
    double seconds; /* below 0: as long as it takes */
    double most_s;  /* what the whole step may take, then */
    bool any;       /* a chunk is in: what follows need not be */
};

static struct cost_work batch_work(const struct batch *b)
{
    struct cost_work w = {.logits = b->model.n_logit};
    for (int i = 0; i < b->model.n_span; i++)
        cost_span(&w, b->spans[i].pos0, b->spans[i].n_row);
    return w;
}

/* What a step takes in which all decode who are here and find room, were they all like those that decode now. It will
 * be the time between their tokens soon, so that nobody gains when prompts are read in smaller chunks than it allows:
 * the others only wait longer for theirs. */
static double full_step_seconds(const struct sched *s)
{
    struct cost_work w = {0}, none = {0};
    int n = s->running.count, n_free = s->kv.n_free;
    for (const struct seq *q = s->running.first; q; q = q->next)
        if (q->n_ids - q->n_done == 1)
            cost_span(&w, q->n_done, 1);
    w.logits = w.rows;
    for (const struct seq *q = s->waiting.first; q && n < s->max_sequences; q = q->next, n++) {
        n_free -= kv_blocks_for(q->n_ids);
        if (n_free < 0)
            break;
    }
    double step_s = cost_seconds(&s->cost, &none), rows_s = cost_seconds(&s->cost, &w) - step_s;
    return w.rows > 0 ? step_s + rows_s * n / w.rows : 0;
}

static void begin_budget(struct sched *s, struct budget_left *left, int drafts)
{
    const struct batch *b = &s->batch;
    struct cost_work w = batch_work(b);
    double decode_s = cost_seconds(&s->cost, &w), full_s = s->itl_s > 0 ? 0 : full_step_seconds(s);
    double most_s = AUTO_RATIO * (full_s > decode_s ? full_s : decode_s); /* drafts may make it more than full */
    most_s = s->itl_s > 0 ? s->itl_s : most_s > AUTO_LEAST_S ? most_s : AUTO_LEAST_S;
    *left = (struct budget_left){.rows = s->prefill_chunk - drafts, .echo = ECHO_ROWS, .seconds = -1, .most_s = most_s};
    if (b->model.n_row)
        left->seconds = most_s > decode_s ? most_s - decode_s : 0;
}

/* Rows of its prompt that fit into the time left, so that all rows of the step together are a multiple of what kernels
 * compute at once; that many at least in a step. Fewer where steps of that size were seen to take longer. */
static int rows_in_time(const struct sched *s, const struct seq *q, const struct budget_left *left)
{
    enum { TILE = 4 };
    int over = s->batch.model.n_row % TILE, least = over ? 2 * TILE - over : TILE;
    if (left->seconds < 0)
        return left->rows;
    double fit = cost_rows(&s->cost, q->n_done, left->seconds);
    int n = fit < left->rows ? (int)fit - (over + (int)fit) % TILE : left->rows;
    for (struct cost_work so_far = batch_work(&s->batch); n > least; n -= TILE) {
        struct cost_work w = so_far;
        cost_span(&w, q->n_done, n);
        if (cost_seconds_at_most(&s->cost, &w) <= left->most_s)
            break;
    }
    n = !left->any && n < least ? least : n > 0 ? n : 0;
    return n < left->rows ? n : left->rows;
}

/* A prompt chunk within what is left of the step. */
static void add_chunk(struct sched *s, struct seq *q, struct budget_left *left)
{
    int rows = rows_in_time(s, q, left), n = 0, lacks = q->n_ids - q->n_done;
    for (; n < rows && n < lacks; n++)
        if (seq_wants_echo(q, q->n_done + n) && --left->echo < 0) {
            left->echo = 0;
            break;
        }
    double seconds = n < rows || n == lacks ? left->seconds - cost_span_seconds(&s->cost, q->n_done, n) : 0;
    left->seconds = left->seconds < 0 ? left->seconds : seconds > 0 ? seconds : 0;
    if (n == 0)
        return;
    left->rows -= n;
    left->any = true;
    put_rows(s, q, n, 0);
}

void sched_learn(struct sched *s, double seconds)
{
    struct cost_work w = batch_work(&s->batch);
    cost_learn(&s->cost, &w, seconds);
}

/* ---- admission ---- */

/* Positions that may come from the cache: not the last, whose logits are wanted, nor a prompt's that are wanted too. */
static int reusable(const struct seq *q)
{
    if (q->r->echo_logprobs && q->n_echoed < q->n_prompt)
        return q->n_echoed > 1 ? q->n_echoed - 1 : 0;
    return q->n_ids - 1;
}

/* Is a running sequence about to compute more of what q begins with than the `n_have` positions that are there? */
static bool is_computed_soon(const struct sched *s, const struct seq *q, int n_have)
{
    enum { WORTH_A_WAIT = 16 }; /* tokens */
    int most = reusable(q);
    for (const struct seq *a = s->kv.cache ? s->running.first : NULL; a; a = a->next) {
        int from = a->n_done > n_have ? a->n_done : n_have, to = a->n_ids < most ? a->n_ids : most;
        if (a->n_ids - a->n_done > 1 && from + WORTH_A_WAIT <= to && hash128_equal(&a->root, &q->root) &&
            !memcmp(a->ids, q->ids, (size_t)(from + WORTH_A_WAIT) * sizeof *a->ids))
            return true;
    }
    return false;
}

/* The blocks of all ids, as many as possible from the cache. A block for every running sequence is kept, so that a
 * newcomer does not push others out at once. */
static bool take_blocks(struct sched *s, struct seq *q, int n_matched)
{
    struct kv_pool *kv = &s->kv;
    int spare = kv->n_free - kv_needs(kv, &q->blocks, n_matched, q->n_ids);
    if (spare < s->running.count)
        return false;
    q->n_done = prefix_tail(kv, &q->blocks, &q->root, q->ids, reusable(q));
    if (kv_reserve(kv, &q->blocks, q->n_done, q->n_ids))
        return true;
    kv_truncate(kv, &q->blocks, n_matched); /* a tail that must be copied needs one more */
    q->n_done = n_matched;
    return kv_reserve(kv, &q->blocks, q->n_done, q->n_ids);
}

enum admission { ADMITTED, HELD, NO_ROOM };

static enum admission admit(struct sched *s, struct seq *q, uint64_t now_ns)
{
    int n = prefix_match(&s->kv, &q->blocks, &q->root, q->ids, reusable(q));
    bool held = is_computed_soon(s, q, n) || s->kv.reads_open; /* the next step reads on */
    if (held || !take_blocks(s, q, n)) {
        kv_release(&s->kv, &q->blocks);
        q->n_done = 0;
        return held ? HELD : NO_ROOM;
    }
    list_remove(&s->waiting, q);
    set_running(q, true);
    list_insert(&s->running, q);
    /* at once, or more of the same tenant would be admitted meanwhile */
    tenant_charge(q->tenant, q->n_ids - q->n_done);
    q->n_paid = q->n_ids;
    if (!q->start_ns) {
        q->start_ns = now_ns;
        q->n_cached = q->n_done;
        s->kv.stats.queries += (uint64_t)q->n_ids;
        s->kv.stats.hits += (uint64_t)q->n_done;
    }
    return ADMITTED;
}

/* Of those that are not held, the first by rank, among the tenants that were served least. */
static struct seq *next_waiting(const struct sched *s)
{
    struct seq *best = NULL;
    for (struct seq *q = s->waiting.first; q; q = q->next) {
        if (q->held == s->step)
            continue;
        if (!best || tenant_goes_first(q->tenant, best->tenant))
            best = q;
        if (!best->tenant)
            break;
    }
    return best;
}

static bool is_spent(const struct budget_left *left)
{
    return left->rows <= 0 || (left->any && left->seconds == 0);
}

static void add_waiting(struct sched *s, struct budget_left *left, uint64_t now_ns)
{
    enum {
        READS = 4,
        HELD_MAX = 64
    }; /* blocks from disk a step, while others wait for its tokens; looks at the held */
    int n_held = 0;
    s->kv.reads_left = s->running.count ? READS : INT32_MAX;
    while (!is_spent(left) && s->running.count < s->max_sequences && n_held < HELD_MAX) {
        struct seq *q = next_waiting(s);
        enum admission how = q ? admit(s, q, now_ns) : NO_ROOM;
        if (how == NO_ROOM)
            break; /* nobody overtakes: a long prompt would wait for ever */
        if (how == ADMITTED) {
            add_chunk(s, q, left);
        } else {
            q->held = s->step;
            n_held++;
        }
    }
}

const struct batch *sched_next(struct sched *s, uint64_t now_ns)
{
    struct batch *b = &s->batch;
    struct budget_left left;
    b->model = (struct model_batch){.ids = b->ids, .spans = b->spans, .logit_rows = b->logit_rows};
    s->step++;
    begin_budget(s, &left, add_decodes(s));
    for (struct seq *q = s->running.first; q && !is_spent(&left); q = q->next)
        if (q->n_ids - q->n_done > 1)
            add_chunk(s, q, &left);
    add_waiting(s, &left, now_ns);
    assert(b->model.n_row || !s->waiting.first); /* invariant 4 */
    return b;
}
