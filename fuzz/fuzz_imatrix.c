/* fuzz_imatrix - any bytes read as an importance matrix, GGUF or .dat */
#include "fuzz_formats.h"
#include "model/imatrix.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct error err;
    struct imatrix *m;
    const float *means;
    if (imatrix_open_memory(&m, data, size, &err) == ST_OK &&
        imatrix_find(&means, m, STR("blk.0.attn_q.weight"), 4, 1, 0, &err) == ST_OK && means && !(means[0] >= 0))
        __builtin_trap();
    imatrix_close(m);
    return 0;
}
