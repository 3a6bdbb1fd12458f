/* Tools and reasoning through OpenAI's chat: what the model writes, told apart and streamed. */
#include "test.h"

#include "gateway/harness.h"

#define TOOLS                                                                                                          \
    "\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"description\":\"d\",\"parameters\":{\"type\":"   \
    "\"object\",\"properties\":{\"n\":{\"type\":\"integer\"}}}}},{\"type\":\"function\",\"function\":{\"name\":\"g\"}" \
    "}]"
#define SAY(text, fields) "{\"messages\":[{\"role\":\"user\",\"content\":\"SAY " text "\"}]," fields "}"
#define TWO_CALLS                                                                                                      \
    "<think>\\nhm\\n</think>\\n\\nOk.\\n<tool_call>\\n{\\\"name\\\": \\\"f\\\", \\\"arguments\\\": {\\\"n\\\": "       \
    "1}}\\n</tool_call>\\n<tool_call>\\n{\\\"name\\\": \\\"g\\\", \\\"arguments\\\": {}}\\n</tool_call>"

static void test_tools_whole(void **state)
{
    struct http1 a;
    (void)state;
    const struct json *doc = ask(&a, "POST", "/v1/chat/completions", SAY(TWO_CALLS, TOOLS), NULL);
    assert_int_equal(a.status, 200);
    want_text(doc, "choices.0.message.content", "Ok.");
    want_text(doc, "choices.0.message.reasoning_content", "hm");
    want_text(doc, "choices.0.message.tool_calls.0.type", "function");
    want_text(doc, "choices.0.message.tool_calls.0.function.name", "f");
    want_text(doc, "choices.0.message.tool_calls.0.function.arguments", "{\"n\": 1}");
    want_text(doc, "choices.0.message.tool_calls.1.function.arguments", "{}");
    want_text(doc, "choices.0.finish_reason", "tool_calls");
    struct str first = json_str(at(doc, "choices.0.message.tool_calls.0.id"));
    assert_true(str_starts(first, STR("call_")));
    assert_false(str_eq(first, json_str(at(doc, "choices.0.message.tool_calls.1.id"))));
    int64_t reason = json_int(at(doc, "usage.completion_tokens_details.reasoning_tokens"), -1);
    assert_true(reason >= 3 && reason <= 9);
    http1_free(&a);
    doc = ask(&a, "POST", "/v1/chat/completions", SAY("<tool_call>{\\\"name\\\": \\\"g\\\"}</tool_call>", TOOLS), NULL);
    assert_int_equal(json_type(at(doc, "choices.0.message.content")), JSON_NULL);
    assert_null(at(doc, "choices.0.message.reasoning_content"));
    http1_free(&a);
}

static void test_tools_streamed(void **state)
{
    struct http1 a;
    struct buf args = {0}, content = {0}, reason = {0};
    int heads = 0;
    (void)state;
    ask(&a, "POST", "/v1/chat/completions", SAY(TWO_CALLS, TOOLS ",\"stream\":true"), NULL);
    const struct json *list = events(buf_str(&a.body));
    JSON_EACH (e, list) {
        const struct json *d = at(e, "choices.0.delta"), *call = at(d, "tool_calls.0");
        buf_append_str(&content, json_str(json_get(d, "content")).ptr ? json_str(json_get(d, "content")) : STR(""));
        if (json_get(d, "reasoning_content"))
            buf_append_str(&reason, json_str(json_get(d, "reasoning_content")));
        if (json_get(call, "id")) { /* the head: id, type and name, once a call, with empty arguments */
            want_text(call, "type", "function");
            want_text(call, "function.name", heads ? "g" : "f");
            want_text(call, "function.arguments", "");
            assert_int_equal(json_int(json_get(call, "index"), -1), heads++);
        } else if (call) {
            assert_null(json_get(call, "type"));
            if (json_int(json_get(call, "index"), -1) == 0)
                buf_append_str(&args, json_str(at(call, "function.arguments")));
        }
    }
    assert_int_equal(heads, 2);
    assert_true(str_is(buf_str(&args), "{\"n\": 1}"));
    assert_true(str_is(buf_str(&content), "Ok."));
    assert_true(str_is(buf_str(&reason), "hm"));
    want_text(json_at(list, json_count(list) - 1), "choices.0.finish_reason", "tool_calls");
    buf_free(&args);
    buf_free(&content);
    buf_free(&reason);
    http1_free(&a);
}

static void test_tools_one_call_is_enough(void **state)
{
    struct http1 a;
    (void)state;
    const struct json *doc =
        ask(&a, "POST", "/v1/chat/completions", SAY(TWO_CALLS, TOOLS ",\"parallel_tool_calls\":false"), NULL);
    assert_int_equal(json_count(at(doc, "choices.0.message.tool_calls")), 1);
    want_text(doc, "choices.0.finish_reason", "tool_calls");
    http1_free(&a);
}

