/* tiny - the golden files of tools/golden/formats_tiny.py, loaded into memory */
#ifndef TESTS_FORMATS_TINY_H
#define TESTS_FORMATS_TINY_H

#include "test.h"

#include "formats/loading.h"

#define TINY(name) GOLDEN("formats/" name)

static inline uint8_t *tiny_load(const char *name, size_t *size)
{
    struct error err;
    struct mapping m;
    char path[512];
    snprintf(path, sizeof path, "%s/%s", GOLDEN("formats"), name);
    OK(file_map(&m, path, &err));
    uint8_t *bytes = malloc(m.size ? m.size : 1); /* exactly as large as the file, so that sanitizers see an overrun */
    memcpy(bytes, m.data, m.size);
    *size = m.size;
    file_unmap(&m);
    return bytes;
}

/* Reads every byte a user of the checkpoint could reach. */
static inline double tiny_touch(const struct checkpoint *ck)
{
    double sum = 0;
    for (size_t i = 0; i < ck->n_tensor; i++) {
        const struct tensor *t = &ck->tensors[i];
        size_t block = (size_t)dtype_row(t->type)->block, n = (size_t)tensor_count(t);
        float out[256];
        const uint8_t *p = t->data;
        for (size_t j = 0; j < n; j += block, p += dtype_row(t->type)->bytes) {
            dtype_to_f32(out, t->type, p, block);
            sum += out[0] == out[0] ? 1 : 0;
        }
        for (size_t j = 0; j < t->name.len; j++)
            sum += t->name.ptr[j];
        if (checkpoint_find(ck, t->name) != t)
            fail_msg("a tensor is not found under its name");
    }
    const struct gguf *g = ck->gguf;
    for (size_t i = 0; g && i < g->n_value; i++) {
        const struct gguf_value *v = &g->values[i];
        for (size_t j = 0; j < v->key.len; j++)
            sum += v->key.ptr[j];
        for (uint64_t j = 0; v->strings && j < v->count; j++)
            for (size_t k = 0; k < v->strings[j].len; k++)
                sum += v->strings[j].ptr[k];
        for (uint64_t j = 0; v->type == GGUF_ARRAY && !v->strings && j < v->count; j++) {
            double r = gguf_real_at(v, j, 0);
            sum += (double)gguf_int_at(v, j, 0) + (r == r && r < 1e9 && r > -1e9 ? r : 0);
        }
        if (v->type == GGUF_STRING) {
            uint64_t len;
            memcpy(&len, v->data, 8);
            for (uint64_t j = 0; j < len; j++)
                sum += v->data[8 + j];
        }
    }
    if (ck->config) {
        struct buf b = {0};
        struct json_writer w;
        json_writer_init(&w, &b);
        json_write_value(&w, ck->config);
        sum += (double)b.len;
        buf_free(&b);
    }
    return sum;
}

static const char *const tiny_files[] = {"state.safetensors", "tiny.gguf", "legacy.bin", "v1.bin",     "v2.bin",
                                         "flat.pt",           "tree.pt",   "evil.pt",    "deflated.pt"};
enum { TINY_COUNT = sizeof tiny_files / sizeof *tiny_files };

#endif
