/* Every row of kernels.def gives the bits of its ref row. An operation without check_op does not compile here. */
#include "check_linear.h"
#include "check_ops.h"

typedef void check_fn(struct sink *s, struct pool *pool);
static const struct {
    const char *op;
    check_fn *check;
} checks[] = {
#define KERNEL_OP(op) {#op, check_##op},
#include "kernels/kernels.def"
};
enum { CHECKS = sizeof checks / sizeof checks[0] };

static check_fn *check_of(const char *op)
{
    for (int i = 0; i < CHECKS; i++)
        if (strcmp(checks[i].op, op) == 0)
            return checks[i].check;
    return NULL;
}

/* What the operation gives when only this row's set is allowed. */
static struct sink run_on(const char *isa, check_fn *check, struct pool *pool)
{
    struct error err;
    struct sink s = {0};
    OK(kernels_init(isa, &err));
    check(&s, pool);
    return s;
}

/* What ref gives, computed once an operation: most of the time goes there. */
static const struct sink *ref_of(check_fn *check)
{
    static struct sink known[CHECKS];
    int i = 0;
    while (checks[i].check != check)
        i++;
    if (!known[i].n)
        known[i] = run_on("ref", check, NULL);
    return &known[i];
}

static void test_every_row_equals_ref(void **state)
{
    (void)state;
    int count, ran = 0, absent = 0, wrong = 0;
    struct pool *pool = NULL;
#ifdef __SANITIZE_THREAD__ /* nothing to find with one thread */
    struct error err;
    OK(pool_create(&pool, 2, &err));
#endif
    const struct kernel_row *rows = kernel_rows(&count);
    for (int i = 0; i < count; i++) {
        const struct kernel_row *row = &rows[i];
        if (row->set == 0)
            continue;
        if (!kernel_row_available(row)) {
            print_message("not run on this processor: %s__%s\n", row->op, row->isa);
            absent++;
            continue;
        }
        check_fn *check = check_of(row->op);
        const struct sink *ref = ref_of(check);
        struct sink got = run_on(kernels_isa_list(row->set), check, pool);
        if (!sink_equal(ref, &got)) {
            size_t at = 0;
            while (at < ref->n && at < got.n && ref->bytes[at] == got.bytes[at])
                at++;
            print_message("%s__%s differs from ref at byte %zu of %zu\n", row->op, row->isa, at, ref->n);
            wrong++;
        }
        ran++;
        sink_free(&got);
    }
    pool_destroy(pool);
    print_message("%s: %d rows equal ref, %d differ, %d could not run\n", kernels_cpu_name(), ran - wrong, wrong,
                  absent);
    assert_int_equal(wrong, 0);
}

static void test_sets_are_chosen_by_name(void **state)
{
    (void)state;
    struct error err;
    FAILS(ST_INVALID, kernels_init("avx1024", &err));
    assert_non_null(strstr(err.text, "avx1024"));
    assert_false(kernels_isa_available("avx1024"));
    for (int i = 0; kernels_isa_list(i); i++) {
        const char *name = kernels_isa_list(i);
        if (kernels_isa_available(name)) {
            OK(kernels_init(name, &err));
            assert_string_equal(kernels_isa(), name);
        } else {
            FAILS(ST_UNSUPPORTED, kernels_init(name, &err));
            assert_non_null(strstr(err.text, name));
        }
    }
    if (kernels_isa_available("vnni")) { /* the short name */
        OK(kernels_init("vnni", &err));
        assert_string_equal(kernels_isa(), "avx512-vnni");
    }
    OK(kernels_init("ref", &err));
    setenv("INGOT_ISA", "nonsense", 1);
    FAILS(ST_INVALID, kernels_init(NULL, &err));
    unsetenv("INGOT_ISA");
    OK(kernels_init(NULL, &err));
    assert_true(strlen(kernels_isa()) > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_every_row_equals_ref),
                                       cmocka_unit_test(test_sets_are_chosen_by_name)};
    return RUN(tests);
}
