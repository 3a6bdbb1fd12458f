/* The engine with its thread: requests from many threads, cancellation at any time, draining. Run under TSan too. */
#include "test.h"

#include "base/clock.h"
#include "base/fault.h"
#include "engine/job.h"

#include <pthread.h>

static void job_init(struct job *j, struct rng *r)
{
    random_request(&j->r, &j->got, j->prompt, r, FAKE_CTX);
    j->r.ctx = j;
    j->r.on_token = job_token;
    j->r.on_finish = job_finish;
    j->done = 0;
}

static bool job_agrees(struct job *j)
{
    expect(&j->want, &j->r, FAKE_CTX, 0, &scratch);
    return records_agree(&j->got, &j->want);
}

static struct engine *make(struct fake *f, int sequences, int chunk, int blocks, struct pool *pool)
{
    struct engine *e;
    struct engine_options o = {.max_sequences = sequences, .prefill_chunk = chunk};
    memset(f, 0, sizeof *f);
    struct executor x = fake_executor(f, &o, blocks, pool);
    OK(engine_create_on(&e, &x, &o, &err));
    return e;
}

static void check_all_free(struct engine *e)
{
    struct engine_stats s;
    for (int i = 0; i < 20000; i++) { /* the numbers follow at the end of the step */
        engine_stats(e, &s);
        if (s.blocks_free == s.blocks_total && s.running == 0 && s.waiting == 0)
            return;
        nap(100);
    }
    fail_msg("%d of %d blocks are free, %d running, %d waiting", s.blocks_free, s.blocks_total, s.running, s.waiting);
}

/* The same requests whatever the chunk, the companions, the threads of the pool and the size of the block pool. */
static void test_engine_same_bits_everywhere(void **state)
{
    (void)state;
    static const struct {
        int sequences, chunk, blocks, threads;
    } shapes[] = {{1, 1, 64, 1}, {1, 256, 64, 2}, {8, 7, 64, 1}, {8, 64, 64, 3}, {8, 64, 6, 1}, {3, 1000 - 8, 8, 2}};
    enum { JOBS = 24 };
    struct job *jobs = calloc(JOBS, sizeof *jobs);
    struct fake *f = malloc(sizeof *f);
    for (size_t k = 0; k < sizeof shapes / sizeof *shapes; k++) {
        struct rng r;
        struct pool *pool;
        rng_init(&r, 33);
        OK(pool_create(&pool, shapes[k].threads, &err));
        struct engine *e = make(f, shapes[k].sequences, shapes[k].chunk, shapes[k].blocks, pool);
        for (int i = 0; i < JOBS; i++) {
            job_init(&jobs[i], &r);
            jobs[i].r.sampling.max_tokens = jobs[i].r.echo_logprobs ? -1 : 40;
            OK(engine_submit(e, &jobs[i].r, &err));
        }
        for (int i = 0; i < JOBS; i++) {
            job_wait(&jobs[i]);
            assert_true(job_agrees(&jobs[i]));
        }
        check_all_free(e);
        engine_destroy(e);
        pool_destroy(pool);
    }
    free(jobs);
    free(f);
}

/* ---- many threads ---- */

struct client {
    struct engine *e;
    uint64_t seed;
    int canceled, finished, bad;
};

static void *client_main(void *arg)
{
    enum { AT_ONCE = 4 };
    struct client *c = arg;
    struct rng r;
    struct error mine;
    struct job *jobs = calloc(AT_ONCE, sizeof *jobs);
    struct sampler_scratch own;
    rng_init(&r, c->seed);
    if (sampler_scratch_init(&own, FAKE_VOCAB, &mine) != ST_OK)
        return NULL;
    for (int round = 0; round < 25; round++) {
        for (int i = 0; i < AT_ONCE; i++) {
            job_init(&jobs[i], &r);
            if (engine_submit(c->e, &jobs[i].r, &mine) != ST_OK)
                c->bad++;
        }
        for (int i = 0; i < AT_ONCE; i++)
            if (rng_below(&r, 3) == 0) {
                nap((long)rng_below(&r, 300));
                engine_cancel(c->e, jobs[i].r.id);
                engine_cancel(c->e, jobs[i].r.id); /* twice is no harm, after the end neither */
            }
        for (int i = 0; i < AT_ONCE; i++) {
            job_wait(&jobs[i]);
            expect(&jobs[i].want, &jobs[i].r, FAKE_CTX, 0, &own);
            c->bad += !records_agree(&jobs[i].got, &jobs[i].want);
            c->canceled += jobs[i].got.finish == FINISH_CANCELED;
            c->finished++;
        }
        engine_cancel(c->e, 123456789);
    }
    sampler_scratch_free(&own);
    free(jobs);
    return NULL;
}

