/* Keys of many clients: read from a file, each a tenant with a share, a priority, a salt and responses of its own; some
 * may change what is served; read again at SIGHUP, and never half.
 */
#include "test.h"

#include "base/fault.h"
#include "base/sha256.h"

#include "gateway/harness.h"
#include "hosting/hosting.h"

#include <signal.h>
#include <stdio.h>

static char path[] = "/tmp/ingot-keys-XXXXXX";
static struct gateway_keys *keys;
static struct error err;

static void write_keys(const char *text)
{
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static const char first_keys[] = "keys:\n"
                                 "- {name: alice, key: secret-of-alice, weight: 2.5, priority: -3}\n"
                                 "- {name: bob, sha256: \"@\"}\n"
                                 "- {name: alice, key: next-of-alice, weight: 2.5, priority: -3}\n";

/* text with bob's hash for its @ */
static void write_with_bob(const char *text)
{
    uint8_t digest[SHA256_BYTES];
    char hex[SHA256_TEXT], whole[2000];
    const char *at = strchr(text, '@');
    assert_true(sha256_of(digest, STR("secret-of-bob")));
    sha256_text(hex, digest);
    snprintf(whole, sizeof whole, "%.*s%s%s", (int)(at - text), text, hex, at + 1);
    write_keys(whole);
}

static int start_keys(void **state)
{
    (void)state;
    write_with_bob(first_keys);
    OK(gateway_keys_open(&keys, path, &err));
    start_with(&(struct gateway_options){.host = "127.0.0.1", .keys = keys, .signals = true});
    return 0;
}

static int stop_keys(void **state)
{
    stop(state);
    gateway_keys_close(keys);
    return 0;
}

#define AS(key) "Authorization: Bearer " key "\r\n"

static int post_as(const char *headers, const char *url, const char *body)
{
    struct http1 a;
    ask(&a, "POST", url, body, headers);
    int status = a.status;
    http1_free(&a);
    return status;
}

static int chat_as(const char *headers, const char *fields)
{
    char body[300];
    snprintf(body, sizeof body, "{\"messages\":[{\"role\":\"user\",\"content\":\"hello\"}]%s}", fields);
    return post_as(headers, "/v1/chat/completions", body);
}

static void test_each_client_is_a_tenant(void **state)
{
    (void)state;
    assert_int_equal(chat_as(AS("secret-of-alice"), ""), 200);
    uint64_t alice = fake.tenant;
    assert_int_not_equal(alice, 0);
    assert_string_equal(fake.salt, "alice|");
    assert_int_equal(fake.priority, 3);
    assert_true(gateway_keys_weight(keys, alice) == 2.5);
    assert_int_equal(chat_as("x-api-key: secret-of-bob\r\n", ",\"cache_salt\":\"x\""), 200);
    assert_int_not_equal(fake.tenant, alice);
    assert_string_equal(fake.salt, "bob|x");
    assert_int_equal(fake.priority, 0);
    assert_true(gateway_keys_weight(keys, fake.tenant) == 1);
    assert_int_equal(chat_as(AS("next-of-alice"), ",\"cache_salt\":\"bob\""), 200); /* another key, the same tenant */
    assert_int_equal(fake.tenant, alice);
    assert_string_equal(fake.salt, "alice|bob");
    assert_true(gateway_keys_weight(keys, 99) == 1);
    assert_int_equal(chat_as("", ""), 401);
    assert_int_equal(chat_as(AS("secret-of-alic"), ""), 401);
    assert_int_equal(chat_as(AS("secret-of-alicf"), ""), 401);
    assert_int_equal(chat_as(AS(""), ""), 401);
}

static void test_embeddings_are_of_a_tenant_too(void **state)
{
    (void)state;
    assert_int_equal(chat_as(AS("secret-of-alice"), ""), 200);
    uint64_t alice = fake.tenant;
    __atomic_store_n(&fake.task, TASK_EMBED, __ATOMIC_SEQ_CST);
    assert_int_equal(post_as(AS("secret-of-bob"), "/v1/embeddings", "{\"input\":\"ab\"}"), 200);
    uint64_t bob = fake.tenant;
    assert_int_not_equal(bob, alice);
    assert_int_equal(post_as(AS("secret-of-alice"), "/api/embed", "{\"input\":\"ab\"}"), 200);
    assert_int_equal(fake.tenant, alice);
    __atomic_store_n(&fake.task, TASK_SCORE, __ATOMIC_SEQ_CST);
    assert_int_equal(post_as(AS("secret-of-bob"), "/v1/rerank", "{\"query\":\"q\",\"documents\":[\"a\"]}"), 200);
    assert_int_equal(fake.tenant, bob);
    __atomic_store_n(&fake.task, TASK_GENERATE, __ATOMIC_SEQ_CST);
}

static void test_responses_belong_to_their_tenant(void **state)
{
    struct http1 a;
    char target[200], more[300];
    (void)state;
    const struct json *doc = ask(&a, "POST", "/v1/responses", "{\"input\":\"hello\"}", AS("secret-of-alice"));
    assert_int_equal(a.status, 200);
    snprintf(target, sizeof target, "/v1/responses/%.*s", STR_ARG(text_at(doc, "id")));
    snprintf(more, sizeof more, "{\"input\":\"more\",\"previous_response_id\":\"%.*s\"}", STR_ARG(text_at(doc, "id")));
    http1_free(&a);
    const struct {
        const char *method, *target, *body, *key;
        int status;
    } calls[] = {{"GET", target, "", AS("secret-of-bob"), 404},
                 {"POST", "/v1/responses", more, AS("secret-of-bob"), 404},
                 {"DELETE", target, "", AS("secret-of-bob"), 404},
                 {"GET", target, "", AS("next-of-alice"), 200},
                 {"POST", "/v1/responses", more, AS("secret-of-alice"), 200},
                 {"DELETE", target, "", AS("secret-of-alice"), 200},
                 {"GET", target, "", AS("secret-of-alice"), 404}};
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
        ask(&a, calls[i].method, calls[i].target, calls[i].body, calls[i].key);
        if (a.status != calls[i].status)
            fail_msg("call %zu: %d instead of %d", i, a.status, calls[i].status);
        http1_free(&a);
    }
}

