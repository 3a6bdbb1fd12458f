/* Ollama's routes over the stand-in engine: lines of JSON, counts, calls whole, and what its clients look for. */
#include "test.h"

#include "gateway/harness.h"

#define CALL  "<think>hm</think>Ok.<tool_call>{\\\"name\\\": \\\"f\\\", \\\"arguments\\\": {\\\"n\\\": 1}}</tool_call>"
#define TOOLS "\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"parameters\":{\"type\":\"object\"}}}]"

static const struct json *lines(struct str body)
{
    struct buf b = {0};
    for (struct str rest = body, line; (line = str_next_line(&rest)).ptr;)
        if (line.len)
            buf_printf(&b, "data: %.*s\n", (int)line.len, line.ptr);
    const struct json *doc = events(buf_str(&b));
    buf_free(&b);
    return doc;
}

static void test_ollama_chat_streams_by_itself(void **state)
{
    struct http1 a;
    struct buf text = {0}, thought = {0};
    (void)state;
    ask(&a, "POST", "/api/chat",
        "{\"model\":\"fake:latest\",\"messages\":[{\"role\":\"user\",\"content\":\"SAY " CALL "\"}]," TOOLS "}", NULL);
    assert_true(str_is(http1_header(&a, "content-type"), "application/x-ndjson"));
    const struct json *list = lines(buf_str(&a.body)), *last = json_at(list, json_count(list) - 1);
    int calls = 0;
    JSON_EACH (e, list) {
        want_text(e, "model", "fake:latest");
        want_text(e, "message.role", "assistant");
        buf_append_str(&text, json_str(at(e, "message.content")));
        if (at(e, "message.thinking"))
            buf_append_str(&thought, json_str(at(e, "message.thinking")));
        if (at(e, "message.tool_calls")) {
            calls++;
            want_text(e, "message.tool_calls.0.function.name", "f");
            assert_int_equal(json_int(at(e, "message.tool_calls.0.function.arguments.n"), -1), 1); /* an object */
        }
        assert_int_equal(json_type(json_get(e, "done")), e == last ? JSON_TRUE : JSON_FALSE);
    }
    assert_int_equal(calls, 1);
    assert_true(str_is(buf_str(&text), "Ok.") && str_is(buf_str(&thought), "hm"));
    want_text(last, "done_reason", "stop");
    assert_true(json_int(json_get(last, "total_duration"), 0) > 1000);
    assert_true(json_int(json_get(last, "prompt_eval_count"), 0) > 10 &&
                json_int(json_get(last, "eval_count"), 0) > 10);
    struct str when = json_str(json_get(last, "created_at"));
    assert_int_equal(when.len, 30); /* 2026-01-31T12:00:00.123456789Z */
    buf_free(&text);
    buf_free(&thought);
    http1_free(&a);
}

static void test_ollama_whole(void **state)
{
    struct http1 a;
    (void)state;
    const struct json *doc =
        ask(&a, "POST", "/api/chat",
            "{\"stream\":false,\"messages\":[{\"role\":\"user\",\"content\":\"SAY " CALL "\"}]," TOOLS "}", NULL);
    want_text(doc, "message.content", "Ok.");
    want_text(doc, "message.thinking", "hm");
    want_text(doc, "message.tool_calls.0.function.name", "f");
    http1_free(&a);
    doc = ask(&a, "POST", "/api/generate",
              "{\"model\":\"fake\",\"stream\":false,\"system\":\"s\",\"prompt\":\"p\",\"options\":{\"num_predict\":2,"
              "\"temperature\":0,\"num_ctx\":4096,\"stop\":[\"zz\"]},\"keep_alive\":\"5m\"}",
              NULL);
    want_text(doc, "response", "w0 w1");
    want_text(doc, "done_reason", "length");
    assert_int_equal(json_int(at(doc, "prompt_eval_count"), -1), 4);
    assert_int_equal(json_int(at(doc, "eval_count"), -1), 2);
    http1_free(&a);
    doc = ask(&a, "POST", "/api/generate", "{\"stream\":false,\"raw\":true,\"prompt\":\"ab\"}", NULL);
    assert_int_equal(json_int(at(doc, "prompt_eval_count"), -1), 3); /* BOS and two bytes: no template */
    want_text(doc, "response", "w0 w1 w2 w3 w4");
    http1_free(&a);
}

