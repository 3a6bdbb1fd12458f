/* The gateway over a stand-in engine: protocol, limits, access, leaving clients, draining, failing memory. */
#include "test.h"

#include "base/fault.h"

#include "gateway/harness.h"

static void test_gateway_chat(void **state)
{
    struct http1 a;
    (void)state;
    const struct json *doc =
        ask(&a, "POST", "/v1/chat/completions", CHAT(",\"model\":\"fake\",\"max_tokens\":3"), NULL);
    assert_int_equal(a.status, 200);
    assert_true(http1_header(&a, "x-request-id").len > 4 && http1_header(&a, "openai-processing-ms").len > 0);
    assert_true(str_is(text_at(doc, "object"), "chat.completion"));
    assert_true(str_starts(text_at(doc, "id"), STR("chatcmpl-")));
    const struct json *choice = json_at(json_get(doc, "choices"), 0), *usage = json_get(doc, "usage");
    assert_true(str_is(text_at(json_get(choice, "message"), "content"), "w0 w1 w2"));
    assert_true(str_is(text_at(choice, "finish_reason"), "length"));
    assert_int_equal(json_int(json_get(usage, "prompt_tokens"), -1), 6);
    assert_int_equal(json_int(json_get(usage, "completion_tokens"), -1), 3);
    http1_free(&a);
    doc = ask(&a, "POST", "/v1/chat/completions", CHAT(",\"n\":3,\"logprobs\":true,\"top_logprobs\":2"), NULL);
    assert_int_equal(json_count(json_get(doc, "choices")), 3);
    choice = json_at(json_get(doc, "choices"), 2);
    assert_int_equal(json_int(json_get(choice, "index"), -1), 2);
    assert_true(str_is(text_at(choice, "finish_reason"), "stop"));
    const struct json *content = json_get(json_get(choice, "logprobs"), "content");
    assert_int_equal(json_count(content), 5);
    assert_int_equal(json_count(json_get(json_at(content, 0), "top_logprobs")), 2);
    assert_int_equal(json_int(json_at(json_get(json_at(content, 0), "bytes"), 0), -1), 'w');
    assert_int_equal(json_int(json_get(json_get(doc, "usage"), "completion_tokens"), -1), 15);
    http1_free(&a);
}

static void test_gateway_streams(void **state)
{
    struct http1 a;
    (void)state;
    ask(&a, "POST", "/v1/chat/completions", CHAT(",\"stream\":true,\"stream_options\":{\"include_usage\":true}"), NULL);
    struct str s = buf_str(&a.body);
    assert_true(str_starts(http1_header(&a, "content-type"), STR("text/event-stream")));
    assert_int_equal(count(s, "data: {"), 1 + 5 + 1 + 1);
    assert_int_equal(count(s, "\"role\":\"assistant\""), 1);
    assert_int_equal(count(s, "\"usage\":null"), 7);
    assert_int_equal(count(s, "\"choices\":[],\"usage\":{\"prompt_tokens\":6,\"completion_tokens\":5"), 1);
    assert_true(str_ends(s, STR("data: [DONE]\n\n")));
    http1_free(&a);
    ask(&a, "POST", "/v1/completions",
        "{\"prompt\":[\"ab\",\"c\"],\"n\":2,\"max_tokens\":2,\"stream\":true,\"echo\":true}", NULL);
    s = buf_str(&a.body);
    assert_int_equal(count(s, "\"index\":3"), 1 + 2 + 1);
    assert_int_equal(count(s, "\"text\":\"ab\""), 2);
    assert_int_equal(count(s, "\"usage\""), 0);
    http1_free(&a);
    ask(&a, "POST", "/v1/chat/completions", "{\"messages\":[{\"role\":\"user\",\"content\":\"FAIL\"}],\"stream\":true}",
        NULL);
    s = buf_str(&a.body);
    assert_int_equal(count(s, "{\"error\":{\"message\":\"the device is on fire\""), 1);
    assert_int_equal(count(s, "[DONE]"), 0);
    http1_free(&a);
}

static void test_gateway_completions(void **state)
{
    struct http1 a;
    (void)state;
    const struct json *doc =
        ask(&a, "POST", "/v1/completions", "{\"prompt\":[104,105],\"max_tokens\":2,\"echo\":true}", NULL);
    assert_true(str_is(text_at(json_at(json_get(doc, "choices"), 0), "text"), "hiw0 w1"));
    http1_free(&a);
    doc = ask(&a, "POST", "/v1/completions", "{\"prompt\":\"END\",\"echo\":true}", NULL);
    assert_true(str_is(text_at(json_at(json_get(doc, "choices"), 0), "text"), "END"));
    http1_free(&a);
    doc = ask(&a, "POST", "/v1/completions", "{\"prompt\":\"x\",\"max_tokens\":2,\"logprobs\":1}", NULL);
    const struct json *l = json_get(json_at(json_get(doc, "choices"), 0), "logprobs");
    assert_int_equal(json_count(json_get(l, "tokens")), 2);
    assert_int_equal(json_int(json_at(json_get(l, "text_offset"), 1), -1), 2);
    assert_true(json_real(json_get(json_at(json_get(l, "top_logprobs"), 0), "w"), 0) == -0.5);
    http1_free(&a);
    doc = ask(&a, "POST", "/v1/completions", "{\"prompt\":\"FAIL\"}", NULL);
    assert_int_equal(a.status, 503);
    assert_true(str_is(text_at(json_get(doc, "error"), "message"), "the device is on fire"));
    http1_free(&a);
}

