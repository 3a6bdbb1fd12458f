/* fuzz_packed - a config.json, a zero byte, a safetensors file: opened as a model with packed weights */
#include "fuzz_formats.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct error err;
    struct checkpoint *ck;
    const uint8_t *end = size ? memchr(data, 0, size) : NULL;
    if (!end)
        return -1;
    size_t config = (size_t)(end - data);
    if (container_of_bytes(end + 1, size - config - 1) != CONTAINER_SAFETENSORS)
        return -1;
    if (checkpoint_open_memory_with(&ck, end + 1, size - config - 1, str_n(data, config), &err) == ST_OK)
        fuzz_touch(ck);
    checkpoint_close(ck);
    return 0;
}
