/* Beam search against a naive twin that keeps whole texts and computes every row anew, alone and among other requests.
 */
#include "test.h"

#include "base/fault.h"
#include "base/mem.h"
#include "engine/job.h"

#include <math.h>
#include <stdlib.h>

static void ask_init(struct job *a, const int32_t *prompt, int n_prompt, int max_tokens)
{
    memset(a, 0, sizeof *a);
    a->r = (struct request){
        .prompt = prompt, .n_prompt = n_prompt, .ctx = a, .on_token = job_token, .on_finish = job_finish};
    sampling_defaults(&a->r.sampling);
    a->r.sampling.max_tokens = max_tokens;
}

/* ---- the twin ---- */

struct text {
    int32_t ids[FAKE_CTX];
    int n;
    double sum, score;
};

static int by_sum(const void *x, const void *y)
{
    const struct text *a = x, *b = y;
    return (a->sum < b->sum) - (a->sum > b->sum);
}

static int by_score(const void *x, const void *y)
{
    const struct text *a = x, *b = y;
    return (a->score < b->score) - (a->score > b->score);
}

/* All continuations of all live texts, every step. Returns how many it kept in best. */
static int naive_search(struct text *best, const int32_t *prompt, int n_prompt, int limit, const struct beam_options *o)
{
    static struct text live[BEAMS_MAX], all[BEAMS_MAX * FAKE_VOCAB], done[512];
    int n_live = 1, n_done = 0;
    memset(&live[0], 0, sizeof live[0]);
    memcpy(live[0].ids, prompt, (size_t)n_prompt * sizeof *prompt);
    live[0].n = n_prompt;
    for (;;) {
        int n_all = 0;
        for (int i = 0; i < n_live; i++) {
            real row[FAKE_VOCAB], lse;
            fake_logits(row, fake_hash_of(live[i].ids, live[i].n), 0);
            lse_forward(&lse, row, 1, FAKE_VOCAB, NULL);
            for (int id = 0; id < FAKE_VOCAB; id++) {
                all[n_all] = live[i];
                all[n_all].ids[all[n_all].n++] = id;
                all[n_all++].sum += (double)(float)(row[id] - lse);
            }
        }
        qsort(all, (size_t)n_all, sizeof *all, by_sum);
        n_live = 0;
        for (int rank = 0; rank < 2 * o->width && n_live < o->width; rank++) {
            bool eos = all[rank].ids[all[rank].n - 1] == FAKE_EOS;
            all[rank].score = all[rank].sum / pow(all[rank].n - n_prompt, o->length_penalty);
            if (eos && rank < o->width)
                done[n_done++] = all[rank];
            else if (!eos)
                live[n_live++] = all[rank];
        }
        qsort(done, (size_t)n_done, sizeof *done, by_score);
        n_done = n_done < o->width ? n_done : o->width;
        bool full = n_done == o->width;
        if (live[0].n == limit)
            break;
        if (full && (o->early_stopping || live[0].score <= done[n_done - 1].score))
            break;
    }
    for (int i = 0; i < n_live && live[i].n == limit; i++)
        done[n_done++] = live[i];
    qsort(done, (size_t)n_done, sizeof *done, by_score);
    n_done = n_done < o->width ? n_done : o->width;
    memcpy(best, done, (size_t)n_done * sizeof *done);
    return n_done;
}

static void check_answer(const struct job *a, const struct text *t, int n_prompt)
{
    int n = t->n - n_prompt;
    bool eos = t->ids[t->n - 1] == FAKE_EOS;
    assert_int_equal(a->got.finished, 1);
    assert_int_equal(a->got.finish, eos ? FINISH_STOP : FINISH_LENGTH);
    assert_int_equal(a->got.n_output, n);
    assert_int_equal(a->got.n, n - eos);
    assert_memory_equal(a->got.ids, t->ids + n_prompt, (size_t)(n - eos) * sizeof(int32_t));
}

