/* The core on one thread, stepped by hand: random histories against a naive twin, invariants after every step. */
#include "test.h"

#include "base/fault.h"
#include "engine/fake.h"

#include <inttypes.h>

static struct error err;

static int set_up(void **state)
{
    (void)state;
    return kernels_init(NULL, &err);
}

enum { REQUESTS = 12 };

struct history {
    struct fake fake;
    struct core core;
    struct request requests[REQUESTS];
    struct record got[REQUESTS], want[REQUESTS];
    int32_t prompts[REQUESTS][FAKE_CTX];
    struct seq *seqs[REQUESTS]; /* NULL: not yet submitted, or ended */
    int n_submitted, n_ended, context;
    struct rng during;               /* decides who leaves in the middle of a step, and what is proposed */
    int done[REQUESTS], echo_again;  /* sequences that were preempted after an echo */
    bool was_running[REQUESTS];      /* before this step */
    struct sampler_scratch *scratch; /* NULL: nothing is proposed */
    uint64_t preempted, hits, drafted, accepted, held, late;
};

static void leave_during(void *ctx)
{
    struct history *h = ctx;
    int i = (int)rng_below(&h->during, REQUESTS);
    if (rng_below(&h->during, 60) == 0 && h->seqs[i])
        h->seqs[i]->canceled = true;
}

static void on_end(void *ctx, struct seq *s, const struct finish_event *end)
{
    struct history *h = ctx;
    struct request *r = s->r;
    h->seqs[r - h->requests] = NULL;
    h->n_ended++;
    seq_free(s);
    r->on_finish(r->ctx, end);
}

/* Proposes what will be drawn, mostly, and nonsense. */
static void draft(void *ctx, const struct seq_list *running)
{
    struct history *h = ctx;
    real row[FAKE_VOCAB];
    struct sample sample;
    for (struct seq *q = running->first; q && h->scratch; q = q->next) {
        int most = q->n_limit - q->n_ids - 1;
        q->n_draft = 0;
        if (q->n_ids - q->n_done != 1 || most < 1 || rng_below(&h->during, 2))
            continue;
        int n = (int)rng_below(&h->during, 6);
        for (n = n < most ? n : most; q->n_draft < n; q->n_draft++) {
            int at = q->n_ids + q->n_draft;
            struct sampler_in in = {.how = &q->r->sampling,
                                    .logits = row,
                                    .n_vocab = FAKE_VOCAB,
                                    .ids = q->ids,
                                    .n_prompt = q->n_prompt,
                                    .n_ids = at,
                                    .choice = q->r->choice,
                                    .eos = h->core.x.eos,
                                    .n_eos = 1,
                                    .given = -1};
            fake_logits(row, fake_hash_of(q->ids, at), 0);
            sampler_pick(&sample, &in, h->scratch);
            q->ids[at] = rng_below(&h->during, 5) ? sample.id : (int32_t)rng_below(&h->during, FAKE_VOCAB);
        }
    }
}

static bool goes_first(const struct seq *a, const struct seq *b) /* of two: ten seconds a step of priority, then age */
{
    double of_a = (double)a->submit_ns - 1e10 * a->r->priority, of_b = (double)b->submit_ns - 1e10 * b->r->priority;
    return of_a < of_b || (of_a == of_b && a->order < b->order);
}

static void check_list(const struct seq_list *l, bool running, bool cache)
{
    int n = 0;
    for (const struct seq *q = l->first; q; q = q->next, n++) {
        assert_int_equal(q->running, running);
        assert_true(q->next ? q->next->prev == q : l->last == q);
        assert_true(!q->next || goes_first(q, q->next));
        assert_true(running ? q->blocks.count >= kv_blocks_for(q->n_done) : q->blocks.count == 0 && q->n_done == 0);
        assert_true(!running || q->blocks.n_committed == (cache ? q->n_done : 0));
        assert_true(q->n_done < q->n_ids || q->n_ids == q->n_limit);
        assert_true(q->n_ids <= q->n_limit && q->n_draft == 0);
    }
    assert_int_equal(n, l->count);
}

/* Every block has the owners that lists say, or is free, and nothing is lost. */
static void check_invariants(const struct history *h)
{
    const struct sched *s = &h->core.sched;
    int owners[FAKE_BLOCKS_MAX] = {0}, n_free = 0;
    check_list(&s->running, true, s->kv.cache);
    check_list(&s->waiting, false, s->kv.cache);
    assert_true(s->running.count <= s->max_sequences);
    assert_int_equal(s->running.count + s->waiting.count, h->n_submitted - h->n_ended);
    for (const struct seq *q = s->running.first; q; q = q->next)
        for (int i = 0; i < q->blocks.count; i++)
            owners[q->blocks.ids[i]]++;
    for (int32_t b = s->kv.first_free; b >= 0; b = s->kv.blocks[b].next, n_free++)
        assert_int_equal(owners[b], 0);
    assert_int_equal(n_free, s->kv.n_free);
    for (int i = 0; i < s->kv.n_block; i++) {
        assert_int_equal(owners[i], s->kv.blocks[i].n_ref);
        n_free -= owners[i] == 0;
    }
    assert_int_equal(n_free, 0);
    for (int i = 0; i < s->shares.n_tenant; i++) {
        int live = 0;
        for (int k = 0; k < REQUESTS; k++)
            live += h->seqs[k] && h->seqs[k]->tenant == &s->shares.tenants[i];
        assert_int_equal(live, s->shares.tenants[i].n_live);
    }
}

