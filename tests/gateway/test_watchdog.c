/* A model that hangs: the watchdog says where, once; health turns; all is well again when it goes on. The real engine
 * and gateway over an executor that the test holds. */
#include "test.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "base/thread.h"
#include "engine/engine_private.h"
#include "gateway/gateway.h"
#include "hosting/hosting.h"
#include "net/client.h"

#include <pthread.h>
#include <sys/mman.h>

static const char MODEL[] = TEST_DIR "/../models/storyteller.gguf";

static int held, held_second; /* atomic: an executor waits while its own is set */
static int n_vocab, log_fd, client_status;

static void forward(void *ctx, const struct model_batch *b, real *logits)
{
    while (__atomic_load_n((int *)ctx, __ATOMIC_SEQ_CST))
        usleep(1000);
    for (int i = 0; i < b->n_logit; i++)
        for (int k = 0; k < n_vocab; k++)
            logits[(size_t)i * (size_t)n_vocab + (size_t)k] = k == 40 ? 1 : 0;
}

static struct bundle *bundle;
static struct engine *engine;
static struct gateway *gateway;
static struct pool *pool;
static pthread_t runner, client;
static struct hosting *hosting;

static void *run(void *arg)
{
    struct error err;
    (void)arg;
    assert_int_equal(gateway_run(gateway, &err), ST_OK);
    return NULL;
}

static int call(const char *method, const char *path, const char *body, struct buf *out)
{
    struct http1 a;
    struct error err;
    struct http_call c = {.host = "127.0.0.1",
                          .port = gateway_port(gateway),
                          .method = method,
                          .path = path,
                          .body = str_of(body),
                          .timeout_ms = 30000};
    OK(http_call(&a, &c, &err));
    int status = a.status;
    if (out)
        buf_append_str(out, buf_str(&a.body));
    http1_free(&a);
    return status;
}

#define ASK(fields) "{" fields "\"prompt\":[7,8,9],\"max_tokens\":5,\"ignore_eos\":true}"
static void *ask(void *body)
{
    client_status = call("POST", "/v1/completions", body, NULL);
    return NULL;
}

static enum status make_engine(struct engine **out, int *waits, struct error *err)
{
    struct executor x = {.forward = forward,
                         .ctx = waits,
                         .n_vocab = n_vocab,
                         .n_ctx = 256,
                         .n_block = 16,
                         .tokenizer = bundle->tokenizer,
                         .pool = pool,
                         .bundle = bundle};
    return engine_create_on(out, &x, &(struct engine_options){.max_sequences = 4}, err);
}

static void start(void)
{
    struct error err;
    OK(pool_create(&pool, 1, &err));
    struct model_options m = {.pool = pool, .n_ctx = 256};
    OK(bundle_open(&bundle, MODEL, &m, &err));
    n_vocab = model_config(bundle->model)->n_vocab;
    OK(make_engine(&engine, &held, &err));
    OK(gateway_create(&gateway, engine, &(struct gateway_options){.health_ms = 1000, .hosting = hosting}, &err));
    pthread_create(&runner, NULL, run, NULL);
    log_fd = memfd_create("log", MFD_CLOEXEC);
    log_set_fd(log_fd);
    log_set_level(LOG_WARN);
}

static void stop(void)
{
    log_set_fd(STDERR_FILENO);
    gateway_drain(gateway);
    pthread_join(runner, NULL);
    engine_destroy(engine);
    gateway_destroy(gateway);
    hosting_destroy(hosting); /* like the server does: after the gateway, before what its models are made of */
    hosting = NULL;
    bundle_close(bundle);
    pool_destroy(pool);
    close(log_fd);
}

static void read_log(struct buf *out)
{
    char bytes[4096];
    ssize_t n;
    buf_clear(out);
    for (off_t at = 0; (n = pread(log_fd, bytes, sizeof bytes, at)) > 0; at += n)
        buf_append(out, bytes, (size_t)n);
}

static bool log_gets(struct buf *log, const char *words)
{
    for (int i = 0; i < 500; i++) {
        read_log(log);
        if (log->ptr && strstr(log->ptr, words))
            return true;
        usleep(10000);
    }
    return false;
}

static int count(const struct buf *log, const char *words)
{
    int n = 0;
    for (const char *p = log->ptr; (p = strstr(p, words)); p++)
        n++;
    return n;
}