/* While it is being made: nobody else sees it, its input or its events, or ends it. */
static void test_background_responses_belong_to_their_tenant(void **state)
{
    struct http1 a;
    char targets[4][200];
    static const char *const tails[] = {"", "/input_items", "?stream=true", "/cancel"};
    (void)state;
    __atomic_store_n(&fake.hold, 1, __ATOMIC_SEQ_CST);
    const struct json *doc =
        ask(&a, "POST", "/v1/responses", "{\"input\":\"hello\",\"background\":true}", AS("secret-of-alice"));
    assert_int_equal(a.status, 200);
    for (int i = 0; i < 4; i++)
        snprintf(targets[i], sizeof targets[i], "/v1/responses/%.*s%s", STR_ARG(text_at(doc, "id")), tails[i]);
    http1_free(&a);
    for (int i = 0; i < 8; i++) {
        static const int own[] = {200, 200, 400, 200}; /* it was not made to be streamed */
        int k = i % 4;
        ask(&a, k == 3 ? "POST" : "GET", targets[k], "", i < 4 ? AS("secret-of-bob") : AS("next-of-alice"));
        if (a.status != (i < 4 ? 404 : own[k]))
            fail_msg("%s, %s: %d", targets[k], i < 4 ? "bob" : "alice", a.status);
        http1_free(&a);
    }
    __atomic_store_n(&fake.hold, 0, __ATOMIC_SEQ_CST);
}

static bool answers(const char *headers, int status)
{
    for (int i = 0; i < 2000; i++, usleep(1000))
        if (chat_as(headers, "") == status)
            return true;
    return false;
}

static void test_a_hangup_reads_them_again(void **state)
{
    (void)state;
    assert_int_equal(chat_as(AS("secret-of-alice"), ""), 200);
    uint64_t alice = fake.tenant;
    write_keys("keys:\n- {name: carol, key: secret-of-carol}\n- {name: alice, key: next-of-alice, weight: 7}\n");
    kill(getpid(), SIGHUP);
    assert_true(answers(AS("secret-of-carol"), 200));
    assert_int_equal(chat_as(AS("secret-of-alice"), ""), 401);
    assert_int_equal(chat_as(AS("secret-of-bob"), ""), 401);
    assert_int_equal(chat_as(AS("next-of-alice"), ""), 200);
    assert_int_equal(fake.tenant, alice); /* the same tenant as before */
    assert_int_equal(fake.priority, 0);
    assert_true(gateway_keys_weight(keys, alice) == 7);
    write_keys("keys:\n- {name: carol, key: secret-of-carol}\n- {name: dave}\n");
    kill(getpid(), SIGHUP);
    usleep(100000);
    assert_int_equal(chat_as(AS("next-of-alice"), ""), 200); /* a broken file changes nothing */
}

/* ---- who may change what is served ---- */

static struct hosting *hosting;
static struct bundle other;

static enum status measure(void *ctx, uint64_t *bytes, const struct hosting_model *m, struct error *e)
{
    (void)ctx, (void)m, (void)e;
    *bytes = 1;
    return ST_OK;
}

static enum status open_other(void *ctx, struct hosted_parts *out, const struct hosting_model *m, struct error *e)
{
    (void)ctx, (void)m;
    other = fake_bundle;
    *out = (struct hosted_parts){.bundle = &other, .bytes = 1};
    return engine_create(&out->engine, &other, NULL, e);
}