/* What the policy allows a step to take, were there room for everybody. */
static double longest_step(const struct sched *s, int n_decode, double decode_s)
{
    struct cost_work w = {.logits = n_decode};
    int all = s->running.count + s->waiting.count;
    for (int i = 0; i < n_decode; i++)
        cost_span(&w, s->batch.spans[i].pos0, 1);
    double fixed_s = s->cost.price[COST_TERMS - 1], mean_s = (cost_seconds(&s->cost, &w) - fixed_s) / n_decode;
    double all_s = fixed_s + mean_s * (all < s->max_sequences ? all : s->max_sequences);
    return s->itl_s > 0 ? s->itl_s : fmax(0.02, 1.6 * fmax(all_s, decode_s));
}

/* Prompts are read one after the other, and take the time that decode rows leave: no more, and, where one is cut, not
 * much less. */
static void check_chunks(const struct sched *s, int n_decode)
{
    enum { TILE = 4 };
    const struct batch *b = &s->batch;
    struct cost_work decodes = {0};
    int rows = 0, budget = s->prefill_chunk;
    bool cut = false;
    for (int i = 0; i < n_decode; i++) {
        cost_span(&decodes, b->spans[i].pos0, b->items[i].n_row);
        decodes.logits += b->items[i].n_logit;
        budget -= b->items[i].n_draft;
    }
    double decode_s = cost_seconds(&s->cost, &decodes), sum = decode_s;
    for (int i = n_decode; i < b->model.n_span; i++) {
        const struct attend_span *span = &b->spans[i];
        const struct seq *q = b->items[i].seq;
        assert_false(cut);
        cut = span->pos0 + span->n_row < q->n_ids && !q->r->echo_logprobs;
        if (cut && i == n_decode && n_decode && span->n_row < budget) {
            double least_s = s->itl_s > 0 ? s->itl_s : fmax(0.02, 1.6 * decode_s);
            struct cost_work more = decodes; /* or steps of a size above were seen to take too long */
            cost_span(&more, span->pos0, span->n_row + TILE);
            assert_true(span->n_row > cost_rows(&s->cost, span->pos0, fmax(0, least_s - decode_s)) - TILE ||
                        cost_seconds_at_most(&s->cost, &more) > least_s);
        }
        rows += span->n_row;
        sum += cost_span_seconds(&s->cost, span->pos0, span->n_row);
    }
    if (n_decode)
        assert_true(rows < 2 * TILE || sum <= 1.001 * longest_step(s, n_decode, decode_s));
    else
        assert_true(!cut || rows == budget);
}

/* A step is about to run: what a naive reader of the policy finds in its batch. */
static void check_batch(void *ctx)
{
    struct history *h = ctx;
    const struct sched *s = &h->core.sched;
    const struct batch *b = &s->batch;
    int others = 0, n_decode = 0;
    for (int i = 0; i < b->model.n_span; i++) {
        const struct batch_item *item = &b->items[i];
        const struct seq *q = item->seq;
        bool was = h->was_running[q->r - h->requests], decodes = q->n_ids - q->n_done == 1;
        int end = q->n_done + item->n_row;
        assert_true(q->running && b->spans[i].pos0 == q->n_done);
        if (was && decodes) {
            assert_int_equal(n_decode++, i); /* decode rows first */
            assert_int_equal(item->n_row, 1 + q->n_draft);
        } else {
            assert_true(item->n_draft == 0 && end <= q->n_ids);
        }
        others += item->n_row - (was && decodes);
    }
    assert_true(others <= s->prefill_chunk);
    check_chunks(s, n_decode);
    for (const struct seq *q = s->running.first; q; q = q->next) { /* nobody who decodes is left out */
        int spans = 0;
        for (int i = 0; i < b->model.n_span; i++)
            spans += b->items[i].seq == q;
        bool is_new = !h->was_running[q->r - h->requests];
        assert_true(spans == 1 || (spans == 0 && (is_new || q->n_ids - q->n_done > 1)));
        for (const struct seq *w = is_new && !s->shares.weight ? s->waiting.first : NULL; w; w = w->next)
            assert_true(goes_first(q, w) || w->held == s->step); /* nobody overtakes */
    }
    for (const struct seq *w = s->waiting.first; w; w = w->next)
        h->held += w->held == s->step;
}

static double weight_of(void *ctx, uint64_t tenant)
{
    (void)ctx;
    return (double)tenant; /* the weight 0 must not stop anybody */
}

static void submit(struct history *h, struct rng *r)
{
    int i = h->n_submitted++;
    random_request(&h->requests[i], &h->got[i], h->prompts[i], r, h->context);
    if (rng_below(r, 12) == 0)
        h->requests[i].deadline_ns = h->fake.now + 1000000 * (1 + rng_below(r, 60));
    OK(seq_create(&h->seqs[i], &h->requests[i], &h->core.x, &err));
    h->seqs[i]->order = (uint64_t)i;
    sched_add(&h->core.sched, h->seqs[i]);
}

