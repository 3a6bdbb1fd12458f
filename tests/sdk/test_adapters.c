/* test_adapters - adapters of the library: chosen a stream and a session, unloaded while in use, refused, out of memory
 */
#include "sdk/sdk_test.h"

#include <stdio.h>

static const char *const base = TEST_DIR "/golden/lora/qwen2";
static const char *const all = TEST_DIR "/golden/lora/all", *const some = TEST_DIR "/golden/lora/some";
static ingot_model *model;

static int set_up(void **state)
{
    (void)state;
    ingot_model_options o;
    INGOT_INIT(o);
    o.threads = 2;
    o.exact = 1;
    GOOD(ingot_model_open(&model, base, &o, &error));
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    ingot_model_close(model);
    return 0;
}

enum { LENGTH = 12 };
struct answer {
    int32_t ids[LENGTH];
    int n;
};

static int on_token(void *ctx, const ingot_token *t)
{
    struct answer *a = ctx;
    if (t->id >= 0)
        a->ids[a->n++] = t->id;
    return 0;
}

static int start(ingot_stream **out, const char *adapter, struct answer *a)
{
    static const int32_t ids[] = {3, 17, 60, 1, 33, 42, 8, 25, 50, 11, 2}; /* of the goldens */
    ingot_sampling s;
    ingot_request r;
    ingot_sampling_init(&s);
    INGOT_INIT(r);
    s.temperature = 0;
    s.max_tokens = LENGTH;
    r.ids = ids;
    r.n_id = sizeof ids / sizeof *ids;
    r.sampling = &s;
    r.on_token = on_token;
    r.ctx = a;
    r.adapter = adapter;
    a->n = 0;
    return ingot_stream_start(out, model, &r, &error);
}

static struct answer ask(const char *adapter)
{
    struct answer a;
    ingot_stream *stream;
    GOOD(start(&stream, adapter, &a));
    GOOD(ingot_stream_wait(stream, NULL, &error));
    ingot_stream_close(stream);
    assert_int_equal(a.n, LENGTH);
    return a;
}

static void test_each_stream_has_its_own(void **state)
{
    (void)state;
    static const char *const names[] = {NULL, "all", "a name of mine"};
    struct answer alone[3], together[9];
    ingot_stream *streams[9];
    char prints[3][65];
    GOOD(ingot_adapter_load(model, "all", all, &error));
    GOOD(ingot_adapter_load(model, "a name of mine", some, &error));
    for (int i = 0; i < 3; i++)
        alone[i] = ask(names[i]);
    for (int i = 0; i < 3; i++)
        assert_true(memcmp(&alone[i], &alone[(i + 1) % 3], sizeof *alone) != 0);
    for (int i = 0; i < 9; i++)
        GOOD(start(&streams[i], names[i % 3], &together[i]));
    for (int i = 0; i < 9; i++) {
        GOOD(ingot_stream_wait(streams[i], NULL, &error));
        ingot_stream_close(streams[i]);
        assert_memory_equal(&together[i], &alone[i % 3], sizeof *alone);
    }
    GOOD(ingot_model_fingerprint(model, prints[0], &error));
    GOOD(ingot_adapter_fingerprint(model, names[1], prints[1], &error));
    GOOD(ingot_adapter_fingerprint(model, names[2], prints[2], &error));
    for (int i = 0; i < 3; i++)
        assert_string_not_equal(prints[i], prints[(i + 1) % 3]);
    GOOD(ingot_adapter_unload(model, names[2], &error));
    BAD(INGOT_NOT_FOUND, "a name of mine", start(&streams[0], names[2], &together[0]));
    assert_null(streams[0]);
    BAD(INGOT_NOT_FOUND, "a name of mine", ingot_adapter_fingerprint(model, names[2], prints[2], &error));
    BAD(INGOT_NOT_FOUND, "a name of mine", ingot_adapter_unload(model, names[2], &error));
    GOOD(ingot_adapter_unload(model, "all", &error));
}

/* Unloaded, and another loaded under its name, while streams that began with it run. */
static void test_streams_keep_what_they_began_with(void **state)
{
    (void)state;
    struct answer want, got[8];
    ingot_stream *streams[8];
    GOOD(ingot_adapter_load(model, "x", all, &error));
    want = ask("x");
    for (int i = 0; i < 8; i++)
        GOOD(start(&streams[i], "x", &got[i]));
    GOOD(ingot_adapter_unload(model, "x", &error));
    GOOD(ingot_adapter_load(model, "x", some, &error));
    for (int i = 0; i < 8; i++) {
        GOOD(ingot_stream_wait(streams[i], NULL, &error));
        ingot_stream_close(streams[i]);
        assert_memory_equal(&got[i], &want, sizeof want);
    }
    struct answer other = ask("x");
    assert_true(memcmp(&other, &want, sizeof want) != 0);
    GOOD(ingot_adapter_unload(model, "x", &error));
}

