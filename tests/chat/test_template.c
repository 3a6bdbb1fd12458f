/* Templates against goldens: jinja2's renderings, the suites' own, and what must fail. */
#include "test.h"

#include "base/clock.h"
#include "base/fault.h"
#include "base/file.h"
#include "chat/chat.h"

static const struct template_budget noon = {.now_wall_s = 1752148800}; /* 2025-07-10 12:00 UTC */

struct lines {
    struct buf file;
    struct str rest;
};

static bool open_lines(struct lines *l, const char *path)
{
    struct error err;
    *l = (struct lines){0};
    OK(file_read_all(&l->file, path, (size_t)64 << 20, &err));
    l->rest = buf_str(&l->file);
    return true;
}

static const struct json *next_case(struct lines *l, struct arena *arena)
{
    struct error err;
    const struct json *doc;
    struct str line = str_next_line(&l->rest);
    if (!line.ptr)
        return NULL;
    OK(json_parse(&doc, arena, line, 0, &err));
    return doc;
}

static enum status render(struct buf *out, struct str source, const struct json *context,
                          const struct template_budget *budget, struct error *err)
{
    struct template *t;
    TRY(template_parse(&t, source, err));
    enum status st = template_render(t, out, context, budget, err);
    template_free(t);
    return st;
}

/* true when the rendering is `expected` (a JSON string; null: any failure). */
static bool check(const char *name, struct str source, const struct json *context, const struct json *expected,
                  const struct template_budget *budget)
{
    struct buf out = {0};
    struct error err = {0};
    enum status st = render(&out, source, context, budget, &err);
    struct str want = json_str(expected);
    bool good = json_type(expected) == JSON_STRING ? st == ST_OK && str_eq(buf_str(&out), want) : st != ST_OK;
    size_t i = 0;
    while (i < out.len && i < want.len && out.ptr[i] == want.ptr[i])
        i++;
    size_t from = i < 30 ? 0 : i - 30;
    if (!good)
        print_message("%s: %s\n   differs at %zu\n   got  %.*s\n   want %.*s\n", name, st ? err.text : "ok", i,
                      (int)(out.len - from > 200 ? 200 : out.len - from), out.ptr ? out.ptr + from : "",
                      (int)(want.len - from > 200 ? 200 : want.len - from), want.ptr ? want.ptr + from : "(a failure)");
    buf_free(&out);
    return good;
}

static void read_text(struct buf *out, const char *folder, struct str name)
{
    char path[512];
    struct error err;
    snprintf(path, sizeof path, "%s/%.*s", folder, STR_ARG(name));
    OK(file_read_all(out, path, (size_t)1 << 20, &err));
}

/* Templates that jinja2's immutable sandbox refuses for what Ingot offers: lists that grow, from_json, lengths of
 * lazies. */
static bool may_succeed(struct str name)
{
    static const char *const more[] = {"llama.cpp/Kimi-K2-Instruct.jinja", "llama.cpp/Kimi-K2-Thinking.jinja",
                                       "llama.cpp/deepseek-ai-DeepSeek-V3.2.jinja",
                                       "llama.cpp/deepseek-ai-DeepSeek-V4.jinja",
                                       "llama.cpp/llama-cpp-deepseek-r1.jinja"};
    for (size_t i = 0; i < sizeof more / sizeof *more; i++)
        if (str_is(name, more[i]))
            return true;
    return false;
}