static void close_other(void *ctx, struct hosted_parts *p)
{
    (void)ctx;
    engine_destroy(p->engine);
}

static int start_admins(void **state)
{
    static const struct hosting_maker maker = {.measure = measure, .open = open_other, .close = close_other};
    (void)state;
    write_with_bob("keys:\n- {name: alice, key: secret-of-alice, admin: true}\n- {name: bob, sha256: \"@\"}\n");
    OK(gateway_keys_open(&keys, path, &err));
    OK(hosting_create(&hosting, &(struct hosting_options){.maker = &maker}, &err));
    OK(hosting_add(hosting, &(struct hosting_model){.name = "other", .path = "other"}, &err));
    start_with(&(struct gateway_options){.host = "127.0.0.1",
                                         .keys = keys,
                                         .api_key = "one-more",
                                         .signals = true,
                                         .hosting = hosting,
                                         .runtime_loading = true});
    return 0;
}

static int stop_admins(void **state)
{
    stop_keys(state);
    hosting_destroy(hosting);
    return 0;
}

static void expect(const char *method, const char *target, const char *body, const char *headers, int status,
                   const char *says)
{
    struct http1 a;
    ask(&a, method, target, body, headers);
    if (a.status != status || !count(buf_str(&a.body), says))
        fail_msg("%s %s %s: %d %.*s", target, body, headers, a.status, (int)a.body.len, a.body.ptr);
    http1_free(&a);
}

static void test_admins_change_what_is_served(void **state)
{
    static const struct {
        const char *method, *target, *body;
        int admin; /* what one gets who may: most is not there */
    } calls[] = {{"POST", "/v1/models/load", "{\"model\":\"x\"}", 404},
                 {"POST", "/v1/models/unload", "{\"model\":\"x\"}", 404},
                 {"POST", "/v1/load_lora_adapter", "{\"lora_name\":\"x\"}", 400},
                 {"POST", "/v1/unload_lora_adapter", "{\"lora_name\":\"x\"}", 404},
                 {"POST", "/api/copy", "{\"source\":\"x\",\"destination\":\"y\"}", 404},
                 {"POST", "/api/create", "{\"model\":\"y\",\"from\":\"x\",\"stream\":false}", 404},
                 {"DELETE", "/api/delete", "{\"model\":\"x\"}", 404}};
    static const char ollama[] = "{\"error\":\"the key of bob may not", openai[] = "\"type\":\"permission_error\"";
    (void)state;
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
        bool is_ollama = !strncmp(calls[i].target, "/api/", 5);
        expect(calls[i].method, calls[i].target, calls[i].body, AS("secret-of-bob"), 403, is_ollama ? ollama : openai);
        expect(calls[i].method, calls[i].target, calls[i].body, AS("secret-of-bob"), 403, "lacks admin: true");
        expect(calls[i].method, calls[i].target, calls[i].body, AS("one-more"), 403, "the key of --api-key may not");
        expect(calls[i].method, calls[i].target, calls[i].body, AS("secret-of-alice"), calls[i].admin, "error");
    }
    expect("POST", "/api/show", "{\"model\":\"x\"}", AS("secret-of-bob"), 404, "not found"); /* a look is free */
    expect("POST", "/api/pull", "{\"model\":\"other\"}", AS("secret-of-bob"), 200, "success");
    write_keys("keys:\n- {name: bob, key: next-of-bob, admin: true}\n- {name: alice, key: secret-of-alice}\n");
    kill(getpid(), SIGHUP);
    assert_true(answers(AS("next-of-bob"), 200));
    expect("POST", "/v1/models/unload", "{\"model\":\"x\"}", AS("next-of-bob"), 404, "no model x");
    expect("POST", "/v1/models/unload", "{\"model\":\"x\"}", AS("secret-of-alice"), 403, "the key of alice");
}

static void see_other(void *ctx, const struct hosting_row *row)
{
    *(struct hosting_row *)ctx = *row;
}

/* Ollama's way to unload, and to say how long a model stays. */
static void test_admins_say_how_long_models_stay(void **state)
{
    static const char *const who[] = {AS("secret-of-bob"), AS("secret-of-alice")};
    static const char generate[] = "{\"model\":\"other\",\"prompt\":\"hello\",\"stream\":false,\"keep_alive\":1000}";
    struct hosting_row row;
    (void)state;
    for (int i = 0; i < 2; i++) {
        expect("POST", "/api/generate", generate, who[i], 200, "\"done\":true");
        hosting_each(hosting, see_other, &row);
        for (int k = 0; k < 5000 && row.n_lease; k++, usleep(1000)) /* the lease ends a moment after the answer */
            hosting_each(hosting, see_other, &row);
        assert_int_equal(row.n_lease, 0);
        assert_int_equal(row.expires_ns != 0, i);
    }
    expect("POST", "/api/generate", "{\"model\":\"other\"}", who[0], 200, "\"load\"");
    expect("POST", "/api/generate", "{\"model\":\"other\",\"keep_alive\":0}", who[0], 403, "the key of bob");
    expect("POST", "/api/generate", "{\"model\":\"other\",\"keep_alive\":0}", who[1], 200, "\"unload\"");
}

