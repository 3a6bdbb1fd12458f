/* A real model with a real tokenizer: stories260K. The answers are its reference's, and text is exactly the ids' text.
 */
#include "test.h"

#include "base/fault.h"
#include "base/file.h"
#include "base/rng.h"
#include "base/unicode.h"
#include "engine/engine_private.h"

#define MODEL     SHARED("data/models/stories260K/stories260K.gguf")
#define REFERENCE SHARED("data/models/stories260K/reference.json")

static struct error err;
static struct bundle *bundle;
static struct engine *engine;

static int set_up(void **state)
{
    (void)state;
    struct model_options options = {.exact = true};
    struct engine_options e = {.n_thread = 2};
    if (kernels_init(NULL, &err) != ST_OK)
        return -1;
    if (access(MODEL, R_OK) != 0)
        return 0; /* each test skips */
    if (bundle_open(&bundle, MODEL, &options, &err) != ST_OK || engine_create(&engine, bundle, &e, &err) != ST_OK) {
        print_error("%s\n", err.text);
        return -1;
    }
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    engine_destroy(engine);
    if (bundle)
        bundle_close(bundle);
    return 0;
}

struct answer {
    struct ids ids;
    struct buf text;
    struct finish_event end;
    int flushes; /* events without an id */
};

static void on_token(void *ctx, const struct token_event *e)
{
    struct answer *a = ctx;
    assert_true(utf8_valid(e->text)); /* no event ends inside a character */
    buf_append_str(&a->text, e->text);
    if (e->id >= 0)
        assert_true(ids_push(&a->ids, e->id));
    else
        a->flushes++;
}

static void ask(struct answer *a, struct request *r)
{
    ids_free(&a->ids);
    buf_clear(&a->text);
    a->flushes = 0;
    r->ctx = a;
    r->on_token = on_token;
    OK(engine_generate(engine, r, &a->end, &err));
}

static void answer_free(struct answer *a)
{
    ids_free(&a->ids);
    buf_free(&a->text);
}

static struct request greedy(const int32_t *prompt, int n, int max_tokens)
{
    struct request r = {.prompt = prompt, .n_prompt = n};
    sampling_defaults(&r.sampling);
    r.sampling.temperature = 0;
    r.sampling.max_tokens = max_tokens;
    return r;
}

/* The text after the prompt's text, decoded in one piece. */
static void check_text(const struct request *r, const struct answer *a)
{
    struct buf before = {0}, whole = {0};
    struct ids all = {0};
    for (int i = 0; i < r->n_prompt; i++)
        assert_true(ids_push(&all, r->prompt[i]));
    for (size_t i = 0; i < a->ids.count; i++)
        assert_true(ids_push(&all, a->ids.ids[i]));
    OK(tokenizer_decode(bundle->tokenizer, &before, r->prompt, (size_t)r->n_prompt, DETOKENIZE_SKIP_SPECIAL, &err));
    OK(tokenizer_decode(bundle->tokenizer, &whole, all.ids, all.count, DETOKENIZE_SKIP_SPECIAL, &err));
    assert_true(str_eq(str_from(buf_str(&whole), before.len), buf_str(&a->text)));
    ids_free(&all);
    buf_free(&before);
    buf_free(&whole);
}

static void test_text_greedy_ids_are_the_reference(void **state)
{
    (void)state;
    NEED(MODEL);
    NEED(REFERENCE);
    struct buf file = {0};
    struct arena arena;
    const struct json *doc;
    struct answer a = {0};
    int cases = 0;
    arena_init(&arena, 0);
    OK(file_read_all(&file, REFERENCE, 1 << 20, &err));
    OK(json_parse(&doc, &arena, buf_str(&file), 0, &err));
    JSON_EACH (c, json_get(json_get(doc, "cases"), "stories260K.bin")) {
        struct ids prompt = {0};
        JSON_EACH (id, json_get(c, "prompt_ids"))
            assert_true(ids_push(&prompt, (int32_t)json_int(id, -1)));
        const struct json *want = json_get(c, "ids");
        size_t n_new = json_count(want) - prompt.count;
        struct request r = greedy(prompt.ids, (int)prompt.count, (int)n_new);
        r.sampling.ignore_eos = true;
        ask(&a, &r);
        assert_int_equal(a.ids.count, n_new);
        for (size_t i = 0; i < n_new; i++)
            assert_int_equal(a.ids.ids[i], json_int(json_at(want, prompt.count + i), -1));
        check_text(&r, &a);
        ids_free(&prompt);
        cases++;
    }
    assert_true(cases > 0);
    answer_free(&a);
    arena_free(&arena);
    buf_free(&file);
}

static const int32_t begin[] = {1};

