/* What all of an answer must be: calls, a shape, or either; the stand-in engine fails an answer that its grammar
 * forbids. */
#include "test.h"

#include "gateway/harness.h"

#define F                                                                                                              \
    "{\"type\":\"function\",\"function\":{\"name\":\"f\",\"parameters\":{\"type\":\"object\",\"properties\":{"         \
    "\"city\":{\"type\":\"string\",\"maxLength\":5},\"days\":{\"type\":\"integer\",\"minimum\":1},\"tags\":{"          \
    "\"type\":\"array\",\"items\":{\"$ref\":\"#/$defs/t\"}},\"kind\":{\"enum\":[\"a\",\"b\"]}},\"required\":["         \
    "\"city\"],\"additionalProperties\":false,\"$defs\":{\"t\":{\"type\":\"string\"}}}}}"
#define G           "{\"type\":\"function\",\"function\":{\"name\":\"g\"}}"
#define TOOLS       "\"tools\":[" F "," G "]"
#define REQUIRED    TOOLS ",\"tool_choice\":\"required\""
#define NAMED       TOOLS ",\"tool_choice\":{\"type\":\"function\",\"function\":{\"name\":\"g\"}}"
#define SHAPE       "\"guided_regex\":\"no( <tool_call>)?|ye+s\""
#define XML_F(args) "<tool_call>\\n<function=f>\\n" args "</function>\\n</tool_call>"
#define XML(key, v) "<parameter=" key ">\\n" v "\\n</parameter>\\n"
#define THOUGHT     "<|channel|>analysis<|message|>hm<|end|><|start|>assistant"
#define FINAL       "<|channel|>final<|message|>"
#define REFERS                                                                                                         \
    "\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"parameters\":{\"type\":\"object\","              \
    "\"properties\":{\"n\":{\"type\":\"integer\",\"minimum\":1},\"same\":{\"$ref\":\"#/properties/n\"},"               \
    "\"word\":{\"type\":\"string\",\"$ref\":\"#/parts/short\"},\"all\":{\"type\":\"array\",\"items\":{"                \
    "\"$ref\":\"#\"}},\"own\":{\"properties\":{\"n\":{\"type\":\"string\"},\"same\":{\"$ref\":"                        \
    "\"#/properties/n\"}}}},\"parts\":{\"short\":{\"maxLength\":2}}}}}],\"tool_choice\":\"required\""

enum verdict { CALLED, SAID, FORBIDDEN };
struct row {
    const char *fields, *text;
    enum verdict verdict;
    const char *args; /* CALLED: of the first call, NULL: any; SAID: the content */
};

static void check_rows(const char *template_source, const struct row *rows, size_t n)
{
    fake_bundle.template_source = str_of(template_source);
    start(NULL);
    for (size_t i = 0; i < n; i++) {
        struct http1 a;
        char body[4000];
        snprintf(body, sizeof body, "{\"messages\":[{\"role\":\"user\",\"content\":\"SAY %s\"}],%s}", rows[i].text,
                 rows[i].fields);
        const struct json *doc = ask(&a, "POST", "/v1/chat/completions", body, NULL);
        const struct json *calls = at(doc, "choices.0.message.tool_calls");
        struct str args = json_str(at(calls, "0.function.arguments")),
                   content = json_str(at(doc, "choices.0.message.content"));
        enum verdict got = a.status != 200 ? FORBIDDEN : json_count(calls) ? CALLED : SAID;
        bool same = !rows[i].args || str_is(got == CALLED ? args : content, rows[i].args);
        if (got != rows[i].verdict || (a.status != 200 && a.status < 500) || !same)
            fail_msg("%s, %s: %d %s", rows[i].fields, rows[i].text, a.status, a.body.ptr);
        http1_free(&a);
    }
    stop_hermes(NULL);
}
#define ROWS(source, rows) check_rows(source, rows, sizeof rows / sizeof *rows)