static void test_what_the_file_may_say(void **state)
{
    static const struct {
        const char *text, *why;
    } bad[] = {{"", "expected a list"},
               {"keys: []\n", "expected a list"},
               {"keys: {}\n", "expected a list"},
               {"keys:\n- {name: a, key: k}\n- {key: k2}\n", "keys[1]: name: expected 1 to"},
               {"keys:\n- {name: a}\n", "either key or sha256"},
               {"keys:\n- {name: a, key: k, sha256: \"00\"}\n", "either key or sha256"},
               {"keys:\n- {name: a, sha256: \"00\"}\n", "64 hexadecimal digits"},
               {"keys:\n- {name: a, key: 1234}\n", "key: expected a text, quoted"},
               {"keys:\n- {name: a, key: k, weight: 0}\n", "weight: expected a number above 0"},
               {"keys:\n- {name: a, key: k, weight: \"2\"}\n", "weight: expected a number"},
               {"keys:\n- {name: a, key: k, priority: 1.5}\n", "priority: expected a whole number"},
               {"keys:\n- {name: a, key: k, priority: 9999999}\n", "priority: expected -1000000 to"},
               {"keys:\n- {name: a, key: k, admin: 1}\n", "admin: expected true or false"},
               {"keys:\n- {name: a, key: k, colour: red}\n", "unknown member colour"},
               {"keys:\n- {name: a, key: k}\n- {name: b, key: k}\n", "keys[1]: the key is a's already"},
               {"keys:\n- {name: a, key: k}\n- {name: a, key: l, weight: 2}\n", "a has another weight"},
               {"keys:\n- {name: a, key: k, admin: true}\n- {name: a, key: l}\n", "priority or admin above"},
               {"keys:\n- a\n", "name: expected"},
               {"keys: [", "line"}};
    struct gateway_keys *k;
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        write_keys(bad[i].text);
        enum status st = gateway_keys_open(&k, path, &err);
        if (st == ST_OK || !strstr(err.text, bad[i].why) || !strstr(err.text, path))
            fail_msg("%s: got \"%s\", expected \"%s\"", bad[i].text, st == ST_OK ? "ok" : err.text, bad[i].why);
        assert_null(k);
    }
    FAILS(ST_NOT_FOUND, gateway_keys_open(&k, "/nonexistent/keys", &err));
}

static void test_a_file_cut_anywhere_and_failing_memory(void **state)
{
    char text[sizeof first_keys];
    struct gateway_keys *k;
    int n_ok = 0;
    (void)state;
    for (size_t n = 0; n < sizeof first_keys; n++) {
        snprintf(text, n + 1, "%s", first_keys);
        write_keys(text);
        n_ok += gateway_keys_open(&k, path, &err) == ST_OK;
        gateway_keys_close(k);
    }
    assert_in_range(n_ok, 1, 3); /* the first line whole, and to where the second begins */
    write_with_bob(first_keys);
    bool done = false;
    for (uint64_t n = 1; !done; n++) {
        fault_arm(FAULT_ALLOC, n);
        enum status st = gateway_keys_open(&k, path, &err);
        done = !fault_fired();
        fault_disarm();
        assert_int_equal(st == ST_OK, done);
        gateway_keys_close(k);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_each_client_is_a_tenant, start_keys, stop_keys),
        cmocka_unit_test_setup_teardown(test_embeddings_are_of_a_tenant_too, start_keys, stop_keys),
        cmocka_unit_test_setup_teardown(test_responses_belong_to_their_tenant, start_keys, stop_keys),
        cmocka_unit_test_setup_teardown(test_background_responses_belong_to_their_tenant, start_keys, stop_keys),
        cmocka_unit_test_setup_teardown(test_a_hangup_reads_them_again, start_keys, stop_keys),
        cmocka_unit_test_setup_teardown(test_admins_change_what_is_served, start_admins, stop_admins),
        cmocka_unit_test_setup_teardown(test_admins_say_how_long_models_stay, start_admins, stop_admins),
        cmocka_unit_test(test_what_the_file_may_say),
        cmocka_unit_test(test_a_file_cut_anywhere_and_failing_memory),
    };
    int fd = mkstemp(path);
    close(fd);
    int failed = RUN(tests);
    unlink(path);
    return failed;
}
