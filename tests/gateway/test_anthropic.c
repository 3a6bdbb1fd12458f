/* Anthropic's messages over the stand-in engine: blocks, events in their order, errors in their form. */
#include "test.h"

#include "gateway/harness.h"

#define SAY(text, fields)                                                                                              \
    "{\"max_tokens\":400,\"messages\":[{\"role\":\"user\",\"content\":\"SAY " text "\"}]" fields "}"
#define TOOLS                                                                                                          \
    ",\"tools\":[{\"name\":\"f\",\"description\":\"d\",\"input_schema\":{\"type\":\"object\",\"properties\":{\"n\":{"  \
    "\"type\":\"integer\"}}}}]"
#define CALL "<think>hm</think>Ok.<tool_call>{\\\"name\\\": \\\"f\\\", \\\"arguments\\\": {\\\"n\\\": 1}}</tool_call>"

static void test_anthropic_whole(void **state)
{
    struct http1 a;
    (void)state;
    const struct json *doc =
        ask(&a, "POST", "/v1/messages?beta=true", SAY(CALL, TOOLS), "anthropic-version: 2023-06-01\r\n");
    assert_int_equal(a.status, 200);
    assert_true(http1_header(&a, "request-id").len > 4);
    want_text(doc, "type", "message");
    want_text(doc, "role", "assistant");
    want_text(doc, "content.0.type", "thinking");
    want_text(doc, "content.0.thinking", "hm");
    want_text(doc, "content.1.text", "Ok.");
    want_text(doc, "content.2.type", "tool_use");
    want_text(doc, "content.2.name", "f");
    assert_int_equal(json_int(at(doc, "content.2.input.n"), -1), 1);
    want_text(doc, "stop_reason", "tool_use");
    assert_int_equal(json_type(at(doc, "stop_sequence")), JSON_NULL);
    assert_true(str_starts(json_str(at(doc, "id")), STR("msg_")));
    assert_true(str_starts(json_str(at(doc, "content.2.id")), STR("toolu_")));
    assert_true(json_int(at(doc, "usage.output_tokens"), 0) > 10 && json_int(at(doc, "usage.input_tokens"), 0) > 10);
    int64_t thought = json_int(at(doc, "usage.output_tokens_details.thinking_tokens"), -1);
    assert_true(thought >= 3 && thought <= 9);
    http1_free(&a);
    for (int streamed = 0; streamed < 2; streamed++) { /* reasoning that is not to be shown */
        const char *body[] = {
            SAY(CALL, ",\"thinking\":{\"type\":\"adaptive\",\"display\":\"omitted\"}"),
            SAY(CALL, ",\"thinking\":{\"type\":\"adaptive\",\"display\":\"omitted\"},\"stream\":true")};
        ask(&a, "POST", "/v1/messages", body[streamed], NULL);
        assert_int_equal(count(buf_str(&a.body), "\"type\":\"thinking\",\"thinking\":\"\""), 1);
        assert_int_equal(count(buf_str(&a.body), "hm") + count(buf_str(&a.body), "thinking_delta"), 0);
        http1_free(&a);
    }
    doc = ask(&a, "POST", "/v1/messages", "{\"max_tokens\":2,\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}",
              NULL);
    want_text(doc, "stop_reason", "max_tokens");
    want_text(doc, "content.0.text", "w0 w1");
    http1_free(&a);
    char body[2300]; /* seven tokens of the context are left */
    snprintf(body, sizeof body, "{\"max_tokens\":400,\"messages\":[{\"role\":\"user\",\"content\":\"%02040d\"}]}", 7);
    doc = ask(&a, "POST", "/v1/messages", body, NULL);
    want_text(doc, "stop_reason", "model_context_window_exceeded");
    assert_int_equal(json_int(at(doc, "usage.output_tokens"), -1), 7);
    http1_free(&a);
}