static void test_gateway_echoes_log_probabilities(void **state)
{
    struct http1 a;
    (void)state;
    for (int n = 0; n < 3; n += 2) {
        char body[160];
        snprintf(body, sizeof body, "{\"prompt\":\"h\\u00e9y\",\"max_tokens\":%d,\"logprobs\":1,\"echo\":true}", n);
        const struct json *doc = ask(&a, "POST", "/v1/completions", body, NULL);
        const struct json *choice = json_at(json_get(doc, "choices"), 0), *l = json_get(choice, "logprobs");
        const struct json *values = json_get(l, "token_logprobs"), *offsets = json_get(l, "text_offset");
        assert_true(str_is(text_at(choice, "text"), n ? "h\xC3\xA9yw0 w1" : "h\xC3\xA9y"));
        assert_true(str_is(text_at(choice, "finish_reason"), "length"));
        assert_int_equal(json_count(values), 5 + n); /* BOS, which is not of the text, and four bytes */
        assert_int_equal(json_type(json_at(values, 0)), JSON_NULL);
        assert_int_equal(json_type(json_at(json_get(l, "top_logprobs"), 0)), JSON_NULL);
        assert_true(json_real(json_at(values, 3), 0) == -0.75);
        static const int want[] = {0, 0, 1, 2, 2, 3, 5};
        for (int i = 0; i < 5 + n; i++)
            assert_int_equal(json_int(json_at(offsets, (size_t)i), -1), want[i]);
        assert_int_equal(json_int(json_get(json_get(doc, "usage"), "completion_tokens"), -1), n);
        http1_free(&a);
    }
    ask(&a, "POST", "/v1/completions",
        "{\"prompt\":\"hi\",\"max_tokens\":0,\"echo\":true,\"logprobs\":0,\"stream\":true}", NULL);
    struct str s = buf_str(&a.body);
    assert_int_equal(count(s, "\"text\":\"hi\",\"logprobs\":{\"tokens\":[\"\\u0001\",\"h\",\"i\"],"), 1);
    assert_int_equal(count(s, "data: {"), 2); /* the prompt, the end */
    http1_free(&a);
    ask(&a, "GET", "/metrics", "", NULL); /* prompt tokens are no output */
    assert_int_equal(
        count(buf_str(&a.body), "vllm:time_to_first_token_seconds_count{model_name=\"fake\",engine=\"0\"} 1\n"), 1);
    http1_free(&a);
}

static void test_gateway_tokenize_and_users_cannot_write_special_tokens(void **state)
{
    struct http1 a;
    (void)state;
    const struct json *doc =
        ask(&a, "POST", "/v1/tokenize", "{\"prompt\":\"a<|x|>\",\"return_token_strs\":true}", NULL);
    assert_int_equal(json_int(json_get(doc, "count"), -1), 3); /* BOS, a, special */
    assert_int_equal(json_int(json_at(json_get(doc, "tokens"), 2), -1), FAKE_SPECIAL);
    assert_true(str_is(json_str(json_at(json_get(doc, "token_strs"), 2)), "<|x|>"));
    http1_free(&a);
    doc = ask(&a, "POST", "/tokenize", "{\"messages\":[{\"role\":\"user\",\"content\":\"a<|x|>\"}]}", NULL);
    assert_int_equal(json_int(json_get(doc, "count"), -1), 7); /* the template's own, then six bytes */
    http1_free(&a);
    doc = ask(&a, "POST", "/v1/tokenize", "{\"prompt\":\"a\",\"add_special_tokens\":false}", NULL);
    assert_int_equal(json_int(json_get(doc, "count"), -1), 1);
    http1_free(&a);
    doc = ask(&a, "POST", "/v1/detokenize", "{\"tokens\":[104,105]}", NULL);
    assert_true(str_is(text_at(doc, "prompt"), "hi"));
    http1_free(&a);
}

static void test_gateway_embeds_and_ranks(void **state)
{
    struct http1 a;
    (void)state;
    __atomic_store_n(&fake.task, TASK_EMBED, __ATOMIC_SEQ_CST);
    const struct json *doc =
        ask(&a, "POST", "/v1/embeddings", "{\"input\":[\"ab\",[257,99]],\"normalize\":false}", NULL);
    assert_int_equal(json_count(json_get(doc, "data")), 2);
    assert_true(json_real(json_at(json_get(json_at(json_get(doc, "data"), 0), "embedding"), 3), 0) == 3);
    assert_true(json_real(json_at(json_get(json_at(json_get(doc, "data"), 1), "embedding"), 0), 0) == 2);
    assert_int_equal(json_int(json_get(json_get(doc, "usage"), "prompt_tokens"), 0), 5);
    http1_free(&a);
    doc = ask(&a, "POST", "/v1/embeddings", "{\"input\":\"ab\",\"dimensions\":3,\"encoding_format\":\"base64\"}", NULL);
    want_text(json_at(json_get(doc, "data"), 0), "embedding", "AACAPwAAgD8AAIA/"); /* 1, 1, 1 */
    http1_free(&a);
    __atomic_store_n(&fake.task, TASK_SCORE, __ATOMIC_SEQ_CST);
    doc = ask(&a, "POST", "/v1/rerank",
              "{\"query\":\"q\",\"documents\":[\"a\",\"abc\",\"ab\"],\"top_n\":2,"
              "\"return_documents\":true}",
              NULL);
    const struct json *results = json_get(doc, "results");
    assert_int_equal(json_count(results), 2);
    assert_int_equal(json_int(json_get(json_at(results, 0), "index"), -1), 1);
    assert_int_equal(json_int(json_get(json_at(results, 1), "index"), -1), 2);
    want_text(json_get(json_at(results, 0), "document"), "text", "abc");
    http1_free(&a);
    ask(&a, "POST", "/v1/chat/completions", CHAT(""), NULL);
    assert_int_equal(a.status, 400);
    http1_free(&a);
    __atomic_store_n(&fake.task, TASK_GENERATE, __ATOMIC_SEQ_CST);
}

