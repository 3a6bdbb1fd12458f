/* What each client sends and looks for, one test a client (docs/server.md names them; real ones are in clients.py). */
#include "test.h"

#include "gateway/harness.h"

#define USER "\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]"

static const struct json *post(struct http1 *a, const char *path, const char *body, int status)
{
    const struct json *doc = ask(a, "POST", path, body, NULL);
    if (a->status != status)
        fail_msg("%s: %d %s", body, a->status, a->body.ptr);
    return doc;
}

/* openai-python retries 429 and 5xx by retry-after; what will not change is not worth a retry and has none. */
static void test_quirk_openai_python_retries(void **state)
{
    struct http1 a;
    (void)state;
    __atomic_store_n(&fake.queue_max, 0, __ATOMIC_SEQ_CST);
    post(&a, "/v1/chat/completions", CHAT(""), 503);
    assert_true(str_is(http1_header(&a, "retry-after"), "1"));
    http1_free(&a);
    __atomic_store_n(&fake.queue_max, 1000, __ATOMIC_SEQ_CST);
    post(&a, "/v1/chat/completions", CHAT(",\"n\":0"), 400);
    assert_null(http1_header(&a, "retry-after").ptr);
    assert_true(http1_header(&a, "x-request-id").len > 0);
    http1_free(&a);
}

/* openai-node's fetch waits five minutes for headers: a stream's come before its first token. */
static bool on_body(void *ctx, struct str bytes)
{
    bool *seen = ctx;
    if (bytes.len && !*seen) { /* the role, while the engine is held back */
        *seen = true;
        assert_int_equal(fake_get(&fake.hold), 1);
        __atomic_store_n(&fake.hold, 0, __ATOMIC_SEQ_CST);
    }
    return true;
}

static void test_quirk_openai_node_wants_headers_early(void **state)
{
    struct http1 a;
    struct error err;
    bool seen = false;
    (void)state;
    __atomic_store_n(&fake.hold, 1, __ATOMIC_SEQ_CST);
    OK(http_call(&a,
                 &(struct http_call){.host = "127.0.0.1",
                                     .port = gateway_port(gateway),
                                     .method = "POST",
                                     .path = "/v1/chat/completions",
                                     .body = STR(CHAT(",\"stream\":true")),
                                     .timeout_ms = 20000,
                                     .on_body = on_body,
                                     .ctx = &seen},
                 &err));
    assert_true(seen);
    assert_true(str_is(http1_header(&a, "x-accel-buffering"), "no"));
    http1_free(&a);
}

/* LlamaIndex's OpenAILike sends chats as prompts unless told otherwise. */
static void test_quirk_llama_index_chats_as_completions(void **state)
{
    struct http1 a;
    (void)state;
    const struct json *doc = post(
        &a, "/v1/completions", "{\"prompt\":\"user: hello\\nassistant: \",\"temperature\":0.1,\"max_tokens\":4}", 200);
    want_text(doc, "choices.0.text", "w0 w1 w2 w3");
    http1_free(&a);
}

static void test_quirk_continue(void **state)
{
    struct http1 a;
    (void)state;
    post(&a, "/v1/chat/completions",
         "{" USER
         ",\"stream\":true,\"stream_options\":{\"include_usage\":true},\"max_completion_tokens\":2,\"prediction\":"
         "{\"type\":\"content\",\"content\":\"y\"},\"parallel_tool_calls\":true}",
         200);
    assert_int_equal(count(buf_str(&a.body), "\"completion_tokens\":2"), 1);
    http1_free(&a);
}

/* Aider, through LiteLLM: another num_ctx each turn; nothing is loaded anew. */
static void test_quirk_aider_changes_num_ctx(void **state)
{
    (void)state;
    for (int n = 8193; n < 20000; n += 5000) {
        struct http1 a;
        char body[200];
        snprintf(body, sizeof body, "{\"model\":\"fake\",\"stream\":false," USER ",\"options\":{\"num_ctx\":%d}}", n);
        want_text(post(&a, "/api/chat", body, 200), "message.content", "w0 w1 w2 w3 w4");
        http1_free(&a);
    }
}

static void test_quirk_open_webui(void **state)
{
    struct http1 a;
    (void)state;
    want_text(post(&a, "/api/generate", "{\"model\":\"fake\",\"prompt\":\"\",\"keep_alive\":0}", 200), "done_reason",
              "unload");
    http1_free(&a);
    ask(&a, "POST", "/api/chat", "{\"model\":\"fake:latest\"," USER "}",
        "x-openwebui-user-name: Eve\r\nx-openwebui-user-role: admin\r\n"); /* not trusted, not an error */
    assert_int_equal(a.status, 200);
    http1_free(&a);
}

static void test_quirk_claude_code(void **state)
{
    struct http1 a;
    (void)state;
    ask(&a, "POST", "/v1/messages?beta=true",
        "{\"max_tokens\":9,\"system\":[{\"type\":\"text\",\"text\":\"s\",\"cache_control\":{\"type\":\"ephemeral\"}}],"
        "\"metadata\":{\"user_id\":\"u\"},\"thinking\":{\"type\":\"enabled\",\"budget_tokens\":1024},"
        "\"context_management\":{\"edits\":[]},\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\","
        "\"text\":"
        "\"x\",\"cache_control\":{\"type\":\"ephemeral\"}}]}]}",
        "anthropic-version: 2023-06-01\r\nanthropic-beta: claude-code-20250219,interleaved-thinking-2025-05-14\r\n");
    assert_int_equal(a.status, 200);
    http1_free(&a);
    const struct json *doc = ask(&a, "GET", "/v1/models", "", "anthropic-version: 2023-06-01\r\n");
    want_text(doc, "data.0.id", "fake");
    assert_int_equal(json_type(at(doc, "has_more")), JSON_FALSE);
    http1_free(&a);
}

