/* Blocks of 32 by the matrix unit: the kernels' source on a unit written in C
 * gives the bits of ref. */
#include "amx_emulated.h"

#if KERNELS_X86
linear_fn linear_q8_0__emulated;
linear_fn linear_q4_0__emulated;
linear_fn linear_q4_1__emulated;
linear_fn linear_q5_0__emulated;
linear_fn linear_q5_1__emulated;
linear_fn linear_iq4_nl__emulated;
linear_fn linear_mxfp4__emulated;
linear_fn linear_q4_z__emulated;
#include "kernels/x86/linear_int8_amx.c"

static void test_amx_int8_equals_ref(void **state)
{
    (void)state;
    static const struct amx_row rows[] = {
        AMX_ROW(Q8_0, q8_0), AMX_ROW(Q4_0, q4_0),     AMX_ROW(Q4_1, q4_1),   AMX_ROW(Q5_0, q5_0),
        AMX_ROW(Q5_1, q5_1), AMX_ROW(IQ4_NL, iq4_nl), AMX_ROW(MXFP4, mxfp4), AMX_ROW(Q4_Z, q4_z),
    };
    amx_equals_ref(rows, sizeof rows / sizeof rows[0]);
}

int main(void)
{
    if ((cpu_features() & (CPU_AVX512 | CPU_VNNI)) != (CPU_AVX512 | CPU_VNNI))
        return 77; /* what is not the unit's is done with VNNI */
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_amx_int8_equals_ref)};
    return RUN(tests);
}
#else
int main(void)
{
    return 77;
}
#endif
