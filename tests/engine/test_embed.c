/* The engine of a model that embeds: bits in any company, turns, cancellation, limits. Run under TSan too. */
#include "test.h"

#include "base/fault.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/rng.h"
#include "engine/engine_private.h"

#include <math.h>
#include <pthread.h>
#include <time.h>

enum { WIDTH = 20, VOCAB = 53, CTX = 600 };
static const char config[] =
    "{\"model_type\":\"bert\",\"vocab_size\":53,\"hidden_size\":20,\"num_hidden_layers\":2,\"num_attention_heads\":2,"
    "\"intermediate_size\":12,\"max_position_embeddings\":600,\"type_vocab_size\":2,\"initializer_range\":0.3}";
static const char decoder[] =
    "{\"model_type\":\"llama\",\"vocab_size\":53,\"hidden_size\":20,\"num_hidden_layers\":1,\"num_attention_heads\":2,"
    "\"intermediate_size\":12,\"max_position_embeddings\":600}";

static struct error err;
static struct bundle bundle;

static struct model *random_model(const char *text, enum pooling pooling)
{
    struct arena arena;
    const struct json *doc;
    struct model *m;
    struct model_options options = {.any_task = true, .exact = true, .pooling = pooling};
    arena_init(&arena, 0);
    OK(json_parse(&doc, &arena, str_of(text), 0, &err));
    OK(model_random(&m, doc, DT_F32, 5, &options, &err));
    arena_free(&arena);
    return m;
}

static int set_up(void **state)
{
    (void)state;
    OK(kernels_init(NULL, &err));
    bundle.model = random_model(config, POOL_NONE);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    model_free(bundle.model);
    return 0;
}

/* ---- requests ---- */
enum { TEXTS = 40 };
struct asked {
    struct embed_request r;
    struct embed_text texts[TEXTS];
    int32_t ids[TEXTS][CTX];
    real out[TEXTS * WIDTH];
    struct finish_event end;
    int n_end; /* atomic */
};

static void on_finish(void *ctx, const struct finish_event *end)
{
    struct asked *a = ctx;
    a->end = *end;
    __atomic_fetch_add(&a->n_end, 1, __ATOMIC_RELEASE);
}

static void ask_init(struct asked *a, struct rng *rng, int n_text, int longest)
{
    *a = (struct asked){.r = {.texts = a->texts, .n_text = n_text, .out = a->out, .ctx = a, .on_finish = on_finish}};
    for (int i = 0; i < n_text; i++) {
        int n = 1 + (int)rng_below(rng, (uint64_t)longest);
        a->texts[i] = (struct embed_text){a->ids[i], n, (int)rng_below(rng, (uint64_t)n)};
        for (int k = 0; k < n; k++)
            a->ids[i][k] = (int32_t)rng_below(rng, VOCAB);
    }
}

static void wait_end(struct asked *a)
{
    while (!__atomic_load_n(&a->n_end, __ATOMIC_ACQUIRE))
        nanosleep(&(struct timespec){.tv_nsec = 50000}, NULL);
}

static struct engine *make_for(double (*weight)(void *ctx, uint64_t tenant), int n_thread, int queue)
{
    struct engine *e;
    const struct engine_options o = {.n_thread = n_thread, .max_sequences = 1, .queue_max = queue, .weight = weight};
    OK(engine_create(&e, &bundle, &o, &err));
    return e;
}

static struct engine *make(int n_thread, int queue)
{
    return make_for(NULL, n_thread, queue);
}

static double weight_by_id(void *ctx, uint64_t tenant)
{
    (void)ctx;
    return (double)tenant; /* the weight 0 must not stop anybody */
}

/* Each text's vector, computed in an engine where nothing else is. */
static void expect_alone(real *want, const struct asked *a, struct engine *alone)
{
    for (int i = 0; i < a->r.n_text; i++) {
        struct embed_request one = {.texts = &a->texts[i], .n_text = 1, .out = want + i * WIDTH};
        struct finish_event end;
        OK(engine_embed_wait(alone, &one, &end, &err));
        assert_int_equal(end.finish, FINISH_STOP);
        assert_int_equal(end.n_prompt, a->texts[i].n_id);
    }
}