static void begin_history(struct history *h, struct rng *r, struct sampler_scratch *scratch)
{
    struct engine_options o = {.max_sequences = 1 + (int)rng_below(r, 8), .prefill_chunk = 1 + (int)rng_below(r, 90)};
    o.no_prefix_cache = rng_below(r, 4) == 0;
    o.weight = rng_below(r, 3) ? NULL : weight_of;
    o.itl_ms = rng_below(r, 3) ? 0 : (double)rng_below(r, 25) / 10;
    h->fake.row_ns = rng_below(r, 3) ? 0 : 1000000 * (1 + rng_below(r, 9));
    int n_block = rng_below(r, 3) == 0 ? 3 + (int)rng_below(r, 3) : 40;
    struct executor x = fake_executor(&h->fake, &o, n_block, NULL);
    x.clock = fake_clock;
    h->context = n_block * KV_BLOCK < FAKE_CTX ? n_block * KV_BLOCK : FAKE_CTX;
    OK(core_init(&h->core, &x, &o, &err));
    h->core.ctx = h;
    h->core.on_end = on_end;
    h->core.on_scheduled = check_batch;
    h->core.draft = draft;
    h->scratch = rng_below(r, 3) ? NULL : scratch;
    h->fake.during = leave_during;
    h->fake.during_ctx = h;
}

static void step_history(struct history *h)
{
    for (int i = 0; i < REQUESTS; i++)
        h->was_running[i] = h->seqs[i] && h->seqs[i]->running;
    core_step(&h->core);
    check_invariants(h);
    for (int i = 0; i < REQUESTS; i++) {
        const struct seq *q = h->seqs[i];
        assert_false(q && q->canceled); /* canceled or late means gone within the step */
        assert_true(!q || !q->r->deadline_ns || q->r->deadline_ns > h->fake.now);
        h->echo_again += q && q->n_done < h->done[i] && q->n_echoed > 1;
        h->done[i] = q ? q->n_done : 0;
    }
}

/* Runs one history; returns whether every request reported what its twin does. */
static bool run_history(struct history *h, uint64_t seed, enum fake_mutation mutation, struct sampler_scratch *scratch)
{
    struct rng r;
    rng_init(&r, seed);
    memset(h, 0, sizeof *h);
    h->fake.mutation = mutation;
    h->fake.nan_every = rng_below(&r, 3) ? 0 : 150;
    rng_init(&h->during, ~seed);
    begin_history(h, &r, scratch);
    int n = 2 + (int)rng_below(&r, REQUESTS - 1);
    for (int step = 0; h->n_submitted < n || h->n_ended < n; step++) {
        assert_true(step < 60000); /* it must end */
        while (h->n_submitted < n && rng_below(&r, 3) == 0)
            submit(h, &r);
        if (rng_below(&r, 40) == 0) {
            int i = (int)rng_below(&r, REQUESTS);
            if (h->seqs[i])
                h->seqs[i]->canceled = true;
        }
        step_history(h);
    }
    const struct kv_pool *kv = &h->core.sched.kv;
    assert_int_equal(kv->n_free, kv->n_block);
    h->preempted = h->core.sched.preemptions;
    h->hits = kv->stats.hits;
    h->drafted = h->core.drafted;
    h->accepted = h->core.accepted;
    core_free(&h->core);
    bool agree = true;
    for (int i = 0; i < n; i++) {
        expect(&h->want[i], &h->requests[i], h->context, h->fake.nan_every, scratch);
        agree &= records_agree(&h->got[i], &h->want[i]);
        h->late += h->got[i].finish == FINISH_ERROR && h->got[i].status == ST_TIMEOUT;
    }
    return agree;
}

static void test_sched_random_histories(void **state)
{
    (void)state;
    struct history *h = malloc(sizeof *h);
    struct sampler_scratch scratch;
    uint64_t finishes[5] = {0}, crowded = 0, preempted = 0, echo_again = 0, hits = 0, drafted = 0, accepted = 0,
             held = 0, late = 0;
    const char *many = getenv("INGOT_HISTORIES"), *first = getenv("INGOT_HISTORY_FIRST");
#ifdef INGOT_SANITIZED
    uint64_t n = many ? strtoull(many, NULL, 10) : 500;
#else
    uint64_t n = many ? strtoull(many, NULL, 10) : 5000;
#endif
    OK(sampler_scratch_init(&scratch, FAKE_VOCAB, &err));
    for (uint64_t i = first ? strtoull(first, NULL, 10) : 0, end = i + n; i < end; i++) {
        if (!run_history(h, i, FAKE_HONEST, &scratch))
            fail_msg("history %llu: a request did not report what it does alone", (unsigned long long)i);
        crowded += h->fake.spans_max > 3;
        preempted += h->preempted;
        echo_again += (uint64_t)h->echo_again;
        hits += h->hits;
        drafted += h->drafted;
        accepted += h->accepted;
        held += h->held;
        late += h->late;
        for (int k = 0; k < h->n_submitted; k++)
            finishes[h->got[k].finish]++;
    }
    print_message("requests: %" PRIu64 " stop, %" PRIu64 " length, %" PRIu64 " canceled, %" PRIu64 " error, %" PRIu64
                  " of them late\n",
                  finishes[FINISH_STOP], finishes[FINISH_LENGTH], finishes[FINISH_CANCELED], finishes[FINISH_ERROR],
                  late);
    print_message("%" PRIu64 " preempted, %" PRIu64 " after an echo; %" PRIu64 " tokens cached, %" PRIu64
                  " held; %" PRIu64 " of %" PRIu64 " drafts accepted\n",
                  preempted, echo_again, hits, held, accepted, drafted);
    for (int f = FINISH_STOP; f <= FINISH_ERROR; f++)
        assert_true(finishes[f] > n / 100);
    assert_true(crowded > n / 10 && preempted > n / 20 && echo_again > n / 500 && hits > n && late > n / 100);
    assert_true(held > n / 100 && accepted > n && drafted > accepted + accepted / 8);
    sampler_scratch_free(&scratch);
    free(h);
}

