/* sched - who runs in the next step
 *
 *   sched_add -> waiting -- admit --> running -- sched_remove -->
 *                   ^------ preempt ----'
 *
 * Invariants
 * 1. Both lists are in rank order: larger priority first, then the older. The first of `running` is never preempted for
 *    another, so the oldest always advances and everything ends.
 * 2. A running sequence holds the blocks of all its known ids (of a new one from the step that computes it); a waiting
 * one holds none.
 * 3. A batch has decode rows first (one a sequence whose last id alone is missing), then prompt chunks: at most
 *    prefill_chunk rows of them, at most max_sequences + echo_rows logits.
 * 4. submit has checked that any sequence fits the empty pool, so the first waiting one is admitted when nothing runs.
 */
#include "engine/engine_private.h"

#include "base/clock.h"
#include "base/mem.h"

#include <assert.h>

/* ---- lists ---- */

static bool ranks_before(const struct seq *a, const struct seq *b)
{
    return a->r->priority != b->r->priority ? a->r->priority > b->r->priority : a->order < b->order;
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

void sched_add(struct sched *s, struct seq *q)
{
    q->running = false;
    list_insert(&s->waiting, q);
}

void sched_remove(struct sched *s, struct seq *q)
{
    list_remove(q->running ? &s->running : &s->waiting, q);
    kv_release(&s->kv, &q->blocks);
}

/* ---- life ---- */

int sched_rows_max(const struct sched *s)
{
    return s->max_sequences + s->prefill_chunk;
}

int sched_logits_max(const struct sched *s)
{
    return s->max_sequences + s->echo_rows;
}

enum status sched_init(struct sched *s, const struct engine_options *o, int n_block, struct error *err)
{
    *s = (struct sched){.max_sequences = o->max_sequences > 0 ? o->max_sequences : 64,
                        .prefill_chunk = o->prefill_chunk > 0 ? o->prefill_chunk : 256,
                        .echo_rows = 32};
    struct batch *b = &s->batch;
    size_t rows = (size_t)sched_rows_max(s), sequences = (size_t)s->max_sequences;
    b->ids = mem_alloc_zero(rows, sizeof *b->ids);
    b->logit_rows = mem_alloc_zero((size_t)sched_logits_max(s), sizeof *b->logit_rows);
    b->spans = mem_alloc_zero(sequences, sizeof *b->spans);
    b->items = mem_alloc_zero(sequences, sizeof *b->items);
    if (!b->ids || !b->logit_rows || !b->spans || !b->items) {
        sched_free(s);
        return fail_nomem(err, "scheduler");
    }
    enum status st = kv_pool_init(&s->kv, n_block, err);
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
    mem_free(b->items);
    kv_pool_free(&s->kv);
    *s = (struct sched){0};
}

/* ---- one step ---- */

static void put_rows(struct sched *s, struct seq *q, int n)
{
    struct batch *b = &s->batch;
    struct model_batch *m = &b->model;
    assert(m->n_row + n <= sched_rows_max(s) && m->n_span < s->max_sequences);
    b->spans[m->n_span] =
        (struct attend_span){.row0 = m->n_row, .n_row = n, .pos0 = q->n_done, .blocks = q->blocks.ids};
    struct batch_item *item = &b->items[m->n_span++];
    *item = (struct batch_item){.seq = q, .n_row = n, .logit0 = m->n_logit};
    for (int i = 0; i < n; i++) {
        int position = q->n_done + i;
        b->ids[m->n_row + i] = q->ids[position];
        if (position == q->n_ids - 1 || seq_wants_echo(q, position)) {
            assert(m->n_logit < sched_logits_max(s));
            b->logit_rows[m->n_logit++] = m->n_row + i;
        }
    }
    item->n_logit = m->n_logit - item->logit0;
    m->n_row += n;
}

static void preempt(struct sched *s, struct seq *q)
{
    sched_remove(s, q);
    q->n_done = 0; /* computed again later, to the same bits */
    sched_add(s, q);
}

/* Room for the newest id; the newest sequences give way, in the end q itself. */
static bool make_room(struct sched *s, struct seq *q)
{
    while (!kv_reserve(&s->kv, &q->blocks, q->n_ids)) {
        struct seq *victim = s->running.last;
        preempt(s, victim);
        if (victim == q)
            return false;
    }
    return true;
}

/* A prompt chunk within what is left of the step's rows and prompt log-probabilities. Returns its rows. */
static int add_chunk(struct sched *s, struct seq *q, int rows_left, int *echo_left)
{
    int n = 0, most = q->n_ids - q->n_done < rows_left ? q->n_ids - q->n_done : rows_left;
    for (; n < most; n++)
        if (seq_wants_echo(q, q->n_done + n) && --*echo_left < 0) {
            *echo_left = 0;
            break;
        }
    if (n)
        put_rows(s, q, n);
    return n;
}

/* Admission keeps a block for every running sequence, so that a newcomer does not push others out at once. */
static bool admit(struct sched *s, struct seq *q)
{
    if (s->running.count && kv_blocks_for(q->n_ids) > s->kv.n_free - s->running.count)
        return false;
    if (!kv_reserve(&s->kv, &q->blocks, q->n_ids))
        return false;
    list_remove(&s->waiting, q);
    q->running = true;
    if (!q->start_ns)
        q->start_ns = clock_ns();
    list_insert(&s->running, q);
    return true;
}

const struct batch *sched_next(struct sched *s)
{
    struct batch *b = &s->batch;
    b->model = (struct model_batch){.ids = b->ids, .spans = b->spans, .logit_rows = b->logit_rows};
    for (struct seq *q = s->running.first, *next; q; q = next) {
        bool decodes = q->n_ids - q->n_done == 1, kept = !decodes || make_room(s, q);
        next = kept ? q->next : NULL; /* q gave way itself: it was the last */
        if (decodes && kept)
            put_rows(s, q, 1);
    }
    int left = s->prefill_chunk, echo_left = s->echo_rows;
    for (struct seq *q = s->running.first; q && left; q = q->next)
        if (q->n_ids - q->n_done > 1)
            left -= add_chunk(s, q, left, &echo_left);
    while (left && s->waiting.first && s->running.count < s->max_sequences) {
        struct seq *q = s->waiting.first;
        if (!admit(s, q))
            break; /* nobody overtakes: a long prompt would wait for ever */
        left -= add_chunk(s, q, left, &echo_left);
    }
    assert(b->model.n_row || !s->waiting.first); /* invariant 4 */
    return b;
}