static void test_ollama_load_and_unload(void **state)
{
    static const struct {
        const char *path, *body, *reason;
    } rows[] = {{"/api/generate", "{\"model\":\"fake\"}", "load"},
                {"/api/generate", "{\"model\":\"fake\",\"keep_alive\":\"1h30m\"}", "load"},
                {"/api/chat", "{\"model\":\"fake\",\"messages\":[],\"keep_alive\":-1}", "load"},
                {"/api/generate", "{\"model\":\"fake\",\"prompt\":\"\",\"keep_alive\":0}", "unload"},
                {"/api/chat", "{\"model\":\"fake\",\"messages\":[],\"keep_alive\":\"0\"}", "unload"},
                {"/api/chat", "{\"model\":\"fake\",\"messages\":[],\"keep_alive\":\"0s\"}", "unload"},
                {"/api/generate", "{\"model\":\"fake\",\"keep_alive\":\"5x\"}", NULL},
                {"/api/generate", "{\"model\":\"fake\",\"keep_alive\":true}", NULL}};
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct http1 a;
        const struct json *doc = ask(&a, "POST", rows[i].path, rows[i].body, NULL);
        if (!rows[i].reason) {
            assert_int_equal(a.status, 400);
            assert_int_equal(count(json_str(at(doc, "error")), "keep_alive"), 1);
            http1_free(&a);
            continue;
        }
        assert_int_equal(a.status, 200);
        want_text(doc, "done_reason", rows[i].reason);
        assert_int_equal(json_type(at(doc, "done")), JSON_TRUE);
        http1_free(&a);
    }
}

static void test_ollama_models(void **state)
{
    struct http1 a;
    int major = 0, minor = 0, patch = 0;
    (void)state;
    const struct json *doc = ask(&a, "GET", "/api/version", "", NULL);
    struct str version = json_str(at(doc, "version"));
    char text[32];
    snprintf(text, sizeof text, "%.*s", (int)version.len, version.ptr);
    assert_int_equal(sscanf(text, "%d.%d.%d", &major, &minor, &patch), 3); /* Open WebUI splits it at the dots */
    http1_free(&a);
    doc = ask(&a, "GET", "/api/tags", "", NULL);
    want_text(doc, "models.0.name", "fake:latest");
    want_text(doc, "models.0.details.format", "gguf");
    http1_free(&a);
    doc = ask(&a, "GET", "/api/ps", "", NULL);
    want_text(doc, "models.0.model", "fake:latest");
    assert_int_equal(json_int(at(doc, "models.0.context_length"), -1), 2048);
    http1_free(&a);
    doc = ask(&a, "POST", "/api/show", "{\"model\":\"fake\"}", NULL);
    want_text(doc, "capabilities.1", "tools");
    want_text(doc, "capabilities.2", "thinking");
    http1_free(&a);
    want_text(doc, "modelfile", "FROM fake\n");
    want_text(doc, "template", "{{ tools }} <tool_call> </think> enable_thinking");
    http1_free(&a);
    doc = ask(&a, "POST", "/api/show", "{\"name\":\"other\"}", NULL);
    assert_int_equal(a.status, 404);
    assert_true(json_str(at(doc, "error")).len > 0);
    http1_free(&a);
    ask(&a, "GET", "/", "", "user-agent: ollama-python/0.6\r\n");
    assert_true(str_is(buf_str(&a.body), "Ollama is running"));
    http1_free(&a);
    ask(&a, "GET", "/", "", "user-agent: Mozilla/5.0\r\naccept: text/html\r\n");
    assert_true(count(buf_str(&a.body), "<html") == 1);
    http1_free(&a);
}

static void test_ollama_logprobs(void **state)
{
    struct http1 a;
    size_t n = 0;
    (void)state;
    const struct json *doc = ask(&a, "POST", "/api/generate",
                                 "{\"prompt\":\"p\",\"stream\":false,\"logprobs\":true,\"top_logprobs\":2}", NULL);
    assert_int_equal(json_count(at(doc, "logprobs")), 5);
    want_text(doc, "logprobs.0.token", "w");
    assert_true(json_real(at(doc, "logprobs.4.logprob"), 0) == -0.5);
    want_text(doc, "logprobs.0.top_logprobs.1.token", "x");
    http1_free(&a);
    ask(&a, "POST", "/api/chat", "{\"messages\":[{\"role\":\"user\",\"content\":\"p\"}],\"logprobs\":true}", NULL);
    JSON_EACH (e, lines(buf_str(&a.body)))
        n += json_count(at(e, "logprobs"));
    assert_int_equal(n, 5);
    http1_free(&a);
}