static void test_text_stops_wherever_the_string_lies(void **state)
{
    (void)state;
    NEED(MODEL);
    struct request r = greedy(begin, 1, 60);
    struct answer whole = {0}, a = {0};
    ask(&whole, &r);
    check_text(&r, &whole);
    int across = 0;
    for (size_t from = 0; from + 9 < whole.text.len; from += 3)
        for (size_t len = 1; len <= 9; len += 4) {
            struct str stop = str_n(whole.text.ptr + from, len);
            if (!utf8_valid(stop))
                continue;
            r = greedy(begin, 1, 60);
            r.stops[0] = STR("never in this text");
            r.stops[1] = stop;
            r.n_stop = 2;
            ask(&a, &r);
            assert_int_equal(a.end.finish, FINISH_STOP);
            assert_true(str_eq(a.end.stop_text, stop));
            assert_true(str_eq(buf_str(&a.text), str_n(whole.text.ptr, str_find(buf_str(&whole.text), stop, 0))));
            assert_int_equal(a.end.n_output, a.ids.count);
            across += len == 9;
        }
    assert_true(across > 20);
    /* A stop string that almost comes: nothing of the text is lost, the last words come with the last token. */
    struct buf almost = {0};
    buf_append_str(&almost, str_from(buf_str(&whole.text), whole.text.len - 4));
    buf_append_str(&almost, STR("\x01"));
    r = greedy(begin, 1, 60);
    r.stops[0] = buf_str(&almost);
    r.n_stop = 1;
    ask(&a, &r);
    assert_int_equal(a.end.finish, FINISH_LENGTH);
    assert_true(str_eq(buf_str(&a.text), buf_str(&whole.text)));
    assert_int_equal(a.flushes, 0);
    buf_free(&almost);
    answer_free(&whole);
    answer_free(&a);
}

static void test_text_ends_at_eos(void **state)
{
    (void)state;
    NEED(MODEL);
    struct request r = greedy(begin, 1, 0);
    struct logit_bias bias = {tokenizer_eos(bundle->tokenizer), 100};
    struct answer a = {0};
    r.sampling.logit_bias = &bias;
    r.sampling.n_logit_bias = 1;
    r.sampling.min_tokens = 5;
    ask(&a, &r);
    assert_int_equal(a.end.finish, FINISH_STOP);
    assert_null(a.end.stop_text.ptr);
    assert_int_equal(a.ids.count, 5);    /* EOS has no event of its own ... */
    assert_int_equal(a.end.n_output, 6); /* ... but is counted */
    check_text(&r, &a);
    char last[3] = {a.text.ptr[a.text.len - 1], 1, 0};
    struct answer b = {0};
    r.stops[0] = str_of(last); /* held back when EOS comes: an event without an id brings it */
    r.n_stop = 1;
    ask(&b, &r);
    assert_true(str_eq(buf_str(&a.text), buf_str(&b.text)));
    assert_int_equal(b.flushes, 1);
    r.sampling.ignore_eos = true;
    r.sampling.max_tokens = 4;
    ask(&b, &r);
    assert_int_equal(b.end.finish, FINISH_LENGTH);
    assert_int_equal(b.ids.count, 4);
    answer_free(&a);
    answer_free(&b);
}

/* At a high temperature this model writes many raw bytes: broken characters become U+FFFD, whole ones stay whole. */
static void test_text_of_random_bytes(void **state)
{
    (void)state;
    NEED(MODEL);
    struct answer a = {0};
    int replaced = 0;
    for (uint64_t seed = 0; seed < 40; seed++) {
        struct request r = greedy(begin, 1, 50);
        r.sampling.temperature = 30;
        r.sampling.seed = seed;
        r.sampling.has_seed = true;
        r.sampling.ignore_eos = true;
        ask(&a, &r);
        assert_int_equal(a.ids.count, 50);
        check_text(&r, &a);
        replaced += str_find(buf_str(&a.text), STR("\xEF\xBF\xBD"), 0) != SIZE_MAX;
    }
    assert_true(replaced > 5);
    answer_free(&a);
}

static void test_text_choices_differ_and_repeat(void **state)
{
    (void)state;
    NEED(MODEL);
    struct answer a[3] = {{{0}}};
    for (int i = 0; i < 3; i++) {
        struct request r = greedy(begin, 1, 40);
        r.sampling.temperature = 1;
        r.sampling.seed = 7;
        r.sampling.has_seed = true;
        r.choice = i % 2;
        ask(&a[i], &r);
        assert_int_equal(a[i].end.seed, 7);
    }
    assert_false(str_eq(buf_str(&a[0].text), buf_str(&a[1].text)));
    assert_true(str_eq(buf_str(&a[0].text), buf_str(&a[2].text)));
    for (int i = 0; i < 3; i++)
        answer_free(&a[i]);
}

static const struct executor *reader;
static struct seq *read_by; /* the one sequence of test_text_the_prompt_is_read_as_it_is_computed */

static void zero_forward(void *ctx, const struct model_batch *b, real *logits)
{
    (void)ctx;
    memset(logits, 0, sizeof *logits * (size_t)b->n_logit * (size_t)reader->n_vocab);
}