static void test_calls_or_the_shape(void **state)
{
    static const struct row rows[] = {
        {SHAPE "," TOOLS, "yeees", SAID, "yeees"},
        {SHAPE "," TOOLS, "maybe", FORBIDDEN, NULL},
        {SHAPE "," TOOLS, "no <tool_call>", SAID, "no <tool_call>"},
        {SHAPE "," TOOLS, "<tool_call>\\n{\\\"name\\\": \\\"g\\\", \\\"arguments\\\": {}}\\n</tool_call>", CALLED,
         "{}"},
        {SHAPE "," TOOLS, "<tool_call>\\n{\\\"name\\\": \\\"f\\\", \\\"arguments\\\": {\\\"x\\\": 1}}\\n</tool_call>",
         CALLED, "{\"x\": 1}"}, /* neither strict nor forced */
        {SHAPE "," TOOLS, "<tool_call>\\n{\\\"name\\\": \\\"h\\\", \\\"arguments\\\": {}}\\n</tool_call>", FORBIDDEN,
         NULL},
        {SHAPE "," TOOLS, "yes<tool_call>\\n{\\\"name\\\": \\\"g\\\", \\\"arguments\\\": {}}\\n</tool_call>", FORBIDDEN,
         NULL},
        {SHAPE "," TOOLS ",\"tool_choice\":\"none\"", "yes", SAID, "yes"},
        {SHAPE "," TOOLS ",\"tool_choice\":\"none\"",
         "<tool_call>\\n{\\\"name\\\": \\\"g\\\", \\\"arguments\\\": {}}\\n</tool_call>", FORBIDDEN, NULL},
        {SHAPE "," REQUIRED, "yes", FORBIDDEN, NULL},
        {SHAPE "," REQUIRED, "<tool_call>\\n{\\\"name\\\": \\\"g\\\", \\\"arguments\\\": {}}\\n</tool_call>", CALLED,
         "{}"},
        {SHAPE "," REQUIRED, "<tool_call>\\n{\\\"name\\\": \\\"f\\\", \\\"arguments\\\": {}}\\n</tool_call>", FORBIDDEN,
         NULL},
        {SHAPE "," NAMED,
         "<tool_call>\\n{\\\"name\\\": \\\"f\\\", \\\"arguments\\\": {\\\"city\\\": \\\"x\\\"}}\\n</tool_call>",
         FORBIDDEN, NULL},
    };
    (void)state;
    ROWS("{{ tools }} <tool_call>", rows);
}

static void test_calls_as_xml(void **state)
{
    static const struct row rows[] = {
        {REQUIRED, XML_F(XML("city", "Rome")), CALLED, "{\"city\": \"Rome\"}"},
        {REQUIRED, XML_F(XML("city", "\\n a") XML("days", "2") XML("tags", "[\\\"</parameter>\\\"]") XML("kind", "b")),
         CALLED, "{\"city\": \"\\n a\", \"days\": 2, \"tags\": [\"</parameter>\"], \"kind\": \"b\"}"},
        {REQUIRED, XML_F(XML("city", "")), CALLED, "{\"city\": \"\"}"},
        {REQUIRED, "<tool_call>\\n<function=g>\\n</function>\\n</tool_call>", CALLED, "{}"},
        {REQUIRED, XML_F(XML("city", "London")), FORBIDDEN, NULL},
        {REQUIRED, XML_F(XML("city", "Rome") XML("days", "0")), FORBIDDEN, NULL},
        {REQUIRED, XML_F(XML("city", "Rome") XML("kind", "c")), FORBIDDEN, NULL},
        {REQUIRED, XML_F(XML("city", "Rome") XML("tags", "[1]")), FORBIDDEN, NULL},
        {REQUIRED, XML_F(XML("city", "Rome") XML("more", "x")), FORBIDDEN, NULL},
        {REQUIRED, XML_F(XML("days", "2")), FORBIDDEN, NULL},
        {REQUIRED, "hello", FORBIDDEN, NULL},
        {NAMED, XML_F(XML("city", "Rome")), FORBIDDEN, NULL},
        {SHAPE "," TOOLS, "yes", SAID, "yes"},
        {SHAPE "," TOOLS, XML_F(XML("more", "x")), CALLED, "{\"more\": \"x\"}"},
        {"\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"strict\":true,\"parameters\":{\"type\":"
         "\"object\",\"properties\":{\"n\":{\"type\":\"integer\"}},\"required\":[\"n\"]}}}]",
         "So: " XML_F(XML("n", "7")), CALLED, "{\"n\": 7}"},
        {"\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"strict\":true,\"parameters\":{\"type\":"
         "\"object\",\"properties\":{\"n\":{\"type\":\"integer\"}},\"required\":[\"n\"]}}}]",
         "So: " XML_F(XML("n", "x")), FORBIDDEN, NULL},
        {REFERS, XML_F(XML("n", "1") XML("same", "2")), CALLED, "{\"n\": 1, \"same\": 2}"},
        {REFERS, XML_F(XML("same", "0")), FORBIDDEN, NULL},
        {REFERS, XML_F(XML("word", "ab")), CALLED, "{\"word\": \"ab\"}"},
        {REFERS, XML_F(XML("word", "abc")), FORBIDDEN, NULL},
        {REFERS, XML_F(XML("all", "[{\\\"same\\\": 3}]")), CALLED, "{\"all\": [{\"same\": 3}]}"},
        {REFERS, XML_F(XML("all", "[{\\\"same\\\": 0}]")), FORBIDDEN, NULL},
        {REFERS, XML_F(XML("own", "{\\\"n\\\": \\\"x\\\", \\\"same\\\": 4}")), CALLED,
         "{\"own\": {\"n\": \"x\", \"same\": 4}}"}, /* the root's n */
        {REFERS, XML_F(XML("own", "{\\\"same\\\": \\\"x\\\"}")), FORBIDDEN, NULL},
    };
    (void)state;
    ROWS("{{ tools }} <tool_call> <function=", rows);
}