/* The comparison must be able to fail: a model that reads another's block, whose bits follow the batch, or whose copies
 * of blocks hold something else. */
static void test_sched_notices_mutations(void **state)
{
    (void)state;
    struct history *h = malloc(sizeof *h);
    struct sampler_scratch scratch;
    OK(sampler_scratch_init(&scratch, FAKE_VOCAB, &err));
    for (int mutation = FAKE_READS_NEIGHBOUR; mutation <= FAKE_FORGETS_COPIES; mutation++) {
        int noticed = 0;
        for (int i = 0; i < 300; i++)
            noticed += !run_history(h, (uint64_t)i, (enum fake_mutation)mutation, &scratch);
        print_message("mutation %d: noticed in %d of 300 histories\n", mutation, noticed);
        assert_true(noticed > 20);
    }
    sampler_scratch_free(&scratch);
    free(h);
}

/* ---- single behaviours ---- */

struct bench {
    struct history h;
    struct engine_options o;
};

static struct bench *bench_new(int sequences, int chunk, int blocks)
{
    struct bench *b = calloc(1, sizeof *b);
    b->o = (struct engine_options){.max_sequences = sequences, .prefill_chunk = chunk};
    struct executor x = fake_executor(&b->h.fake, &b->o, blocks, NULL);
    OK(core_init(&b->h.core, &x, &b->o, &err));
    b->h.core.ctx = &b->h;
    b->h.core.on_end = on_end;
    return b;
}

static void bench_run_out(struct bench *b)
{
    while (core_step(&b->h.core)) {
    }
}

static void bench_free(struct bench *b)
{
    core_free(&b->h.core);
    free(b);
}

static struct seq *bench_add(struct bench *b, int n_prompt, int max_tokens, int priority)
{
    struct history *h = &b->h;
    int i = h->n_submitted++;
    h->requests[i] = (struct request){.prompt = h->prompts[i],
                                      .tenant = h->requests[i].tenant,
                                      .choice = h->requests[i].choice,
                                      .n_prompt = n_prompt,
                                      .ctx = &h->got[i],
                                      .on_token = record_token,
                                      .on_finish = record_finish,
                                      .priority = priority};
    for (int k = 0; k < n_prompt; k++)
        h->prompts[i][k] = (i + k) % FAKE_VOCAB;
    sampling_defaults(&h->requests[i].sampling);
    h->requests[i].sampling.max_tokens = max_tokens;
    h->requests[i].sampling.ignore_eos = true;
    OK(seq_create(&h->seqs[i], &h->requests[i], &h->core.x, &err));
    h->seqs[i]->order = (uint64_t)i;
    sched_add(&h->core.sched, h->seqs[i]);
    return h->seqs[i];
}

/* So many answers are being written when so many prompts come. */
static void bench_write_and_read(struct bench *b, int n_answer, int n_prompt, int tokens, int max_tokens)
{
    b->h.core.x.clock = fake_clock;
    for (int i = 0; i < n_answer; i++)
        bench_add(b, 10, 300, 0);
    for (int i = 0; i < 20; i++)
        core_step(&b->h.core);
    for (int i = 0; i < n_prompt; i++)
        bench_add(b, tokens, max_tokens, 0);
}

static void test_sched_mixes_decode_and_chunks(void **state)
{
    (void)state;
    struct bench *b = bench_new(4, 16, 20);
    bench_add(b, 3, 50, 0);
    core_step(&b->h.core);
    bench_add(b, 40, 5, 0);
    for (int step = 0; step < 3; step++) { /* 1 decode row and 16, 16, 8 rows of the prompt */
        const struct batch *batch = sched_next(&b->h.core.sched, 0);
        assert_int_equal(batch->model.n_row, 1 + (step < 2 ? 16 : 8));
        assert_int_equal(batch->items[0].n_row, 1);
        core_step(&b->h.core); /* schedules the same again: who runs is not changed by sched_next */
    }
    assert_int_equal(b->h.got[0].n, 4);
    assert_int_equal(b->h.got[1].n, 1);
    bench_run_out(b);
    assert_int_equal(b->h.got[0].finish, FINISH_LENGTH);
    assert_int_equal(b->h.got[0].n, 50);
    bench_free(b);
}

