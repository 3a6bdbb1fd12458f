/* Responses over the stand-in engine: items, numbered events in their order, conversations that go on. */
#include "test.h"

#include "gateway/harness.h"

#define TOOLS                                                                                                          \
    ",\"tools\":[{\"type\":\"function\",\"name\":\"f\",\"parameters\":{\"type\":\"object\"},\"strict\":false}]"
#define CALL "<think>hm</think>Ok.<tool_call>{\\\"name\\\": \\\"f\\\", \\\"arguments\\\": {\\\"n\\\": 1}}</tool_call>"

static void set_hold(int hold)
{
    __atomic_store_n(&fake.hold, hold, __ATOMIC_SEQ_CST);
}

static void test_responses_whole(void **state)
{
    struct http1 a;
    (void)state;
    const struct json *doc =
        ask(&a, "POST", "/v1/responses",
            "{\"input\":\"SAY " CALL "\",\"metadata\":{\"k\":\"v\"},\"temperature\":0.5" TOOLS "}", NULL);
    assert_int_equal(a.status, 200);
    want_text(doc, "object", "response");
    want_text(doc, "status", "completed");
    want_text(doc, "output.0.type", "reasoning");
    want_text(doc, "output.0.content.0.text", "hm");
    want_text(doc, "output.1.content.0.type", "output_text");
    want_text(doc, "output.1.content.0.text", "Ok.");
    want_text(doc, "output.2.type", "function_call");
    want_text(doc, "output.2.name", "f");
    want_text(doc, "output.2.arguments", "{\"n\": 1}");
    want_text(doc, "metadata.k", "v");
    want_text(doc, "tools.0.name", "f");
    assert_true(json_real(at(doc, "temperature"), 0) == 0.5);
    assert_true(str_starts(json_str(at(doc, "id")), STR("resp_")));
    assert_true(json_int(at(doc, "usage.output_tokens_details.reasoning_tokens"), 0) > 2);
    http1_free(&a);
    doc = ask(&a, "POST", "/v1/responses", "{\"input\":\"x\",\"max_output_tokens\":2}", NULL);
    want_text(doc, "status", "incomplete");
    want_text(doc, "incomplete_details.reason", "max_output_tokens");
    http1_free(&a);
}

static void test_responses_streamed(void **state)
{
    static const char *const order[] = {"response.created",
                                        "response.in_progress",
                                        "response.output_item.added",
                                        "response.content_part.added",
                                        "response.reasoning_text.delta",
                                        "response.reasoning_text.done",
                                        "response.content_part.done",
                                        "response.output_item.done",
                                        "response.output_item.added",
                                        "response.content_part.added",
                                        "response.output_text.delta",
                                        "response.output_text.done",
                                        "response.content_part.done",
                                        "response.output_item.done",
                                        "response.output_item.added",
                                        "response.function_call_arguments.delta",
                                        "response.function_call_arguments.done",
                                        "response.output_item.done",
                                        "response.completed"};
    struct http1 a;
    size_t n = 0;
    int64_t number = 0;
    struct str last = {"", 0};
    (void)state;
    ask(&a, "POST", "/v1/responses", "{\"input\":\"SAY " CALL "\",\"stream\":true" TOOLS "}", NULL);
    assert_true(str_starts(buf_str(&a.body), STR("event: response.created\ndata: {\"type\":\"response.created\"")));
    assert_int_equal(count(buf_str(&a.body), "[DONE]"), 0);
    const struct json *list = events(buf_str(&a.body));
    JSON_EACH (e, list) {
        struct str type = json_str(json_get(e, "type"));
        assert_int_equal(json_int(json_get(e, "sequence_number"), -1), number++);
        if (!str_eq(type, last) || !str_ends(type, STR(".delta"))) {
            assert_true(n < sizeof order / sizeof *order);
            if (!str_is(type, order[n++]))
                fail_msg("event %zu: %.*s, expected %s", n, STR_ARG(type), order[n - 1]);
        }
        last = type;
    }
    assert_int_equal(n, sizeof order / sizeof *order);
    const struct json *end = json_at(list, json_count(list) - 1);
    want_text(end, "response.status", "completed");
    want_text(end, "response.output.2.arguments", "{\"n\": 1}");
    http1_free(&a);
    ask(&a, "POST", "/v1/responses", "{\"input\":\"FAIL\",\"stream\":true}", NULL);
    list = events(buf_str(&a.body));
    end = json_at(list, json_count(list) - 1);
    want_text(end, "type", "response.failed");
    want_text(end, "response.error.message", "the device is on fire");
    http1_free(&a);
}