static void free_ended(void *ctx, struct seq *s, const struct finish_event *end)
{
    (void)ctx, (void)end;
    seq_free(s);
    read_by = NULL;
}

/* Submitting costs no decoding, whatever the prompt's length: the thread that does it may serve a thousand others. */
static void test_text_the_prompt_is_read_as_it_is_computed(void **state)
{
    (void)state;
    NEED(MODEL);
    enum { N = 100, CHUNK = 16 };
    int32_t prompt[N];
    struct pool *pool;
    struct core core;
    struct engine_options o = {.max_sequences = 2, .prefill_chunk = CHUNK};
    OK(pool_create(&pool, 1, &err));
    struct executor x = {.forward = zero_forward,
                         .n_vocab = model_config(bundle->model)->n_vocab,
                         .n_ctx = 512,
                         .n_block = 8,
                         .tokenizer = bundle->tokenizer,
                         .pool = pool};
    reader = &x;
    for (int i = 0; i < N; i++)
        prompt[i] = 300 + i;
    struct request r = greedy(prompt, N, 2);
    OK(core_init(&core, &x, &o, &err));
    core.on_end = free_ended;
    OK(seq_create(&read_by, &r, &x, &err));
    assert_int_equal(read_by->decoder.n_seen, 0);
    sched_add(&core.sched, read_by);
    for (int done = CHUNK; done < N; done += CHUNK) {
        assert_true(core_step(&core));
        assert_int_equal(read_by->decoder.n_seen, done);
    }
    assert_true(core_step(&core)); /* the rest of the prompt, and the first answer token */
    assert_int_equal(read_by->decoder.n_seen, N + 1);
    assert_true(core_step(&core));
    assert_null(read_by);
    core_free(&core);
    pool_destroy(pool);
}

static void test_text_a_prompt_too_long_is_refused(void **state)
{
    (void)state;
    NEED(MODEL);
    int n = model_config(bundle->model)->n_ctx;
    int32_t *prompt = calloc((size_t)n, sizeof *prompt);
    struct finish_event end;
    struct request r = greedy(prompt, n, 1);
    char number[32];
    FAILS(ST_INVALID, engine_generate(engine, &r, &end, &err));
    snprintf(number, sizeof number, "%d tokens", n);
    assert_non_null(strstr(err.text, number));
    r.n_prompt = n - 1;
    OK(engine_generate(engine, &r, &end, &err));
    assert_int_equal(end.n_output, 1);
    free(prompt);
}

/* Every allocation, thread and file of engine_create in turn: an error, and nothing left behind. */
static void test_engine_create_survives_every_fault(void **state)
{
    (void)state;
    NEED(MODEL);
    static const enum fault_point points[] = {FAULT_ALLOC, FAULT_THREAD, FAULT_OPEN, FAULT_READ};
    struct engine_options o = {.n_thread = 2, .max_sequences = 2, .prefill_chunk = 8};
    for (size_t p = 0; p < sizeof points / sizeof *points; p++) {
        uint64_t n = 0;
        for (bool fired = true; fired; fired = fault_fired()) {
            struct engine *e;
            fault_arm(points[p], ++n);
            enum status st = engine_create(&e, bundle, &o, &err);
            fault_disarm();
            if (st == ST_OK) {
                struct engine_stats s;
                engine_stats(e, &s);
                assert_true(s.blocks_total >= 1 && s.n_ctx >= KV_BLOCK);
                assert_true(!fault_fired() || points[p] != FAULT_THREAD);
                engine_destroy(e);
            } else
                assert_true(fault_fired() && !e);
            assert_true(n < 1000);
        }
    }
}

static void test_engine_kv_bytes_bound_the_context(void **state)
{
    (void)state;
    NEED(MODEL);
    struct engine *e;
    struct engine_stats s;
    struct engine_options o = {.n_thread = 1, .kv_bytes = 3 * model_kv_block_bytes(bundle->model)};
    OK(engine_create(&e, bundle, &o, &err));
    engine_stats(e, &s);
    assert_int_equal(s.blocks_total, 3);
    assert_int_equal(s.n_ctx, 3 * KV_BLOCK);
    engine_destroy(e);
    o.kv_bytes = 1; /* never less than a block */
    OK(engine_create(&e, bundle, &o, &err));
    engine_stats(e, &s);
    assert_int_equal(s.blocks_total, 1);
    engine_destroy(e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_text_greedy_ids_are_the_reference),
        cmocka_unit_test(test_text_stops_wherever_the_string_lies),
        cmocka_unit_test(test_text_ends_at_eos),
        cmocka_unit_test(test_text_of_random_bytes),
        cmocka_unit_test(test_text_choices_differ_and_repeat),
        cmocka_unit_test(test_text_the_prompt_is_read_as_it_is_computed),
        cmocka_unit_test(test_text_a_prompt_too_long_is_refused),
        cmocka_unit_test(test_engine_create_survives_every_fault),
        cmocka_unit_test(test_engine_kv_bytes_bound_the_context),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
