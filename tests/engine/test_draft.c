/* Proposals from the text's past and from a draft model: never another answer, fewer steps when they are right, and
 * next to no proposals when they are wrong. */
#include "test.h"

#include "base/mem.h"
#include "engine/fake.h"

static struct error err;

static int set_up(void **state)
{
    (void)state;
    return kernels_init(NULL, &err);
}

enum { REQUESTS = 10 };

struct run {
    struct fake fake, small; /* small: the draft model's */
    struct core core;
    struct drafter *drafter;
    struct request requests[REQUESTS];
    struct record got[REQUESTS], want[REQUESTS];
    int32_t prompts[REQUESTS][FAKE_CTX];
    int n_ended, wrong_every; /* wrong_every: of the draft model's rows; 0 = none */
    uint64_t small_step_ns;
};

static void on_end(void *ctx, struct seq *s, const struct finish_event *end)
{
    struct run *w = ctx;
    struct request *r = s->r;
    drafter_forget(w->drafter, s);
    seq_free(s);
    w->n_ended++;
    r->on_finish(r->ctx, end);
}

static void propose(void *ctx, const struct seq_list *running)
{
    struct run *w = ctx;
    drafter_propose(w->drafter, running, &w->core.sched.cost);
}

/* Knows what the model will say, but for some rows, and takes its own time. */
static void small_forward(void *ctx, const struct model_batch *b, real *logits)
{
    struct run *w = ctx;
    uint64_t now = w->small.now;
    fake_forward(&w->small, b, logits);
    for (int i = 0; w->wrong_every && i < b->n_logit; i++)
        if (b->ids[b->logit_rows[i]] % w->wrong_every == 0)
            fake_logits(logits + i * FAKE_VOCAB, (uint64_t)b->ids[b->logit_rows[i]] + 99, 0);
    w->small.now = now + w->small_step_ns;
}

static uint64_t small_clock(void *ctx)
{
    return ((struct run *)ctx)->small.now;
}

static void open_run(struct run *w, const struct engine_options *o, int n_block, int small_blocks, bool model)
{
    struct executor x = fake_executor(&w->fake, o, n_block, NULL);
    struct executor small = fake_executor(&w->small, o, small_blocks, NULL);
    w->small.rows_max = w->small.logits_max = o->max_sequences + DRAFT_MODEL_ROWS;
    w->small.prefill_chunk = w->small.rows_max;
    x.clock = fake_clock;
    small.ctx = w;
    small.forward = small_forward;
    small.clock = small_clock;
    OK(core_init(&w->core, &x, o, &err));
    OK(drafter_create(&w->drafter, model ? &small : NULL, 8, o->max_sequences, &err));
    w->core.ctx = w;
    w->core.on_end = on_end;
    w->core.draft = propose;
}

static void submit(struct run *w, int i)
{
    struct seq *s;
    OK(seq_create(&s, &w->requests[i], &w->core.x, &err));
    s->order = (uint64_t)i;
    sched_add(&w->core.sched, s);
}

static void close_run(struct run *w)
{
    assert_int_equal(w->core.sched.kv.n_free, w->fake.n_block);
    core_free(&w->core);
    drafter_destroy(w->drafter);
    mem_free(w);
}

/* Random requests, pools of both models too small for all. */
static void test_answers_are_the_same(void **state)
{
    (void)state;
    uint64_t drafted = 0, accepted = 0, preempted = 0;
    struct sampler_scratch scratch;
    OK(sampler_scratch_init(&scratch, FAKE_VOCAB, &err));
    for (uint64_t seed = 1; seed <= 150; seed++) {
        struct run *w = mem_alloc_zero(1, sizeof *w);
        struct rng r;
        rng_init(&r, seed);
        struct engine_options o = {.max_sequences = 1 + (int)rng_below(&r, 6),
                                   .prefill_chunk = 8 + (int)rng_below(&r, 40)};
        w->wrong_every = (int)rng_below(&r, 6);
        w->small_step_ns = 20000;
        int n_block = 3 + (int)rng_below(&r, 5);
        open_run(w, &o, n_block, 1 + (int)rng_below(&r, 16), rng_below(&r, 4));
        int context = seq_context(&w->core.x);
        for (int i = 0; i < REQUESTS; i++) {
            random_request(&w->requests[i], &w->got[i], w->prompts[i], &r, context);
            expect(&w->want[i], &w->requests[i], context, 0, &scratch);
        }
        for (int i = 0; i < REQUESTS || w->n_ended < REQUESTS;) {
            if (i < REQUESTS && rng_below(&r, 3))
                submit(w, i++);
            core_step(&w->core);
        }
        for (int i = 0; i < REQUESTS; i++)
            if (!records_agree(&w->got[i], &w->want[i]))
                fail_msg("seed %d, request %d: another answer", (int)seed, i);
        drafted += w->core.drafted;
        accepted += w->core.accepted;
        preempted += w->core.sched.preemptions;
        close_run(w);
    }
    print_message("%d of %d proposals right, %d preemptions\n", (int)accepted, (int)drafted, (int)preempted);
    assert_true(accepted > 2000 && drafted > accepted + accepted / 10 && preempted > 50);
    sampler_scratch_free(&scratch);
}

static void add_prompt(struct run *w, int i, const int32_t *prompt, int n_prompt)
{
    memcpy(w->prompts[i], prompt, (size_t)n_prompt * sizeof *prompt);
    w->requests[i] = (struct request){.prompt = w->prompts[i],
                                      .n_prompt = n_prompt,
                                      .ctx = &w->got[i],
                                      .on_token = record_token,
                                      .on_finish = record_finish};
    sampling_defaults(&w->requests[i].sampling);
    w->requests[i].sampling.ignore_eos = true;
    w->requests[i].sampling.has_seed = true;
    submit(w, i);
}