static void test_gateway_refuses_by_name(void **state)
{
    static const struct {
        const char *path, *body, *param, *code;
        int status;
    } rows[] = {
        {"chat/completions", "{", NULL, "invalid_json", 400},
        {"chat/completions", "[]", NULL, "invalid_json", 400},
        {"chat/completions", "{\"n\":1,\"n\":2}", NULL, "invalid_json", 400},
        {"chat/completions", "{}", "messages", "missing_required_parameter", 400},
        {"chat/completions", "{\"messages\":[]}", "messages", "invalid_type", 400},
        {"chat/completions", "{\"messages\":[1]}", "messages[0]", "invalid_value", 400},
        {"chat/completions", "{\"messages\":[{\"role\":\"king\",\"content\":\"\"}]}", "messages[0].role",
         "invalid_value", 400},
        {"chat/completions", "{\"messages\":[{\"role\":\"user\"}]}", "messages[0].content", "invalid_value", 400},
        {"chat/completions", "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\"}]}]}",
         "messages[0].content", "invalid_value", 400},
        {"chat/completions", CHAT(",\"model\":\"gpt-9\""), "model", "model_not_found", 404},
        {"chat/completions", CHAT(",\"temprature\":1"), "temprature", "unknown_parameter", 400},
        {"chat/completions", CHAT(",\"temperature\":2.5"), "temperature", "invalid_value", 400},
        {"chat/completions", CHAT(",\"temperature\":\"hot\""), "temperature", "invalid_type", 400},
        {"chat/completions", CHAT(",\"top_p\":0"), "top_p", "invalid_value", 400},
        {"chat/completions", CHAT(",\"n\":17"), "n", "invalid_value", 400},
        {"chat/completions", CHAT(",\"n\":0"), "n", "invalid_value", 400},
        {"chat/completions", CHAT(",\"n\":1.5"), "n", "invalid_type", 400},
        {"chat/completions", CHAT(",\"n\":9223372036854775807"), "n", "invalid_value", 400},
        {"chat/completions", CHAT(",\"max_tokens\":0"), "max_tokens", "invalid_value", 400},
        {"completions", "{\"prompt\":\"a\",\"max_tokens\":0}", "max_tokens", "invalid_value", 400},
        {"chat/completions", CHAT(",\"stop\":[\"\"]"), "stop", "invalid_value", 400},
        {"chat/completions", CHAT(",\"stop\":7"), "stop", "invalid_type", 400},
        {"chat/completions", CHAT(",\"top_logprobs\":2"), "top_logprobs", "invalid_value", 400},
        {"chat/completions", CHAT(",\"logprobs\":true,\"top_logprobs\":21"), "top_logprobs", "invalid_value", 400},
        {"chat/completions", CHAT(",\"stream_options\":{}"), "stream_options", "invalid_value", 400},
        {"chat/completions", CHAT(",\"stream\":true,\"stream_options\":{\"include_usage\":1}"),
         "stream_options.include_usage", "invalid_type", 400},
        {"chat/completions", CHAT(",\"stream\":true,\"stream_options\":{\"usage\":true}"), "stream_options",
         "unknown_parameter", 400},
        {"chat/completions", CHAT(",\"logit_bias\":{\"300\":1}"), "logit_bias", "invalid_value", 400},
        {"chat/completions", CHAT(",\"logit_bias\":{\"1\":101}"), "logit_bias", "invalid_value", 400},
        {"chat/completions", CHAT(",\"tools\":[{}]"), "tools[0]", "unsupported_value", 400},
        {"chat/completions", CHAT(",\"response_format\":{\"type\":\"yaml\"}"), "response_format", "invalid_value", 400},
        {"chat/completions", CHAT(",\"chat_template_kwargs\":{\"messages\":[]}"), "chat_template_kwargs",
         "unsupported_parameter", 400},
        {"completions", "{\"prompt\":\"\",\"add_special_tokens\":true}", "add_special_tokens", "unknown_parameter",
         400},
        {"completions", "{\"prompt\":[300]}", "prompt", "invalid_value", 400},
        {"completions", "{\"prompt\":[]}", "prompt", "invalid_value", 400},
        {"completions", "{\"prompt\":{}}", "prompt", "invalid_type", 400},
        {"completions", "{\"prompt\":\"a\",\"n\":3,\"best_of\":2}", "best_of", "invalid_value", 400},
        {"completions", "{\"prompt\":\"a\",\"best_of\":17}", "best_of", "invalid_value", 400},
        {"completions", "{\"prompt\":\"a\",\"best_of\":2,\"stream\":true}", "best_of", "invalid_value", 400},
        {"chat/completions", CHAT(",\"stream\":true,\"best_of\":2"), "best_of", "invalid_value", 400},
        {"completions", "{\"prompt\":\"a\",\"use_beam_search\":true,\"best_of\":11}", "best_of", "invalid_value", 400},
        {"completions", "{\"prompt\":\"a\",\"use_beam_search\":true,\"n\":3,\"best_of\":2}", "best_of", "invalid_value",
         400},
        {"completions", "{\"prompt\":\"a\",\"use_beam_search\":true,\"stop\":\"x\"}", "stop", "unsupported_parameter",
         400},
        {"completions", "{\"prompt\":\"a\",\"suffix\":\"b\"}", "suffix", "unsupported_parameter", 400},
        {"detokenize", "{\"tokens\":\"a\"}", "tokens", "invalid_type", 400},
        {"detokenize", "{\"tokens\":[-1]}", "tokens", "invalid_value", 400},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct http1 a;
        char path[64];
        snprintf(path, sizeof path, "/v1/%s", rows[i].path);
        const struct json *e = json_get(ask(&a, "POST", path, rows[i].body, NULL), "error");
        struct str param = text_at(e, "param"), code = text_at(e, "code");
        if (a.status != rows[i].status || !str_is(code, rows[i].code) ||
            (rows[i].param ? !str_is(param, rows[i].param) : param.ptr != NULL))
            fail_msg("%s: %d %.*s", rows[i].body, a.status, STR_ARG(buf_str(&a.body)));
        assert_true(text_at(e, "message").len > 5 && text_at(e, "type").len > 5);
        http1_free(&a);
    }
}