/* The stand-in template writes contents alone: the number of prompt tokens tells what was in the conversation. */
static void test_responses_go_on(void **state)
{
    struct http1 a, b;
    char body[400], path[120];
    (void)state;
    const struct json *doc = ask(&a, "POST", "/v1/responses", "{\"input\":\"SAY abc\",\"instructions\":\"i\"}", NULL);
    struct str id = json_str(at(doc, "id"));
    assert_int_equal(json_int(at(doc, "usage.input_tokens"), -1), (1 + 1) + (1 + 7));
    snprintf(body, sizeof body,
             "{\"input\":[{\"role\":\"user\",\"content\":[{\"type\":\"input_text\",\"text\":\"de\"}]}],"
             "\"previous_response_id\":\"%.*s\",\"max_output_tokens\":1}",
             STR_ARG(id));
    const struct json *next = ask(&b, "POST", "/v1/responses", body, NULL);
    assert_int_equal(json_int(at(next, "usage.input_tokens"), -1),
                     (1 + 7) + (1 + 3) + (1 + 2)); /* not the instructions */
    assert_true(str_eq(json_str(at(next, "previous_response_id")), id));
    http1_free(&b);
    snprintf(path, sizeof path, "/v1/responses/%.*s", STR_ARG(id));
    doc = ask(&b, "GET", path, "", NULL);
    assert_true(str_eq(json_str(at(doc, "id")), id));
    want_text(doc, "output.0.content.0.text", "abc");
    http1_free(&b);
    snprintf(path, sizeof path, "/v1/responses/%.*s/cancel", STR_ARG(id));
    ask(&b, "POST", path, "", NULL);
    assert_int_equal(b.status, 400); /* it is over */
    http1_free(&b);
    snprintf(path, sizeof path, "/v1/responses/%.*s", STR_ARG(id));
    doc = ask(&b, "DELETE", path, "", NULL);
    assert_int_equal(json_type(at(doc, "deleted")), JSON_TRUE);
    http1_free(&b);
    ask(&b, "GET", path, "", NULL);
    assert_int_equal(b.status, 404);
    http1_free(&b);
    ask(&b, "POST", "/v1/responses", body, NULL);
    assert_int_equal(b.status, 404);
    http1_free(&b);
    http1_free(&a);
    doc = ask(&a, "POST", "/v1/responses", "{\"input\":\"x\",\"store\":false}", NULL);
    snprintf(path, sizeof path, "/v1/responses/%.*s", STR_ARG(json_str(at(doc, "id"))));
    ask(&b, "GET", path, "", NULL);
    assert_int_equal(b.status, 404);
    http1_free(&b);
    http1_free(&a);
}

static void test_responses_items(void **state)
{
    struct http1 a;
    (void)state;
    const struct json *doc = ask(
        &a, "POST", "/v1/responses",
        "{\"max_output_tokens\":1,\"input\":[{\"role\":\"developer\",\"content\":\"s\"},{\"type\":\"message\",\"role\":"
        "\"user\",\"content\":\"ab\"},{\"type\":\"reasoning\",\"id\":\"rs_1\",\"summary\":[],\"content\":[{\"type\":"
        "\"reasoning_text\",\"text\":\"hm\"}]},{\"type\":\"function_call\",\"call_id\":\"c1\",\"name\":\"f\","
        "\"arguments\":\"{}\"},{\"type\":\"function_call_output\",\"call_id\":\"c1\",\"output\":\"42\"}]}",
        NULL);
    /* five items are four messages: reasoning and call are one turn, without words */
    assert_int_equal(json_int(at(doc, "usage.input_tokens"), -1), (1 + 1) + (1 + 2) + 1 + (1 + 2));
    http1_free(&a);
}

