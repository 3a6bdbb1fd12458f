/* fuzz_formats - opens bytes as one container and reads everything the checkpoint offers */
#ifndef FUZZ_FORMATS_H
#define FUZZ_FORMATS_H

#include "formats/loading.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static inline void fuzz_touch(const struct checkpoint *ck)
{
    volatile float sink = 0;
    for (size_t i = 0; i < ck->n_tensor; i++) {
        const struct tensor *t = &ck->tensors[i];
        float out[256];
        size_t block = (size_t)dtype_row(t->type)->block, n = (size_t)tensor_count(t);
        const uint8_t *p = t->data;
        for (size_t j = 0; j < n; j += block, p += dtype_row(t->type)->bytes) {
            dtype_to_f32(out, t->type, p, block);
            sink += out[0];
        }
        if (checkpoint_find(ck, t->name) != t)
            __builtin_trap();
    }
    for (size_t i = 0; ck->gguf && i < ck->gguf->n_value; i++) {
        const struct gguf_value *v = &ck->gguf->values[i];
        for (uint64_t j = 0; j < v->count; j++)
            sink += (float)gguf_int_at(v, j, 1) + (v->strings && v->strings[j].len ? v->strings[j].ptr[0] : 0);
    }
    (void)sink;
}

/* Inputs of other containers return at once, so that each fuzzer stays with its reader. */
static inline int fuzz_container(enum container wanted, const uint8_t *data, size_t size)
{
    struct error err;
    struct checkpoint *ck;
    if (container_of_bytes(data, size) != wanted)
        return -1;
    if (checkpoint_open_memory(&ck, data, size, &err) == ST_OK)
        fuzz_touch(ck);
    checkpoint_close(ck);
    return 0;
}

#endif