/* Who may say what is urgent: nobody, unless the server was started so. */
static void test_gateway_priority_is_the_operators_to_grant(void **state)
{
    struct http1 a;
    (void)state;
    for (int granted = 0; granted < 2; granted++) {
        start_with(&(struct gateway_options){.host = "127.0.0.1", .by_priority = granted});
        fake.priority = 0;
        const struct json *doc = ask(&a, "POST", "/v1/chat/completions", CHAT(",\"priority\":-7"), NULL);
        assert_int_equal(a.status, granted ? 200 : 400);
        if (!granted)
            assert_true(str_is(text_at(json_get(doc, "error"), "param"), "priority"));
        assert_int_equal(fake.priority, granted ? 7 : 0); /* on the wire smaller goes first, in the engine larger */
        http1_free(&a);
        ask(&a, "POST", "/v1/chat/completions", CHAT(",\"priority\":0"), NULL);
        assert_int_equal(a.status, 200);
        http1_free(&a);
        stop(NULL);
    }
}

/* A template that is not understood: chats are refused with the reason, everything else works. */
static void test_gateway_serves_without_a_usable_template(void **state)
{
    struct http1 a;
    (void)state;
    fake_bundle.template_error = (struct error){ST_UNSUPPORTED, "template: line 3: the tag 'include' is not offered"};
    const struct json *doc = ask(&a, "POST", "/v1/chat/completions", CHAT(""), NULL);
    assert_int_equal(a.status, 400);
    assert_true(str_find(text_at(json_get(doc, "error"), "message"), STR("the tag 'include'"), 0) != SIZE_MAX);
    http1_free(&a);
    ask(&a, "POST", "/v1/completions", "{\"prompt\":\"x\"}", NULL);
    assert_int_equal(a.status, 200);
    http1_free(&a);
    ask(&a, "POST", "/v1/tokenize", "{\"prompt\":\"x\"}", NULL);
    assert_int_equal(a.status, 200);
    http1_free(&a);
    fake_bundle.template_error = (struct error){0};
}

static void test_gateway_takes_harmless_fields(void **state)
{
    struct http1 a;
    (void)state;
    ask(&a, "POST", "/v1/chat/completions",
        CHAT(",\"user\":\"u\",\"store\":true,\"metadata\":{\"a\":\"b\"},\"tools\":[],\"tool_choice\":\"none\","
             "\"response_format\":{\"type\":\"text\"},\"seed\":-5,\"stop\":null,\"top_k\":-1,\"min_p\":0.1,"
             "\"logit_bias\":{\"5\":-100},\"parallel_tool_calls\":true,\"stream\":false,\"presence_penalty\":-2"),
        NULL);
    assert_int_equal(a.status, 200);
    http1_free(&a);
    for (int first = 0; first < 2; first++) { /* the newer name wins */
        const struct json *doc = ask(&a, "POST", "/v1/chat/completions",
                                     first ? CHAT(",\"max_tokens\":4,\"max_completion_tokens\":2")
                                           : CHAT(",\"max_completion_tokens\":2,\"max_tokens\":4"),
                                     NULL);
        assert_int_equal(json_int(json_get(json_get(doc, "usage"), "completion_tokens"), -1), 2);
        http1_free(&a);
    }
    ask(&a, "POST", "/v1/chat/completions",
        "{\"messages\":[{\"role\":\"developer\",\"content\":[{\"type\":\"text\",\"text\":\"a\"}]},"
        "{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[{}]},{\"role\":\"tool\",\"content\":\"x\"}]}",
        NULL);
    assert_int_equal(a.status, 200);
    http1_free(&a);
}