static void test_company_does_not_change_bits(void **state)
{
    (void)state;
    enum { ASKED = 12 };
    struct asked *asked = calloc(ASKED, sizeof *asked);
    real want[TEXTS * WIDTH];
    struct rng rng;
    rng_init(&rng, 1);
    for (int threads = 1; threads <= 3; threads++) {
        struct engine *e = make_for(threads > 1 ? weight_by_id : NULL, threads, 100), *alone = make(1, 100);
        for (int i = 0; i < ASKED; i++) {
            ask_init(&asked[i], &rng, 1 + (int)rng_below(&rng, TEXTS), i % 4 == 3 ? CTX : 90);
            asked[i].r.tenant = (uint64_t)i % 3;
            OK(engine_embed(e, &asked[i].r, &err));
        }
        for (int i = 0; i < ASKED; i++) {
            int n_token = 0;
            wait_end(&asked[i]);
            assert_int_equal(asked[i].end.finish, FINISH_STOP);
            expect_alone(want, &asked[i], alone);
            assert_memory_equal(want, asked[i].out, (size_t)asked[i].r.n_text * WIDTH * sizeof *want);
            for (int t = 0; t < asked[i].r.n_text; t++)
                n_token += asked[i].texts[t].n_id;
            assert_int_equal(asked[i].end.n_prompt, n_token);
        }
        engine_destroy(alone);
        engine_destroy(e);
    }
    assert_true(memcmp(want, want + WIDTH, WIDTH * sizeof *want) != 0);
    free(asked);
}

/* What the engine is for: not one forward a text. */
static void test_texts_share_batches(void **state)
{
    (void)state;
    struct asked *a = calloc(1, sizeof *a);
    struct rng rng;
    struct engine_stats s;
    rng_init(&rng, 2);
    ask_init(a, &rng, TEXTS, 10);
    struct engine *e = make(1, 10);
    OK(engine_embed(e, &a->r, &err));
    wait_end(a);
    engine_stats(e, &s);
    assert_int_equal(s.steps, 1);
    assert_int_equal(s.prompt_tokens, a->end.n_prompt);
    assert_int_equal(s.n_ctx, CTX);
    engine_drain(e);
    engine_stats(e, &s);
    assert_int_equal(s.running + s.waiting, 0);
    assert_int_equal(s.finished[FINISH_STOP], 1);
    FAILS(ST_LIMIT, engine_embed(e, &a->r, &err));
    engine_destroy(e);
    free(a);
}

static int crowd_left;
static void on_small(void *ctx, const struct finish_event *end)
{
    const struct asked *crowd = *(struct asked **)ctx;
    assert_int_equal(end->finish, FINISH_STOP);
    for (int i = 0; i < 8; i++)
        crowd_left += !__atomic_load_n(&crowd[i].n_end, __ATOMIC_ACQUIRE);
}

/* A request of one text does not wait for those of many that came before it. */
static void test_requests_take_turns(void **state)
{
    (void)state;
    enum { CROWD = 8 };
    struct asked *crowd = calloc(CROWD, sizeof *crowd);
    struct rng rng;
    real out[WIDTH];
    int32_t ids[3] = {1, 2, 3};
    struct embed_text text = {ids, 3, 0};
    struct embed_request small = {.texts = &text, .n_text = 1, .out = out, .ctx = &crowd, .on_finish = on_small};
    struct finish_event end;
    rng_init(&rng, 3);
    crowd_left = 0;
    struct engine *e = make(1, 100);
    for (int i = 0; i < CROWD; i++) {
        ask_init(&crowd[i], &rng, TEXTS, 500);
        OK(engine_embed(e, &crowd[i].r, &err));
    }
    OK(engine_embed_wait(e, &small, &end, &err));
    assert_true(crowd_left > 0);
    engine_drain(e);
    engine_destroy(e);
    free(crowd);
}

struct queue { /* what is submitted while the engine's thread is held up */
    struct engine *e;
    int held, open, n_late; /* atomic */
    uint64_t steps;         /* until the last of the late ones was done */
};

static void hold_thread(void *ctx, const struct finish_event *end)
{
    struct queue *q = ctx;
    assert_int_equal(end->finish, FINISH_STOP);
    __atomic_store_n(&q->held, 1, __ATOMIC_RELEASE);
    while (!__atomic_load_n(&q->open, __ATOMIC_ACQUIRE))
        nanosleep(&(struct timespec){.tv_nsec = 50000}, NULL);
}

static void count_late(void *ctx, const struct finish_event *end)
{
    struct queue *q = ctx;
    struct engine_stats s;
    assert_int_equal(end->finish, FINISH_STOP);
    engine_stats(q->e, &s);
    q->steps = s.steps;
    __atomic_sub_fetch(&q->n_late, 1, __ATOMIC_RELEASE);
}

/* Hundreds of requests of one tenant wait when another's come: they are done after as many batches as their share says.
 */
