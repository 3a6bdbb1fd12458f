/* Grammars whose readings double with every byte or rule: an error soon, never a minute of work. */
#include "vocab.h"

#include "base/clock.h"

static struct error err;
enum { LEVELS = 60, RULES = 22, SECONDS_MAX = 10 };

static double seconds_since(uint64_t begin_ns)
{
    return (double)(clock_ns() - begin_ns) * 1e-9;
}

/* Each level may be left in two ways, and none of them is the end. */
static void test_many_ways_out_cost_no_more_than_few(void **state)
{
    (void)state;
    uint64_t begin = clock_ns(), bits[8];
    struct grammar_vocab *v = bytes_vocab();
    struct grammar *g = compile(v, GRAMMAR_GBNF,
                                "root ::= r \"!\"\n"
                                "r ::= \"(\" r \"y\"? | \"(\" s \"z\"?\n"
                                "s ::= \"(\" r \"v\"? | \"(\" s \"w\"? | \"x\"\n");
    struct grammar_state *s;
    OK(grammar_state_create(&s, g, &err));
    for (int i = 0; i < LEVELS; i++)
        OK(grammar_accept(s, '(', &err));
    OK(grammar_accept(s, 'x', &err));
    assert_false(grammar_may_end(s));
    enum status st = grammar_mask(s, bits, &err);
    assert_true(st == ST_OK || st == ST_LIMIT);
    st = grammar_accept(s, '!', &err);
    assert_true(st == ST_OK || st == ST_LIMIT);
    assert_true(seconds_since(begin) < SECONDS_MAX);
    grammar_state_destroy(s);
    grammar_release(g);
    grammar_vocab_destroy(v);
}

/* Each rule begins with either of two others, and so on. */
static void test_many_ways_in_cost_no_more_than_few(void **state)
{
    (void)state;
    uint64_t begin = clock_ns(), bits[8];
    struct buf text = {0};
    buf_append_str(&text, STR("root ::= a0\n"));
    for (int i = 0; i < RULES; i++)
        buf_printf(&text, "a%d ::= a%d \"x\" | b%d \"y\" | \"(\" root\nb%d ::= a%d \"z\" | b%d \"w\" | \"[\" root\n", i,
                   i + 1, i + 1, i, i + 1, i + 1);
    buf_printf(&text, "a%d ::= \"c\"\nb%d ::= \"c\" | \"d\"\n", RULES, RULES);
    buf_append_char(&text, 0);
    struct grammar_vocab *v = bytes_vocab();
    struct grammar *g = compile(v, GRAMMAR_GBNF, text.ptr);
    struct grammar_state *s;
    OK(grammar_state_create(&s, g, &err));
    FAILS(ST_LIMIT, grammar_mask(s, bits, &err));
    FAILS(ST_LIMIT, grammar_accept(s, 'c', &err));
    grammar_state_destroy(s);
    grammar_release(g);
    assert_true(seconds_since(begin) < SECONDS_MAX);
    grammar_vocab_destroy(v);
    buf_free(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_many_ways_out_cost_no_more_than_few),
        cmocka_unit_test(test_many_ways_in_cost_no_more_than_few),
    };
    return RUN(tests);
}