static void test_anthropic_streamed(void **state)
{
    static const char *const order[] = {"message_start",      "content_block_start", "content_block_delta",
                                        "content_block_stop", "content_block_start", "content_block_delta",
                                        "content_block_stop", "content_block_start", "content_block_delta",
                                        "content_block_stop", "message_delta",       "message_stop"};
    struct http1 a;
    struct buf args = {0};
    struct str last = {"", 0};
    size_t n = 0;
    (void)state;
    ask(&a, "POST", "/v1/messages", SAY(CALL, TOOLS ",\"stream\":true"), NULL);
    assert_true(str_starts(buf_str(&a.body), STR("event: message_start\ndata: {\"type\":\"message_start\"")));
    assert_int_equal(count(buf_str(&a.body), "[DONE]"), 0);
    const struct json *list = events(buf_str(&a.body));
    JSON_EACH (e, list) {
        struct str type = json_str(json_get(e, "type"));
        if (str_eq(type, last) && str_is(type, "content_block_delta")) {
            /* more of the same */
        } else {
            assert_true(n < sizeof order / sizeof *order);
            assert_true(str_is(type, order[n++]));
        }
        last = type;
        if (json_get(json_get(e, "delta"), "partial_json"))
            buf_append_str(&args, json_str(at(e, "delta.partial_json")));
    }
    assert_int_equal(n, sizeof order / sizeof *order);
    assert_true(str_is(buf_str(&args), "{\"n\": 1}"));
    want_text(json_at(list, json_count(list) - 2), "delta.stop_reason", "tool_use");
    assert_int_equal(count(buf_str(&a.body), "\"type\":\"signature_delta\""), 1);
    buf_free(&args);
    http1_free(&a);
    ask(&a, "POST", "/v1/messages",
        "{\"max_tokens\":9,\"stream\":true,\"messages\":[{\"role\":\"user\",\"content\":\"FAIL\"}]}", NULL);
    struct str s = buf_str(&a.body);
    assert_int_equal(count(s, "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\""), 1);
    assert_int_equal(count(s, "message_stop"), 0);
    http1_free(&a);
}

/* The stand-in template writes contents alone: what a conversation becomes shows in the number of its bytes. */
static void test_anthropic_conversations_and_counting(void **state)
{
    static const struct {
        const char *body;
        int n;
    } rows[] = {
        {"{\"messages\":[{\"role\":\"user\",\"content\":\"abc\"}]}", 1 + 3},
        {"{\"system\":\"sy\",\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"ab\"}]}]}",
         1 + 2 + 1 + 2},
        {"{\"system\":[{\"type\":\"text\",\"text\":\"s\"},{\"type\":\"text\",\"text\":\"y\"}],\"messages\":[{\"role\":"
         "\"user\",\"content\":\"a\"},{\"role\":\"assistant\",\"content\":[{\"type\":\"thinking\",\"thinking\":\"hm\","
         "\"signature\":\"\"},{\"type\":\"tool_use\",\"id\":\"t1\",\"name\":\"f\",\"input\":{}}]},{\"role\":\"user\","
         "\"content\":[{\"type\":\"tool_result\",\"tool_use_id\":\"t1\",\"content\":[{\"type\":\"text\",\"text\":"
         "\"42\"}"
         "]},{\"type\":\"text\",\"text\":\"so?\"}]}]}",
         (1 + 3) + (1 + 1) + 1 + (1 + 2) + (1 + 3)},
        {"{\"diagnostics\":{},\"workspace_id\":\"w\",\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":"
         "\"document\",\"source\":{"
         "\"type\":\"text\",\"media_type\":\"text/plain\",\"data\":\"doc\"}},{\"type\":\"text\",\"text\":\"so?\"}]},{"
         "\"role\":\"system\",\"content\":\"sys\"}]}",
         (1 + 3 + 1 + 3) + (1 + 3)},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct http1 a;
        const struct json *doc = ask(&a, "POST", "/v1/messages/count_tokens", rows[i].body, NULL);
        if (json_int(at(doc, "input_tokens"), -1) != rows[i].n)
            fail_msg("%s\n%d %s", rows[i].body, a.status, a.body.ptr);
        http1_free(&a);
    }
}