static void test_tenants_share(void **state)
{
    (void)state;
    enum { FLOOD = 300, LATE = 30, LENGTH = 51 }; /* ten texts a batch */
    static const struct {
        int n_late;
        uint64_t tenant,
            steps; /* tenant: its weight; steps: in which its texts and the flood's, by weight, have room */
    } cases[] = {{1, 2, 1}, {LATE, 2, 5}, {LATE, 5, 4}};
    static real out[FLOOD + LATE][WIDTH];
    int32_t ids[LENGTH] = {1, 2, 3};
    const struct embed_text text = {ids, LENGTH, 0};
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        struct embed_request r[FLOOD + LATE];
        struct queue q = {.e = make_for(weight_by_id, 1, FLOOD + LATE), .n_late = cases[k].n_late};
        struct embed_request first = {.texts = &text, .n_text = 1, .out = out[0], .ctx = &q, .on_finish = hold_thread};
        OK(engine_embed(q.e, &first, &err));
        while (!__atomic_load_n(&q.held, __ATOMIC_ACQUIRE))
            nanosleep(&(struct timespec){.tv_nsec = 50000}, NULL);
        for (int i = 0; i < FLOOD + cases[k].n_late; i++) {
            r[i] = (struct embed_request){.texts = &text, .n_text = 1, .out = out[i], .tenant = 1};
            if (i >= FLOOD) {
                r[i].tenant = cases[k].tenant;
                r[i].ctx = &q;
                r[i].on_finish = count_late;
            }
            OK(engine_embed(q.e, &r[i], &err));
        }
        __atomic_store_n(&q.open, 1, __ATOMIC_RELEASE);
        engine_drain(q.e);
        print_message("%d of weight %d: done in %d batches\n", cases[k].n_late, (int)cases[k].tenant, (int)q.steps - 1);
        assert_int_equal(q.n_late, 0);
        assert_int_equal(q.steps, 1 + cases[k].steps);
        engine_destroy(q.e);
    }
}

static void test_cancel_at_any_time(void **state)
{
    (void)state;
    enum { ASKED = 60 };
    struct asked *asked = calloc(ASKED, sizeof *asked);
    struct rng rng;
    struct engine_stats s;
    int n_canceled = 0;
    volatile int interrupt = 1;
    rng_init(&rng, 4);
    struct engine *e = make(2, 100);
    for (int i = 0; i < ASKED; i++) {
        ask_init(&asked[i], &rng, 1 + (int)rng_below(&rng, TEXTS), 200);
        if (i == 7)
            asked[i].r.interrupt = &interrupt;
        OK(engine_embed(e, &asked[i].r, &err));
        if (rng_below(&rng, 2))
            engine_cancel(e, asked[rng_below(&rng, (uint64_t)i + 1)].r.id);
        if (i % 10 == 9)
            nanosleep(&(struct timespec){.tv_nsec = (long)rng_below(&rng, 2000000)}, NULL);
    }
    engine_cancel(e, 123456); /* unknown */
    for (int i = 0; i < ASKED; i++) {
        wait_end(&asked[i]);
        assert_true(asked[i].end.finish == FINISH_STOP || asked[i].end.finish == FINISH_CANCELED);
        n_canceled += asked[i].end.finish == FINISH_CANCELED;
    }
    assert_int_equal(asked[7].end.finish, FINISH_CANCELED);
    assert_true(n_canceled > 1);
    engine_drain(e);
    engine_stats(e, &s);
    assert_int_equal(s.finished[FINISH_STOP] + s.finished[FINISH_CANCELED], ASKED);
    engine_destroy(e);
    e = make(1, 100); /* destroyed with work in hand */
    for (int i = 0; i < 20; i++) {
        ask_init(&asked[i], &rng, TEXTS, CTX);
        OK(engine_embed(e, &asked[i].r, &err));
    }
    engine_destroy(e);
    for (int i = 0; i < 20; i++)
        assert_int_equal(asked[i].n_end, 1);
    assert_int_equal(asked[19].end.finish, FINISH_CANCELED);
    free(asked);
}

static void refused(struct engine *e, struct embed_text text, const char *word)
{
    real out[2 * WIDTH];
    int32_t good[1] = {1};
    struct embed_text texts[2] = {{good, 1, 0}, text};
    struct embed_request r = {.texts = texts, .n_text = 2, .out = out};
    struct finish_event end;
    FAILS(ST_INVALID, engine_embed_wait(e, &r, &end, &err));
    assert_non_null(strstr(err.text, word));
}

