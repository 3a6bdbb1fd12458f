/* What mappings, lists, cyclers and loops can do in a template: the texts are what jinja2 3.1 gives. */
#include "test.h"

#include "chat/chat.h"

static enum status render(struct buf *out, const char *source, struct error *err)
{
    struct template *t;
    TRY(template_parse(&t, str_of(source), err));
    enum status st = template_render(t, out, NULL, NULL, err);
    template_free(t);
    return st;
}

static const struct {
    const char *source, *text;
} cases[] = {
    {"{% set d = {'a': 1, 'b': [2]} %}{{ d.get('a') }} {{ d.get('x') }} {{ d.get('x', 7) }}", "1 None 7"},
    {"{% set d = {'a': 1, 'b': [2]} %}{{ d.keys()|list }}{{ d.values()|list }}{{ d.items()|list }}",
     "['a', 'b'][1, [2]][('a', 1), ('b', [2])]"},
    {"{% set d = {'a': 1, 'b': 2, 'c': 3} %}{{ d.pop('a') }}{{ d.pop('z', 'no') }}{{ d }}", "1no{'b': 2, 'c': 3}"},
    {"{% set d = {'a': 1} %}{{ d.update({'b': 2, 'a': 3}) }}{{ d }}", "None{'a': 3, 'b': 2}"},
    {"{% set d = {'a': 1} %}{% set e = d.copy() %}{{ e.update({'b': 2}) }}{{ d }}{{ e }}",
     "None{'a': 1}{'a': 1, 'b': 2}"},
    {"{% set l = [1] %}{% set m = l.copy() %}{{ m.append(2) }}{{ l }}{{ m }}", "None[1][1, 2]"},
    {"{% set l = [1] %}{{ l.extend([2, 3]) }}{{ l.extend((4,)) }}{{ l }}", "NoneNone[1, 2, 3, 4]"},
    {"{% set l = [1, 2, 3, 4] %}{{ l.pop() }}{{ l.pop(0) }}{{ l.pop(-2) }}{{ l }}", "412[3]"},
    {"{{ [1, 2, 1, 'a'].count(1) }}{{ (1, 2).count(5) }}{{ [1, 2.0].count(2) }}", "201"},
    {"{{ ['a', 'b', 'b'].index('b') }}{{ (1, 2).index(1) }}", "10"},
    {"{% set c = cycler('x', 'y') %}{{ c.next() }}{{ c.next() }}{{ c.next() }}", "xyx"},
    {"{% for i in [1, 2, 3] %}{{ loop.cycle('odd', 'even') }} {% endfor %}", "odd even odd "},
    {"{% for i in [1, 1, 2, 2, 1] %}{% if loop.changed(i) %}{{ i }}{% endif %}{% endfor %}", "121"},
    {"{% for i in [1, 1, 2] %}{{ loop.changed(i, 'k') }} {% endfor %}", "True False True "},
};

static void test_methods_do_what_jinja2_does(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct buf out = {0};
        struct error err = {0};
        if (render(&out, cases[i].source, &err) != ST_OK)
            fail_msg("%s: %s", cases[i].source, err.text);
        if (!str_is(buf_str(&out), cases[i].text))
            fail_msg("%s: got \"%.*s\", want \"%s\"", cases[i].source, (int)out.len, out.ptr, cases[i].text);
        buf_free(&out);
    }
}

static const struct {
    const char *source, *says;
} refusals[] = {
    {"{{ {'a': 1}.pop('b') }}", "pop: no such key"},
    {"{{ {'a': 1}.update([1]) }}", "update wants a mapping"},
    {"{{ [].pop() }}", "pop: index out of range"},
    {"{{ [1, 2].pop(2) }}", "pop: index out of range"},
    {"{{ [1, 2].pop(-3) }}", "pop: index out of range"},
    {"{{ [1].index(2) }}", "index: not in the list"},
    {"{% for i in [1] %}{{ loop.cycle() }}{% endfor %}", "loop.cycle wants arguments"},
};

static void test_methods_refuse_with_a_reason(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof refusals / sizeof *refusals; i++) {
        struct buf out = {0};
        struct error err = {0};
        FAILS(ST_INVALID, render(&out, refusals[i].source, &err));
        if (!strstr(err.text, refusals[i].says))
            fail_msg("%s: \"%s\" does not say \"%s\"", refusals[i].source, err.text, refusals[i].says);
        buf_free(&out);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_methods_do_what_jinja2_does),
                                       cmocka_unit_test(test_methods_refuse_with_a_reason)};
    return RUN(tests);
}