static void test_gateway_context_is_a_limit(void **state)
{
    struct http1 a;
    struct buf b = {0};
    (void)state;
    for (int over = 0; over < 2; over++) {
        buf_clear(&b);
        buf_append_str(&b, STR("{\"max_tokens\":5000,\"prompt\":\""));
        for (int i = 0; i < 2046 + over; i++) /* one more is BOS */
            buf_append_char(&b, 'a');
        buf_append_str(&b, STR("\"}"));
        const struct json *doc = ask(&a, "POST", "/v1/completions", b.ptr, NULL);
        assert_int_equal(a.status, over ? 400 : 200);
        if (over)
            assert_true(str_is(text_at(json_get(doc, "error"), "code"), "context_length_exceeded"));
        else
            assert_int_equal(json_int(json_get(json_get(doc, "usage"), "completion_tokens"), 0), 1);
        http1_free(&a);
    }
    buf_free(&b);
}

static void test_gateway_routes(void **state)
{
    static const struct {
        const char *method, *path;
        int status;
        const char *holds;
    } rows[] = {
        {"GET", "/livez", 200, "alive"},
        {"GET", "/healthz", 200, "alive"},
        {"GET", "/readyz", 200, "ready"},
        {"GET", "/health", 200, "\"ok\""},
        {"GET", "/v1/models", 200, "\"id\":\"fake\""},
        {"GET", "/v1/models/fake", 200, "\"max_model_len\":2048"},
        {"GET", "/v1/models/other", 404, "model_not_found"},
        {"GET", "/v1/models/", 404, "unknown_url"},
        {"GET", "/v1/chat/completions", 405, "method_not_allowed"},
        {"POST", "/health", 405, "method_not_allowed"},
        {"GET", "/etc/passwd", 404, "unknown_url"},
        {"GET", "/../x", 404, "unknown_url"},
        {"GET", "/", 200, "<html"},
        {"GET", "/chat.js", 200, "fetch("},
        {"GET", "/chat.css", 200, "body"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct http1 a;
        ask(&a, rows[i].method, rows[i].path, "", NULL);
        if (a.status != rows[i].status || str_find(buf_str(&a.body), str_of(rows[i].holds), 0) == SIZE_MAX)
            fail_msg("%s %s: %d %.*s", rows[i].method, rows[i].path, a.status, STR_ARG(buf_str(&a.body)));
        http1_free(&a);
    }
}

static void test_gateway_metrics(void **state)
{
    static const char *const names[] = {"num_requests_running",
                                        "num_requests_waiting",
                                        "kv_cache_usage_perc",
                                        "prompt_tokens_total",
                                        "generation_tokens_total",
                                        "time_to_first_token_seconds_bucket",
                                        "inter_token_latency_seconds_sum",
                                        "e2e_request_latency_seconds_count",
                                        "request_queue_time_seconds_count",
                                        "request_prefill_time_seconds_count",
                                        "request_decode_time_seconds_count"};
    struct http1 a;
    (void)state;
    ask(&a, "POST", "/v1/chat/completions", CHAT(""), NULL);
    http1_free(&a);
    ask(&a, "GET", "/metrics", "", NULL);
    assert_true(str_starts(http1_header(&a, "content-type"), STR("text/plain; version=0.0.4")));
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char line[120];
        snprintf(line, sizeof line, "\nvllm:%s{model_name=\"fake\"", names[i]);
        if (str_find(buf_str(&a.body), str_of(line), 0) == SIZE_MAX)
            fail_msg("no %s in\n%s", line, a.body.ptr);
    }
    assert_int_equal(count(buf_str(&a.body), "vllm:generation_tokens_total{model_name=\"fake\",engine=\"0\"} 5\n"), 1);
    assert_int_equal(count(buf_str(&a.body), "finished_reason=\"stop\"} 1\n"), 1);
    http1_free(&a);
}

static void test_gateway_key(void **state)
{
    static const struct {
        const char *path, *headers;
        int status;
    } rows[] = {
        {"/v1/models", NULL, 401},
        {"/v1/models", "authorization: Bearer secret\r\n", 200},
        {"/v1/models", "authorization: bearer secret\r\n", 200},
        {"/v1/models", "x-api-key: secret\r\n", 200},
        {"/v1/models", "authorization: Bearer secre\r\n", 401},
        {"/v1/models", "authorization: Bearer secrets\r\n", 401},
        {"/v1/models", "authorization: Bearer secretsecret\r\n", 401},
        {"/v1/models", "authorization: Bearer \r\n", 401},
        {"/v1/models", "authorization: Basic secret\r\n", 401},
        {"/v1/models", "x-api-key: wrong\r\n", 401},
        {"/metrics", NULL, 401},
        {"/livez", NULL, 200},
        {"/readyz", NULL, 200},
        {"/", NULL, 200},
        {"/nothing", NULL, 404},
    };
    (void)state;
    start_with(&(struct gateway_options){.host = "0.0.0.0", .api_key = "secret"});
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct http1 a;
        ask(&a, "GET", rows[i].path, "", rows[i].headers);
        if (a.status != rows[i].status)
            fail_msg("%s, %s: %d", rows[i].path, rows[i].headers ? rows[i].headers : "", a.status);
        http1_free(&a);
    }
    stop(NULL);
}

