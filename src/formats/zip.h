/* zip - a minimal reader of zip archives in memory: stored entries in place, deflated ones inflated once
 *
 * Names are compared, never used as paths. Sizes come from the central directory (with its zip64 extension) and are
 * checked against the local headers and the archive's bounds.
 *
 * Memory   entries, inflated data: the loading's arena and budget; zip_free frees the name map only
 * Errors   ST_CORRUPT, ST_UNSUPPORTED (encrypted, other methods, several disks), ST_LIMIT
 */
#ifndef FORMATS_ZIP_H
#define FORMATS_ZIP_H

#include "formats/loading.h"

struct zip_entry {
    struct str name;
    uint16_t method;
    uint32_t crc;
    uint64_t packed, size;
    const uint8_t *stored;  /* packed bytes, in the archive */
    const uint8_t *content; /* size bytes; NULL until zip_content */
};
struct zip {
    struct loading *loading;
    struct zip_entry *entries;
    size_t n;
    struct map names;
};

MUST_USE enum status zip_read(struct zip *z, struct loading *l, const uint8_t *data, size_t size, struct error *err);
void zip_free(struct zip *z);
struct zip_entry *zip_find(const struct zip *z, struct str name); /* NULL when absent */
/* The entry's bytes. Deflated data is always checked against its CRC, stored data when `check` is set: weights are
 * mapped, and reading all of them only for a checksum would cost the start its speed. */
MUST_USE enum status zip_content(struct str *out, const struct zip *z, struct zip_entry *e, bool check,
                                 struct error *err);

#endif
