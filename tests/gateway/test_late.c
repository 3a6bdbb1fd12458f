/* options.answer_ms: whatever a request waits for, it ends at its time, and the server goes on. The engine is a
 * stand-in that knows no deadline, so that every end seen here is the gateway's own. */
#include "test.h"

#include "gateway/harness.h"
#include "hosting/hosting.h"

enum { LATE_MS = 150 };

struct late {
    pthread_t thread;
    const char *path, *body;
    struct http1 answer;
    enum status st;
};

static void *post(void *arg)
{
    struct late *l = arg;
    struct error err;
    l->st = http_call(&l->answer,
                      &(struct http_call){.host = "127.0.0.1",
                                          .port = gateway_port(gateway),
                                          .method = "POST",
                                          .path = l->path,
                                          .body = str_of(l->body),
                                          .timeout_ms = 20000},
                      &err);
    return NULL;
}

static void begin(struct late *l, const char *path, const char *body)
{
    *l = (struct late){.path = path, .body = body};
    pthread_create(&l->thread, NULL, post, l);
}

/* Status and words, while what it waited for still stands still. */
static void expect_late(struct late *l, int status)
{
    pthread_join(l->thread, NULL);
    assert_int_equal(l->st, ST_OK);
    assert_int_equal(l->answer.status, status);
    if (str_find(buf_str(&l->answer.body), STR("the deadline passed"), 0) == SIZE_MAX)
        fail_msg("%s: %.*s", l->path, STR_ARG(buf_str(&l->answer.body)));
    http1_free(&l->answer);
}

static void start_late(enum model_task task, int *held)
{
    start_with(&(struct gateway_options){.host = "127.0.0.1", .answer_ms = LATE_MS, .n_worker = 1});
    __atomic_store_n(&fake.task, task, __ATOMIC_SEQ_CST);
    __atomic_store_n(held, 1, __ATOMIC_SEQ_CST);
}

static void stop_late(int *held)
{
    struct http1 a;
    struct engine_stats s = {.running = 1};
    __atomic_store_n(held, 0, __ATOMIC_SEQ_CST);
    for (int i = 0; i < 5000 && s.running; i++) { /* nothing that was given up on goes on */
        usleep(1000);
        engine_stats(engine, &s);
    }
    assert_int_equal(s.running, 0);
    __atomic_store_n(&fake.task, TASK_GENERATE, __ATOMIC_SEQ_CST);
    int status = 504;
    for (int i = 0; i < 4 && status == 504; i++) { /* on a busy machine one may be late without any reason of ours */
        ask(&a, "POST", "/v1/chat/completions", CHAT(""), NULL);
        status = a.status;
        http1_free(&a);
    }
    assert_int_equal(status, 200);
    stop(NULL);
}

static void test_late_answers_and_streams(void **state)
{
    struct late whole, stream, messages;
    (void)state;
    start_late(TASK_GENERATE, &fake.hold);
    begin(&whole, "/v1/chat/completions", CHAT(",\"n\":3"));
    begin(&stream, "/v1/completions", "{\"prompt\":\"a\",\"stream\":true}");
    begin(&messages, "/v1/messages",
          "{\"model\":\"fake\",\"max_tokens\":4,\"messages\":[{\"role\":\"user\",\"content\":\"a\"}]}");
    expect_late(&whole, 504);
    expect_late(&stream, 200); /* the last event */
    expect_late(&messages, 504);
    stop_late(&fake.hold);
}

static void test_late_embeddings(void **state)
{
    struct late l;
    (void)state;
    start_late(TASK_EMBED, &fake.hold);
    begin(&l, "/v1/embeddings", "{\"input\":\"a\"}");
    expect_late(&l, 504);
    stop_late(&fake.hold);
}

static void test_late_rerank(void **state)
{
    struct late l;
    (void)state;
    start_late(TASK_SCORE, &fake.hold);
    begin(&l, "/v1/rerank", "{\"query\":\"a\",\"documents\":[\"b\",\"c\"]}");
    expect_late(&l, 504);
    stop_late(&fake.hold);
}

/* One is with the only worker, which is stuck; the others are in its queue. */
static void test_late_in_the_queue(void **state)
{
    struct late l[4];
    (void)state;
    start_late(TASK_GENERATE, &fake.stuck);
    for (int i = 0; i < 4; i++)
        begin(&l[i], i % 2 ? "/v1/completions" : "/v1/tokenize", "{\"prompt\":\"a\"}");
    for (int i = 0; i < 4; i++)
        expect_late(&l[i], 504);
    stop_late(&fake.stuck);
}

static enum status measure(void *ctx, uint64_t *bytes, const struct hosting_model *m, struct error *err)
{
    (void)ctx, (void)m, (void)err;
    *bytes = 1;
    return ST_OK;
}

static enum status open_slowly(void *ctx, struct hosted_parts *out, const struct hosting_model *m, struct error *err)
{
    (void)ctx, (void)out;
    while (fake_get(&fake.stuck))
        usleep(1000);
    return fail(err, ST_IO, "%s: gone", m->path);
}

static double memory_of_requests(void)
{
    struct http1 a;
    double bytes = -1;
    ask(&a, "GET", "/metrics", "", NULL);
    size_t at = str_find(buf_str(&a.body), STR("\ningot:request_memory_bytes"), 0);
    struct str rest = at == SIZE_MAX ? STR("") : str_from(buf_str(&a.body), at + 1);
    size_t blank = str_find(rest, STR(" "), 0), end = str_find(rest, STR("\n"), 0);
    assert_true(blank != SIZE_MAX && end > blank && str_to_f64(&bytes, str_n(rest.ptr + blank + 1, end - blank - 1)));
    http1_free(&a);
    return bytes;
}

/* They wait for a model that does not come: they end, and nothing of them is kept until it does. */
static void test_late_models(void **state)
{
    static const struct hosting_maker maker = {.measure = measure, .open = open_slowly};
    struct late l[2];
    struct hosting *hosting;
    struct error err;
    (void)state;
    OK(hosting_create(&hosting, &(struct hosting_options){.maker = &maker}, &err));
    OK(hosting_add(hosting, &(struct hosting_model){.name = "other", .path = "other"}, &err));
    start_with(&(struct gateway_options){.host = "127.0.0.1", .answer_ms = LATE_MS, .n_worker = 1, .hosting = hosting});
    double before = memory_of_requests();
    __atomic_store_n(&fake.stuck, 1, __ATOMIC_SEQ_CST);
    for (int i = 0; i < 2; i++)
        begin(&l[i], i ? "/v1/completions" : "/v1/tokenize", "{\"model\":\"other\",\"prompt\":\"a\"}");
    for (int i = 0; i < 2; i++)
        expect_late(&l[i], 504);
    assert_true(memory_of_requests() <= before);
    stop_late(&fake.stuck);
    hosting_destroy(hosting);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_late_answers_and_streams),
        cmocka_unit_test(test_late_embeddings),
        cmocka_unit_test(test_late_rerank),
        cmocka_unit_test(test_late_in_the_queue),
        cmocka_unit_test(test_late_models),
    };
    return RUN(tests);
}
