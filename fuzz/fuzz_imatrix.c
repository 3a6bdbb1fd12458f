/* fuzz_imatrix - any GGUF read as an importance matrix */
#include <stdio.h>
#include <unistd.h>

#include "base/file.h"
#include "fuzz_formats.h"
#include "model/imatrix.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static char path[64];
    struct error err;
    struct imatrix *m;
    if (container_of_bytes(data, size) != CONTAINER_GGUF)
        return -1;
    snprintf(path, sizeof path, "/tmp/fuzz-imatrix-%d", (int)getpid());
    if (file_write_all(path, str_n(data, size), &err) != ST_OK)
        return 0;
    const float *means;
    if (imatrix_open(&m, path, &err) == ST_OK &&
        imatrix_find(&means, m, STR("blk.0.attn_q.weight"), 4, 1, 0, &err) == ST_OK && means && !(means[0] >= 0))
        __builtin_trap();
    imatrix_close(m);
    unlink(path);
    return 0;
}