/* Models are the operator's: what a client may not do is said, in the form its client reads. */
static void test_ollama_changes_no_models(void **state)
{
    static const struct {
        const char *method, *path, *body;
        int status;
        const char *says;
    } rows[] = {
        {"POST", "/api/pull", "{\"model\":\"fake:latest\"}", 200, "\n{\"status\":\"success\"}\n"},
        {"POST", "/api/pull", "{\"name\":\"fake\",\"stream\":false}", 200, "{\"status\":\"success\"}"},
        {"POST", "/api/pull", "{\"model\":\"llama3\"}", 200, "\n{\"error\":\"pull model manifest: llama3 is not"},
        {"POST", "/api/pull", "{\"model\":\"llama3\",\"stream\":false}", 404, "{\"error\":\"pull model manifest"},
        {"POST", "/api/pull", "{}", 200, "{\"error\":\"model: missing"},
        {"POST", "/api/push", "{\"model\":\"fake\"}", 200, "{\"error\":\"push: "},
        {"POST", "/api/create", "{\"model\":\"b\",\"from\":\"fake\",\"stream\":false}", 403, "--allow-runtime-loading"},
        {"POST", "/api/copy", "{\"source\":\"fake\",\"destination\":\"b\"}", 403, "--allow-runtime-loading"},
        {"DELETE", "/api/delete", "{\"model\":\"fake\"}", 403, "--allow-runtime-loading"},
        {"POST", "/api/show", "[]", 400, "{\"error\":"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct http1 a;
        ask(&a, rows[i].method, rows[i].path, rows[i].body, NULL);
        if (a.status != rows[i].status || count(buf_str(&a.body), rows[i].says) != 1)
            fail_msg("%s %s: %d %s", rows[i].path, rows[i].body, a.status, a.body.ptr);
        http1_free(&a);
    }
}

static void test_ollama_refusals(void **state)
{
    static const struct {
        const char *path, *body;
        int status;
    } rows[] = {
        {"/api/chat", "{", 400},
        {"/api/chat", "{\"model\":\"no\",\"messages\":[]}", 404},
        {"/api/chat", "{\"messages\":[{\"role\":\"user\",\"content\":\"x\",\"images\":[\"\"]}]}", 400},
        {"/api/chat", "{\"messages\":[{\"role\":\"x\"}]}", 400},
        {"/api/chat", "{\"messages\":[],\"format\":7}", 400},
        {"/api/chat", "{\"messages\":[],\"options\":{\"mirostat\":2}}", 400},
        {"/api/chat", "{\"messages\":[],\"options\":{\"num_predict\":-3}}", 400},
        {"/api/chat", "{\"messages\":[],\"think\":\"much\"}", 400},
        {"/api/generate", "{\"prompt\":7}", 400},
        {"/api/generate", "{\"prompt\":\"a\",\"suffix\":\"b\"}", 400},
        {"/api/none", "{}", 404},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct http1 a;
        const struct json *doc = ask(&a, "POST", rows[i].path, rows[i].body, NULL);
        if (a.status != rows[i].status || json_str(at(doc, "error")).len < 5)
            fail_msg("%s: %d %s", rows[i].body, a.status, a.body.ptr);
        http1_free(&a);
    }
}

int main(void)
{
#define HERMES(test) cmocka_unit_test_setup_teardown(test, start_hermes, stop_hermes)
    const struct CMUnitTest tests[] = {
        HERMES(test_ollama_chat_streams_by_itself),
        HERMES(test_ollama_whole),
        HERMES(test_ollama_load_and_unload),
        HERMES(test_ollama_models),
        HERMES(test_ollama_logprobs),
        HERMES(test_ollama_changes_no_models),
        HERMES(test_ollama_refusals),
    };
    return RUN(tests);
}