static void test_sched_preempts_the_newest_of_lowest_priority(void **state)
{
    (void)state;
    struct bench *b = bench_new(4, 300, 6);
    struct seq *old = bench_add(b, 60, 100, 0), *young = bench_add(b, 60, 100, 0), *high = bench_add(b, 60, 100, 1);
    core_step(&b->h.core);
    assert_true(old->running && young->running && high->running);
    for (int i = 0; i < 100 && young->running; i++)
        core_step(&b->h.core);
    assert_false(young->running); /* at 129 ids each wants a third block, and there are six */
    assert_true(young->n_ids > 120 && young->n_done == 0 && young->blocks.count == 0);
    assert_true(high->running && old->running);
    while (core_step(&b->h.core))
        check_invariants(&b->h);
    for (int i = 0; i < 3; i++)
        assert_int_equal(b->h.got[i].n, 100);
    bench_free(b);
}

static void test_sched_order_of_admission(void **state)
{
    (void)state;
    struct bench *b = bench_new(1, 100, 20);
    struct seq *first = bench_add(b, 5, 3, 0);
    core_step(&b->h.core);
    bench_add(b, 5, 3, 0);
    bench_add(b, 5, 3, 2);
    assert_true(first->running);
    while (b->h.got[0].finished == 0)
        core_step(&b->h.core);
    core_step(&b->h.core);
    assert_int_equal(b->h.got[1].n, 0);
    assert_int_equal(b->h.got[2].n, 1); /* larger priority first */
    bench_run_out(b);
    assert_int_equal(b->h.got[1].n, 3);
    bench_free(b);
}

static void test_sched_nobody_overtakes(void **state)
{
    (void)state;
    struct bench *b = bench_new(4, 300, 5);
    bench_add(b, 100, 60, 0);
    core_step(&b->h.core);
    struct seq *longer = bench_add(b, 250, 3, 0), *shorter = bench_add(b, 5, 3, 0);
    for (int i = 0; i < 50; i++) {
        core_step(&b->h.core);
        assert_false(longer->running || shorter->running); /* 3 blocks are free, and the longer one, first, needs 4 */
    }
    bench_run_out(b);
    assert_int_equal(b->h.got[1].n, 3);
    assert_int_equal(b->h.got[2].n, 3);
    bench_free(b);
}

/* Long prompts come while answers are written: every step stays within what was asked, and prompts still advance. */
static void test_sched_keeps_time_between_tokens(void **state)
{
    (void)state;
    static const double asked_ms[] = {1.6, 2.4, 0.5, 0};
    for (size_t k = 0; k < sizeof asked_ms / sizeof *asked_ms; k++) {
        struct bench *b = bench_new(12, 256, FAKE_BLOCKS_MAX);
        b->h.core.sched.itl_s = asked_ms[k] / 1000;
        bench_write_and_read(b, 4, 4, 256, 2);
        double most = 0;
        int steps = 0;
        for (; b->h.n_ended < 4; steps++) {
            assert_true(steps < 400);
            uint64_t begin = b->h.fake.now;
            core_step(&b->h.core);
            double ms = (double)(b->h.fake.now - begin) * 1e-6;
            most = ms > most ? ms : most;
        }
        print_message("asked %.1f ms: at most %.2f ms, %d steps for 1,024 tokens\n", asked_ms[k], most, steps);
        /* the fake takes 1 ms and 10 us a row: 5 answers and 7 rows of a prompt are 1.12 ms */
        assert_true(most <= (asked_ms[k] == 0 ? 3.61 : asked_ms[k] > 1.12 ? 1.05 * asked_ms[k] : 1.13));
        assert_true(asked_ms[k] == 0 ? steps < 12 : asked_ms[k] > 1.12 ? steps < 80 : steps <= 1024 / 4 + 4);
        bench_run_out(b);
        bench_free(b);
    }
}

/* A step of nine rows takes much longer than one of eight: chunks learn to stay below. */
static void test_sched_avoids_where_steps_jump(void **state)
{
    (void)state;
    enum { STEPS = 100 };
    struct bench *b = bench_new(12, 256, FAKE_BLOCKS_MAX);
    b->h.core.sched.itl_s = 5e-3;
    b->h.fake.jump_ns = 30000000;
    bench_write_and_read(b, 4, 4, 256, 2);
    int late = 0, read = 0;
    for (int i = 0; i < STEPS && b->h.n_ended < 4; i++) {
        core_step(&b->h.core);
        int n_row = b->h.core.sched.batch.model.n_row;
        late += n_row > 8;
        read += n_row > 4;
    }
    print_message("%d steps of %d too long, %d read prompts\n", late, STEPS, read);
    assert_true(late <= STEPS / 5 && read > STEPS / 2); /* some, while it learns */
    bench_run_out(b);
    bench_free(b);
}

/* Many prompts come while two answers are written: a step may take 1.6 times what one will in which all who have room
 * are written, so that they are soon read; those who have none do not count. */