/* Codex: a long list of fields, and timers that only events reset (the ping of responses is one). */
static void test_quirk_codex(void **state)
{
    struct http1 a;
    (void)state;
    post(&a, "/v1/responses",
         "{\"instructions\":\"i\",\"input\":[{\"type\":\"message\",\"role\":\"user\",\"content\":[{\"type\":\"input_"
         "text\","
         "\"text\":\"x\"}]}],\"tools\":[],\"tool_choice\":\"auto\",\"parallel_tool_calls\":false,\"reasoning\":null,"
         "\"store\":false,\"stream\":true,\"include\":[\"reasoning.encrypted_content\"],\"prompt_cache_key\":\"k\","
         "\"text\":{\"verbosity\":\"low\"}}",
         200);
    assert_int_equal(count(buf_str(&a.body), "event: response.completed"), 1);
    http1_free(&a);
}

struct silence {
    const char *ping;
    struct buf seen;
    int pings; /* that the answer held before time jumped */
    bool jumped, pinged;
};

/* The stream has begun: eleven seconds pass. When the ping has come, the engine goes on. */
static bool on_silence(void *ctx, struct str bytes)
{
    struct silence *s = ctx;
    buf_append_str(&s->seen, bytes);
    if (!s->jumped) {
        s->jumped = true;
        s->pings = count(buf_str(&s->seen), s->ping);
        clock_jump(11000000000, 0);
    } else if (!s->pinged && count(buf_str(&s->seen), s->ping) > s->pings) {
        s->pinged = true;
        __atomic_store_n(&fake.hold, 0, __ATOMIC_SEQ_CST);
    }
    return true;
}

/* Silence of ten seconds: a comment in chats, events where clients count only those, an empty line of Ollama's. */
static bool keep(void *ctx, struct str bytes)
{
    buf_append_str(ctx, bytes);
    return true;
}

static void test_quirk_pings(void **state)
{
    static const struct {
        const char *path, *body, *ping;
    } rows[] = {
        {"/v1/chat/completions", "{" USER ",\"stream\":true}", ": ping\n\n"},
        {"/v1/messages", "{\"max_tokens\":5," USER ",\"stream\":true}", "event: ping\ndata: {\"type\":\"ping\"}\n\n"},
        {"/v1/responses", "{\"input\":\"x\",\"stream\":true}", "event: response.in_progress\n"},
    };
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        struct silence s = {.ping = rows[i].ping};
        struct http1 a;
        struct error err;
        __atomic_store_n(&fake.hold, 1, __ATOMIC_SEQ_CST);
        OK(http_call(&a,
                     &(struct http_call){.host = "127.0.0.1",
                                         .port = gateway_port(gateway),
                                         .method = "POST",
                                         .path = rows[i].path,
                                         .body = str_of(rows[i].body),
                                         .timeout_ms = 60000,
                                         .on_body = on_silence,
                                         .ctx = &s},
                     &err));
        assert_true(s.pinged);
        assert_true(count(buf_str(&s.seen), "w4") >= 1);
        clock_jump(0, 0);
        buf_free(&s.seen);
        http1_free(&a);
    }
}

/* Some protocols say nothing before the first token: that alone is no silence. */
static void test_quirk_no_ping_without_silence(void **state)
{
    static const struct {
        const char *path, *body;
    } rows[] = {{"/v1/completions", "{\"prompt\":\"a\",\"stream\":true}"},
                {"/api/generate", "{\"model\":\"fake\",\"prompt\":\"a\"}"}};
    (void)state;
    __atomic_store_n(&fake.hold, 1, __ATOMIC_SEQ_CST);
    for (size_t i = 0; i < 2; i++) {
        struct buf seen = {0};
        struct http1 a;
        struct error err;
        assert_int_equal(http_call(&a,
                                   &(struct http_call){.host = "127.0.0.1",
                                                       .port = gateway_port(gateway),
                                                       .method = "POST",
                                                       .path = rows[i].path,
                                                       .body = str_of(rows[i].body),
                                                       .timeout_ms = 500,
                                                       .on_body = keep,
                                                       .ctx = &seen},
                                   &err),
                         ST_TIMEOUT);
        assert_int_equal(seen.len, 0);
        buf_free(&seen);
    }
    __atomic_store_n(&fake.hold, 0, __ATOMIC_SEQ_CST);
}

int main(void)
{
#define ON_SERVER(test) cmocka_unit_test_setup_teardown(test, start, stop)
    const struct CMUnitTest tests[] = {
        ON_SERVER(test_quirk_openai_python_retries),
        ON_SERVER(test_quirk_openai_node_wants_headers_early),
        ON_SERVER(test_quirk_llama_index_chats_as_completions),
        ON_SERVER(test_quirk_continue),
        ON_SERVER(test_quirk_aider_changes_num_ctx),
        ON_SERVER(test_quirk_open_webui),
        ON_SERVER(test_quirk_claude_code),
        ON_SERVER(test_quirk_codex),
        ON_SERVER(test_quirk_pings),
        ON_SERVER(test_quirk_no_ping_without_silence),
    };
    return RUN(tests);
}