static void *ask_slowly(void *arg)
{
    struct http1 a;
    struct error err;
    struct buf *out = arg;
    OK(http_call(&a,
                 &(struct http_call){.host = "127.0.0.1",
                                     .port = gateway_port(gateway),
                                     .method = "POST",
                                     .path = "/v1/responses",
                                     .body = STR("{\"input\":\"x\",\"stream\":true}"),
                                     .timeout_ms = 20000},
                 &err));
    *out = a.body;
    a.body = (struct buf){0};
    http1_free(&a);
    return NULL;
}

/* Ids cannot be guessed; one that nobody has is 404, and whoever runs goes on. */
static void test_responses_cancel_unknown_harms_nobody(void **state)
{
    pthread_t client;
    struct buf body = {0};
    struct http1 a;
    (void)state;
    set_hold(1);
    pthread_create(&client, NULL, ask_slowly, &body);
    ask(&a, "POST", "/v1/responses/resp_0/cancel", "", NULL);
    assert_int_equal(a.status, 404);
    http1_free(&a);
    set_hold(0);
    pthread_join(client, NULL);
    assert_int_equal(count(buf_str(&body), "event: response.completed"), 1);
    buf_free(&body);
}

struct canceling {
    struct buf seen;
    bool asked;
};

static bool on_body(void *ctx, struct str bytes)
{
    struct canceling *c = ctx;
    struct http1 a;
    char path[120];
    buf_append_str(&c->seen, bytes);
    size_t at_id = str_find(buf_str(&c->seen), STR("\"id\":\"resp_"), 0);
    if (c->asked || at_id == SIZE_MAX)
        return true;
    c->asked = true;
    snprintf(path, sizeof path, "/v1/responses/%.29s/cancel", c->seen.ptr + at_id + 6);
    const struct json *doc = ask(&a, "POST", path, "", NULL);
    assert_int_equal(a.status, 200);
    want_text(doc, "status", "cancelled");
    http1_free(&a);
    return true;
}

static void test_responses_cancel(void **state)
{
    struct canceling c = {0};
    struct http1 a;
    struct error err;
    (void)state;
    set_hold(1);
    OK(http_call(&a,
                 &(struct http_call){.host = "127.0.0.1",
                                     .port = gateway_port(gateway),
                                     .method = "POST",
                                     .path = "/v1/responses",
                                     .body = STR("{\"input\":\"x\",\"stream\":true}"),
                                     .timeout_ms = 20000,
                                     .on_body = on_body,
                                     .ctx = &c},
                 &err));
    set_hold(0);
    assert_true(c.asked);
    assert_int_equal(count(buf_str(&c.seen), "event: response.failed"), 1);
    assert_true(count(buf_str(&c.seen), "\"status\":\"cancelled\"") >= 1);
    buf_free(&c.seen);
    http1_free(&a);
}

