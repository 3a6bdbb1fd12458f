#include "formats/zip.h"

#include "base/cursor.h"
#include "base/mem.h"

#include <zlib.h>

enum {
    LOCAL_SIGNATURE = 0x04034b50,
    CENTRAL_SIGNATURE = 0x02014b50,
    END_SIGNATURE = 0x06054b50,
    END64_SIGNATURE = 0x06064b50,
    LOCATOR64_SIGNATURE = 0x07064b50,
    CENTRAL_BYTES = 46,
    END_BYTES = 22,
    LOCATOR64_BYTES = 20,
    STORED = 0,
    DEFLATED = 8,
    ENCRYPTED_FLAG = 1,
    INFLATE_RATIO_MAX = 1032, /* what the deflate format can reach */
};
#define WIDE32 0xffffffffu /* the value is in the zip64 extension */

struct directory {
    uint64_t offset, bytes, n;
};

/* The end record lies at the very end, before a comment of at most 65535 bytes. */
static bool find_end(size_t *at, const uint8_t *data, size_t size)
{
    for (size_t comment = 0; comment <= 65535 && comment + END_BYTES <= size; comment++) {
        struct cursor c = cursor_of(data, size);
        cursor_seek(&c, size - comment - END_BYTES);
        *at = cursor_offset(&c);
        if (cursor_u32(&c) != END_SIGNATURE)
            continue;
        cursor_skip(&c, 16);
        if (cursor_u16(&c) == comment)
            return true;
    }
    return false;
}

static enum status read_end64(struct directory *d, struct cursor c, size_t end, struct error *err)
{
    cursor_seek(&c, end < LOCATOR64_BYTES ? SIZE_MAX : end - LOCATOR64_BYTES);
    uint32_t locator = cursor_u32(&c);
    cursor_skip(&c, 4);
    cursor_seek(&c, cursor_u64(&c));
    uint32_t signature = cursor_u32(&c);
    cursor_skip(&c, 8 + 2 + 2 + 4 + 4 + 8);
    d->n = cursor_u64(&c);
    d->bytes = cursor_u64(&c);
    d->offset = cursor_u64(&c);
    if (c.failed || locator != LOCATOR64_SIGNATURE || signature != END64_SIGNATURE)
        return fail(err, ST_CORRUPT, "zip: the zip64 end record is missing or damaged");
    return ST_OK;
}

static enum status find_directory(struct directory *d, const uint8_t *data, size_t size, struct error *err)
{
    size_t end;
    if (!find_end(&end, data, size))
        return fail(err, ST_CORRUPT, "zip: no end record in %zu bytes; the file is truncated or damaged", size);
    struct cursor c = cursor_of(data, size);
    cursor_seek(&c, end + 4);
    uint16_t disk = cursor_u16(&c), first_disk = cursor_u16(&c), here = cursor_u16(&c);
    d->n = cursor_u16(&c);
    d->bytes = cursor_u32(&c);
    d->offset = cursor_u32(&c);
    bool wide = here == 0xffff || d->n == 0xffff || d->bytes == WIDE32 || d->offset == WIDE32;
    if (!wide && (disk || first_disk || here != d->n))
        return fail(err, ST_UNSUPPORTED, "zip: an archive over several disks");
    if (wide)
        TRY(read_end64(d, cursor_of(data, size), end, err));
    if (d->offset > end || d->bytes > end - d->offset || d->n > d->bytes / CENTRAL_BYTES)
        return fail(err, ST_CORRUPT, "zip: the directory of %llu entries at byte %llu does not fit %zu bytes",
                    (unsigned long long)d->n, (unsigned long long)d->offset, size);
    return ST_OK;
}

/* Sizes and offset that did not fit 32 bits stand in extra field 1, in this order, each only when needed. */
static void read_wide(struct zip_entry *e, uint64_t *offset, struct str extra)
{
    struct cursor c = cursor_of(extra.ptr, extra.len);
    while (!c.failed && cursor_left(&c) >= 4) {
        uint16_t id = cursor_u16(&c);
        uint16_t n = cursor_u16(&c);
        struct str body = cursor_bytes(&c, n);
        if (c.failed || id != 1)
            continue;
        struct cursor b = cursor_of(body.ptr, body.len);
        uint64_t *wide[] = {&e->size, &e->packed, offset};
        for (int i = 0; i < 3; i++)
            if (*wide[i] == WIDE32)
                *wide[i] = cursor_u64(&b);
        return;
    }
}

/* Looks at the local header, behind which the bytes begin. They must end before the directory. */
static enum status locate(struct zip_entry *e, uint64_t offset, const struct directory *d, const uint8_t *data,
                          struct error *err)
{
    struct cursor c = cursor_of(data, d->offset);
    cursor_seek(&c, offset);
    uint32_t signature = cursor_u32(&c);
    cursor_skip(&c, 22);
    uint16_t name_bytes = cursor_u16(&c), extra_bytes = cursor_u16(&c);
    struct str name = cursor_bytes(&c, name_bytes);
    cursor_skip(&c, extra_bytes);
    if (c.failed || signature != LOCAL_SIGNATURE || !str_eq(name, e->name))
        return fail(err, ST_CORRUPT, "zip: the header of %.*s at byte %llu is damaged", STR_ARG(e->name),
                    (unsigned long long)offset);
    e->stored = (const uint8_t *)cursor_bytes(&c, e->packed).ptr;
    if (c.failed)
        return fail(err, ST_CORRUPT, "zip: %.*s claims %llu bytes, but %zu are left", STR_ARG(e->name),
                    (unsigned long long)e->packed, cursor_left(&c));
    return ST_OK;
}