static void test_calls_in_channels(void **state)
{
    static const char json[] = "<|channel|>commentary to=functions.g <|constrain|>json<|message|>{}";
    static const struct row rows[] = {
        {REQUIRED, THOUGHT "<|channel|>commentary to=functions.f <|constrain|>json<|message|>{\\\"city\\\": \\\"x\\\"}",
         CALLED, "{\"city\": \"x\"}"},
        {REQUIRED, " to=functions.g<|channel|>commentary json<|message|>{}", CALLED, "{}"},
        {REQUIRED, THOUGHT "<|channel|>commentary to=functions.f <|constrain|>json<|message|>{}", FORBIDDEN, NULL},
        {REQUIRED, THOUGHT FINAL "hello", FORBIDDEN, NULL},
        {NAMED, json, CALLED, "{}"},
        {NAMED, "<|channel|>commentary to=functions.f<|message|>{\\\"city\\\": \\\"x\\\"}", FORBIDDEN, NULL},
        {SHAPE, THOUGHT FINAL "yes", SAID, "yes"},
        {SHAPE, FINAL "perhaps", FORBIDDEN, NULL},
        {SHAPE, "yes", FORBIDDEN, NULL},
        {SHAPE "," TOOLS, THOUGHT FINAL "yes", SAID, "yes"},
        {SHAPE "," TOOLS, json, CALLED, "{}"},
        {SHAPE, json, FORBIDDEN, NULL},
        {"\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"strict\":true,\"parameters\":{\"type\":"
         "\"object\",\"properties\":{\"n\":{\"type\":\"integer\"}},\"required\":[\"n\"]}}}]",
         THOUGHT FINAL "a < b", SAID, "a < b"},
        {"\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"strict\":true,\"parameters\":{\"type\":"
         "\"object\",\"properties\":{\"n\":{\"type\":\"integer\"}},\"required\":[\"n\"]}}}]",
         "<|channel|>commentary to=functions.f json<|message|>{\\\"n\\\": \\\"x\\\"}", FORBIDDEN, NULL},
    };
    (void)state;
    ROWS("{{ tools }} <|channel|>", rows);
}

