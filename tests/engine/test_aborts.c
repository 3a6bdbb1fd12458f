/* Requests that are given up at any moment, from another thread: nothing stays behind. INGOT_ABORTS says how many. */
#include "test.h"

#include "engine/fake.h"

#include <pthread.h>
#include <time.h>

static struct error err;

static int set_up(void **state)
{
    (void)state;
    return kernels_init(NULL, &err);
}

enum { AT_ONCE = 24 };

struct job {
    struct request r;
    struct record got;
    int32_t prompt[FAKE_CTX];
    int done, leave; /* atomic; leave: read by the engine as request.interrupt */
};

static void job_token(void *ctx, const struct token_event *e)
{
    record_token(&((struct job *)ctx)->got, e);
}

static void job_finish(void *ctx, const struct finish_event *e)
{
    struct job *j = ctx;
    record_finish(&j->got, e);
    __atomic_store_n(&j->done, 1, __ATOMIC_RELEASE);
}

static void begin(struct engine *e, struct job *j, struct rng *r)
{
    random_request(&j->r, &j->got, j->prompt, r, FAKE_CTX);
    j->r.ctx = j;
    j->r.on_token = job_token;
    j->r.on_finish = job_finish;
    j->r.sampling.max_tokens = 200; /* longer than they are wanted */
    j->r.sampling.ignore_eos = true;
    j->leave = j->done = 0;
    if (rng_below(r, 4) == 0)
        j->r.interrupt = &j->leave;
    OK(engine_submit(e, &j->r, &err));
}

static void test_aborts_leave_nothing(void **state)
{
    (void)state;
    const char *many = getenv("INGOT_ABORTS");
    int n = many ? atoi(many) : 3000, canceled = 0, ended = 0;
    struct fake *f = calloc(1, sizeof *f);
    struct job *jobs = calloc(AT_ONCE, sizeof *jobs);
    struct engine_options o = {.max_sequences = 8, .prefill_chunk = 64};
    struct executor x = fake_executor(f, &o, 14, NULL);
    struct engine *e;
    struct engine_stats s;
    struct rng r;
    rng_init(&r, 17);
    OK(engine_create_on(&e, &x, &o, &err));
    for (int i = 0; i < AT_ONCE; i++)
        begin(e, &jobs[i], &r);
    while (canceled < n) {
        struct job *j = &jobs[rng_below(&r, AT_ONCE)];
        if (j->r.interrupt)
            __atomic_store_n(&j->leave, 1, __ATOMIC_RELAXED);
        else
            engine_cancel(e, j->r.id);
        while (!__atomic_load_n(&j->done, __ATOMIC_ACQUIRE))
            nanosleep(&(struct timespec){.tv_nsec = 20000}, NULL);
        assert_int_equal(j->got.finished, 1);
        canceled += j->got.finish == FINISH_CANCELED;
        ended++;
        begin(e, j, &r);
    }
    for (int i = 0; i < AT_ONCE; i++)
        engine_cancel(e, jobs[i].r.id);
    engine_drain(e);
    for (int i = 0; i < 20000; i++) {
        engine_stats(e, &s);
        if (s.blocks_free == s.blocks_total && s.running + s.waiting == 0)
            break;
        nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
    }
    print_message("%d of %d given up; %d of %d blocks are free; %llu preempted\n", canceled, ended, s.blocks_free,
                  s.blocks_total, (unsigned long long)s.preemptions);
    assert_int_equal(s.blocks_free, s.blocks_total);
    assert_int_equal(s.running + s.waiting, 0);
    engine_destroy(e);
    free(jobs);
    free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_aborts_leave_nothing)};
    return cmocka_run_group_tests(tests, set_up, NULL);
}