static void test_engine_many_clients(void **state)
{
    (void)state;
    enum { CLIENTS = 4 };
    struct fake *f = malloc(sizeof *f);
    struct engine *e = make(f, 6, 48, 14, NULL);
    pthread_t threads[CLIENTS];
    struct client clients[CLIENTS];
    int canceled = 0, finished = 0;
    for (int i = 0; i < CLIENTS; i++) {
        clients[i] = (struct client){.e = e, .seed = (uint64_t)i};
        pthread_create(&threads[i], NULL, client_main, &clients[i]);
    }
    for (int i = 0; i < CLIENTS; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(clients[i].bad, 0);
        canceled += clients[i].canceled;
        finished += clients[i].finished;
    }
    check_all_free(e);
    struct engine_stats s;
    engine_stats(e, &s);
    assert_int_equal(finished, CLIENTS * 100);
    assert_int_equal(s.finished[FINISH_CANCELED], canceled);
    assert_int_equal(s.finished[FINISH_STOP] + s.finished[FINISH_LENGTH] + s.finished[FINISH_CANCELED], finished);
    assert_true(s.steps > 100 && s.output_tokens > 100 && s.prompt_tokens > 100);
    assert_true(s.last_step_ns && s.last_step_ns <= clock_ns());
    engine_destroy(e);
    free(f);
}

/* ---- cancellation in every state ---- */

/* A forward that waits at a gate, so that the test knows where the engine stands. */
struct gate {
    struct fake fake;
    int entered, open; /* atomic */
};

static void gated_forward(void *ctx, const struct model_batch *b, real *logits)
{
    struct gate *g = ctx;
    int n = __atomic_add_fetch(&g->entered, 1, __ATOMIC_ACQ_REL);
    while (__atomic_load_n(&g->open, __ATOMIC_ACQUIRE) < n)
        nap(50);
    fake_forward(&g->fake, b, logits);
}

static void wait_entered(struct gate *g, int n)
{
    while (__atomic_load_n(&g->entered, __ATOMIC_ACQUIRE) < n)
        nap(50);
}

static void open_gate(struct gate *g, int n)
{
    __atomic_store_n(&g->open, n, __ATOMIC_RELEASE);
}

static struct engine *make_gated(struct gate *g, int queue_max)
{
    struct engine *e;
    struct engine_options o = {.max_sequences = 1, .prefill_chunk = 16, .queue_max = queue_max};
    memset(g, 0, sizeof *g);
    struct executor x = fake_executor(&g->fake, &o, 16, NULL);
    x.forward = gated_forward;
    x.ctx = g;
    OK(engine_create_on(&e, &x, &o, &err));
    return e;
}

static void plain_job(struct job *j, int n_prompt, int max_tokens)
{
    struct rng r;
    rng_init(&r, 1);
    job_init(j, &r);
    j->r.n_prompt = n_prompt;
    for (int i = 0; i < n_prompt; i++)
        j->prompt[i] = i % FAKE_VOCAB;
    sampling_defaults(&j->r.sampling);
    j->r.sampling.max_tokens = max_tokens;
    j->r.sampling.ignore_eos = true;
    j->r.echo_logprobs = false;
    j->r.priority = 0;
}

static void test_engine_cancel_in_every_state(void **state)
{
    (void)state;
    struct gate *g = malloc(sizeof *g);
    struct job *j = calloc(4, sizeof *j);
    struct engine *e = make_gated(g, 0);
    /* while its prompt is computed: gone when that step ends */
    plain_job(&j[0], 100, 10);
    OK(engine_submit(e, &j[0].r, &err));
    wait_entered(g, 1);
    engine_cancel(e, j[0].r.id);
    assert_int_equal(__atomic_load_n(&j[0].done, __ATOMIC_ACQUIRE), 0);
    open_gate(g, 1);
    job_wait(&j[0]);
    assert_int_equal(j[0].got.finish, FINISH_CANCELED);
    assert_int_equal(j[0].got.n, 0);
    check_all_free(e);
    assert_int_equal(__atomic_load_n(&g->entered, __ATOMIC_ACQUIRE), 1); /* no step was spent on it */
    /* while it decodes; another waits in the queue and a third in the inbox */
    plain_job(&j[0], 5, 50);
    plain_job(&j[1], 5, 50);
    plain_job(&j[2], 5, 2);
    OK(engine_submit(e, &j[0].r, &err));
    wait_entered(g, 2);
    OK(engine_submit(e, &j[1].r, &err));
    OK(engine_submit(e, &j[2].r, &err));
    engine_cancel(e, j[1].r.id); /* still in the inbox */
    open_gate(g, 4);
    wait_entered(g, 5);
    job_wait(&j[1]);
    assert_int_equal(j[1].got.finish, FINISH_CANCELED);
    engine_cancel(e, j[0].r.id);
    open_gate(g, 100);
    job_wait(&j[0]);
    assert_int_equal(j[0].got.finish, FINISH_CANCELED);
    assert_int_equal(j[0].got.n, 3); /* steps 2, 3, 4; step 5 was under way */
    job_wait(&j[2]);
    assert_int_equal(j[2].got.finish, FINISH_LENGTH);
    assert_int_equal(j[2].got.n, 2);
    check_all_free(e);
    engine_destroy(e);
    free(j);
    free(g);
}