/* The text's own tokens: not those of reasoning, calls and their marks. */
static void test_responses_logprobs(void **state)
{
    struct http1 a;
    size_t n = 0;
    struct buf body = {0};
    (void)state;
    const struct json *doc =
        ask(&a, "POST", "/v1/responses",
            "{\"input\":\"x\",\"include\":[\"message.output_text.logprobs\"],\"top_logprobs\":2}", NULL);
    assert_int_equal(json_count(at(doc, "output.0.content.0.logprobs")), 5);
    want_text(doc, "output.0.content.0.logprobs.0.token", "w");
    want_text(doc, "output.0.content.0.logprobs.4.top_logprobs.1.token", "x");
    http1_free(&a);
    doc = ask(&a, "POST", "/v1/responses", "{\"input\":\"x\"}", NULL);
    assert_int_equal(json_count(at(doc, "output.0.content.0.logprobs")), 0);
    http1_free(&a);
    for (int streamed = 0; streamed < 2; streamed++) {
        buf_clear(&body);
        buf_printf(&body, "{\"input\":\"SAY <think>hm</think>abcdef\",\"top_logprobs\":1,\"stream\":%s}",
                   streamed ? "true" : "false");
        doc = ask(&a, "POST", "/v1/responses", body.ptr, NULL);
        const struct json *list = events(buf_str(&a.body)), *text;
        if (streamed) {
            JSON_EACH (e, list)
                if (str_is(text_at(e, "type"), "response.output_text.delta"))
                    n += json_count(json_get(e, "logprobs"));
            doc = at(json_at(list, json_count(list) - 1), "response");
        }
        text = at(doc, "output.1.content.0");
        want_text(text, "text", "abcdef");
        assert_in_range(json_count(json_get(text, "logprobs")), 2,
                        3); /* three bytes a token, one with the mark's end */
        assert_true(!streamed || n == json_count(json_get(text, "logprobs")));
        http1_free(&a);
    }
    buf_free(&body);
}

static void test_responses_input_items(void **state)
{
    struct http1 a;
    char path[200], id[80];
    (void)state;
    const struct json *doc =
        ask(&a, "POST", "/v1/responses",
            "{\"instructions\":\"i\",\"input\":[{\"role\":\"user\",\"content\":\"one\"},{\"type\":\"reasoning\","
            "\"summary\":[{\"type\":\"summary_text\",\"text\":\"hm\"}]},{\"type\":\"function_call\",\"call_id\":"
            "\"c1\",\"name\":\"f\",\"arguments\":\"{}\"},{\"type\":\"function_call_output\",\"call_id\":\"c1\","
            "\"output\":\"42\"},{\"role\":\"user\",\"content\":\"SAY two\"}]}",
            NULL);
    snprintf(id, sizeof id, "%.*s", STR_ARG(json_str(at(doc, "id"))));
    http1_free(&a);
    snprintf(path, sizeof path, "/v1/responses/%s/input_items?order=asc", id);
    doc = ask(&a, "GET", path, "", NULL);
    assert_int_equal(json_count(at(doc, "data")), 5);
    want_text(doc, "data.0.content.0.text", "one");
    want_text(doc, "data.0.content.0.type", "input_text");
    want_text(doc, "data.1.type", "reasoning");
    want_text(doc, "data.2.name", "f");
    want_text(doc, "data.3.output", "42");
    want_text(doc, "data.4.content.0.text", "SAY two");
    assert_int_equal(json_type(at(doc, "has_more")), JSON_FALSE);
    char *last = arena_copy(&arena, json_str(at(doc, "data.4.id")));
    http1_free(&a);
    snprintf(path, sizeof path, "/v1/responses/%s/input_items?limit=2&after=%s", id, last);
    doc = ask(&a, "GET", path, "", NULL); /* newest first */
    assert_int_equal(json_count(at(doc, "data")), 2);
    want_text(doc, "data.0.type", "function_call_output");
    want_text(doc, "data.1.type", "function_call");
    assert_int_equal(json_type(at(doc, "has_more")), JSON_TRUE);
    http1_free(&a);
    char body[200]; /* what came before is a part of what the next one was made from */
    snprintf(body, sizeof body, "{\"input\":\"next\",\"previous_response_id\":\"%s\"}", id);
    doc = ask(&a, "POST", "/v1/responses", body, NULL);
    snprintf(path, sizeof path, "/v1/responses/%.*s/input_items?order=asc", STR_ARG(json_str(at(doc, "id"))));
    http1_free(&a);
    doc = ask(&a, "GET", path, "", NULL);
    assert_int_equal(json_count(at(doc, "data")), 7);
    want_text(doc, "data.5.content.0.text", "two");
    want_text(doc, "data.5.role", "assistant");
    want_text(doc, "data.6.content.0.text", "next");
    http1_free(&a);
    static const char *const bad[] = {"?limit=0", "?limit=101", "?order=up"};
    for (size_t i = 0; i < 3; i++) {
        snprintf(path, sizeof path, "/v1/responses/%s/input_items%s", id, bad[i]);
        ask(&a, "GET", path, "", NULL);
        assert_int_equal(a.status, 400);
        http1_free(&a);
    }
    ask(&a, "GET", "/v1/responses/resp_0/input_items", "", NULL);
    assert_int_equal(a.status, 404);
    http1_free(&a);
    ask(&a, "GET", "/v1/responses/x/input_items", "", NULL);
    assert_int_equal(a.status, 404);
    http1_free(&a);
}