static struct run *one_answer(bool model, int wrong_every, uint64_t small_step_ns, const int32_t *prompt, int n_prompt)
{
    struct run *w = mem_alloc_zero(1, sizeof *w);
    struct engine_options o = {.max_sequences = 1, .prefill_chunk = 64};
    w->wrong_every = wrong_every;
    w->small_step_ns = small_step_ns;
    open_run(w, &o, 8, 8, model);
    add_prompt(w, 0, prompt, n_prompt);
    while (w->n_ended == 0)
        assert_true(core_step(&w->core));
    return w;
}

static void test_a_good_draft_model_saves_steps(void **state)
{
    (void)state;
    struct run *w = one_answer(true, 0, 20000, (int32_t[]){5, 6, 7}, 3);
    uint64_t n = w->core.output_tokens;
    print_message("%d steps for %d ids\n", (int)w->core.steps, (int)n);
    assert_int_equal(n, FAKE_CTX - 3);
    assert_true(w->core.steps < n / 3 && w->core.accepted > n / 2);
    close_run(w);
}

/* What it took, and the same without proposals: a millisecond a step, 10 us a row, and the draft model's steps. */
static double slowdown(const struct run *w)
{
    uint64_t without = FAKE_CTX - 3, rows = without + 2;
    return (double)(w->fake.now + w->small.now) / (double)(without * 1000000 + rows * 10000) - 1;
}

static void test_what_does_not_pay_is_not_asked(void **state)
{
    (void)state;
    const int32_t prompt[] = {5, 6, 7};
    const struct {
        const char *what;
        int wrong_every;
        uint64_t step_ns;
    } cases[] = {{"wrong", 1, 20000}, {"wrong and slow", 1, 500000}, {"right, but slower than the model", 0, 3000000}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct run *w = one_answer(true, cases[i].wrong_every, cases[i].step_ns, prompt, 3);
        print_message("%s: %d proposals in %d steps, %.1f %% slower\n", cases[i].what, (int)w->core.drafted,
                      (int)w->core.steps, 100 * slowdown(w));
        assert_true(w->core.drafted > 0 && slowdown(w) < 0.03);
        close_run(w);
    }
}

/* Of four answers all proposals are right, and each is worth its row's price. But steps of more than eight rows take
 * much longer: one proposal each gives most ids a second, more than all of them and more than none.
 */
static void test_proposals_are_weighed_together(void **state)
{
    (void)state;
    enum { ANSWERS = 4 };
    struct run *w = mem_alloc_zero(1, sizeof *w);
    struct engine_options o = {.max_sequences = ANSWERS, .prefill_chunk = 64};
    w->small_step_ns = 20000;
    open_run(w, &o, 8 * ANSWERS, 8 * ANSWERS, true);
    w->fake.jump_ns = 6000000;
    for (int i = 0; i < ANSWERS; i++)
        add_prompt(w, i, (int32_t[]){5, 6, 7 + i}, 3);
    int n_long = 0;
    while (w->n_ended < ANSWERS) {
        assert_true(core_step(&w->core));
        n_long += w->core.sched.batch.model.n_row > 8;
    }
    double n = (double)w->core.output_tokens, best_ns = n / 8 * 1080000; /* 8 ids of as many rows, a step */
    print_message("%d steps for %d ids, %d too long; %.2f times the best time\n", (int)w->core.steps, (int)n, n_long,
                  (double)w->fake.now / best_ns);
    assert_true((double)w->fake.now < 1.4 * best_ns); /* all: 1.7; none: 2 */
    close_run(w);
}

/* An answer that is bent to repeat the prompt: each id of a cycle is strongly preferred after the one before. */
static void cycle_forward(void *ctx, const struct model_batch *b, real *logits)
{
    struct fake *f = ctx;
    fake_forward(f, b, logits);
    for (int i = 0; i < b->n_logit; i++)
        logits[i * FAKE_VOCAB + (b->ids[b->logit_rows[i]] + 5) % FAKE_VOCAB] += 30;
}

static void test_lookup_follows_what_repeats(void **state)
{
    (void)state;
    struct run *w = mem_alloc_zero(1, sizeof *w);
    struct engine_options o = {.max_sequences = 1, .prefill_chunk = 64};
    open_run(w, &o, 8, 8, false);
    w->core.x.forward = cycle_forward;
    add_prompt(w, 0, (int32_t[]){1}, 1);
    while (w->n_ended == 0)
        assert_true(core_step(&w->core));
    for (int i = 0; i < w->got[0].n; i++)
        assert_int_equal(w->got[0].ids[i], (1 + 5 * (i + 1)) % FAKE_VOCAB);
    print_message("%d steps for %d ids\n", (int)w->core.steps, w->got[0].n);
    assert_true(w->core.steps < FAKE_CTX / 3 && w->core.accepted > FAKE_CTX / 2);
    close_run(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_answers_are_the_same),           cmocka_unit_test(test_a_good_draft_model_saves_steps),
        cmocka_unit_test(test_what_does_not_pay_is_not_asked), cmocka_unit_test(test_proposals_are_weighed_together),
        cmocka_unit_test(test_lookup_follows_what_repeats),
    };
    return cmocka_run_group_tests(tests, set_up, NULL);
}
