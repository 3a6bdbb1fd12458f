/* mutants - the reference kernels compiled again with one rule of the numbers contract broken, under other names
 *
 * A test program defines the broken rule (FMA, or lanes_sum) and includes this: every comparison of bits must notice.
 */
#ifndef TESTS_KERNELS_MUTANTS_H
#define TESTS_KERNELS_MUTANTS_H

#include "mutant_rows.h"

struct mutant {
    const char *op;
    void (*put)(void); /* into the table */
    void (*check)(struct sink *s, struct pool *pool);
};
#define MUTANT(op)                                                                                                     \
    static void put_##op(void)                                                                                         \
    {                                                                                                                  \
        kernels.op = op##__mutant;                                                                                     \
    }
#define ROW(op)                                                                                                        \
    {                                                                                                                  \
#op, put_##op, check_##op                                                                                      \
    }

static void mutants_are_noticed(const struct mutant *mutants, size_t n)
{
#ifdef __SANITIZE_THREAD__ /* one thread, whose sums are wrong on purpose: nothing for it, and minutes */
    print_message("skipped: not under ThreadSanitizer\n");
    skip();
#endif
    struct error err;
    for (size_t i = 0; i < n; i++) {
        struct sink right = {0}, wrong = {0};
        OK(kernels_init("ref", &err));
        mutants[i].check(&right, NULL);
        mutants[i].put();
        mutants[i].check(&wrong, NULL);
        assert_int_equal(right.n, wrong.n);
        if (sink_equal(&right, &wrong))
            fail_msg("%s: the check does not notice the mutant", mutants[i].op);
        sink_free(&right), sink_free(&wrong);
    }
    OK(kernels_init("ref", &err));
}

#endif