static void test_sched_reads_for_all_who_have_room(void **state)
{
    (void)state;
    static const struct {
        int blocks, all, most;
    } cases[] = {{FAKE_BLOCKS_MAX, 12, 18}, {11, 5, 8}}; /* 4 blocks a prompt; rows that the naive count gives */
    for (int k = 0; k < 2; k++) {
        struct bench *b = bench_new(12, 256, cases[k].blocks);
        b->h.fake.row_ns = 10000000; /* a step is 1 ms and 10 ms a row */
        bench_write_and_read(b, 2, 10, 255, 1);
        int chunk = 0, n_live = 12;
        for (double ms; b->h.n_ended < 4; n_live = b->h.n_submitted - b->h.n_ended) {
            uint64_t begin = b->h.fake.now;
            core_step(&b->h.core);
            ms = (double)(b->h.fake.now - begin) * 1e-6;
            int all = n_live < cases[k].all ? n_live : cases[k].all;
            assert_true(ms <= 1.6 * (1 + 10 * all) * 1.02);
            int rows = b->h.core.sched.batch.model.n_row - 2;
            chunk = rows > chunk ? rows : chunk;
        }
        print_message("%d blocks: chunks of up to %d rows beside 2 answers\n", cases[k].blocks, chunk);
        assert_in_range(chunk, cases[k].most - 4, cases[k].most);
        bench_run_out(b);
        bench_free(b);
    }
}

static double weight_by_id(void *ctx, uint64_t tenant)
{
    (void)ctx;
    return tenant == 7 ? 3 : 1;
}

/* One tenant floods the queue, another comes later: it does not wait behind the flood, and gets what its weight says.
 */
static void test_sched_fair_share(void **state)
{
    (void)state;
    struct bench *b = bench_new(1, 256, FAKE_BLOCKS_MAX);
    b->h.core.sched.shares.weight = weight_by_id;
    for (int i = 0; i < REQUESTS; i++) {
        b->h.requests[i].tenant = i < 8 ? 1 : 7;
        struct seq *q = bench_add(b, 30, 10, 0);
        assert_int_equal(q->tenant->id, i < 8 ? 1 : 7);
    }
    int done[2] = {0};
    for (int ended = 0; done[1] < 4;) {
        core_step(&b->h.core);
        for (int i = 0; b->h.n_ended > ended && i < REQUESTS; i++)
            done[i >= 8] += b->h.got[i].finished && !b->h.was_running[i] && (b->h.was_running[i] = true);
        ended = b->h.n_ended;
    }
    print_message("weight 1: %d ended, weight 3: %d ended\n", done[0], done[1]);
    assert_true(done[0] >= 1 && done[0] <= 2);
    bench_run_out(b);
    for (int i = 0; i < b->h.core.sched.shares.n_tenant; i++)
        assert_int_equal(b->h.core.sched.shares.tenants[i].n_live, 0);
    bench_free(b);
}

/* A stream of urgent requests does not keep one from its turn for ever. */
static void test_sched_ages(void **state)
{
    (void)state;
    struct bench *b = bench_new(1, 256, FAKE_BLOCKS_MAX);
    b->h.core.x.clock = fake_clock;
    bench_add(b, 5, 3, 1);
    struct seq *patient = bench_add(b, 5, 3, 0);
    for (int i = 2; i < REQUESTS; i++) { /* one more urgent one before each end, 3 s apart */
        bench_add(b, 5, 3, 1);
        while (b->h.n_ended < i - 1)
            core_step(&b->h.core);
        b->h.fake.now += (uint64_t)3000000000;
        if (b->h.seqs[1] != patient)
            break;
    }
    assert_int_equal(b->h.got[1].finished, 1);
    assert_true(b->h.n_submitted > 5 && b->h.n_submitted < 9); /* after ten seconds */
    bench_run_out(b);
    bench_free(b);
}

/* The choices of one request: one computes the prompt, the others wait for all of it but a few tokens. */
static void test_sched_choices_share_the_prompt(void **state)
{
    (void)state;
    struct bench *b = bench_new(8, 64, 12);
    for (int i = 0; i < 8; i++) {
        b->h.requests[i].choice = i;
        bench_add(b, 200, 20, 0);
        memcpy(b->h.prompts[i], b->h.prompts[0], sizeof b->h.prompts[i]);
        memcpy(b->h.seqs[i]->ids, b->h.prompts[0], 200 * sizeof(int32_t));
    }
    int rows = 0;
    for (; core_step(&b->h.core); check_invariants(&b->h)) /* 11 blocks of the 12, instead of 32 */
        for (int i = 0; i < b->h.core.sched.batch.model.n_span; i++)
            rows += b->h.core.sched.batch.spans[i].pos0 < 200 ? b->h.core.sched.batch.spans[i].n_row : 0;
    assert_in_range(rows, 200 + 7, 200 + 7 * 8);
    assert_int_equal(b->h.core.sched.preemptions, 0);
    for (int i = 0; i < 8; i++) {
        assert_int_equal(b->h.got[i].n, 20);
        assert_in_range(b->h.got[i].n_cached, i ? 192 : 0, i ? 199 : 0);
    }
    bench_free(b);
}