static void test_template_matches_jinja2(void **state)
{
    (void)state;
    struct arena arena;
    struct lines l;
    const struct json *c;
    int bad = 0, n = 0;
    const char *folder = SHARED("data/suites/chat-templates");
    bool here = access(folder, R_OK) == 0;
    arena_init(&arena, 0);
    setenv("TZ", "UTC", 1);
    open_lines(&l, GOLDEN("chat/renderings.jsonl"));
    while ((c = next_case(&l, &arena))) {
        struct str name = json_str(json_get(c, "template"));
        struct buf source = {0}, context = {0};
        const struct json *data = json_get(c, "context");
        char label[100];
        if (name.ptr && !here)
            continue;
        if (name.ptr) {
            struct error err;
            char file[64];
            snprintf(file, sizeof file, "contexts/%.*s.json", STR_ARG(json_str(data)));
            read_text(&source, folder, name);
            read_text(&context, folder, str_of(file));
            OK(json_parse(&data, &arena, buf_str(&context), 0, &err));
        } else {
            buf_append_str(&source, json_str(json_get(c, "source")));
        }
        const struct json *expected = json_get(c, "expected");
        if (!(json_is(expected, JSON_NULL) && name.ptr && may_succeed(name))) {
            snprintf(label, sizeof label, "%.*s", STR_ARG(name.ptr ? name : buf_str(&source)));
            bad += !check(label, buf_str(&source), data, expected, &noon);
            n++;
        }
        buf_free(&source);
        buf_free(&context);
    }
    buf_free(&l.file);
    arena_free(&arena);
    print_message("%d renderings, %d differ\n", n, bad);
    assert_int_equal(bad, 0);
    assert_true(n > 60);
}

static void run_suite(const char *path, const char *source_key, const char *context_key, const char *expected_key,
                      const struct template_budget *budget, int expected_cases)
{
    struct arena arena;
    struct lines l;
    const struct json *c;
    int bad = 0, n = 0;
    arena_init(&arena, 0);
    setenv("TZ", "UTC", 1);
    open_lines(&l, path);
    while ((c = next_case(&l, &arena))) {
        char name[80];
        snprintf(name, sizeof name, "%.*s", STR_ARG(json_str(json_get(c, "name"))));
        bad += !check(name, json_str(json_get(c, source_key)), json_get(c, context_key), json_get(c, expected_key),
                      budget);
        n++;
    }
    buf_free(&l.file);
    arena_free(&arena);
    print_message("%d renderings, %d differ\n", n, bad);
    assert_int_equal(bad, 0);
    assert_int_equal(n, expected_cases);
}

static void test_template_suite_of_real_models(void **state)
{
    (void)state;
    NEED(SHARED("data/suites/chat-templates/rendered-goldens.jsonl"));
    run_suite(SHARED("data/suites/chat-templates/rendered-goldens.jsonl"), "chat_template", "data", "target", &noon,
              43);
}

static void test_template_suite_of_the_language(void **state)
{
    (void)state;
    const struct template_budget json = {.style = TEMPLATE_JSON};
    NEED(SHARED("data/suites/chat-templates/jinja-language-cases.jsonl"));
    run_suite(SHARED("data/suites/chat-templates/jinja-language-cases.jsonl"), "template", "context", "expected", &json,
              126);
}

static void fails(enum status expected, const char *source, const char *says)
{
    struct buf out = {0};
    struct error err = {0};
    FAILS(expected, render(&out, str_of(source), NULL, NULL, &err));
    if (!strstr(err.text, says))
        fail_msg("%s: \"%s\" does not say \"%s\"", source, err.text, says);
    buf_free(&out);
}

static void test_template_refuses_by_name(void **state)
{
    (void)state;
    fails(ST_UNSUPPORTED, "\n{{ 'a' | nonesuch }}", "line 2: the filter 'nonesuch'");
    fails(ST_UNSUPPORTED, "{{ 'a' is nonesuch }}", "the test 'nonesuch'");
    fails(ST_UNSUPPORTED, "{{ nonesuch(1) }}", "the function 'nonesuch'");
    fails(ST_UNSUPPORTED, "{{ 'a'.nonesuch() }}", "the method 'nonesuch' of a string");
    fails(ST_UNSUPPORTED, "a\nb{% include 'x' %}", "line 2: the tag 'include'");
    fails(ST_UNSUPPORTED, "{{ ''.__class__() }}", "__class__");
    fails(ST_UNSUPPORTED, "{{ 'a'|tojson(nonesuch=1) }}", "'nonesuch' of 'tojson'");
    fails(ST_INVALID, "{{ raise_exception('Only user and assistant roles') }}", "Only user and assistant roles");
    fails(ST_INVALID, "{{ a.b.c }}", "line 1: 'a' is undefined");
    fails(ST_CORRUPT, "x\n\n{% if a %}", "line 3: ");
    fails(ST_CORRUPT, "{{ 'abc }}", "closing '");
    fails(ST_CORRUPT, "{# never", "#}");
    fails(ST_CORRUPT, "{{ a b }}", "expected }}, found 'b'");
}