static void test_search_finds_what_the_twin_finds(void **state)
{
    (void)state;
    enum { OTHERS = 6 };
    static struct text best[BEAMS_MAX];
    static struct job answers[BEAMS_MAX], others[OTHERS];
    static int32_t prompt[64], other_prompts[OTHERS][FAKE_CTX];
    int ended = 0;
    for (uint64_t seed = 1; seed <= 60; seed++) {
        struct fake *f = mem_alloc_zero(1, sizeof *f);
        struct rng r;
        struct engine *e;
        rng_init(&r, seed);
        const struct engine_options how = {.max_sequences = 1 + (int)rng_below(&r, 8),
                                           .prefill_chunk = 8 + (int)rng_below(&r, 60),
                                           .no_prefix_cache = rng_below(&r, 4) == 0};
        const struct beam_options o = {.width = 1 + (int)rng_below(&r, 8),
                                       .length_penalty = (double)rng_below(&r, 5) / 2 - 0.5,
                                       .early_stopping = rng_below(&r, 2)};
        struct executor x = fake_executor(f, &how, 5 + (int)rng_below(&r, 40), NULL);
        OK(engine_create_on(&e, &x, &how, &err));
        int n_prompt = 1 + (int)rng_below(&r, 60), most = 1 + (int)rng_below(&r, 60), n = 1 + (int)rng_below(&r, 3);
        n = n < o.width ? n : o.width;
        for (int i = 0; i < n_prompt; i++)
            prompt[i] = (int32_t)rng_below(&r, FAKE_VOCAB);
        struct request *requests[BEAMS_MAX];
        for (int i = 0; i < n; i++) {
            ask_init(&answers[i], prompt, n_prompt, most);
            requests[i] = &answers[i].r;
        }
        for (int i = 0; i < OTHERS; i++) {
            memset(&others[i], 0, sizeof others[i]);
            random_request(&others[i].r, &others[i].got, other_prompts[i], &r, seq_context(&x));
            others[i].r.ctx = &others[i];
            others[i].r.on_token = job_token;
            others[i].r.on_finish = job_finish;
            if (i == OTHERS / 2)
                OK(engine_submit_beams(e, requests, n, &o, &err));
            OK(engine_submit(e, &others[i].r, &err));
        }
        for (int i = 0; i < n; i++)
            job_wait(&answers[i]);
        engine_drain(e);
        int n_best = naive_search(best, prompt, n_prompt, n_prompt + most, &o);
        assert_true(n_best >= n);
        for (int i = 0; i < n; i++) {
            check_answer(&answers[i], &best[i], n_prompt);
            ended += answers[i].got.finish == FINISH_STOP;
        }
        struct engine_stats stats = {0};
        for (int i = 0; i < 10000 && (stats.blocks_total == 0 || stats.blocks_free < stats.blocks_total); i++) {
            engine_stats(e, &stats); /* published after the step */
            nap(100);
        }
        assert_int_equal(stats.blocks_free, stats.blocks_total);
        engine_destroy(e);
        mem_free(f);
    }
    print_message("%d answers ended by themselves\n", ended);
    assert_true(ended > 20);
}

/* Keeps step `at` from ending until `go`, however late the thread that asks is. */
struct held {
    struct fake *f;
    uint64_t at;
    int go; /* atomic */
};

static void hold(void *ctx)
{
    struct held *h = ctx;
    while (h->f->steps == h->at && !__atomic_load_n(&h->go, __ATOMIC_ACQUIRE))
        nap(100);
}

static void let_go(struct held *h)
{
    __atomic_store_n(&h->go, 1, __ATOMIC_RELEASE);
}

static void test_search_is_canceled_and_destroyed(void **state)
{
    (void)state;
    static struct job answers[3];
    static const int32_t prompt[] = {5, 6, 7};
    const struct engine_options how = {.max_sequences = 4, .prefill_chunk = 16};
    const struct beam_options o = {.width = 4, .length_penalty = 1};
    struct request *requests[] = {&answers[0].r, &answers[1].r, &answers[2].r};
    for (int round = 0; round < 12; round++) {
        struct fake *f = mem_alloc_zero(1, sizeof *f);
        struct engine *e;
        struct executor x = fake_executor(f, &how, 30, NULL);
        struct held held = {.f = f, .at = (uint64_t)round};
        f->during = hold;
        f->during_ctx = &held;
        OK(engine_create_on(&e, &x, &how, &err));
        for (int i = 0; i < 3; i++) {
            ask_init(&answers[i], prompt, 3, 300);
            answers[i].r.sampling.ignore_eos = true;
        }
        OK(engine_submit_beams(e, requests, 3, &o, &err));
        for (int i = 0; i < round % 4; i++)
            engine_cancel(e, answers[i].r.id);
        let_go(&held);
        if (round % 3)
            engine_destroy(e); /* whatever runs ends as canceled */
        for (int i = 0; i < 3; i++)
            job_wait(&answers[i]);
        for (int i = 0; i < round % 4; i++)
            assert_true(answers[i].got.finish == FINISH_CANCELED);
        if (round % 3 == 0)
            engine_destroy(e);
        mem_free(f);
    }
}

/* Cancels the search in the middle of a step, while others have all the places: some or all of its asks wait. The
 * first step does not end before the search is submitted. */