static void test_cost_learns(void **state)
{
    (void)state;
    struct cost_model m = {0};
    struct rng r;
    rng_init(&r, 5);
    for (int i = 0; i < 400; i++) { /* 4 ms, 1.3 ms a row, 0.3 ms a row of logits, 0.2 us a key; 10 % noise */
        struct cost_work w = {.logits = 1 + (double)rng_below(&r, 32)};
        for (int k = 0; k < (int)w.logits; k++)
            cost_span(&w, (int)rng_below(&r, 1000), 1);
        if (rng_below(&r, 4) == 0)
            cost_span(&w, (int)rng_below(&r, 2000), 16 * (1 + (int)rng_below(&r, 16)));
        double noise = 0.95 + 0.1 * (double)rng_unit(rng_u32(&r));
        cost_learn(&m, &w, noise * (4e-3 + 1.3e-3 * w.rows + 0.3e-3 * w.logits + 2e-7 * w.keys));
    }
    struct cost_work w = {.logits = 20};
    for (int k = 0; k < 20; k++)
        cost_span(&w, 500, 1);
    cost_span(&w, 1000, 64);
    double want = 4e-3 + 1.3e-3 * 84 + 0.3e-3 * 20 + 2e-7 * w.keys, got = cost_seconds(&m, &w);
    print_message("a step of %.1f ms is expected to take %.1f ms\n", want * 1e3, got * 1e3);
    assert_true(got > 0.92 * want && got < 1.08 * want);
    double rows = cost_rows(&m, 1000, 0.1);
    assert_true(rows > 55 && rows < 75);
    assert_true(cost_span_seconds(&m, 1000, (int)rows) <= 0.1 && cost_span_seconds(&m, 1000, (int)rows + 1) > 0.1);
}

static double true_cost(const struct cost_work *w)
{
    return 13.7e-3 + 1.15e-3 * w->rows + 0.35e-3 * w->logits + 4e-7 * w->keys;
}

static void learn_noisily(struct cost_model *m, const struct cost_work *w, struct rng *r, double slow)
{
    double noise = 0;
    for (int k = 0; k < 12; k++)
        noise += (double)rng_unit(rng_u32(r)) - 0.5;
    cost_learn(m, w, slow * (1 + 0.04 * noise) * true_cost(w));
}

/* A server's first second: a step that reads the model from disk, whole chunks of prompts, then chunks beside few
 * answers; 4 % of noise and now and then a step that takes half as long again. What 32 answers will take is a guess
 * then, but never a wild one: how long steps may become is taken from it. Once they decode, it is known. */
static void check_guesses(double head_rows, double least_share, double most_share)
{
    struct cost_work answers = {.logits = 32};
    double most = 0, least = INFINITY, off = 0, want;
    for (int i = 0; i < 32; i++)
        cost_span(&answers, 400, 1);
    want = true_cost(&answers);
    for (uint64_t seed = 0; seed < 300; seed++) {
        struct cost_model m = {.head_rows = head_rows};
        struct rng r;
        rng_init(&r, seed);
        for (int i = 0, at = 0; i < 64; i++) {
            int n_decode = i < 4 ? 0 : 1 + (i - 4) / 8;
            struct cost_work w = {.logits = n_decode ? n_decode : i != 2};
            for (int k = 0; k < n_decode; k++)
                cost_span(&w, 400, 1);
            int rows = i == 0 ? 1 : i == 1 ? 196 : i < 4 ? 256 : 48 + 4 * (int)rng_below(&r, 4);
            cost_span(&w, at, rows);
            at = (at + rows) % 400;
            learn_noisily(&m, &w, &r, i == 0 ? 20 : rng_below(&r, 32) ? 1 : 1.5);
            if (i > 8) {
                most = fmax(most, cost_seconds(&m, &answers));
                least = fmin(least, cost_seconds(&m, &answers));
            }
        }
        for (int i = 0; i < 30; i++)
            learn_noisily(&m, &answers, &r, 1);
        off = fmax(off, fabs(cost_seconds(&m, &answers) / want - 1));
    }
    print_message("32 answers take %.0f ms; %.0f to %.0f expected, later within %.1f %%\n", want * 1e3, least * 1e3,
                  most * 1e3, off * 100);
    assert_true(least > least_share * want && most < most_share * want && off < 0.08);
}

static void test_cost_guesses_soberly(void **state)
{
    (void)state;
    check_guesses(0, 0.6, 1.35);
    check_guesses(0.35 / 1.15, 0.8, 1.45);
}

/* Kernels that change their way: up to 8 rows 1 ms each after 8 ms, above that 20 ms more. */
static void test_cost_learns_where_steps_jump(void **state)
{
    (void)state;
    struct cost_model m = {0};
    struct cost_work four = {.rows = 4, .logits = 4}, eight = {.rows = 8, .logits = 4},
                     twelve = {.rows = 12, .logits = 4}, sixty = {.rows = 60, .logits = 4};
    for (int i = 0; i < 20; i++) {
        cost_learn(&m, &four, 0.012);
        cost_learn(&m, &eight, 0.016);
        cost_learn(&m, &sixty, 0.088);
    }
    assert_true(cost_seconds_at_most(&m, &twelve) < 0.025); /* it has not seen it */
    cost_learn(&m, &twelve, 0.040);
    for (int i = 0; i < 50; i++)
        cost_learn(&m, &eight, 0.016);
    print_message("12 rows: %.1f ms by price, %.1f ms at most\n", cost_seconds(&m, &twelve) * 1e3,
                  cost_seconds_at_most(&m, &twelve) * 1e3);
    assert_true(cost_seconds_at_most(&m, &twelve) > 0.03 && cost_seconds_at_most(&m, &eight) < 0.02);
    for (int i = 0; i < 3000; i++)
        cost_learn(&m, &eight, 0.016);
    assert_true(cost_seconds_at_most(&m, &twelve) < 0.03); /* it is tried again */
}

