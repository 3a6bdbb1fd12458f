/* fuzz_pickle - any bytes as the data.pkl of a PyTorch archive: wrapped with a right checksum, past which fuzz_torch
 * rarely gets. Seeds: the pickles inside tests/golden/formats/tree.pt and flat.pt */
#include "fuzz_formats.h"

#include "base/str.h"

#include <zlib.h>

static void put_u32(struct buf *b, uint32_t v)
{
    buf_append(b, &v, 4);
}

static void put_entry(struct buf *out, struct buf *directory, const char *name, struct str bytes)
{
    static const uint8_t zeros[16];
    uint32_t at = (uint32_t)out->len, n = (uint32_t)bytes.len;
    for (int central = 0; central < 2; central++) {
        struct buf *b = central ? directory : out;
        buf_append(b, central ? "PK\1\2\24\0\24\0" : "PK\3\4\24\0", central ? 8 : 6);
        buf_append(b, zeros, 8);
        put_u32(b, (uint32_t)crc32_z(0, (const uint8_t *)bytes.ptr, n));
        put_u32(b, n);
        put_u32(b, n);
        put_u32(b, (uint32_t)strlen(name));
        buf_append(b, zeros, central ? 10 : 0);
        if (central)
            put_u32(b, at);
        buf_append(b, name, strlen(name));
    }
    buf_append_str(out, bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const storages[] = {"a/data/0", "a/data/1", "a/data/2", "a/data/3"};
    struct buf out = {0}, directory = {0};
    put_entry(&out, &directory, "a/data.pkl", str_n(data, size));
    for (size_t i = 0; i < sizeof storages / sizeof *storages; i++)
        put_entry(&out, &directory, storages[i], str_n(storages, sizeof storages)); /* some 32 bytes */
    uint32_t at = (uint32_t)out.len;
    buf_append_str(&out, buf_str(&directory));
    buf_append(&out, "PK\5\6\0\0\0\0\5\0\5\0", 12);
    put_u32(&out, (uint32_t)directory.len);
    put_u32(&out, at);
    buf_append(&out, "\0", 2);
    int kept = fuzz_container(CONTAINER_ZIP, (const uint8_t *)out.ptr, out.len);
    buf_free(&out);
    buf_free(&directory);
    return kept;
}