/* A step that hangs must be seen, also when it is the first after a long rest: what runs, and since when. */
static void test_engine_first_step_is_seen_while_it_runs(void **state)
{
    (void)state;
    struct gate *g = malloc(sizeof *g);
    struct job *a = calloc(1, sizeof *a), *b = calloc(1, sizeof *b);
    struct engine *e = make_gated(g, 0);
    struct engine_stats s;
    uint64_t rest_ns = 3600000000000;
    plain_job(a, 20, 1); /* two chunks */
    plain_job(b, 5, 1);
    clock_jump((int64_t)rest_ns, 0);
    uint64_t begin_ns = clock_ns();
    OK(engine_submit(e, &a->r, &err));
    engine_stats(e, &s);
    assert_int_equal(s.running + s.waiting, 1);
    assert_true(s.last_step_ns >= begin_ns); /* not the hour before */
    wait_entered(g, 1);
    engine_stats(e, &s);
    assert_int_equal(s.running, 1);
    assert_int_equal(s.waiting, 0);
    assert_int_equal(s.blocks_total - s.blocks_free, 1);
    assert_int_equal(s.steps, 0);
    uint64_t hung_ns = s.last_step_ns;
    OK(engine_submit(e, &b->r, &err)); /* nobody who comes makes a hanging step younger */
    clock_jump(2 * (int64_t)rest_ns, 0);
    engine_stats(e, &s);
    assert_int_equal(s.running, 1);
    assert_int_equal(s.waiting, 1);
    assert_true(s.last_step_ns == hung_ns);
    open_gate(g, 1);
    wait_entered(g, 2);
    engine_stats(e, &s);
    assert_int_equal(s.steps, 1);
    assert_true(s.last_step_ns >= hung_ns + rest_ns);
    open_gate(g, 100);
    job_wait(a);
    job_wait(b);
    engine_destroy(e);
    clock_jump(0, 0);
    free(a);
    free(b);
    free(g);
}

static volatile int interrupt;

static void interrupt_now(void *ctx)
{
    (void)ctx;
    interrupt = 1; /* what a signal handler would do */
}

/* An interrupt in the middle of a prompt: no further chunk of it is computed. */
static void test_engine_interrupt_acts_within_a_chunk(void **state)
{
    (void)state;
    struct fake *f = malloc(sizeof *f);
    struct finish_event end;
    struct job *j = calloc(1, sizeof *j);
    struct engine_stats s;
    for (int at = 0; at < 2; at++) {
        struct engine *e = make(f, 1, 16, 16, NULL);
        plain_job(j, 200, 10);
        j->r.on_finish = NULL;
        j->r.interrupt = &interrupt;
        interrupt = at == 0; /* before it begins, or in its first chunk */
        f->during = interrupt_now;
        OK(engine_generate(e, &j->r, &end, &err));
        assert_int_equal(end.finish, FINISH_CANCELED);
        assert_int_equal(end.n_output, 0);
        check_all_free(e);
        engine_stats(e, &s);
        assert_int_equal(s.steps, at);
        engine_destroy(e);
    }
    free(j);
    free(f);
}

static void test_engine_queue_is_bounded(void **state)
{
    (void)state;
    struct gate *g = malloc(sizeof *g);
    struct job *j = calloc(5, sizeof *j);
    struct engine *e = make_gated(g, 3);
    for (int i = 0; i < 5; i++)
        plain_job(&j[i], 5, 2);
    OK(engine_submit(e, &j[0].r, &err));
    wait_entered(g, 1);
    for (int i = 1; i < 4; i++)
        OK(engine_submit(e, &j[i].r, &err));
    FAILS(ST_LIMIT, engine_submit(e, &j[4].r, &err));
    struct engine_stats s;
    engine_stats(e, &s);
    assert_int_equal(s.waiting, 3);
    open_gate(g, 1000);
    for (int i = 0; i < 4; i++)
        job_wait(&j[i]);
    assert_int_equal(j[4].done, 0);
    engine_destroy(e);
    free(j);
    free(g);
}

