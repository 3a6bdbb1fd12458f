/* Each format's calls and reasoning: the same events however the text is cut, eager or late; what is no call is text.
 */
#include "test.h"

#include "base/fault.h"
#include "base/file.h"
#include "base/rng.h"
#include "speech/speech.h"

#include <stdlib.h>
#include <time.h>

#define DS(name) "<\xEF\xBD\x9C" name "\xEF\xBD\x9C>"
#define BAR      "\xE2\x96\x81"

static const char tools_json[] =
    "[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"parameters\":{\"type\":\"object\",\"properties\":{"
    "\"s\":{\"type\":\"string\"},\"n\":{\"type\":\"integer\"},\"m\":{\"type\":[\"string\",\"null\"]},"
    "\"o\":{\"type\":[\"string\",\"object\"]}}}}},{\"type\":\"function\",\"function\":{\"name\":\"g.h\"}}]";

static struct arena arena;
static struct speech_tools tools;

static int setup(void **state)
{
    const struct json *doc;
    struct error err;
    (void)state;
    arena_init(&arena, 0);
    OK(json_parse(&doc, &arena, str_of(tools_json), 0, &err));
    assert_true(speech_tools_make(&tools, doc, &arena));
    assert_int_equal(tools.count, 2);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    arena_free(&arena);
    return 0;
}

/* Events as one line: T(text) R(reasoning) C(name arguments); neighbours of one kind joined. */
struct line {
    struct buf b;
    int last;
};

static void on_event(void *ctx, enum speech_what what, struct str text)
{
    static const char *const begins[] = {"T(", "R(", "C(", " ", NULL};
    struct line *l = ctx;
    if (what == SPEECH_CALL_END) {
        buf_append_str(&l->b, STR(")"));
        l->last = -1;
        return;
    }
    if (l->last != (int)what) {
        if (l->last == SPEECH_TEXT || l->last == SPEECH_REASON)
            buf_append_str(&l->b, STR(")"));
        buf_append_str(&l->b, str_of(begins[what]));
    }
    buf_append_str(&l->b, text);
    l->last = (int)what;
}

struct row {
    const char *format;
    bool thinking;
    const char *text, *expect;
    const char *eager; /* NULL: the same */
};

static void begin(struct speech *s, struct line *l, const struct row *r, bool eager, bool with_tools)
{
    const struct speech_format *f = speech_find(str_of(r->format));
    const struct speech_think *t = speech_think_detect(strstr(r->text, "[/THINK]") ? STR("[/THINK]") : STR("</think>"));
    assert_non_null(f);
    *l = (struct line){.last = -1};
    speech_init(
        s,
        &(struct speech_options){
            .format = f, .think = t, .tools = with_tools ? &tools : NULL, .thinking = r->thinking, .eager = eager},
        on_event, l);
}

static struct buf end(struct speech *s, struct line *l)
{
    speech_end(s);
    assert_false(s->failed);
    if (l->last == SPEECH_TEXT || l->last == SPEECH_REASON)
        buf_append_str(&l->b, STR(")"));
    speech_free(s);
    return l->b;
}

static void expect(const struct row *r, bool eager, struct buf *got, const char *how, size_t at)
{
    const char *want = eager && r->eager ? r->eager : r->expect;
    if (!str_is(buf_str(got), want))
        fail_msg("%s, %s, %s %zu: %s\n  got  %.*s\n  want %s", r->format, eager ? "eager" : "late", how, at, r->text,
                 (int)got->len, got->ptr ? got->ptr : "", want);
    buf_free(got);
}

/* Whole, byte by byte, cut once at every place, and cut at random. */
static void check(const struct row *r)
{
    struct str text = str_of(r->text);
    struct rng rng;
    rng_init(&rng, 7);
    for (int eager = 0; eager < 2; eager++) {
        struct speech s;
        struct line l;
        struct buf got;
        for (size_t cut = 0; cut <= text.len; cut++) {
            begin(&s, &l, r, eager, true);
            speech_feed(&s, str_n(text.ptr, cut));
            speech_feed(&s, str_from(text, cut));
            got = end(&s, &l);
            expect(r, eager, &got, "cut at", cut);
        }
        begin(&s, &l, r, eager, true);
        for (size_t i = 0; i < text.len; i++)
            speech_feed(&s, str_n(text.ptr + i, 1));
        got = end(&s, &l);
        expect(r, eager, &got, "by bytes", 0);
        for (int k = 0; k < 50; k++) {
            begin(&s, &l, r, eager, true);
            for (size_t i = 0, n; i < text.len; i += n) {
                n = 1 + rng_u32(&rng) % 9;
                n = n > text.len - i ? text.len - i : n;
                speech_feed(&s, str_n(text.ptr + i, n));
            }
            got = end(&s, &l);
            expect(r, eager, &got, "random", (size_t)k);
        }
    }
}