static void test_gateway_without_key_serves_only_local_pages(void **state)
{
    struct http1 a;
    struct error err;
    struct gateway *g;
    (void)state;
    ask(&a, "GET", "/v1/models", "", "origin: https://evil.example\r\n");
    assert_int_equal(a.status, 403);
    http1_free(&a);
    ask(&a, "GET", "/v1/models", "", "origin: http://localhost:3000\r\n");
    assert_int_equal(a.status, 200);
    http1_free(&a);
    OK(http_call(&a,
                 &(struct http_call){.host = "127.0.0.1",
                                     .port = gateway_port(gateway),
                                     .method = "GET http://x/livez HTTP/1.0\r\nhost: rebound.example\r\nx:",
                                     .path = "y"},
                 &err));
    assert_int_equal(a.status, 400); /* our own client sends a second Host: refused as a duplicate */
    http1_free(&a);
    FAILS(ST_DENIED, gateway_create(&g, engine, &(struct gateway_options){.host = "0.0.0.0"}, &err));
    FAILS(ST_DENIED, gateway_create(&g, engine, &(struct gateway_options){.host = "::"}, &err));
    FAILS(ST_INVALID, gateway_create(&g, engine, &(struct gateway_options){.tls_cert = "x"}, &err));
    FAILS(ST_INVALID, gateway_create(&g, engine, &(struct gateway_options){.tls_cert = "/no", .tls_key = "/no"}, &err));
}

static bool blocks_return(void)
{
    struct engine_stats s;
    for (int i = 0; i < 500; i++) {
        engine_stats(engine, &s);
        if (s.blocks_free == s.blocks_total)
            return true;
        usleep(10000);
    }
    return false;
}

/* How many choices were aborted; waits a little until it is `want`. */
static int aborted_soon(int want)
{
    static const char name[] = "finished_reason=\"abort\"} ";
    int n = -1;
    for (int i = 0; i < 50 && n != want; i++) {
        struct http1 m;
        usleep(i ? 10000 : 0);
        ask(&m, "GET", "/metrics", "", NULL);
        size_t at = str_find(buf_str(&m.body), str_of(name), 0);
        assert_true(at != SIZE_MAX);
        n = atoi(m.body.ptr + at + sizeof name - 1);
        http1_free(&m);
    }
    return n;
}

static bool leave_after(void *ctx, struct str bytes)
{
    int *left = ctx;
    return (*left -= (int)bytes.len) > 0;
}

static void test_gateway_clients_who_leave_free_their_blocks(void **state)
{
    struct http1 a;
    struct error err;
    (void)state;
    __atomic_store_n(&fake.delay_us, 2000, __ATOMIC_SEQ_CST);
    for (int bytes = 1; bytes < 3000; bytes += 400) { /* leave after so many bytes of the stream */
        int left = bytes;
        struct http_call call = {.host = "127.0.0.1",
                                 .port = gateway_port(gateway),
                                 .method = "POST",
                                 .path = "/v1/chat/completions",
                                 .on_body = leave_after,
                                 .ctx = &left,
                                 .body = STR(CHAT(",\"stream\":true,\"n\":4,\"max_tokens\":2000"))};
        FAILS(ST_CANCELED, http_call(&a, &call, &err));
        assert_true(blocks_return());
    }
    struct http_call silent = {.host = "127.0.0.1",
                               .port = gateway_port(gateway),
                               .method = "POST",
                               .path = "/v1/chat/completions",
                               .timeout_ms = 100,
                               .body = STR(CHAT(",\"n\":4,\"max_tokens\":2000"))}; /* not streamed: silent until done */
    assert_int_equal(aborted_soon(32), 32);
    int tries = 0;
    do { /* again when it left before its request was read */
        FAILS(ST_TIMEOUT, http_call(&a, &silent, &err));
        assert_true(blocks_return());
    } while (aborted_soon(36) == 32 && ++tries < 20);
    assert_int_equal(aborted_soon(36), 36);
}

static bool read_slowly(void *ctx, struct str bytes)
{
    (void)ctx, (void)bytes;
    usleep(20000);
    return true;
}

static void test_gateway_readers_far_too_slow_are_dropped(void **state)
{
    struct http1 a;
    struct error err;
    (void)state;
    /* 8 MB in a burst, of which the kernel, the queue and the mailbox hold less. */
    struct http_call call = {.host = "127.0.0.1",
                             .port = gateway_port(gateway),
                             .method = "POST",
                             .path = "/v1/completions",
                             .on_body = read_slowly,
                             .timeout_ms = 60000,
                             .body = STR("{\"prompt\":\"BIG\",\"stream\":true,\"max_tokens\":2000,\"n\":16}")};
    assert_int_not_equal(http_call(&a, &call, &err), ST_OK);
    assert_true(blocks_return());
}

static void test_gateway_full_queue(void **state)
{
    struct http1 a;
    (void)state;
    __atomic_store_n(&fake.queue_max, 2, __ATOMIC_SEQ_CST);
    __atomic_store_n(&fake.hold, 1, __ATOMIC_SEQ_CST); /* or the first may have left when the last comes */
    const struct json *doc = ask(&a, "POST", "/v1/chat/completions", CHAT(",\"n\":3"), NULL);
    assert_int_equal(a.status, 503);
    assert_true(str_is(text_at(json_get(doc, "error"), "code"), "server_is_overloaded"));
    assert_true(http1_header(&a, "retry-after").len > 0);
    http1_free(&a);
    __atomic_store_n(&fake.hold, 0, __ATOMIC_SEQ_CST);
    assert_true(blocks_return());
}

static void *ask_held(void *arg)
{
    struct http1 a;
    struct error err;
    struct http_call call = {.host = "127.0.0.1",
                             .port = gateway_port(gateway),
                             .method = "POST",
                             .path = "/v1/chat/completions",
                             .timeout_ms = 120000, /* the clock jumps by 61 s meanwhile */
                             .body = STR(CHAT(",\"stream\":true"))};
    if (http_call(&a, &call, &err) == ST_OK) {
        *(int *)arg = a.status == 200 && str_ends(buf_str(&a.body), STR("data: [DONE]\n\n"));
        http1_free(&a);
    }
    return NULL;
}

