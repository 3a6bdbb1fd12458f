/* Fused multiply-adds replaced by a multiplication and an addition: the comparison of every operation must fail. */
#include "check_ops.h"

#undef FMA
#define FMA(a, b, c) ((a) * (b) + (c))
#include "mutants.h"

MUTANT(norm_rms)
MUTANT(norm_layer)
MUTANT(norm_rms_dx)
MUTANT(norm_layer_dx)
MUTANT(norm_dw)
MUTANT(rope_turn)
MUTANT(map_fn)
MUTANT(map_fn_back)
MUTANT(map_glu)
MUTANT(map_glu_back)
MUTANT(attend)
MUTANT(attend_part)
MUTANT(attend_merge)
MUTANT(attend_back)
MUTANT(lse_rows)
MUTANT(loss_rows)
MUTANT(adamw_range)

static void test_unfused_mutants_are_noticed(void **state)
{
    (void)state;
    const struct mutant mutants[] = {
        ROW(norm_rms),     ROW(norm_layer),  ROW(norm_rms_dx), ROW(norm_layer_dx), ROW(norm_dw),     ROW(rope_turn),
        ROW(map_fn),       ROW(map_fn_back), ROW(map_glu),     ROW(map_glu_back),  ROW(attend),      ROW(attend_part),
        ROW(attend_merge), ROW(attend_back), ROW(lse_rows),    ROW(loss_rows),     ROW(adamw_range),
    };
    mutants_are_noticed(mutants, sizeof mutants / sizeof mutants[0]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_unfused_mutants_are_noticed)};
    return RUN(tests);
}