/* Bombs end by ST_LIMIT, and quickly. */
static void test_template_budgets_hold(void **state)
{
    (void)state;
    static const struct {
        const char *source, *says;
    } bombs[] = {
        {"{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", "step budget"},
        {"{{ range(100001) }}", "range budget"},
        {"{{ 'aaaaaaaaaaaaaaaa' * 1000000000 }}", "output budget"},
        {"{{ [1, 2] * 1000000000 }}", "budget"},
        {"{% set ns = namespace(s='xxxxxxxxxxxxxxxx') %}{% for i in range(99) %}{% set ns.s = ns.s ~ ns.s %}{% endfor "
         "%}",
         "budget"},
        {"{% set ns = namespace(s=[1]) %}{% for i in range(99) %}{% set ns.s = ns.s + ns.s %}{% endfor %}", "budget"},
        {"{% set ns = namespace(s='ab') %}{% for i in range(99) %}{% set ns.s = ns.s|replace('a', ns.s) %}{% endfor %}",
         "budget"},
        {"{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "depth budget"},
        {"{% macro m() %}{{ m() }}{{ m() }}{{ m() }}{% endmacro %}{{ m() }}", "depth budget"},
        {"{% set a = [] %}{% set _ = a.append(a) %}{{ a }}", "depth budget"},
        {"{% set a = [] %}{% set _ = a.append(a) %}{{ a|tojson }}", "depth budget"},
        {"{% set a = [] %}{% set _ = a.append(a) %}{% set b = [] %}{% set _ = b.append(b) %}{{ a == b }}", "budget"},
        {"{{ 'a'|indent(1000000000) }}", "budget"},
        {"{{ {'a': [1]}|tojson(indent=1000000000) }}", "budget"},
        {"{{ 9223372036854775807 + 1 }}", "64 bits"},
        {"{{ 2 ** 99999999999 }}", "64 bits"},
        {"{% for c in 'ab' * 9999999 %}{% endfor %}", "budget"},
        {"{% set a = range(9999)|list %}{{ (a + a + a + a)|unique|list|length }}{% for i in a %}{{ i in a }}{{ -1 in a "
         "}}{% "
         "endfor %}",
         "step budget"},
    };
    for (size_t i = 0; i < sizeof bombs / sizeof *bombs; i++) {
        uint64_t start = clock_thread_cpu_ns();
        fails(ST_LIMIT, bombs[i].source, bombs[i].says);
        double seconds = (double)(clock_thread_cpu_ns() - start) * 1e-9;
#ifndef INGOT_SANITIZED
        if (seconds > 3)
            fail_msg("%s took %.1f s", bombs[i].source, seconds);
#endif
        (void)seconds;
    }
}

static const char *repeated(const char *open, const char *unit, const char *close, int n)
{
    static char text[1 << 16];
    size_t at = (size_t)snprintf(text, sizeof text, "%s", open);
    for (int i = 0; i < n; i++)
        at += (size_t)snprintf(text + at, sizeof text - at, "%s", unit);
    snprintf(text + at, sizeof text - at, "%s", close);
    return text;
}

static void test_template_deep_nesting_is_refused(void **state)
{
    (void)state;
    static const char *const open[] = {"{{ (",       "{{ [",     "{{ -",   "{{ not ",
                                       "{% if a %}", "{{ a if ", "{{ {1:", "{{ a|b("};
    for (size_t i = 0; i < sizeof open / sizeof *open; i++) {
        struct buf source = {0}, out = {0};
        struct error err;
        buf_append_str(&source, str_of(open[i]));
        for (int k = 0; k < 100000; k++)
            buf_append_str(&source, str_from(str_of(open[i]), open[i][1] == '%' ? 0 : 3));
        enum status st = render(&out, buf_str(&source), NULL, NULL, &err);
        assert_true(st == ST_LIMIT || st == ST_CORRUPT); /* brackets, then the unclosed tag */
        buf_free(&source);
        buf_free(&out);
    }
    fails(ST_LIMIT, repeated("{{ ", "(", "", 5000), "depth");
    fails(ST_LIMIT, repeated("{{ ", "-", "1 }}", 5000), "depth");
    fails(ST_LIMIT, repeated("{{ ", "not ", "1 }}", 5000), "depth");
    fails(ST_LIMIT, repeated("{{ 1", " if 1 else 1", " }}", 5000), "depth");
    fails(ST_LIMIT, repeated("", "{% if a %}", "", 5000), "depth");
    fails(ST_LIMIT, repeated("{{ a", "|e", " }}", 5000), "depth");
    struct buf chain = {0}, out = {0}; /* a long chain is legal to parse, and bounded when it runs */
    struct error err;
    buf_append_str(&chain, STR("{{ 1"));
    for (int k = 0; k < 100000; k++)
        buf_append_str(&chain, STR("+1"));
    buf_append_str(&chain, STR(" }}"));
    FAILS(ST_LIMIT, render(&out, buf_str(&chain), NULL, NULL, &err));
    buf_free(&chain);
    buf_free(&out);
}

static const char sample[] = "{%- macro m(a, b=[1, {'k': 'v'}]) -%}<{{ a|upper|trim }}{{ b }}>{%- endmacro -%}\n"
                             "{% set ns = namespace(x='\\u00e9', n=1.5e3) %}{# note #}\n"
                             "{% for k, v in {'a': 1, 'b': [2, 3]}.items() if (v is not none) recursive %}\n"
                             "  {{- loop.index }} {{ k ~ v }}{{ m(k, b=v)[::-1] if not loop.last else 'x' * 3 }}\n"
                             "{% else %}none{% endfor %}{% raw %}{{ }}{% endraw %}{% call m('q') %}z{% endcall %}\n"
                             "{% filter indent(2) %}{{ ['b', 'a']|sort|join(',') }} {{ 'a b'.split() }}{% endfilter %}"
                             "{{ ns|default(1) is defined and -7 // 2 <= 3 }}{{ {'q': \"it's\"}|tojson(indent=1) }}";

static void test_template_truncated_anywhere(void **state)
{
    (void)state;
    for (size_t n = 0; n <= sizeof sample - 1; n++) {
        char *exact = test_malloc(n + 1); /* its own block, so that a read past the end is seen */
        struct buf out = {0};
        struct error err;
        memcpy(exact, sample, n);
        enum status st = render(&out, str_n(exact, n), NULL, NULL, &err);
        assert_true(st != ST_NOMEM && st != ST_IO);
        if (n == sizeof sample - 1)
            OK(st);
        buf_free(&out);
        test_free(exact);
    }
}

static void test_template_any_bit_flipped(void **state)
{
    (void)state;
    char text[sizeof sample];
    for (size_t i = 0; i < (sizeof sample - 1) * 8; i++) {
        struct buf out = {0};
        struct error err;
        memcpy(text, sample, sizeof sample);
        text[i / 8] ^= (char)(1 << i % 8);
        enum status st = render(&out, str_n(text, sizeof sample - 1), NULL, NULL, &err);
        assert_true(st != ST_NOMEM && st != ST_IO);
        buf_free(&out);
    }
}

static void test_template_survives_allocation_failures(void **state)
{
    (void)state;
    uint64_t n = 1;
    for (;; n++) {
        struct buf out = {0};
        struct error err;
        fault_arm(FAULT_ALLOC, n);
        enum status st = render(&out, str_of(sample), NULL, NULL, &err);
        bool fired = fault_fired();
        fault_disarm();
        buf_free(&out);
        if (!fired)
            break;
        assert_int_equal(st, ST_NOMEM);
    }
    assert_true(n > 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_template_matches_jinja2),
        cmocka_unit_test(test_template_suite_of_real_models),
        cmocka_unit_test(test_template_suite_of_the_language),
        cmocka_unit_test(test_template_refuses_by_name),
        cmocka_unit_test(test_template_budgets_hold),
        cmocka_unit_test(test_template_deep_nesting_is_refused),
        cmocka_unit_test(test_template_truncated_anywhere),
        cmocka_unit_test(test_template_any_bit_flipped),
        cmocka_unit_test(test_template_survives_allocation_failures),
    };
    return RUN(tests);
}