static void test_tools_not_asked_for_are_text(void **state)
{
    static const char *const bodies[] = {
        SAY("a <tool_call>{\\\"name\\\": \\\"g\\\"}</tool_call>", "\"n\":1"),
        SAY("a <tool_call>{\\\"name\\\": \\\"g\\\"}</tool_call>", TOOLS ",\"tool_choice\":\"none\"")};
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct http1 a;
        const struct json *doc = ask(&a, "POST", "/v1/chat/completions", bodies[i], NULL);
        want_text(doc, "choices.0.message.content", "a <tool_call>{\"name\": \"g\"}</tool_call>");
        want_text(doc, "choices.0.finish_reason", "stop");
        http1_free(&a);
    }
}

static void test_tools_logprobs_tell_every_token(void **state)
{
    struct http1 a;
    size_t n = 0;
    (void)state;
    ask(&a, "POST", "/v1/chat/completions", SAY(TWO_CALLS, TOOLS ",\"stream\":true,\"logprobs\":true"), NULL);
    const struct json *list = events(buf_str(&a.body));
    JSON_EACH (e, list)
        n += json_count(at(e, "choices.0.logprobs.content"));
    const char *text = "<think>\nhm\n</think>\n\nOk.\n<tool_call>\n{\"name\": \"f\", \"arguments\": {\"n\": "
                       "1}}\n</tool_call>\n<tool_call>\n{\"name\": \"g\", \"arguments\": {}}\n</tool_call>";
    assert_int_equal(n, (strlen(text) + 2) / 3);
    http1_free(&a);
}

static void test_tools_refused_by_name(void **state)
{
    static const struct {
        const char *fields, *param;
    } rows[] = {
        {"\"tools\":7", "tools"},
        {"\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"a b\"}}]", "tools[0]"},
        {"\"tools\":[{\"type\":\"custom\",\"custom\":{}}]", "tools[0]"},
        {"\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"parameters\":7}}]", "tools[0]"},
        {"\"tool_choice\":\"required\"", "tool_choice"},
        {TOOLS ",\"tool_choice\":\"perhaps\"", "tool_choice"},
        {TOOLS ",\"tool_choice\":{\"type\":\"function\",\"function\":{\"name\":\"h\"}}", "tool_choice"},
        {TOOLS ",\"parallel_tool_calls\":1", "parallel_tool_calls"},
        {"\"reasoning_effort\":\"huge\"", "reasoning_effort"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct http1 a;
        char body[600];
        snprintf(body, sizeof body, "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],%s}", rows[i].fields);
        const struct json *doc = ask(&a, "POST", "/v1/chat/completions", body, NULL);
        if (a.status != 400 || !str_is(json_str(at(doc, "error.param")), rows[i].param))
            fail_msg("%s: %d %s", rows[i].fields, a.status, a.body.ptr);
        http1_free(&a);
    }
}

static void test_tools_need_a_template_that_takes_them(void **state)
{
    struct http1 a;
    (void)state;
    start_with(&(struct gateway_options){.host = "127.0.0.1"});
    const struct json *doc = ask(&a, "POST", "/v1/chat/completions", SAY("x", TOOLS), NULL);
    assert_int_equal(a.status, 400);
    want_text(doc, "error.param", "tools");
    http1_free(&a);
    doc = ask(&a, "POST", "/v1/chat/completions", SAY("x", "\"reasoning_effort\":\"low\""), NULL);
    assert_int_equal(a.status, 400);
    http1_free(&a);
    ask(&a, "POST", "/v1/chat/completions", SAY("x", "\"reasoning_effort\":\"none\""), NULL);
    assert_int_equal(a.status, 200);
    http1_free(&a);
    stop(NULL);
}

static void test_tools_format_named_by_the_operator(void **state)
{
    struct http1 a;
    struct error err;
    (void)state;
    fake_bundle.template_source = STR("{{ tools }}");
    start_with(&(struct gateway_options){.host = "127.0.0.1", .tool_format = "mistral"});
    const struct json *doc = ask(&a, "POST", "/v1/chat/completions", SAY("[TOOL_CALLS]g[ARGS]{}", TOOLS), NULL);
    want_text(doc, "choices.0.message.tool_calls.0.function.name", "g");
    assert_int_equal(json_str(at(doc, "choices.0.message.tool_calls.0.id")).len, 9); /* what its template accepts */
    http1_free(&a);
    struct gateway *other = NULL;
    FAILS(ST_INVALID, gateway_create(&other, engine, &(struct gateway_options){.tool_format = "morse"}, &err));
    stop(NULL);
    fake_bundle.template_source = (struct str){NULL, 0};
}

int main(void)
{
#define HERMES(test) cmocka_unit_test_setup_teardown(test, start_hermes, stop_hermes)
    const struct CMUnitTest tests[] = {
        HERMES(test_tools_whole),
        HERMES(test_tools_streamed),
        HERMES(test_tools_one_call_is_enough),
        HERMES(test_tools_not_asked_for_are_text),
        HERMES(test_tools_logprobs_tell_every_token),
        HERMES(test_tools_refused_by_name),
        cmocka_unit_test(test_tools_need_a_template_that_takes_them),
        cmocka_unit_test(test_tools_format_named_by_the_operator),
    };
    return RUN(tests);
}