static enum status read_entry(struct zip_entry *e, struct cursor *c, const struct directory *d, const uint8_t *data,
                              struct error *err)
{
    uint32_t signature = cursor_u32(c);
    cursor_skip(c, 4);
    uint16_t flags = cursor_u16(c);
    *e = (struct zip_entry){.method = cursor_u16(c)};
    cursor_skip(c, 4);
    e->crc = cursor_u32(c);
    e->packed = cursor_u32(c);
    e->size = cursor_u32(c);
    uint16_t name_bytes = cursor_u16(c), extra_bytes = cursor_u16(c), comment_bytes = cursor_u16(c);
    cursor_skip(c, 2 + 2 + 4);
    uint64_t offset = cursor_u32(c);
    e->name = cursor_bytes(c, name_bytes);
    read_wide(e, &offset, cursor_bytes(c, extra_bytes));
    cursor_skip(c, comment_bytes);
    if (c->failed || signature != CENTRAL_SIGNATURE)
        return fail(err, ST_CORRUPT, "zip: the directory is damaged at byte %zu of it", cursor_offset(c));
    if (flags & ENCRYPTED_FLAG)
        return fail(err, ST_UNSUPPORTED, "zip: %.*s is encrypted", STR_ARG(e->name));
    if (e->method != STORED && e->method != DEFLATED)
        return fail(err, ST_UNSUPPORTED, "zip: %.*s is compressed by method %d; Ingot reads 0 and 8", STR_ARG(e->name),
                    e->method);
    if (e->method == STORED ? e->size != e->packed : e->size / INFLATE_RATIO_MAX > e->packed)
        return fail(err, ST_CORRUPT, "zip: %.*s claims %llu bytes from %llu", STR_ARG(e->name),
                    (unsigned long long)e->size, (unsigned long long)e->packed);
    return locate(e, offset, d, data, err);
}

enum status zip_read(struct zip *z, struct loading *l, const uint8_t *data, size_t size, struct error *err)
{
    struct directory d = {0};
    *z = (struct zip){.loading = l};
    TRY(find_directory(&d, data, size, err));
    void *memory;
    TRY(loading_alloc(&memory, l, d.n, sizeof(struct zip_entry), "zip", err));
    z->entries = memory;
    if (!map_init(&z->names, d.n))
        return fail_nomem(err, "zip entries");
    struct cursor c = cursor_of(data + d.offset, d.bytes);
    for (; z->n < d.n; z->n++) {
        struct zip_entry *e = &z->entries[z->n];
        TRY(read_entry(e, &c, &d, data, err));
        if (map_find(&z->names, e->name))
            return fail(err, ST_CORRUPT, "zip: the entry %.*s occurs twice", STR_ARG(e->name));
        if (!map_put(&z->names, e->name, z->n))
            return fail_nomem(err, "zip entries");
    }
    return ST_OK;
}

void zip_free(struct zip *z)
{
    map_free(&z->names);
}

struct zip_entry *zip_find(const struct zip *z, struct str name)
{
    const uint64_t *i = map_find(&z->names, name);
    return i ? &z->entries[*i] : NULL;
}

static voidpf zlib_alloc(voidpf opaque, uInt n, uInt size)
{
    (void)opaque;
    return mem_alloc_zero(n, size);
}

static void zlib_release(voidpf opaque, voidpf address)
{
    (void)opaque;
    mem_free(address);
}

/* zlib counts in 32 bits: both ends are fed in pieces. */
static enum status inflate_all(uint8_t *out, const struct zip_entry *e, struct error *err)
{
    enum { PIECE = 1 << 30 };
    z_stream s = {.zalloc = zlib_alloc, .zfree = zlib_release};
    uint64_t in_left = e->packed, out_left = e->size;
    s.next_in = (z_const Bytef *)(uintptr_t)e->stored;
    s.next_out = out;
    if (inflateInit2(&s, -MAX_WBITS) != Z_OK)
        return fail_nomem(err, "inflating");
    int rc = Z_OK;
    while (rc == Z_OK) {
        uInt in = in_left < PIECE ? (uInt)in_left : PIECE, room = out_left < PIECE ? (uInt)out_left : PIECE;
        s.avail_in = in;
        s.avail_out = room;
        rc = inflate(&s, Z_NO_FLUSH);
        in_left -= in - s.avail_in;
        out_left -= room - s.avail_out;
    }
    inflateEnd(&s);
    if (rc == Z_MEM_ERROR)
        return fail_nomem(err, "inflating");
    if (rc != Z_STREAM_END || in_left || out_left)
        return fail(err, ST_CORRUPT, "zip: %.*s does not inflate to its %llu bytes", STR_ARG(e->name),
                    (unsigned long long)e->size);
    return ST_OK;
}

static uint32_t crc_of(const uint8_t *p, uint64_t n)
{
    return (uint32_t)crc32_z(0, p, n);
}

enum status zip_content(struct str *out, const struct zip *z, struct zip_entry *e, bool check, struct error *err)
{
    if (!e->content && e->method == STORED)
        e->content = e->stored;
    else if (!e->content) {
        void *memory;
        TRY(loading_alloc(&memory, z->loading, e->size, 1, "zip: inflated data", err));
        TRY(inflate_all(memory, e, err));
        e->content = memory;
        check = true;
    }
    if (check && crc_of(e->content, e->size) != e->crc)
        return fail(err, ST_CORRUPT, "zip: %.*s has another checksum than the directory says; the file is damaged",
                    STR_ARG(e->name));
    *out = str_n(e->content, e->size);
    return ST_OK;
}