/* What cannot be enforced is refused before anything is generated, by the field at fault. */
static void test_calls_refused_by_name(void **state)
{
#define XML_TOOL(schema) "\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"parameters\":" schema "}}]"
    static const struct {
        const char *template_source, *fields, *param, *says;
    } rows[] = {
        {"<function=", XML_TOOL("{\"properties\":{},\"minProperties\":1}") ",\"tool_choice\":\"required\"",
         "tool_choice", "minProperties"},
        {"<function=", XML_TOOL("{\"properties\":{\"a>b\":{}}}") ",\"tool_choice\":\"required\"", "tool_choice", "a>b"},
        {"<function=", XML_TOOL("{\"properties\":{},\"required\":[\"q\"]}") ",\"tool_choice\":\"required\"",
         "tool_choice", "\"q\""},
        {"<function=",
         XML_TOOL("{\"properties\":{\"a\":{\"type\":\"string\",\"pattern\":\"(a)\\\\1\"}}}") ",\"tool_choice\":"
                                                                                             "\"required\"",
         "tool_choice", "pattern"},
        {"<function=", XML_TOOL("{\"properties\":{\"a\":{\"$ref\":\"#/no\"}}}") ",\"tool_choice\":\"required\"",
         "tool_choice", "\"#/no\""},
        {"<tool_call>",
         "\"guided_regex\":\"a\"," XML_TOOL("{\"uniqueItems\":1}") ",\"tool_choice\":\"required\",\"n\":1",
         "tool_choice", "uniqueItems"},
        {"<tool_call>", "\"guided_regex\":\"(\",\"tools\":[" G "]", "guided_regex", "guided_regex"},
        {"<tool_call>", "\"use_beam_search\":true,\"n\":2," NAMED, "tool_choice", "use_beam_search"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct http1 a;
        char source[100], body[2000];
        snprintf(source, sizeof source, "{{ tools }} %s", rows[i].template_source);
        fake_bundle.template_source = str_of(source);
        start(NULL);
        snprintf(body, sizeof body, "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],%s}", rows[i].fields);
        const struct json *doc = ask(&a, "POST", "/v1/chat/completions", body, NULL);
        struct str message = json_str(at(doc, "error.message"));
        if (a.status != 400 || !str_is(json_str(at(doc, "error.param")), rows[i].param) ||
            str_find(message, str_of(rows[i].says), 0) == SIZE_MAX)
            fail_msg("%s: %d %s", rows[i].fields, a.status, a.body.ptr);
        http1_free(&a);
        stop_hermes(NULL);
    }
}

/* As many as agents have: what is the same in them is compiled once. And a long text with an end. */
static void test_calls_of_many_tools(void **state)
{
    struct http1 a;
    struct buf body = {0};
    (void)state;
    fake_bundle.template_source = STR("{{ tools }} <function=");
    start(NULL);
    buf_append_str(&body, STR("{\"messages\":[{\"role\":\"user\",\"content\":\"SAY <tool_call>\\n<function=f7>\\n"
                              "<parameter=p3>\\nx\\n</parameter>\\n</function>\\n</tool_call>\"}],"
                              "\"tool_choice\":\"required\",\"tools\":["));
    for (int i = 0; i < 40; i++) {
        buf_printf(&body, "%s{\"type\":\"function\",\"function\":{\"name\":\"f%d\",\"parameters\":{\"properties\":{",
                   i ? "," : "", i);
        for (int k = 0; k < 10; k++)
            buf_printf(&body, "%s\"p%d\":{\"description\":\"d%d\",\"type\":\"%s\"}", k ? "," : "", k, i * 10 + k,
                       k % 3 ? "integer" : "string");
        buf_printf(&body, ",\"q\":{\"type\":\"string\",\"maxLength\":2000}}}}}");
    }
    buf_append_str(&body, STR("]}"));
    const struct json *doc = ask(&a, "POST", "/v1/chat/completions", body.ptr, NULL);
    if (a.status != 200)
        fail_msg("%d %s", a.status, a.body.ptr);
    want_text(doc, "choices.0.message.tool_calls.0.function.name", "f7");
    want_text(doc, "choices.0.message.tool_calls.0.function.arguments", "{\"p3\": \"x\"}");
    http1_free(&a);
    buf_free(&body);
    stop_hermes(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_calls_or_the_shape),  cmocka_unit_test(test_calls_as_xml),
        cmocka_unit_test(test_calls_in_channels),   cmocka_unit_test(test_calls_refused_by_name),
        cmocka_unit_test(test_calls_of_many_tools),
    };
    return RUN(tests);
}