static const struct row rows[] = {
    {"plain", false, "Hi <tool_call> there ", "T(Hi <tool_call> there )", NULL},
    {"plain", false, "<think>\nhm, so\n</think>\n\nYes", "R(hm, so)T(Yes)", NULL},
    {"plain", false, " \n<think>a</think>b", "R(a)T(b)", NULL},
    {"plain", true, "so\n</think>\nYes <think>x</think>", "R(so)T(Yes <think>x</think>)", NULL},
    {"plain", true, "never done ", "R(never done)", NULL},
    {"plain", false, "say <think>x</think>", "T(say <think>x</think>)", NULL},
    {"plain", false, "a < b and <thin", "T(a < b and <thin)", NULL},
    {"plain", false, "<thin", "T(<thin)", NULL},
    {"mistral", false, "[THINK]a[/THINK]b", "R(a)T(b)", NULL},

    {"hermes", false, "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"s\": \"a b\"}}\n</tool_call>",
     "C(f {\"s\": \"a b\"})", NULL},
    {"hermes", false,
     "Let me see.\n\n<tool_call>\n{\"name\":\"f\",\"arguments\":{}}\n</tool_call>\n<tool_call>\n"
     "{\"arguments\": {\"x\": [1, {\"y\": \"</tool_call>\"}]}, \"name\": \"g.h\"}\n</tool_call>\n",
     "T(Let me see.)C(f {})C(g.h {\"x\": [1, {\"y\": \"</tool_call>\"}]})", NULL},
    {"hermes", false, "<think>\nuse f\n</think>\n\n<tool_call>{\"name\": \"f\"}</tool_call> done",
     "R(use f)C(f {})T( done)", NULL},
    {"hermes", false, "<tool_call>{\"name\": \"f\", \"arguments\": \"{\\\"n\\\": 1}\"}</tool_call>", "C(f {\"n\": 1})",
     NULL},
    {"hermes", false, "<tool_call>{\"name\": \"f\", \"arguments\": null}</tool_call>", "C(f {})", NULL},
    /* what is no call is text, byte for byte */
    {"hermes", false, "a <tool_call> {\"name\": \"unknown\", \"arguments\": {}} </tool_call> b",
     "T(a <tool_call> {\"name\": \"unknown\", \"arguments\": {}} </tool_call> b)", NULL},
    {"hermes", false, "a \n<tool_call>\nf(1)</tool_call>", "T(a \n<tool_call>\nf(1)</tool_call>)", NULL},
    {"hermes", false, "<tool_call>{\"name\": \"f\", \"arguments\": 5}</tool_call>",
     "T(<tool_call>{\"name\": \"f\", \"arguments\": 5}</tool_call>)", NULL},
    {"hermes", false, "<tool_call>{\"name\": \"f\", \"arguments\": [1]}",
     "T(<tool_call>{\"name\": \"f\", \"arguments\": [1]})", NULL},
    {"hermes", false, "<tool_call>{\"name\": 5}x", "T(<tool_call>{\"name\": 5}x)", NULL},
    {"hermes", false, "<tool_call>", "T(<tool_call>)", NULL},
    {"hermes", false, "<tool_call><tool_call>{\"name\":\"f\"}", "C(f {})", NULL},
    {"hermes", false, "<tool_call>no <tool_call>{\"name\":\"f\"}", "T(<tool_call>no)C(f {})", NULL},
    {"hermes", false, "<tool_call>{\"name\": \"f\", \"arguments\": {\"s\": }}</tool_call> x",
     "T(<tool_call>{\"name\": \"f\", \"arguments\": {\"s\": }}</tool_call> x)", "C(f {\"s\": }})T( x)"},
    {"hermes", false, "<tool_call>{\"name\": \"f\", \"arguments\": {\"s\": \"cut of",
     "T(<tool_call>{\"name\": \"f\", \"arguments\": {\"s\": \"cut of)", "C(f {\"s\": \"cut of)"},
    {"hermes", false, "<tool_call>{\"name\": \"f\", \"arguments\": {\"s\": 1}, 7}</tool_call>",
     "T(<tool_call>{\"name\": \"f\", \"arguments\": {\"s\": 1}, 7}</tool_call>)", "C(f {\"s\": 1})T(7}</tool_call>)"},

    {"qwen-xml", false,
     "ok\n<tool_call>\n<function=f>\n<parameter=s>\nline 1\n \"2\" <b>\n</parameter>\n<parameter=n>\n3\n</parameter>\n"
     "</function>\n</tool_call>\n",
     "T(ok)C(f {\"s\": \"line 1\\n \\\"2\\\" <b>\", \"n\": 3})", NULL},
    {"qwen-xml", false,
     "<tool_call><function=g.h></function></tool_call><tool_call><function=f><parameter=m>null"
     "</parameter><parameter=o>{\"a\": 1}</parameter><parameter=x>7</parameter></function></tool_call>",
     "C(g.h {})C(f {\"m\": \"null\", \"o\": {\"a\": 1}, \"x\": \"7\"})", NULL},
    {"qwen-xml", false, /* a value's own JSON may hold the mark */
     "<tool_call><function=f><parameter=n>[\"</parameter>\", \"\\\"</parameter>\"]</parameter></function></tool_call>",
     "C(f {\"n\": [\"</parameter>\", \"\\\"</parameter>\"]})", NULL},
    {"qwen-xml", false, "<tool_call><function=f><parameter=n>[\"1</parameter></function></tool_call>",
     "C(f {\"n\": \"[\\\"1\"})", NULL},
    {"qwen-xml", false, "<tool_call><function=no></function></tool_call>",
     "T(<tool_call><function=no></function></tool_call>)", NULL},
    {"qwen-xml", false, "<tool_call>{}</tool_call>", "T(<tool_call>{}</tool_call>)", NULL},

    {"llama", false, "{\"name\": \"f\", \"parameters\": {\"s\": \"x\"}}", "C(f {\"s\": \"x\"})", NULL},
    {"llama", false, " <|python_tag|>{\"name\": \"f\", \"parameters\": {}}; {\"name\": \"g.h\", \"parameters\": {}}",
     "C(f {})C(g.h {})", NULL},
    {"llama", false, "{\"answer\": 42}", "T({\"answer\": 42})", NULL},
    {"llama", false, "Use {\"name\": \"f\"}", "T(Use {\"name\": \"f\"})", NULL},
    {"llama", false, "[f(s='it\\'s, (x)', n=-3, o={'a': [True, None, 1.5]}), g.h()]",
     "C(f {\"s\":\"it's, (x)\",\"n\":-3,\"o\":{\"a\":[true,null,1.5]}})C(g.h {})", NULL},
    {"llama", false, "<|python_tag|>g.h.call(query=\"a\")", "C(g.h {\"query\":\"a\"})", NULL},
    {"llama", false, "[1, 2]", "T([1, 2])", NULL},
    {"llama", false, "[f(x), 1]", "T([f(x), 1])", NULL},
    {"llama", false, "[f(s=')'", "T([f(s=')')", NULL},
    {"llama", false, "[{\"name\": \"f\", \"parameters\": {}}]", "C(f {})", NULL},

    {"mistral", false,
     "[TOOL_CALLS][{\"name\": \"f\", \"arguments\": {\"n\": 1}, \"id\": \"abcdefghi\"}, {\"name\": \"g.h\"}]",
     "C(f {\"n\": 1})C(g.h {})", NULL},
    {"mistral", false, "hm[TOOL_CALLS]f[CALL_ID]abcdefghi[ARGS]{\"n\": 1}[TOOL_CALLS]g.h[ARGS]{}",
     "T(hm)C(f {\"n\": 1})C(g.h {})", NULL},
    {"mistral", false, "[TOOL_CALLS]f{\"n\": 1}", "C(f {\"n\": 1})", NULL},
    {"mistral", false, "[TOOL_CALLS]nobody{\"n\": 1}", "T([TOOL_CALLS]nobody{\"n\": 1})", NULL},
    {"mistral", false, "[TOOL_CALLS]f[ARGS]{\"n\": x}", "T([TOOL_CALLS]f[ARGS]{\"n\": x})", "C(f {\"n\": x})"},

    {"deepseek", true,
     "so</think>Right." DS("tool" BAR "calls" BAR "begin")
         DS("tool" BAR "call" BAR "begin") "function" DS("tool" BAR "sep") "f\n```json\n{\"n\": 1}\n```" DS(
             "tool" BAR "call" BAR
             "end") "\n" DS("tool" BAR "call" BAR
                            "begin") "function" DS("tool" BAR "sep") "g.h\n```json\n{}\n```" DS("tool" BAR "call" BAR
                                                                                                "end")
             DS("tool" BAR "calls" BAR "end"),
     "R(so)T(Right.)C(f {\"n\": 1})C(g.h {})", NULL},
    {"deepseek", false,
     DS("tool" BAR "calls" BAR "begin") DS("tool" BAR "call" BAR "begin") "f" DS("tool" BAR "sep") "{\"n\": 1}" DS(
         "tool" BAR "call" BAR "end") DS("tool" BAR "calls" BAR "end"),
     "C(f {\"n\": 1})", NULL},

    {"harmony", false,
     "<|channel|>analysis<|message|>Need f.<|end|><|start|>assistant<|channel|>commentary to=functions.f "
     "<|constrain|>json<|message|>{\"n\": 1}<|call|>",
     "R(Need f.)C(f {\"n\": 1})", NULL},
    {"harmony", false, " to=functions.g.h<|channel|>commentary json<|message|>{}", "C(g.h {})", NULL},
    {"harmony", false,
     "<|channel|>commentary<|message|>I'll look.<|end|><|start|>assistant<|channel|>final<|message|>42 < 43",
     "T(I'll look.42 < 43)", NULL},
    {"harmony", false, "no channels at all <b>", "T(no channels at all <b>)", NULL},
    {"harmony", false, "<|channel|>final<|message|>a<|return|>", "T(a)", NULL},
    {"harmony", false, "<|channel|>ana", "", NULL},
    {"harmony", false, "<|channel|>commentary to=functions.f<|message|>{\"n\": oops<|call|>",
     "T(<|channel|>commentary to=functions.f<|message|>{\"n\": oops)", "C(f {\"n\": oops)"},
};