static void *drain_main(void *arg)
{
    engine_drain(arg);
    return NULL;
}

static void test_engine_drain_finishes_and_refuses(void **state)
{
    (void)state;
    struct gate *g = malloc(sizeof *g);
    struct job *j = calloc(3, sizeof *j);
    struct engine *e = make_gated(g, 0);
    pthread_t thread;
    plain_job(&j[0], 5, 4);
    plain_job(&j[1], 5, 4);
    plain_job(&j[2], 5, 4);
    OK(engine_submit(e, &j[0].r, &err));
    OK(engine_submit(e, &j[1].r, &err));
    wait_entered(g, 1);
    pthread_create(&thread, NULL, drain_main, e);
    enum status st = ST_OK;
    for (int i = 0; i < 10000 && st != ST_LIMIT; i++) { /* until the drain has begun */
        st = engine_submit(e, &j[2].r, &err);
        if (st == ST_OK) {
            engine_cancel(e, j[2].r.id);
            while (!__atomic_load_n(&j[2].done, __ATOMIC_ACQUIRE)) /* a step may begin in between without it */
                open_gate(g, __atomic_load_n(&g->entered, __ATOMIC_ACQUIRE)), nap(50);
            plain_job(&j[2], 5, 4);
        }
    }
    assert_int_equal(st, ST_LIMIT);
    open_gate(g, 1000000);
    pthread_join(thread, NULL);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(j[i].done, 1);
        assert_int_equal(j[i].got.finish, FINISH_LENGTH);
        assert_int_equal(j[i].got.n, 4);
    }
    engine_destroy(e);
    free(j);
    free(g);
}

/* From the sixth step on none ends before the destroying thread sets `begun`; then each takes 5 ms. */
struct leaving {
    struct fake *f;
    int begun; /* atomic */
};

static void wait_for_leaving(void *ctx)
{
    struct leaving *l = ctx;
    if (l->f->steps < 5)
        return;
    while (!__atomic_load_n(&l->begun, __ATOMIC_ACQUIRE))
        nap(100);
    nap(5000);
}

static void test_engine_destroy_cancels(void **state)
{
    (void)state;
    struct fake *f = malloc(sizeof *f);
    struct job *j = calloc(30, sizeof *j);
    struct rng r;
    rng_init(&r, 5);
    struct engine *e = make(f, 2, 8, 10, NULL);
    struct leaving leaving = {.f = f};
    f->during = wait_for_leaving;
    f->during_ctx = &leaving;
    for (int i = 0; i < 30; i++) {
        job_init(&j[i], &r);
        OK(engine_submit(e, &j[i].r, &err));
    }
    __atomic_store_n(&leaving.begun, 1, __ATOMIC_RELEASE);
    engine_destroy(e);
    int canceled = 0;
    for (int i = 0; i < 30; i++) {
        assert_int_equal(j[i].done, 1); /* every one was told */
        assert_true(job_agrees(&j[i]));
        canceled += j[i].got.finish == FINISH_CANCELED;
    }
    assert_true(canceled > 0);
    free(j);
    free(f);
}

/* ---- callbacks may call the engine ---- */

struct chain {
    struct engine *e;
    struct job j[2];
    int links;
    struct error err;
};

static void chain_finish(void *ctx, const struct finish_event *end)
{
    struct chain *c = ctx;
    (void)end;
    if (__atomic_add_fetch(&c->links, 1, __ATOMIC_ACQ_REL) < 5 &&
        engine_submit(c->e, &c->j[0].r, &c->err) != ST_OK) /* again, from the engine's own thread */
        __atomic_store_n(&c->links, -100, __ATOMIC_RELEASE);
}

static void chain_token(void *ctx, const struct token_event *e)
{
    struct chain *c = ctx;
    (void)e;
    engine_cancel(c->e, c->j[0].r.id);
}