static void test_what_cannot_be_embedded_is_refused(void **state)
{
    (void)state;
    int32_t ids[CTX + 1] = {0}, bad[2] = {0, VOCAB}, below[1] = {-1};
    struct engine *e = make(1, 1), *generating;
    struct asked *a = calloc(40, sizeof *a);
    struct rng rng;
    enum status st = ST_OK;
    refused(e, (struct embed_text){ids, 0, 0}, "text 1 has 0 tokens");
    refused(e, (struct embed_text){ids, CTX + 1, 0}, "601 tokens, expected 1 to 600");
    refused(e, (struct embed_text){bad, 2, 0}, "id 53");
    refused(e, (struct embed_text){below, 1, 0}, "id -1");
    struct request r = {.prompt = ids, .n_prompt = 3};
    FAILS(ST_UNSUPPORTED, engine_submit(e, &r, &err));
    assert_non_null(strstr(err.text, "generates no text"));
    rng_init(&rng, 5);
    for (int i = 0; i < 40 && st == ST_OK; i++) { /* one runs, one waits */
        ask_init(&a[i], &rng, TEXTS, CTX);
        st = engine_embed(e, &a[i].r, &err);
    }
    assert_int_equal(st, ST_LIMIT);
    engine_destroy(e);
    struct bundle other = {.model = random_model(decoder, POOL_NONE)};
    OK(engine_create(&generating, &other, &(struct engine_options){.n_thread = 1}, &err));
    FAILS(ST_UNSUPPORTED, engine_embed(generating, &a[0].r, &err));
    assert_non_null(strstr(err.text, "--pooling"));
    engine_destroy(generating);
    model_free(other.model);
    free(a);
}

/* A decoder told to pool is one engine more of this kind. */
static void test_a_decoder_embeds_by_its_last_token(void **state)
{
    (void)state;
    int32_t ids[5] = {1, 2, 3, 4, 5};
    real out[2 * WIDTH];
    struct embed_text texts[2] = {{ids, 5, 0}, {ids, 4, 0}};
    struct embed_request r = {.texts = texts, .n_text = 2, .out = out};
    struct finish_event end;
    struct bundle saved = bundle;
    bundle.model = random_model(decoder, POOL_LAST);
    struct engine *e = make(2, 10);
    OK(engine_embed_wait(e, &r, &end, &err));
    assert_true(memcmp(out, out + WIDTH, WIDTH * sizeof *out) != 0);
    engine_destroy(e);
    model_free(bundle.model);
    bundle = saved;
}

static void test_every_allocation_may_fail(void **state)
{
    (void)state;
    int32_t ids[560];
    real out[2 * WIDTH];
    struct embed_text texts[2] = {{ids, 5, 0}, {ids, 560, 0}}; /* the second makes the room grow */
    int n = 1, n_late = 0;
    for (int i = 0; i < 560; i++)
        ids[i] = i % VOCAB;
    for (bool fired = true; fired; n++) {
        struct embed_request r = {.texts = texts, .n_text = 2, .out = out};
        struct finish_event end;
        struct engine *e = NULL;
        fault_arm(FAULT_ALLOC, (uint64_t)n);
        enum status st = engine_create(&e, &bundle, &(struct engine_options){.n_thread = 1}, &err);
        bool made = st == ST_OK;
        if (made)
            st = engine_embed_wait(e, &r, &end, &err);
        fired = fault_fired();
        fault_disarm();
        n_late += made && fired;
        if (fired && st != ST_NOMEM)
            fail_msg("allocation %d: status %d, %s", n, st, err.text);
        if (made && fired) { /* it goes on */
            OK(engine_embed_wait(e, &r, &end, &err));
            assert_int_equal(end.finish, FINISH_STOP);
        }
        engine_destroy(e);
    }
    print_message("%d allocations failed in turn, %d of them while embedding\n", n - 2, n_late);
    assert_true(n_late > 3);
}

static void test_rows_become_answers(void **state)
{
    (void)state;
    real v[4] = {3, 4, 12, 100}, zero[2] = {0, 0};
    embed_unit(v, 3);
    assert_true(fabs((double)v[0] - 3 / 13.0) < 1e-7 && fabs((double)v[2] - 12 / 13.0) < 1e-7 && v[3] == 100);
    embed_unit(zero, 2);
    assert_true(zero[0] == 0 && zero[1] == 0);
    assert_true(embed_sigmoid(0) == 0.5f && embed_sigmoid(-200) >= 0 && embed_sigmoid(200) == 1);
    assert_true(fabs((double)embed_sigmoid(1) - 0.7310585786) < 1e-7);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_company_does_not_change_bits),
        cmocka_unit_test(test_texts_share_batches),
        cmocka_unit_test(test_requests_take_turns),
        cmocka_unit_test(test_tenants_share),
        cmocka_unit_test(test_cancel_at_any_time),
        cmocka_unit_test(test_what_cannot_be_embedded_is_refused),
        cmocka_unit_test(test_a_decoder_embeds_by_its_last_token),
        cmocka_unit_test(test_every_allocation_may_fail),
        cmocka_unit_test(test_rows_become_answers),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