static void test_speech_is_the_same_however_it_is_cut(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        check(&rows[i]);
}

/* Without tools every byte outside reasoning and harmony's marks is text. */
static void test_speech_without_tools_has_no_calls(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const struct row *r = &rows[i];
        struct speech s;
        struct line l;
        if (r->thinking || !strcmp(r->format, "harmony") || strstr(r->text, "hink>") || strstr(r->text, "HINK]"))
            continue;
        begin(&s, &l, r, true, false);
        for (const char *c = r->text; *c; c++)
            speech_feed(&s, str_n(c, 1));
        struct buf got = end(&s, &l), want = {0};
        buf_printf(&want, "T(%s)", r->text);
        if (!str_eq(buf_str(&got), buf_str(&want)))
            fail_msg("%s\n%s", got.ptr, want.ptr);
        buf_free(&got);
        buf_free(&want);
    }
}

static void test_speech_formats_are_told_by_their_templates(void **state)
{
    static const struct {
        const char *file, *format, *think;
    } known[] = {
        {"Qwen-Qwen2.5-7B-Instruct", "hermes", NULL},
        {"Qwen-Qwen3-0.6B", "hermes", "<think>"},
        {"Qwen-QwQ-32B", "hermes", "<think>"},
        {"Qwen3-Coder", "qwen-xml", NULL},
        {"Qwen3.5-4B", "qwen-xml", "<think>"},
        {"NousResearch-Hermes-2-Pro-Llama-3-8B-tool_use", "hermes", NULL},
        {"NousResearch-Hermes-3-Llama-3.1-8B-tool_use", "hermes", NULL},
        {"meta-llama-Llama-3.1-8B-Instruct", "llama", NULL},
        {"meta-llama-Llama-3.2-3B-Instruct", "llama", NULL},
        {"meta-llama-Llama-3.3-70B-Instruct", "llama", NULL},
        {"mistralai-Mistral-Nemo-Instruct-2407", "mistral", NULL},
        {"Mistral-Small-3.2-24B-Instruct-2506", "mistral", NULL},
        {"mistralai-Ministral-3-14B-Reasoning-2512", "mistral", "[THINK]"},
        {"deepseek-ai-DeepSeek-V3.1", "deepseek", "<think>"},
        {"deepseek-ai-DeepSeek-R1-Distill-Qwen-32B", "deepseek", "<think>"},
        {"openai-gpt-oss-120b", "harmony", NULL},
        {"google-gemma-2-2b-it", "plain", NULL},
        {"GLM-4.6", "plain", "<think>"},
    };
    (void)state;
    NEED(SHARED("data/suites/chat-templates/llama.cpp/Qwen3-Coder.jinja"));
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        char path[512];
        struct buf text = {0};
        struct error err;
        snprintf(path, sizeof path, "%s/%s.jinja", SHARED("data/suites/chat-templates/llama.cpp"), known[i].file);
        OK(file_read_all(&text, path, 1 << 20, &err));
        const struct speech_format *f = speech_detect(buf_str(&text));
        const struct speech_think *t = speech_think_detect(buf_str(&text));
        if (strcmp(f->name, known[i].format) != 0 || !t != !known[i].think ||
            (t && strcmp(t->open, known[i].think) != 0))
            fail_msg("%s: %s, %s", known[i].file, f->name, t ? t->open : "no reasoning");
        buf_free(&text);
    }
}