static void test_watchdog_when_the_client_has_left(void **state)
{
    struct buf log = {0};
    struct http1 a;
    struct error err;
    (void)state;
    start();
    struct http_call c = {.host = "127.0.0.1",
                          .port = gateway_port(gateway),
                          .method = "POST",
                          .path = "/v1/completions",
                          .body = STR("{\"prompt\":[7,8,9],\"max_tokens\":5}"),
                          .timeout_ms = 100};
    __atomic_store_n(&held, 1, __ATOMIC_SEQ_CST);
    struct engine_stats s = {0};
    for (int i = 0; i < 20 && !s.running; i++) { /* it may leave before its request is read */
        assert_int_not_equal(http_call(&a, &c, &err), ST_OK);
        engine_stats(engine, &s);
    }
    assert_true(log_gets(&log, "watchdog.request"));
    assert_non_null(strstr(log.ptr, "\"phase\":\"ends\""));
    assert_non_null(strstr(log.ptr, "\"client\":\"left\""));
    __atomic_store_n(&held, 0, __ATOMIC_SEQ_CST);
    assert_true(log_gets(&log, "the engine moves again"));
    stop();
    buf_free(&log);
}

static void test_watchdog_tells_where_it_hangs(void **state)
{
    static char body[] = ASK("");
    struct buf log = {0}, metrics = {0};
    (void)state;
    start();
    assert_int_equal(call("GET", "/health", "", NULL), 200);
    __atomic_store_n(&held, 1, __ATOMIC_SEQ_CST);
    pthread_create(&client, NULL, ask, body);
    assert_true(log_gets(&log, "watchdog.request")); /* the last thing it says */
    assert_int_equal(call("GET", "/health", "", NULL), 503);
    assert_int_equal(call("GET", "/livez", "", NULL), 200);
    usleep(700000); /* more looks, the same stall: nothing more is said */
    read_log(&log);
    assert_int_equal(count(&log, "watchdog.stalled"), 1);
    assert_non_null(strstr(log.ptr, "\"thread\":\"engine\",\"model\":\"storyteller\",\"age_s\":\""));
    assert_non_null(strstr(log.ptr, "\"running\":\"1\",\"waiting\":\"0\",\"kv_blocks_free\":\"15 of 16\""));
    assert_non_null(strstr(log.ptr, "\"last\":\"runs the model\""));
    assert_non_null(strstr(log.ptr, "\"last\":\"waits for requests\"")); /* a worker */
    assert_non_null(strstr(log.ptr, "\"thread\":\"loop\""));
    assert_non_null(strstr(log.ptr, "\"prompt_of_limit\":\"3 of 8\",\"canceled\":\"no\""));
    assert_non_null(strstr(log.ptr, "\"phase\":\"generates\""));
    struct str rest = buf_str(&log);
    struct arena arena;
    arena_init(&arena, 0);
    while (rest.ptr) { /* every line is JSON */
        struct str line = str_next_line(&rest);
        const struct json *doc;
        struct error err;
        if (line.len)
            OK(json_parse(&doc, &arena, line, JSON_UNIQUE, &err));
    }
    arena_free(&arena);
    assert_int_equal(call("GET", "/metrics", "", &metrics), 200);
    assert_non_null(strstr(metrics.ptr, "thread=\"engine\"} 1\n"));
    assert_non_null(strstr(metrics.ptr, "thread=\"loop\"} 0\n"));

    __atomic_store_n(&held, 0, __ATOMIC_SEQ_CST);
    pthread_join(client, NULL);
    assert_int_equal(client_status, 200);
    assert_true(log_gets(&log, "the engine moves again"));
    assert_int_equal(call("GET", "/health", "", NULL), 200);
    stop();
    buf_free(&log);
    buf_free(&metrics);
}

/* ---- another model than the first ---- */
static enum status measure(void *ctx, uint64_t *bytes, const struct hosting_model *m, struct error *err)
{
    (void)ctx, (void)m, (void)err;
    *bytes = 1;
    return ST_OK;
}
static enum status open_second(void *ctx, struct hosted_parts *out, const struct hosting_model *m, struct error *err)
{
    (void)ctx, (void)m;
    *out = (struct hosted_parts){.bundle = bundle, .bytes = 1};
    return make_engine(&out->engine, &held_second, err);
}
static void close_second(void *ctx, struct hosted_parts *p)
{
    (void)ctx;
    engine_destroy(p->engine);
}

