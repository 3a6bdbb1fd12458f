/* The core on one thread, stepped by hand: random histories against a naive twin, invariants after every step. */
#include "test.h"

#include "base/fault.h"
#include "engine/fake.h"

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
    struct rng during;                         /* decides who leaves in the middle of a step */
    int done[REQUESTS], preempted, echo_again; /* sequences that were preempted; of those, after an echo */
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

static void check_list(const struct seq_list *l, bool running)
{
    int n = 0;
    for (const struct seq *q = l->first; q; q = q->next, n++) {
        assert_int_equal(q->running, running);
        assert_true(q->next ? q->next->prev == q : l->last == q);
        if (q->next)
            assert_true(q->r->priority > q->next->r->priority ||
                        (q->r->priority == q->next->r->priority && q->order < q->next->order));
        assert_true(running ? q->blocks.count >= kv_blocks_for(q->n_done) : q->blocks.count == 0 && q->n_done == 0);
        assert_true(q->n_done <= q->n_ids && q->n_ids <= q->n_limit);
    }
    assert_int_equal(n, l->count);
}

/* Every block is free or has one owner, and nothing is lost. */
static void check_invariants(const struct history *h)
{
    const struct sched *s = &h->core.sched;
    int owned[FAKE_BLOCKS_MAX] = {0}, total = s->kv.n_free;
    check_list(&s->running, true);
    check_list(&s->waiting, false);
    assert_true(s->running.count <= s->max_sequences);
    assert_int_equal(s->running.count + s->waiting.count, h->n_submitted - h->n_ended);
    for (int i = 0; i < s->kv.n_free; i++)
        owned[s->kv.ring[(s->kv.first + i) % s->kv.n_block]]++;
    for (const struct seq *q = s->running.first; q; q = q->next)
        for (int i = 0; i < q->blocks.count; i++, total++)
            owned[q->blocks.ids[i]]++;
    assert_int_equal(total, s->kv.n_block);
    for (int i = 0; i < s->kv.n_block; i++)
        assert_int_equal(owned[i], 1);
}

static void submit(struct history *h, struct rng *r)
{
    int i = h->n_submitted++;
    random_request(&h->requests[i], &h->got[i], h->prompts[i], r, h->context);
    OK(seq_create(&h->seqs[i], &h->requests[i], &h->core.x, &err));
    h->seqs[i]->order = (uint64_t)i;
    sched_add(&h->core.sched, h->seqs[i]);
}

/* Runs one history; returns whether every request reported what its twin does. */
static bool run_history(struct history *h, uint64_t seed, enum fake_mutation mutation, struct sampler_scratch *scratch)
{
    struct rng r;
    rng_init(&r, seed);
    memset(h, 0, sizeof *h);
    h->fake.mutation = mutation;
    h->fake.nan_every = rng_below(&r, 3) ? 0 : 150;
    struct engine_options o = {.max_sequences = 1 + (int)rng_below(&r, 8), .prefill_chunk = 1 + (int)rng_below(&r, 60)};
    int n_block = rng_below(&r, 3) == 0 ? 3 + (int)rng_below(&r, 3) : 40, n = 2 + (int)rng_below(&r, REQUESTS - 1);
    struct executor x = fake_executor(&h->fake, &o, n_block, NULL);
    h->context = n_block * KV_BLOCK < FAKE_CTX ? n_block * KV_BLOCK : FAKE_CTX;
    OK(core_init(&h->core, &x, &o, &err));
    h->core.ctx = h;
    h->core.on_end = on_end;
    h->fake.during = leave_during;
    h->fake.during_ctx = h;
    rng_init(&h->during, ~seed);
    for (int step = 0; h->n_submitted < n || h->n_ended < n; step++) {
        assert_true(step < 60000); /* it must end */
        while (h->n_submitted < n && rng_below(&r, 3) == 0)
            submit(h, &r);
        if (rng_below(&r, 40) == 0) {
            int i = (int)rng_below(&r, REQUESTS);
            if (h->seqs[i])
                h->seqs[i]->canceled = true;
        }
        core_step(&h->core);
        for (int i = 0; i < REQUESTS; i++) /* canceled means gone within the step */
            assert_false(h->seqs[i] && h->seqs[i]->canceled);
        check_invariants(h);
        for (int i = 0; i < REQUESTS; i++) {
            const struct seq *q = h->seqs[i];
            bool again = q && q->n_done < h->done[i];
            h->preempted += again;
            h->echo_again += again && q->n_echoed > 1;
            h->done[i] = q ? q->n_done : 0;
        }
    }
    assert_int_equal(h->core.sched.kv.n_free, n_block);
    core_free(&h->core);
    bool agree = true;
    for (int i = 0; i < n; i++) {
        expect(&h->want[i], &h->requests[i], h->context, h->fake.nan_every, scratch);
        agree &= records_agree(&h->got[i], &h->want[i]);
    }
    return agree;
}

static void test_sched_random_histories(void **state)
{
    (void)state;
    struct history *h = malloc(sizeof *h);
    struct sampler_scratch scratch;
    int finishes[5] = {0}, crowded = 0, preempted = 0, echo_again = 0;
    const char *many = getenv("INGOT_HISTORIES");
#ifdef INGOT_SANITIZED
    int n = many ? atoi(many) : 1000;
#else
    int n = many ? atoi(many) : 10000;
#endif
    OK(sampler_scratch_init(&scratch, FAKE_VOCAB, &err));
    for (int i = 0; i < n; i++) {
        if (!run_history(h, (uint64_t)i, FAKE_HONEST, &scratch))
            fail_msg("history %d: a request did not report what it does alone", i);
        crowded += h->fake.spans_max > 3;
        preempted += h->preempted;
        echo_again += h->echo_again;
        for (int k = 0; k < h->n_submitted; k++)
            finishes[h->got[k].finish]++;
    }
    print_message("finished: %d stop, %d length, %d canceled, %d error; %d preempted, %d of them after an echo\n",
                  finishes[FINISH_STOP], finishes[FINISH_LENGTH], finishes[FINISH_CANCELED], finishes[FINISH_ERROR],
                  preempted, echo_again);
    for (int f = FINISH_STOP; f <= FINISH_ERROR; f++)
        assert_true(finishes[f] > n / 100);
    assert_true(crowded > n / 10 && preempted > n / 20 && echo_again > n / 500);
    sampler_scratch_free(&scratch);
    free(h);
}