static void test_speech_prompt_that_opens_reasoning(void **state)
{
    const struct speech_think *t = speech_think_detect(STR("x</think>"));
    (void)state;
    assert_true(speech_prompt_thinks(t, STR("<|im_start|>assistant\n<think>\n")));
    assert_false(speech_prompt_thinks(t, STR("<think>\n\n</think>\n\n")));
    assert_false(speech_prompt_thinks(NULL, STR("<think>")));
    assert_null(speech_find(STR("none such")));
    const char *marks[32];
    assert_true(speech_marks(marks, speech_find(STR("harmony")), t) == 7 + 3 + 2);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) { /* the list that --help shows is whole */
        assert_true(str_find(str_of(speech_names()), str_of(rows[i].format), 0) != SIZE_MAX);
    }
}

/* Markers without end: time stays linear, nothing is lost. */
static void test_speech_floods_of_markers(void **state)
{
    static const char *const floods[] = {"<tool_call>{\"name\": \"f\", \"a\": [", "<tool_call>", "<tool_call>{"};
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        struct row r = {"hermes", false, "", "", NULL};
        struct speech s;
        struct line l;
        size_t fed = 0;
        begin(&s, &l, &r, true, true);
        for (int n = 0; n < 30000; n++) {
            speech_feed(&s, str_of(floods[i]));
            fed += strlen(floods[i]);
        }
        struct buf got = end(&s, &l);
        assert_int_equal(got.len, fed + 3);
        buf_free(&got);
    }
}