static void test_engine_callbacks_may_submit_and_cancel(void **state)
{
    (void)state;
    struct fake *f = malloc(sizeof *f);
    struct chain *c = calloc(1, sizeof *c);
    c->e = make(f, 2, 8, 10, NULL);
    plain_job(&c->j[0], 5, 100);
    c->j[0].r.ctx = c;
    c->j[0].r.on_token = chain_token;
    c->j[0].r.on_finish = chain_finish;
    OK(engine_submit(c->e, &c->j[0].r, &err));
    for (int i = 0; __atomic_load_n(&c->links, __ATOMIC_ACQUIRE) < 5; i++) {
        assert_true(i < 100000);
        nap(100);
    }
    check_all_free(c->e);
    struct engine_stats s;
    engine_stats(c->e, &s);
    assert_int_equal(s.finished[FINISH_CANCELED], 5);
    assert_int_equal(s.output_tokens, 5);
    engine_destroy(c->e);
    free(c);
    free(f);
}

static void test_engine_generate_waits(void **state)
{
    (void)state;
    struct fake *f = malloc(sizeof *f);
    struct job *j = calloc(1, sizeof *j);
    struct finish_event end;
    struct engine *e = make(f, 2, 8, 10, NULL);
    plain_job(j, 7, 9);
    OK(engine_generate(e, &j->r, &end, &err));
    assert_int_equal(end.finish, FINISH_LENGTH);
    assert_int_equal(end.n_prompt, 7);
    assert_int_equal(end.n_output, 9);
    assert_true(end.queue_s >= 0 && end.prefill_s >= 0 && end.decode_s >= 0);
    assert_true(j->r.on_token == job_token && j->r.ctx == j); /* as the caller left it */
    assert_true(job_agrees(j));
    uint64_t first = end.seed;
    plain_job(j, 7, 2);
    OK(engine_generate(e, &j->r, &end, &err));
    assert_true(end.seed != first && end.seed == j->r.sampling.seed); /* drawn, and reported */
    plain_job(j, 7, 2);
    j->r.sampling.top_p = 7;
    FAILS(ST_INVALID, engine_generate(e, &j->r, &end, &err));
    f->nan_every = 1;
    plain_job(j, 7, 2);
    FAILS(ST_CORRUPT, engine_generate(e, &j->r, &end, &err));
    assert_non_null(strstr(err.text, "NaN"));
    check_all_free(e);
    engine_destroy(e);
    free(j);
    free(f);
}

/* What was computed with the weights of before is never found again. */
static void test_engine_other_weights_find_nothing(void **state)
{
    (void)state;
    struct fake *f = malloc(sizeof *f);
    struct job *j = calloc(1, sizeof *j);
    struct finish_event end;
    struct engine *e = make(f, 2, 8, 20, NULL);
    for (int round = 0; round < 4; round++) { /* new, known, other weights, known */
        plain_job(j, 3 * KV_BLOCK, 2);
        if (round == 2)
            engine_weights_changed(e);
        OK(engine_generate(e, &j->r, &end, &err));
        assert_true(round % 2 ? end.n_cached >= 2 * KV_BLOCK : end.n_cached == 0);
    }
    engine_destroy(e);
    free(j);
    free(f);
}

static void test_engine_create_faults(void **state)
{
    (void)state;
    struct fake *f = malloc(sizeof *f);
    struct engine_options o = {.max_sequences = 2, .prefill_chunk = 4};
    struct executor x = fake_executor(f, &o, 4, NULL);
    struct engine *e;
    fault_arm(FAULT_THREAD, 1);
    FAILS(ST_LIMIT, engine_create_on(&e, &x, &o, &err));
    assert_null(e);
    uint64_t n = 0;
    for (bool fired = true; fired; fired = fault_fired()) {
        fault_arm(FAULT_ALLOC, ++n);
        enum status st = engine_create_on(&e, &x, &o, &err);
        fault_disarm();
        assert_int_equal(st, fault_fired() ? ST_NOMEM : ST_OK);
        engine_destroy(e);
    }
    assert_true(n > 8);
    free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_engine_same_bits_everywhere),
        cmocka_unit_test(test_engine_many_clients),
        cmocka_unit_test(test_engine_cancel_in_every_state),
        cmocka_unit_test(test_engine_first_step_is_seen_while_it_runs),
        cmocka_unit_test(test_engine_interrupt_acts_within_a_chunk),
        cmocka_unit_test(test_engine_queue_is_bounded),
        cmocka_unit_test(test_engine_drain_finishes_and_refuses),
        cmocka_unit_test(test_engine_destroy_cancels),
        cmocka_unit_test(test_engine_callbacks_may_submit_and_cancel),
        cmocka_unit_test(test_engine_generate_waits),
        cmocka_unit_test(test_engine_other_weights_find_nothing),
        cmocka_unit_test(test_engine_create_faults),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