/* The comparison must be able to fail: a model that reads another's block, or whose bits follow the batch. */
static void test_sched_notices_mutations(void **state)
{
    (void)state;
    struct history *h = malloc(sizeof *h);
    struct sampler_scratch scratch;
    OK(sampler_scratch_init(&scratch, FAKE_VOCAB, &err));
    for (int mutation = FAKE_READS_NEIGHBOUR; mutation <= FAKE_SEES_BATCH; mutation++) {
        int noticed = 0;
        for (int i = 0; i < 100; i++)
            noticed += !run_history(h, (uint64_t)i, (enum fake_mutation)mutation, &scratch);
        print_message("mutation %d: noticed in %d of 100 histories\n", mutation, noticed);
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

static void bench_init(struct bench *b, int sequences, int chunk, int blocks)
{
    memset(b, 0, sizeof *b);
    b->o = (struct engine_options){.max_sequences = sequences, .prefill_chunk = chunk};
    struct executor x = fake_executor(&b->h.fake, &b->o, blocks, NULL);
    OK(core_init(&b->h.core, &x, &b->o, &err));
    b->h.core.ctx = &b->h;
    b->h.core.on_end = on_end;
}

static struct seq *bench_add(struct bench *b, int n_prompt, int max_tokens, int priority)
{
    struct history *h = &b->h;
    int i = h->n_submitted++;
    h->requests[i] = (struct request){.prompt = h->prompts[i],
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

static void test_sched_mixes_decode_and_chunks(void **state)
{
    (void)state;
    struct bench *b = malloc(sizeof *b);
    bench_init(b, 4, 16, 20);
    bench_add(b, 3, 50, 0);
    core_step(&b->h.core);
    bench_add(b, 40, 5, 0);
    for (int step = 0; step < 3; step++) { /* 1 decode row and 16, 16, 8 rows of the prompt */
        const struct batch *batch = sched_next(&b->h.core.sched);
        assert_int_equal(batch->model.n_row, 1 + (step < 2 ? 16 : 8));
        assert_int_equal(batch->items[0].n_row, 1);
        core_step(&b->h.core); /* schedules the same again: sched_next changes no sequence */
    }
    assert_int_equal(b->h.got[0].n, 4);
    assert_int_equal(b->h.got[1].n, 1);
    while (core_step(&b->h.core)) {
    }
    assert_int_equal(b->h.got[0].finish, FINISH_LENGTH);
    assert_int_equal(b->h.got[0].n, 50);
    core_free(&b->h.core);
    free(b);
}

static void test_sched_preempts_the_newest_of_lowest_priority(void **state)
{
    (void)state;
    struct bench *b = malloc(sizeof *b);
    bench_init(b, 4, 300, 6);
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
    core_free(&b->h.core);
    free(b);
}

static void test_sched_order_of_admission(void **state)
{
    (void)state;
    struct bench *b = malloc(sizeof *b);
    bench_init(b, 1, 100, 20);
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
    while (core_step(&b->h.core)) {
    }
    assert_int_equal(b->h.got[1].n, 3);
    core_free(&b->h.core);
    free(b);
}

static void test_sched_nobody_overtakes(void **state)
{
    (void)state;
    struct bench *b = malloc(sizeof *b);
    bench_init(b, 4, 300, 5);
    bench_add(b, 100, 60, 0);
    core_step(&b->h.core);
    struct seq *longer = bench_add(b, 250, 3, 0), *shorter = bench_add(b, 5, 3, 0);
    for (int i = 0; i < 50; i++) {
        core_step(&b->h.core);
        assert_false(longer->running || shorter->running); /* 3 blocks are free, and the longer one, first, needs 4 */
    }
    while (core_step(&b->h.core)) {
    }
    assert_int_equal(b->h.got[1].n, 3);
    assert_int_equal(b->h.got[2].n, 3);
    core_free(&b->h.core);
    free(b);
}

static void test_seq_refusals(void **state)
{
    (void)state;
    struct bench *b = malloc(sizeof *b);
    bench_init(b, 1, 100, 3); /* 192 positions, fewer than the model's context */
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
    core_free(&b->h.core);
    free(b);
}

static void test_core_allocation_failures(void **state)
{
    (void)state;
    uint64_t n = 0;
    for (bool fired = true; fired; fired = fault_fired()) {
        struct fake *f = calloc(1, sizeof *f);
        struct engine_options o = {.max_sequences = 2, .prefill_chunk = 8};
        struct executor x = fake_executor(f, &o, 4, NULL);
        struct core c;
        struct seq *s = NULL;
        int32_t prompt[] = {1, 2};
        struct request r = {.prompt = prompt, .n_prompt = 2};
        sampling_defaults(&r.sampling);
        fault_arm(FAULT_ALLOC, ++n);
        enum status st = core_init(&c, &x, &o, &err);
        if (st == ST_OK) {
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
        cmocka_unit_test(test_seq_refusals),
        cmocka_unit_test(test_core_allocation_failures),
    };
    return cmocka_run_group_tests(tests, set_up, NULL);
}