struct flood {
    const char *format;
    bool thinking;
    const char *before, *again, *after;
    bool whole; /* fed at once; else a piece a repetition, and white space three bytes at a time */
};

/* Processor seconds of this thread, the least of three. */
static double flood_seconds(const struct flood *f, size_t bytes)
{
    size_t n = strlen(f->again);
    char *text = malloc(bytes + n);
    double least = 1e9;
    for (size_t i = 0; i < bytes; i++)
        text[i] = f->again[i % n];
    for (int k = 0; k < 3; k++) {
        const struct row r = {f->format, f->thinking, "", "", NULL};
        struct speech s;
        struct line l;
        struct timespec begun, ended;
        begin(&s, &l, &r, false, true);
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &begun);
        speech_feed(&s, str_of(f->before));
        for (size_t i = 0, step = f->whole ? bytes : n == 1 ? 3 : n; i < bytes; i += step)
            speech_feed(&s, str_n(text + i, step < bytes - i ? step : bytes - i));
        speech_feed(&s, str_of(f->after));
        struct buf got = end(&s, &l);
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ended);
        double seconds = (double)(ended.tv_sec - begun.tv_sec) + (double)(ended.tv_nsec - begun.tv_nsec) * 1e-9;
        least = seconds < least ? seconds : least;
        buf_free(&got);
    }
    free(text);
    return least;
}

