/* The tree of sixteen lanes replaced by a sum from lane 0 up: the comparison of every operation that sums must fail. */
#include "check_ops.h"

static real sum_in_order(const real lane[LANES])
{
    real sum = lane[0];
    for (int j = 1; j < LANES; j++)
        sum += lane[j];
    return sum;
}
#define lanes_sum(lane) sum_in_order(lane)
#include "mutants.h"

MUTANT(norm_rms)
MUTANT(norm_layer)
MUTANT(norm_rms_dx)
MUTANT(norm_layer_dx)
MUTANT(attend)
MUTANT(attend_part)
MUTANT(attend_back)
MUTANT(lse_rows)
MUTANT(loss_rows)

static void test_reordered_mutants_are_noticed(void **state)
{
    (void)state;
    const struct mutant mutants[] = {
        ROW(norm_rms),    ROW(norm_layer),  ROW(norm_rms_dx), ROW(norm_layer_dx), ROW(attend),
        ROW(attend_part), ROW(attend_back), ROW(lse_rows),    ROW(loss_rows),
    };
    mutants_are_noticed(mutants, sizeof mutants / sizeof mutants[0]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_reordered_mutants_are_noticed)};
    return RUN(tests);
}