static void hold_one(pthread_t *client, int *good)
{
    struct engine_stats s = {0};
    __atomic_store_n(&fake.hold, 1, __ATOMIC_SEQ_CST);
    pthread_create(client, NULL, ask_held, good);
    while (s.running == 0) {
        usleep(1000);
        engine_stats(engine, &s);
    }
}

static void test_gateway_health_is_the_engines_pulse(void **state)
{
    struct http1 a;
    pthread_t client;
    int good = 0;
    (void)state;
    hold_one(&client, &good);
    ask(&a, "GET", "/health", "", NULL);
    assert_int_equal(a.status, 200);
    http1_free(&a);
    __atomic_store_n(&fake.frozen, 1, __ATOMIC_SEQ_CST);
    clock_jump(61000000000, 0);
    ask(&a, "GET", "/health", "", NULL);
    clock_jump(0, 0);
    assert_int_equal(a.status, 503);
    http1_free(&a);
    __atomic_store_n(&fake.hold, 0, __ATOMIC_SEQ_CST);
    pthread_join(client, NULL);
    assert_true(good);
}

/* ---- memory ---- */

static double metric(const char *name)
{
    struct http1 a;
    char line[120];
    ask(&a, "GET", "/metrics", "", NULL);
    snprintf(line, sizeof line, "\n%s{model_name=\"fake\",engine=\"0\"} ", name);
    size_t at = str_find(buf_str(&a.body), str_of(line), 0);
    assert_int_not_equal(at, SIZE_MAX);
    double value = strtod(a.body.ptr + at + strlen(line), NULL);
    http1_free(&a);
    return value;
}

static bool memory_returns(void)
{
    for (int i = 0; i < 500; i++) {
        if (metric("ingot:request_memory_bytes") < 64 << 10) /* what this very connection keeps */
            return true;
        usleep(10000);
    }
    return false;
}

/* {"prompt":"x","metadata":[1,1, ... of so many bytes */
static struct buf padded_body(size_t bytes)
{
    struct buf b = {0};
    buf_append_str(&b, STR("{\"prompt\":\"x\",\"max_tokens\":2000,\"stream\":true,\"metadata\":[1"));
    while (b.len < bytes)
        buf_append_str(&b, STR(",1"));
    buf_append_str(&b, STR("]}"));
    return b;
}

static void refused_for_memory(const char *body, const char *what)
{
    struct http1 a;
    double before = metric("ingot:request_memory_refused_total");
    const struct json *e = json_get(ask(&a, "POST", "/v1/completions", body, NULL), "error");
    if (a.status != 503 || !str_is(text_at(e, "code"), "server_is_overloaded"))
        fail_msg("%s: %d %.*s", what, a.status, STR_ARG(buf_str(&a.body)));
    assert_true(http1_header(&a, "retry-after").len > 0);
    http1_free(&a);
    assert_true(metric("ingot:request_memory_refused_total") > before);
    assert_true(memory_returns());
}

static void test_gateway_memory_has_one_bound(void **state)
{
    struct http1 a;
    struct buf big = padded_body(7 << 20), bomb = padded_body(1 << 20);
    (void)state;
    start_with(&(struct gateway_options){.host = "127.0.0.1", .request_bytes = 8 << 20});
    assert_true(metric("ingot:request_memory_max_bytes") == 8 << 20);
    refused_for_memory(big.ptr, "a body over three quarters of it");
    refused_for_memory(bomb.ptr, "a body that grows when it is parsed");
    refused_for_memory("{\"prompt\":\"BIG\",\"n\":16,\"max_tokens\":2000}", "answers that grow");
    ask(&a, "POST", "/v1/completions", "{\"prompt\":\"x\"}", NULL);
    assert_int_equal(a.status, 200);
    http1_free(&a);
    buf_free(&big);
    buf_free(&bomb);
    stop(NULL);
}

static struct buf held_body;

static void *post_held(void *arg)
{
    struct http1 a;
    struct error err;
    struct http_call call = {.host = "127.0.0.1",
                             .port = gateway_port(gateway),
                             .method = "POST",
                             .path = "/v1/completions",
                             .body = buf_str(&held_body)};
    if (http_call(&a, &call, &err) == ST_OK) {
        *(int *)arg = a.status;
        http1_free(&a);
    }
    return NULL;
}

/* What was parsed is forgotten before the answer begins: long answers do not keep large requests in memory. */
static void test_gateway_parsed_requests_are_forgotten(void **state)
{
    enum { CLIENTS = 6 };
    pthread_t clients[CLIENTS];
    int status[CLIENTS] = {0};
    struct engine_stats s = {0};
    (void)state;
    held_body = padded_body(300 << 10); /* some 10 MB of values */
    start_with(&(struct gateway_options){.host = "127.0.0.1", .request_bytes = 32 << 20});
    __atomic_store_n(&fake.hold, 1, __ATOMIC_SEQ_CST);
    for (int i = 0; i < CLIENTS; i++) {
        pthread_create(&clients[i], NULL, post_held, &status[i]);
        while (s.running <= i) {
            usleep(1000);
            engine_stats(engine, &s);
        }
    }
    assert_true(memory_returns());
    assert_true(metric("ingot:request_memory_refused_total") == 0);
    __atomic_store_n(&fake.hold, 0, __ATOMIC_SEQ_CST);
    for (int i = 0; i < CLIENTS; i++) {
        pthread_join(clients[i], NULL);
        assert_int_equal(status[i], 200);
    }
    assert_true(memory_returns());
    buf_free(&held_body);
    stop(NULL);
}

