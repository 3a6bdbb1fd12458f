/* fuzz_gguf - any bytes opened as a model; seeds: tests/golden/formats */
#include "fuzz_formats.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    return fuzz_container(CONTAINER_GGUF, data, size);
}
