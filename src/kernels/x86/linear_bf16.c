/* linear_bf16 with vdpbf16ps, which adds the odd element of a pair, then the even one: the definition itself */
#define ISA(name) name##__bf16
#include "kernels/simd/linear_float.h"

static __attribute__((noinline)) void tile_bf16(const struct tile *t, int R, int P)
{
    tile_switch(t, KIND_BF16, R, P);
}

void linear_bf16__bf16(const struct linear_job *job, int64_t row0, int64_t row1, int64_t panel0, int64_t panel1)
{
    linear_float(job, KIND_BF16, tile_bf16, row0, row1, panel0, panel1);
}