static const struct json *get_response(struct http1 *a, const char *id, const char *query)
{
    char path[200];
    snprintf(path, sizeof path, "/v1/responses/%s%s", id, query);
    return ask(a, "GET", path, "", NULL);
}

/* The response once it has ended. */
static const struct json *get_ended(struct http1 *a, const char *id)
{
    const struct json *doc = NULL;
    for (int i = 0; i < 2000; i++, usleep(1000), http1_free(a)) {
        doc = get_response(a, id, "");
        if (!str_is(json_str(at(doc, "status")), "in_progress"))
            break;
    }
    return doc;
}

static void test_responses_background(void **state)
{
    struct http1 a;
    char id[80], path[200];
    (void)state;
    set_hold(1);
    const struct json *doc = ask(&a, "POST", "/v1/responses", "{\"input\":\"SAY yes\",\"background\":true}", NULL);
    want_text(doc, "status", "in_progress");
    assert_int_equal(json_type(at(doc, "background")), JSON_TRUE);
    snprintf(id, sizeof id, "%.*s", STR_ARG(json_str(at(doc, "id"))));
    http1_free(&a);
    doc = get_response(&a, id, "");
    want_text(doc, "status", "in_progress");
    http1_free(&a);
    doc = get_response(&a, id, "/input_items");
    want_text(doc, "data.0.content.0.text", "SAY yes");
    http1_free(&a);
    get_response(&a, id, "?stream=true"); /* it was not made to be streamed */
    assert_int_equal(a.status, 400);
    http1_free(&a);
    set_hold(0);
    doc = get_ended(&a, id);
    want_text(doc, "status", "completed");
    want_text(doc, "output.0.content.0.text", "yes");
    http1_free(&a);
    set_hold(1);
    doc = ask(&a, "POST", "/v1/responses", "{\"input\":\"SAY no\",\"background\":true}", NULL);
    snprintf(id, sizeof id, "%.*s", STR_ARG(json_str(at(doc, "id"))));
    http1_free(&a);
    snprintf(path, sizeof path, "/v1/responses/%s/cancel", id);
    doc = ask(&a, "POST", path, "", NULL);
    want_text(doc, "status", "cancelled");
    http1_free(&a);
    set_hold(0);
    doc = get_ended(&a, id);
    want_text(doc, "status", "cancelled");
    assert_int_equal(json_type(at(doc, "error")), JSON_NULL);
    http1_free(&a);
}

/* A client that leaves, and comes back for the events behind the last it saw. */
static bool seen_enough(void *ctx, struct str bytes)
{
    struct buf *seen = ctx;
    buf_append_str(seen, bytes);
    return count(buf_str(seen), "event: response.output_text.delta") < 2;
}