struct hurry {
    struct fake *f;
    struct engine *e;
    struct job *answers;
    int n_answer;
    struct held held;
    uint64_t at, ended; /* steps */
};
static struct hurry hurry;

static void cancel_soon(void *ctx)
{
    (void)ctx;
    hold(&hurry.held);
    for (int i = 0; hurry.f->steps == hurry.at && i < hurry.n_answer; i++)
        engine_cancel(hurry.e, hurry.answers[i].r.id);
}

static void ended_at(void *ctx, const struct finish_event *e)
{
    hurry.ended = hurry.f->steps;
    job_finish(ctx, e);
}

static void test_search_ends_within_one_step_of_its_cancellation(void **state)
{
    (void)state;
    enum { PLACES = 3 };
    static struct job answers[2], others[PLACES];
    static const int32_t prompt[] = {5, 6, 7};
    struct request *requests[] = {&answers[0].r, &answers[1].r};
    const struct beam_options o = {.width = 5, .length_penalty = 1};
    for (int taken = 0; taken <= PLACES; taken++) {
        struct fake *f = mem_alloc_zero(1, sizeof *f);
        const struct engine_options how = {.max_sequences = PLACES, .prefill_chunk = 16};
        struct executor x = fake_executor(f, &how, 60, NULL);
        f->during = cancel_soon;
        hurry = (struct hurry){.f = f, .answers = answers, .n_answer = 2, .held.f = f, .at = 30};
        OK(engine_create_on(&hurry.e, &x, &how, &err));
        for (int i = 0; i < taken; i++) {
            ask_init(&others[i], prompt, 3, 250);
            others[i].r.sampling.ignore_eos = true;
            others[i].r.priority = 1000;
            OK(engine_submit(hurry.e, &others[i].r, &err));
        }
        for (int i = 0; i < 2; i++) {
            ask_init(&answers[i], prompt, 3, 250);
            answers[i].r.sampling.ignore_eos = true;
            answers[i].r.on_finish = ended_at;
        }
        OK(engine_submit_beams(hurry.e, requests, 2, &o, &err));
        let_go(&hurry.held);
        for (int i = 0; i < 2; i++) {
            job_wait(&answers[i]);
            assert_int_equal(answers[i].got.finish, FINISH_CANCELED);
        }
        if (hurry.ended != hurry.at + 1)
            fail_msg("%d of %d places taken: canceled in step %d, ended in step %d", taken, PLACES, (int)hurry.at,
                     (int)hurry.ended);
        engine_destroy(hurry.e);
        mem_free(f);
    }
}

static void test_search_refuses_and_survives_lack_of_memory(void **state)
{
    (void)state;
    static struct job answers[2];
    static const int32_t prompt[] = {5, 6, 7};
    const struct engine_options how = {.max_sequences = 4, .prefill_chunk = 16};
    struct request *requests[] = {&answers[0].r, &answers[1].r};
    struct fake *f = mem_alloc_zero(1, sizeof *f);
    struct engine *e;
    struct executor x = fake_executor(f, &how, 30, NULL);
    OK(engine_create_on(&e, &x, &how, &err));
    const struct beam_options bad[] = {{.width = 1}, {.width = BEAMS_MAX + 1}, {.width = 2, .length_penalty = NAN}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        ask_init(&answers[0], prompt, 3, 20);
        ask_init(&answers[1], prompt, 3, 20);
        assert_int_equal(engine_submit_beams(e, requests, 2, &bad[i], &err), ST_INVALID);
    }
    const struct beam_options o = {.width = 3, .length_penalty = 1};
    int failed = 0;
    for (int n = 1;; n++) {
        ask_init(&answers[0], prompt, 3, 20);
        ask_init(&answers[1], prompt, 3, 20);
        fault_arm(FAULT_ALLOC, n);
        enum status st = engine_submit_beams(e, requests, 2, &o, &err);
        if (st == ST_OK)
            for (int i = 0; i < 2; i++)
                job_wait(&answers[i]);
        bool fired = fault_fired();
        fault_disarm();
        failed += st != ST_OK || answers[0].got.finish == FINISH_ERROR;
        if (!fired) {
            assert_int_equal(st, ST_OK);
            assert_true(answers[0].got.finish != FINISH_ERROR);
            break;
        }
    }
    assert_true(failed > 10);
    engine_destroy(e);
    mem_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_search_finds_what_the_twin_finds),
        cmocka_unit_test(test_search_is_canceled_and_destroyed),
        cmocka_unit_test(test_search_ends_within_one_step_of_its_cancellation),
        cmocka_unit_test(test_search_refuses_and_survives_lack_of_memory),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