/* Eight times the text takes about eight times as long, and not sixty-four, wherever it is. */
static void test_speech_time_is_linear(void **state)
{
    static const struct flood floods[] = {
        {"hermes", false, "words", " ", "words"},
        {"hermes", false, "", "\n", "<think>a</think>"},
        {"hermes", true, "because", " ", "</think>words"},
        {"hermes", false, "", " ", "<tool_call>{\"name\": \"f\", \"arguments\": {}}</tool_call>"},
        {"hermes", false, "<tool_call>", " ", "{\"name\": \"f\", \"arguments\": {}}</tool_call>"},
        {"hermes", false, "<tool_call>{\"name\": \"f\", ", " ", "\"arguments\": {}}</tool_call>"},
        {"hermes", false, "<tool_call>[", " ", "{\"name\": \"f\", \"arguments\": {}}]</tool_call>"},
        {"hermes", false, "<tool_call>{\"name\": \"f\", \"arguments\": {}}", " ", "</tool_call>"},
        {"hermes", false, "", "words <tool_call> ", "", .whole = true},
        {"mistral", false, "[TOOL_CALLS]f", " ", "{}"},
        {"qwen-xml", false, "<tool_call>", " ", "<function=f></function></tool_call>"},
        {"qwen-xml", false, "<tool_call><function=f>", " ", "</function></tool_call>"},
        {"qwen-xml", false, "<tool_call><function=f><parameter=", "k", ">1</parameter></function></tool_call>"},
        {"qwen-xml", false, "<tool_call><function=f><parameter=s>", " ", "</parameter></function></tool_call>"},
        {"qwen-xml", false, "<tool_call><function=f><parameter=n>[\"", "</parameter>",
         "\"]</parameter></function></tool_call>"},
        {"llama", false, "", " ", "{\"name\": \"f\", \"parameters\": {}}"},
        {"llama", false, "[", " ", "f()]"},
        {"llama", false, "[f(s='", "it)", "')]"},
        {"llama", false, "[f(o=[", "(1),", "1])]"},
        {"llama", false, "[f(o=[", "{},", "1])]"},
        {"harmony", false, "<|channel|>final<|message|>words", " ", "<|return|>"},
        {"harmony", false, "<|channel|>final<|message|>words", "<|start|>assistant<|channel|>final<|message|>a<|end|>",
         "", .whole = true},
        {"harmony", false, "", "<|channel|>a<|end|>", "", .whole = true},
    };
    (void)state;
    for (size_t i = 0; i < sizeof floods / sizeof *floods; i++) {
        double part = flood_seconds(&floods[i], 128 << 10), whole = flood_seconds(&floods[i], 1 << 20);
        if (whole > 24 * part + 0.002)
            fail_msg("%s, after \"%s\": %.4f s for 128 KiB, %.4f s for 1 MiB", floods[i].format, floods[i].before, part,
                     whole);
    }
}

static void test_speech_survives_failing_memory(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        for (uint64_t n = 1;; n++) {
            struct speech s;
            struct line l;
            begin(&s, &l, &rows[i], false, true);
            l.b.failed = true; /* our own line allocates nothing */
            fault_arm(FAULT_ALLOC, n);
            for (const char *c = rows[i].text; *c; c++)
                speech_feed(&s, str_n(c, 1));
            speech_end(&s);
            bool fired = fault_fired();
            fault_disarm();
            speech_free(&s);
            buf_free(&l.b);
            if (!fired)
                break;
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_speech_is_the_same_however_it_is_cut),
        cmocka_unit_test(test_speech_without_tools_has_no_calls),
        cmocka_unit_test(test_speech_formats_are_told_by_their_templates),
        cmocka_unit_test(test_speech_prompt_that_opens_reasoning),
        cmocka_unit_test(test_speech_floods_of_markers),
        cmocka_unit_test(test_speech_time_is_linear),
        cmocka_unit_test(test_speech_survives_failing_memory),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
