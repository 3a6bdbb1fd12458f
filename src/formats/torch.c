#include "formats/loading.h"

enum status torch_read(struct loading *l, const uint8_t *data, size_t size, bool config, struct error *err)
{
    (void)l, (void)data, (void)size, (void)config;
    return fail(err, ST_UNSUPPORTED, "PyTorch files cannot be read yet");
}