static void test_gateway_drains(void **state)
{
    pthread_t client;
    int good = 0;
    (void)state;
    start_with(&(struct gateway_options){.host = "127.0.0.1"});
    hold_one(&client, &good);
    gateway_drain(gateway);
    usleep(50000);
    struct http1 a;
    struct error err;
    struct http_call call = {.host = "127.0.0.1", .port = gateway_port(gateway), .method = "GET", .path = "/livez"};
    FAILS(ST_IO, http_call(&a, &call, &err)); /* the listener is closed */
    __atomic_store_n(&fake.hold, 0, __ATOMIC_SEQ_CST);
    pthread_join(client, NULL);
    assert_true(good); /* the stream was finished */
    stop(NULL);
}

static void test_gateway_drain_has_an_end(void **state)
{
    pthread_t client;
    int good = 0;
    (void)state;
    start_with(&(struct gateway_options){.host = "127.0.0.1", .drain_ms = 1});
    hold_one(&client, &good);
    stop(NULL);
    pthread_join(client, NULL);
    assert_false(good);
}

static void test_gateway_survives_failing_memory(void **state)
{
    static const char *const bodies[] = {CHAT(",\"n\":2,\"logprobs\":true,\"top_logprobs\":1"),
                                         CHAT(",\"stream\":true,\"stop\":[\"a\"],\"logit_bias\":{\"1\":1}")};
    struct http1 a;
    struct error err;
    (void)state;
    for (size_t i = 0; i < 2; i++)
        for (uint64_t n = 1; n < 150; n++) { /* the client's allocations are among them */
            struct http_call call = {.host = "127.0.0.1",
                                     .port = gateway_port(gateway),
                                     .method = "POST",
                                     .path = "/v1/chat/completions",
                                     .body = str_of(bodies[i]),
                                     .timeout_ms = 10000};
            fault_arm(FAULT_ALLOC, n);
            enum status st = http_call(&a, &call, &err);
            fault_disarm();
            if (st == ST_TIMEOUT)
                fail_msg("allocation %d: no answer", (int)n);
            if (st == ST_OK)
                http1_free(&a);
        }
    assert_true(blocks_return());
    assert_true(memory_returns()); /* nothing that was given up on is still counted */
    ask(&a, "POST", "/v1/chat/completions", bodies[0], NULL);
    assert_int_equal(a.status, 200);
    http1_free(&a);
}

static void test_gateway_survives_a_failing_network(void **state)
{
    static const enum fault_point points[] = {FAULT_ACCEPT, FAULT_RECV, FAULT_SEND};
    struct http1 a;
    struct error err;
    (void)state;
    for (size_t i = 0; i < 3; i++)
        for (uint64_t n = 1; n < 16; n++) {
            struct http_call call = {.host = "127.0.0.1",
                                     .port = gateway_port(gateway),
                                     .method = "POST",
                                     .path = "/v1/chat/completions",
                                     .body = STR(CHAT(",\"stream\":true")),
                                     .timeout_ms = 10000};
            fault_arm(points[i], n);
            enum status st = http_call(&a, &call, &err);
            fault_disarm();
            assert_int_not_equal(st, ST_TIMEOUT);
            if (st == ST_OK)
                http1_free(&a);
        }
    assert_true(blocks_return());
}

int main(void)
{
#define ON_SERVER(test) cmocka_unit_test_setup_teardown(test, start, stop)
    const struct CMUnitTest tests[] = {
        ON_SERVER(test_gateway_chat),
        ON_SERVER(test_gateway_streams),
        ON_SERVER(test_gateway_completions),
        ON_SERVER(test_gateway_echoes_log_probabilities),
        ON_SERVER(test_gateway_tokenize_and_users_cannot_write_special_tokens),
        ON_SERVER(test_gateway_embeds_and_ranks),
        ON_SERVER(test_gateway_refuses_by_name),
        cmocka_unit_test(test_gateway_priority_is_the_operators_to_grant),
        ON_SERVER(test_gateway_serves_without_a_usable_template),
        ON_SERVER(test_gateway_takes_harmless_fields),
        ON_SERVER(test_gateway_context_is_a_limit),
        ON_SERVER(test_gateway_routes),
        ON_SERVER(test_gateway_metrics),
        cmocka_unit_test(test_gateway_key),
        ON_SERVER(test_gateway_without_key_serves_only_local_pages),
        ON_SERVER(test_gateway_clients_who_leave_free_their_blocks),
        ON_SERVER(test_gateway_readers_far_too_slow_are_dropped),
        ON_SERVER(test_gateway_full_queue),
        ON_SERVER(test_gateway_health_is_the_engines_pulse),
        cmocka_unit_test(test_gateway_memory_has_one_bound),
        cmocka_unit_test(test_gateway_parsed_requests_are_forgotten),
        cmocka_unit_test(test_gateway_drains),
        cmocka_unit_test(test_gateway_drain_has_an_end),
        ON_SERVER(test_gateway_survives_failing_memory),
        ON_SERVER(test_gateway_survives_a_failing_network),
    };
    return RUN(tests);
}