static void test_anthropic_refuses_in_its_own_words(void **state)
{
    static const struct {
        const char *body, *holds;
        int status;
    } rows[] = {
        {"{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}", "max_tokens: field required", 400},
        {"{\"max_tokens\":1}", "messages: field required", 400},
        {"{\"max_tokens\":1,\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image\"}]}]}",
         "type \\\"image\\\"", 400},
        {"{\"max_tokens\":1,\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"document\",\"source\":{\"type\":"
         "\"base64\",\"data\":\"eA==\"}}]}]}",
         "type \\\"document\\\"", 400},
        {"{\"max_tokens\":1,\"messages\":[{\"role\":\"assistant\",\"content\":\"x\"}]}", "the last message", 400},
        {"{\"max_tokens\":1,\"messages\":[{\"role\":\"king\",\"content\":\"x\"}]}", "messages[0].role", 400},
        {"{\"max_tokens\":1,\"model\":\"claude\",\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}",
         "not_found_error", 404},
        {"{\"max_tokens\":1,\"tools\":[{\"type\":\"web_search_20250305\",\"name\":\"w\"}],\"messages\":[{\"role\":"
         "\"user\","
         "\"content\":\"x\"}]}",
         "web_search_20250305", 400},
        {"{\"max_tokens\":1,\"thinking\":{\"type\":\"deep\"},\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}",
         "thinking.type", 400},
        {"{\"max_tokens\":1,\"top_q\":1,\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}", "did you mean top_",
         400},
        {"{\"max_tokens\":1,\"messages\":[{\"role\":\"user\",\"content\":\"FAIL\"}]}", "\"content\"", 200},
        {"{\"max_tokens\":9,\"messages\":[{\"role\":\"user\",\"content\":\"FAIL\"}]}", "overloaded_error", 529},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct http1 a;
        const struct json *doc = ask(&a, "POST", "/v1/messages", rows[i].body, NULL);
        if (a.status != rows[i].status || str_find(buf_str(&a.body), str_of(rows[i].holds), 0) == SIZE_MAX)
            fail_msg("%s: %d %s", rows[i].body, a.status, a.body.ptr);
        if (a.status != 200) {
            want_text(doc, "type", "error");
            assert_true(str_eq(json_str(at(doc, "request_id")), http1_header(&a, "request-id")));
        }
        http1_free(&a);
    }
}

static void test_anthropic_key(void **state)
{
    struct http1 a;
    (void)state;
    start_with(&(struct gateway_options){.host = "127.0.0.1", .api_key = "secret"});
    const struct json *doc = ask(&a, "POST", "/v1/messages", "{}", NULL);
    assert_int_equal(a.status, 401);
    want_text(doc, "error.type", "authentication_error");
    http1_free(&a);
    ask(&a, "POST", "/v1/messages", "{}", "x-api-key: secret\r\n");
    assert_int_equal(a.status, 400);
    http1_free(&a);
    doc = ask(&a, "GET", "/v1/models", "", "x-api-key: secret\r\nanthropic-version: 2023-06-01\r\n");
    want_text(doc, "data.0.type", "model");
    want_text(doc, "data.0.display_name", "fake");
    want_text(doc, "last_id", "fake");
    http1_free(&a);
    stop(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_anthropic_whole, start_hermes, stop_hermes),
        cmocka_unit_test_setup_teardown(test_anthropic_streamed, start_hermes, stop_hermes),
        cmocka_unit_test_setup_teardown(test_anthropic_conversations_and_counting, start, stop),
        cmocka_unit_test_setup_teardown(test_anthropic_refuses_in_its_own_words, start, stop),
        cmocka_unit_test(test_anthropic_key),
    };
    return RUN(tests);
}