static void test_responses_background_stream(void **state)
{
    struct http1 a;
    struct error err;
    struct buf seen = {0};
    char id[80];
    (void)state;
    __atomic_store_n(&fake.delay_us, 20000, __ATOMIC_SEQ_CST);
    FAILS(ST_CANCELED,
          http_call(&a,
                    &(struct http_call){
                        .host = "127.0.0.1",
                        .port = gateway_port(gateway),
                        .method = "POST",
                        .path = "/v1/responses",
                        .body = STR("{\"input\":\"x\",\"background\":true,\"stream\":true,\"max_output_tokens\":12}"),
                        .timeout_ms = 20000,
                        .on_body = seen_enough,
                        .ctx = &seen},
                    &err));
    const struct json *list = events(buf_str(&seen)), *first = json_at(list, 0);
    snprintf(id, sizeof id, "%.*s", STR_ARG(json_str(at(first, "response.id"))));
    size_t n = json_count(list);
    assert_true(n > 4 && count(buf_str(&seen), "response.completed") == 0);
    int64_t last = json_int(json_get(json_at(list, n - 1), "sequence_number"), -1);
    buf_free(&seen);
    http1_free(&a);
    char query[60];
    snprintf(query, sizeof query, "?stream=true&starting_after=%lld", (long long)last);
    for (int finished = 0; finished < 2; finished++) { /* while it goes on, and when it is kept */
        size_t deltas = 0;
        int64_t number = last;
        get_response(&a, id, query);
        list = events(buf_str(&a.body));
        JSON_EACH (e, list) {
            assert_int_equal(json_int(json_get(e, "sequence_number"), -1), ++number);
            deltas += str_is(text_at(e, "type"), "response.output_text.delta");
        }
        assert_true(deltas > 5 && deltas < 12);
        want_text(json_at(list, json_count(list) - 1), "response.output.0.content.0.text",
                  "w0 w1 w2 w3 w4 w5 w6 w7 w8 w9 w10 w11");
        http1_free(&a);
    }
    get_response(&a, id, "?stream=true&starting_after=x");
    assert_int_equal(a.status, 400);
    http1_free(&a);
    get_response(&a, "resp_none", "?stream=true");
    assert_int_equal(a.status, 404);
    http1_free(&a);
}

static void test_responses_refusals(void **state)
{
    static const struct {
        const char *body, *param;
    } rows[] = {
        {"{}", "input"},
        {"{\"input\":[]}", "input"},
        {"{\"input\":7}", "input"},
        {"{\"input\":[{\"type\":\"computer_call\"}]}", "input[0]"},
        {"{\"input\":[{\"role\":\"king\",\"content\":\"x\"}]}", "input[0]"},
        {"{\"input\":[{\"role\":\"user\",\"content\":[{\"type\":\"input_image\"}]}]}", "input[0]"},
        {"{\"input\":\"x\",\"tools\":[{\"type\":\"web_search\"}]}", "tools"},
        {"{\"input\":\"x\",\"text\":{\"format\":{\"type\":\"yaml\"}}}", "text.format"},
        {"{\"input\":\"x\",\"background\":true,\"store\":false}", "background"},
        {"{\"input\":\"x\",\"include\":[\"everything\"]}", "include"},
        {"{\"input\":\"x\",\"top_logprobs\":21}", "top_logprobs"},
        {"{\"input\":\"x\",\"max_tokens\":3}", "max_tokens"},
        {"{\"input\":\"x\",\"reasoning\":{\"effort\":\"vast\"}}", "reasoning.effort"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct http1 a;
        const struct json *doc = ask(&a, "POST", "/v1/responses", rows[i].body, NULL);
        if (a.status != 400 || !str_is(json_str(at(doc, "error.param")), rows[i].param))
            fail_msg("%s: %d %s", rows[i].body, a.status, a.body.ptr);
        http1_free(&a);
    }
}

int main(void)
{
#define HERMES(test) cmocka_unit_test_setup_teardown(test, start_hermes, stop_hermes)
    const struct CMUnitTest tests[] = {
        HERMES(test_responses_whole),
        HERMES(test_responses_streamed),
        HERMES(test_responses_go_on),
        HERMES(test_responses_items),
        HERMES(test_responses_cancel_unknown_harms_nobody),
        HERMES(test_responses_cancel),
        HERMES(test_responses_logprobs),
        HERMES(test_responses_input_items),
        HERMES(test_responses_background),
        HERMES(test_responses_background_stream),
        HERMES(test_responses_refusals),
    };
    return RUN(tests);
}