static void test_watchdog_names_the_model(void **state)
{
    static const struct hosting_maker maker = {.measure = measure, .open = open_second, .close = close_second};
    static char body[] = ASK("\"model\":\"second\",");
    struct buf log = {0}, health = {0}, metrics = {0};
    struct error err;
    (void)state;
    OK(hosting_create(&hosting, &(struct hosting_options){.maker = &maker}, &err));
    start();
    OK(hosting_add_ready(hosting, "storyteller", &(struct hosted_parts){.bundle = bundle, .engine = engine}, &err));
    OK(hosting_add(hosting, &(struct hosting_model){.name = "second"}, &err));
    __atomic_store_n(&held_second, 1, __ATOMIC_SEQ_CST);
    pthread_create(&client, NULL, ask, body);
    assert_true(log_gets(&log, "watchdog.request"));
    assert_int_equal(call("POST", "/v1/completions", "{\"prompt\":[7],\"max_tokens\":2}", NULL),
                     200); /* the first runs */
    usleep(700000);
    read_log(&log);
    assert_int_equal(count(&log, "watchdog.stalled"), 1);
    assert_non_null(strstr(log.ptr, "\"thread\":\"engine\",\"model\":\"second\",\"age_s\":\""));
    assert_non_null(strstr(log.ptr, "\"prompt_of_limit\":\"3 of 8\""));
    assert_int_equal(call("GET", "/health", "", &health), 503);
    assert_non_null(strstr(health.ptr, "{\"model\":\"second\",\"status\":\"stalled\",\"running\":1"));
    assert_non_null(strstr(health.ptr, "{\"model\":\"storyteller\",\"status\":\"ok\",\"running\":0"));
    assert_int_equal(call("GET", "/metrics", "", &metrics), 200);
    assert_non_null(strstr(metrics.ptr, "ingot:stalls_total{model_name=\"second\",thread=\"engine\"} 1\n"));
    assert_non_null(strstr(metrics.ptr, "ingot:stalls_total{model_name=\"storyteller\",thread=\"engine\"} 0\n"));
    assert_non_null(strstr(metrics.ptr, "vllm:num_requests_running{model_name=\"second\",engine=\"0\"} 1\n"));
    __atomic_store_n(&held_second, 0, __ATOMIC_SEQ_CST);
    pthread_join(client, NULL);
    assert_int_equal(client_status, 200);
    assert_true(log_gets(&log, "second: the engine moves again"));
    assert_int_equal(call("GET", "/health", "", NULL), 200);
    stop();
    buf_free(&log);
    buf_free(&health);
    buf_free(&metrics);
}

static void test_watchdog_is_silent_while_idle(void **state)
{
    struct buf log = {0};
    (void)state;
    start();
    usleep(2100000); /* more than twice health_ms without a step: nobody waits for one */
    read_log(&log);
    assert_int_equal(log.len, 0);
    assert_int_equal(call("POST", "/v1/completions", "{\"prompt\":[7],\"max_tokens\":2}", NULL), 200);
    stop();
    buf_free(&log);
}

/* A machine that was stopped (here: by ten seconds of the clock) is no hanging thread: what hangs really is told when
 * it has hung for health_ms since. */
static void test_watchdog_forgives_a_stopped_machine(void **state)
{
    struct buf log = {0};
    (void)state;
    start();
    usleep(700000); /* it has looked */
    __atomic_store_n(&held, 1, __ATOMIC_SEQ_CST);
    pthread_create(&client, NULL, ask, (char[]){ASK("")});
    struct engine_stats s = {0};
    for (int i = 0; i < 10000 && !s.running; i++, usleep(1000))
        engine_stats(engine, &s);
    assert_int_equal(s.running, 1);
    clock_jump(10000000000, 0);
    assert_true(log_gets(&log, "watchdog.request"));
    const char *age = strstr(log.ptr, "\"thread\":\"engine\",\"model\":\"storyteller\",\"age_s\":\"");
    assert_non_null(age);
    assert_true(atof(strstr(age, "age_s") + 8) >= 11);
    __atomic_store_n(&held, 0, __ATOMIC_SEQ_CST);
    pthread_join(client, NULL);
    clock_jump(0, 0);
    stop();
    buf_free(&log);
}

static void *mark_often(void *arg)
{
    static const char *const words[] = {"one", "two", "three"};
    for (int i = 0; i < 30000; i++)
        thread_mark("marker", words[i % 3]);
    __atomic_add_fetch((int *)arg, 1, __ATOMIC_SEQ_CST);
    return NULL;
}

static void test_marks_of_threads_that_come_and_go(void **state)
{
    struct thread_mark marks[THREAD_MARKS_MAX];
    int done = 0, before = thread_marks(marks, THREAD_MARKS_MAX);
    (void)state;
    for (int round = 0; round < 50; round++) { /* 200 threads in all: slots are used again */
        pthread_t threads[4];
        for (int i = 0; i < 4; i++)
            assert_int_equal(thread_start(&threads[i], mark_often, &done), 0);
        int n = thread_marks(marks, THREAD_MARKS_MAX);
        for (int i = 0; i < n; i++)
            assert_true(marks[i].tid > 0 && marks[i].thread && marks[i].what);
        for (int i = 0; i < 4; i++)
            pthread_join(threads[i], NULL);
    }
    assert_int_equal(done, 200);
    assert_int_equal(thread_marks(marks, THREAD_MARKS_MAX), before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_watchdog_tells_where_it_hangs),
        cmocka_unit_test(test_watchdog_when_the_client_has_left),
        cmocka_unit_test(test_watchdog_names_the_model),
        cmocka_unit_test(test_watchdog_is_silent_while_idle),
        cmocka_unit_test(test_watchdog_forgives_a_stopped_machine),
        cmocka_unit_test(test_marks_of_threads_that_come_and_go),
    };
    return RUN(tests);
}