static void test_what_is_refused(void **state)
{
    (void)state;
    char name[300];
    ingot_model *m;
    ingot_model_options o;
    memset(name, 'n', sizeof name);
    name[sizeof name - 1] = 0;
    BAD(INGOT_NOT_FOUND, "adapter_config.json", ingot_adapter_load(model, "x", base, &error));
    BAD(INGOT_INVALID, "name of 1 to 255", ingot_adapter_load(model, "", all, &error));
    BAD(INGOT_INVALID, "name of 1 to 255", ingot_adapter_load(model, name, all, &error));
    BAD(INGOT_INVALID, "name of 1 to 255", ingot_adapter_load(model, NULL, all, &error));
    GOOD(ingot_adapter_load(model, name + 44, all, &error));
    BAD(INGOT_INVALID, "loaded already", ingot_adapter_load(model, name + 44, some, &error));
    GOOD(ingot_adapter_unload(model, name + 44, &error));
    GOOD(ingot_model_open(&m, storyteller, NULL, &error));
    assert_true(ingot_adapter_load(m, "x", all, &error) != INGOT_OK); /* made for another model */
    ingot_model_close(m);
    INGOT_INIT(o);
    o.pooling = "mean";
    GOOD(ingot_model_open(&m, base, &o, &error));
    BAD(INGOT_UNSUPPORTED, "generate", ingot_adapter_load(m, "x", all, &error));
    ingot_model_close(m);
}

/* The model is closed with one loaded; a session keeps one that is unloaded. */
static void test_sessions(void **state)
{
    (void)state;
    ingot_model *m;
    ingot_session *session;
    GOOD(ingot_model_open(&m, base, NULL, &error));
    GOOD(ingot_adapter_load(m, "x", all, &error));
    GOOD(ingot_session_open(&session, m, NULL, &error));
    GOOD(ingot_session_adapter(session, "x", &error));
    BAD(INGOT_NOT_FOUND, "\"y\"", ingot_session_adapter(session, "y", &error));
    GOOD(ingot_adapter_unload(m, "x", &error));
    BAD(INGOT_NOT_FOUND, "\"x\"", ingot_session_adapter(session, "x", &error));
    GOOD(ingot_adapter_load(m, "x", some, &error));
    ingot_model_close(m);
    assert_true(ingot_session_say(session, "Hi", NULL, NULL, NULL, NULL, &error) != INGOT_OK); /* no tokenizer */
    GOOD(ingot_session_adapter(session, NULL, &error));
    ingot_session_close(session);
}

static void *load_and_unload(void *arg)
{
    char name[32];
    for (int i = 0; i < 12; i++) {
        struct answer a;
        ingot_stream *stream;
        snprintf(name, sizeof name, "%d", ((int)(intptr_t)arg + i) % 3);
        ingot_adapter_load(model, name, i % 2 ? all : some, NULL); /* another thread may have it loaded */
        if (start(&stream, name, &a) == INGOT_OK)
            ingot_stream_close(stream);
        ingot_adapter_unload(model, name, NULL);
    }
    return NULL;
}

static void test_many_threads(void **state)
{
    (void)state;
    struct answer a;
    ingot_stream *stream;
    run_threads(4, load_and_unload);
    for (char name[] = "0"; *name <= '2'; ++*name)
        BAD(INGOT_NOT_FOUND, name, start(&stream, name, &a));
}

static void test_lack_of_memory_is_told(void **state)
{
    (void)state;
    int n = 0;
    for (bool fired = true; fired;) {
        fault_arm(FAULT_ALLOC, (uint64_t)++n);
        int status = ingot_adapter_load(model, "x", all, &error);
        if (status == INGOT_OK)
            ingot_adapter_unload(model, "x", NULL);
        fired = fault_fired();
        fault_disarm();
        assert_int_equal(status, fired ? INGOT_NOMEM : INGOT_OK);
        assert_in_range(n, 1, 400);
    }
    assert_true(n > 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_stream_has_its_own),
        cmocka_unit_test(test_streams_keep_what_they_began_with),
        cmocka_unit_test(test_what_is_refused),
        cmocka_unit_test(test_sessions),
        cmocka_unit_test(test_many_threads),
        cmocka_unit_test(test_lack_of_memory_is_told),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
