/* A gateway over the stand-in engine of fake.h, for one test program: start, ask, stop. */
#ifndef TESTS_GATEWAY_HARNESS_H
#define TESTS_GATEWAY_HARNESS_H

#include "base/json.h"
#include "base/log.h"
#include "gateway/gateway.h"
#include "net/client.h"

#include "gateway/fake.h"

static struct gateway *gateway;
static struct engine *engine;
static pthread_t thread;
static struct arena arena;

static inline void *run(void *arg)
{
    struct error err;
    (void)arg;
    assert_int_equal(gateway_run(gateway, &err), ST_OK);
    return NULL;
}

static inline void start_with(const struct gateway_options *o)
{
    struct error err;
    log_set_level(LOG_OFF);
    fake.hold = fake.stuck = fake.delay_us = fake.frozen = 0;
    fake.queue_max = 1000;
    arena_init(&arena, 0);
    OK(engine_create(&engine, &fake_bundle, NULL, &err));
    OK(gateway_create(&gateway, engine, o, &err));
    pthread_create(&thread, NULL, run, NULL);
}

static inline int start(void **state)
{
    (void)state;
    start_with(&(struct gateway_options){.host = "127.0.0.1"});
    return 0;
}

static inline int stop(void **state)
{
    (void)state;
    gateway_drain(gateway);
    pthread_join(thread, NULL);
    engine_destroy(engine);
    gateway_destroy(gateway);
    arena_free(&arena);
    return 0;
}

/* The same with a chat template that says: calls as Hermes writes them, and reasoning. */
static inline int start_hermes(void **state)
{
    fake_bundle.template_source = STR("{{ tools }} <tool_call> </think> enable_thinking");
    return start(state);
}

static inline int stop_hermes(void **state)
{
    stop(state);
    fake_bundle.template_source = (struct str){NULL, 0};
    return 0;
}

/* One call; the answer's JSON, or NULL when it is none. The caller frees *a. */
static inline const struct json *ask(struct http1 *a, const char *method, const char *path, const char *body,
                                     const char *headers)
{
    struct error err;
    const struct json *doc = NULL;
    OK(http_call(a,
                 &(struct http_call){.host = "127.0.0.1",
                                     .port = gateway_port(gateway),
                                     .method = method,
                                     .path = path,
                                     .headers = headers,
                                     .body = str_of(body),
                                     .timeout_ms = 20000},
                 &err));
    char *kept = arena_copy(&arena, buf_str(&a->body));
    if (json_parse(&doc, &arena, str_n(kept, a->body.len), 0, &err) != ST_OK)
        return NULL;
    return doc;
}

static inline struct str text_at(const struct json *v, const char *key)
{
    return json_str(json_get(v, key));
}

static inline int count(struct str s, const char *what)
{
    int n = 0;
    for (size_t at = 0; (at = str_find(s, str_of(what), at)) != SIZE_MAX; at++)
        n++;
    return n;
}

#define CHAT(fields) "{\"messages\":[{\"role\":\"user\",\"content\":\"hello\"}]" fields "}"

/* The first member on a path of names and [indices], "choices.0.message.content". */
static inline const struct json *at(const struct json *v, const char *path)
{
    for (struct str rest = str_of(path); rest.len && v;) {
        const char *dot = memchr(rest.ptr, '.', rest.len);
        struct str name = str_n(rest.ptr, dot ? (size_t)(dot - rest.ptr) : rest.len);
        int64_t index;
        v = str_to_i64(&index, name) ? json_at(v, (size_t)index) : json_get_str(v, name);
        rest = str_from(rest, name.len + 1);
    }
    return v;
}

static inline void want_text(const struct json *doc, const char *path, const char *text)
{
    struct str got = json_str(at(doc, path));
    if (!got.ptr || !str_is(got, text))
        fail_msg("%s: got \"%.*s\", expected \"%s\"", path, STR_ARG(got.ptr ? got : STR("(nothing)")), text);
}

/* All payloads of a stream's "data: " lines, joined as a JSON array. */
static inline const struct json *events(struct str body)
{
    struct buf b = {0};
    struct error err;
    const struct json *doc;
    for (struct str rest = body, line; (line = str_next_line(&rest)).ptr;)
        if (str_starts(line, STR("data: {"))) {
            buf_append_char(&b, b.len ? ',' : '[');
            buf_append_str(&b, str_from(line, 6));
        }
    buf_append_str(&b, b.len ? STR("]") : STR("[]"));
    char *kept = arena_copy(&arena, buf_str(&b));
    OK(json_parse(&doc, &arena, str_n(kept, b.len), 0, &err));
    buf_free(&b);
    return doc;
}

#endif
