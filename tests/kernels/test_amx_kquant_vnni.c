/* Superblocks by the matrix unit: the kernels' source on a unit written in C
 * gives the bits of ref. */
#include "amx_emulated.h"

#if KERNELS_X86
linear_fn linear_q2_k__emulated;
linear_fn linear_q3_k__emulated;
linear_fn linear_q4_k__emulated;
linear_fn linear_q5_k__emulated;
linear_fn linear_q6_k__emulated;
linear_fn linear_iq4_xs__emulated;
#include "kernels/x86/linear_kquant_amx.c"

static void test_amx_kquant_equals_ref(void **state)
{
    (void)state;
    static const struct amx_row rows[] = {
        AMX_ROW(Q2_K, q2_k), AMX_ROW(Q3_K, q3_k), AMX_ROW(Q4_K, q4_k),
        AMX_ROW(Q5_K, q5_k), AMX_ROW(Q6_K, q6_k), AMX_ROW(IQ4_XS, iq4_xs),
    };
    amx_equals_ref(rows, sizeof rows / sizeof rows[0]);
}

int main(void)
{
    if ((cpu_features() & (CPU_AVX512 | CPU_VNNI)) != (CPU_AVX512 | CPU_VNNI))
        return 77; /* what is not the unit's is done with VNNI */
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_amx_kquant_equals_ref)};
    return RUN(tests);
}
#else
int main(void)
{
    return 77;
}
#endif