static void test_seq_refusals(void **state)
{
    (void)state;
    struct bench *b = bench_new(1, 100, 3); /* 192 positions, fewer than the model's context */
    int32_t prompt[400] = {0};
    struct request r = {.prompt = prompt, .n_prompt = 192};
    struct seq *s;
    const struct executor *x = &b->h.core.x;
    sampling_defaults(&r.sampling);
    FAILS(ST_INVALID, seq_create(&s, &r, x, &err));
    assert_non_null(strstr(err.text, "192 tokens"));
    assert_non_null(strstr(err.text, "holds 192"));
    assert_non_null(strstr(err.text, "--kv-bytes"));
    r.n_prompt = 191;
    OK(seq_create(&s, &r, x, &err));
    assert_int_equal(s->n_limit, 192);
    seq_free(s);
    struct executor big = *x;
    big.n_block = 64;
    r.n_prompt = 330;
    FAILS(ST_INVALID, seq_create(&s, &r, &big, &err));
    assert_non_null(strstr(err.text, "330 tokens"));
    assert_non_null(strstr(err.text, "holds 320"));
    assert_non_null(strstr(err.text, "--ctx"));
    r.n_prompt = 0;
    FAILS(ST_INVALID, seq_create(&s, &r, x, &err));
    r.n_prompt = 2;
    prompt[1] = FAKE_VOCAB;
    FAILS(ST_INVALID, seq_create(&s, &r, x, &err));
    prompt[1] = -1;
    FAILS(ST_INVALID, seq_create(&s, &r, x, &err));
    prompt[1] = 0;
    r.sampling.temperature = -1;
    FAILS(ST_INVALID, seq_create(&s, &r, x, &err));
    r.sampling.temperature = 1;
    r.sampling.max_tokens = -1;
    FAILS(ST_INVALID, seq_create(&s, &r, x, &err));
    r.sampling.max_tokens = 0;
    struct logit_bias bias = {FAKE_VOCAB, 1};
    r.sampling.logit_bias = &bias;
    r.sampling.n_logit_bias = 1;
    FAILS(ST_INVALID, seq_create(&s, &r, x, &err));
    r.sampling.n_logit_bias = 0;
    r.n_stop = 1;
    r.stops[0] = STR("x");
    FAILS(ST_INVALID, seq_create(&s, &r, x, &err)); /* no tokenizer, no text */
    assert_null(s);
    bench_free(b);
}

static void test_core_allocation_failures(void **state)
{
    (void)state;
    uint64_t n = 0;
    for (bool fired = true; fired; fired = fault_fired()) {
        struct fake *f = calloc(1, sizeof *f);
        struct engine_options o = {.max_sequences = 2, .prefill_chunk = 8};
        struct executor x = fake_executor(f, &o, 4, NULL);
        x.head_rows = 0.25;
        struct core c;
        struct seq *s = NULL;
        int32_t prompt[] = {1, 2};
        struct request r = {.prompt = prompt, .n_prompt = 2};
        sampling_defaults(&r.sampling);
        fault_arm(FAULT_ALLOC, ++n);
        enum status st = core_init(&c, &x, &o, &err);
        if (st == ST_OK) {
            assert_true(c.sched.cost.head_rows == 0.25);
            st = seq_create(&s, &r, &x, &err);
            core_free(&c);
        }
        fault_disarm();
        assert_int_equal(st, fault_fired() ? ST_NOMEM : ST_OK);
        if (s)
            seq_free(s);
        free(f);
    }
    assert_true(n > 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sched_random_histories),
        cmocka_unit_test(test_sched_notices_mutations),
        cmocka_unit_test(test_sched_mixes_decode_and_chunks),
        cmocka_unit_test(test_sched_preempts_the_newest_of_lowest_priority),
        cmocka_unit_test(test_sched_order_of_admission),
        cmocka_unit_test(test_sched_nobody_overtakes),
        cmocka_unit_test(test_sched_keeps_time_between_tokens),
        cmocka_unit_test(test_sched_avoids_where_steps_jump),
        cmocka_unit_test(test_sched_reads_for_all_who_have_room),
        cmocka_unit_test(test_sched_fair_share),
        cmocka_unit_test(test_sched_ages),
        cmocka_unit_test(test_sched_choices_share_the_prompt),
        cmocka_unit_test(test_cost_learns),
        cmocka_unit_test(test_cost_guesses_soberly),
        cmocka_unit_test(test_cost_learns_where_steps_jump),
        cmocka_unit_test(test_seq_refusals),
        cmocka_unit_test(test_core_allocation_failures),
    };
    return cmocka_run_group_tests(tests, set_up, NULL);
}
