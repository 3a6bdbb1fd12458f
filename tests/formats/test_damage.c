/* Damaged files: every truncation and every flipped bit of every tiny file, failing allocations, and files made to make
 * a reader allocate. A load either fails with one line, or every byte it offers can be read (sanitizers look on). */
#include "tiny.h"

#include "base/fault.h"

static struct {
    size_t opened, refused;
} seen;

/* The bytes lie in a block of exactly their size. */
static void open_damaged(const uint8_t *bytes, size_t size)
{
    struct error err = {0};
    struct checkpoint *ck;
    fault_count(FAULT_ALLOC);
    enum status st = checkpoint_open_memory(&ck, bytes, size, &err);
    uint64_t allocated = fault_alloc_bytes();
    fault_disarm();
    if (allocated > 8 * size + (16 << 20))
        fail_msg("%zu bytes made the reader ask for %llu", size, (unsigned long long)allocated);
    if (st != ST_OK) {
        assert_null(ck);
        assert_true(st == ST_CORRUPT || st == ST_UNSUPPORTED || st == ST_LIMIT);
        if (!err.text[0] || strchr(err.text, '\n'))
            fail_msg("no one-line message: \"%s\"", err.text);
        seen.refused++;
        return;
    }
    tiny_touch(ck);
    checkpoint_close(ck);
    seen.opened++;
}

static void test_truncation_at_every_byte(void **state)
{
    (void)state;
    for (int i = 0; i < TINY_COUNT; i++) {
        size_t size;
        uint8_t *bytes = tiny_load(tiny_files[i], &size);
        seen.opened = 0;
        for (size_t n = 0; n < size; n++) {
            uint8_t *part = malloc(n ? n : 1);
            memcpy(part, bytes, n);
            open_damaged(part, n);
            free(part);
        }
        /* every format notices a missing tail, but GGUF's padding behind the last tensor is nobody's */
        assert_true(seen.opened <= (strcmp(tiny_files[i], "tiny.gguf") == 0 ? 31 : 0));
        free(bytes);
    }
}

static void test_every_flipped_bit(void **state)
{
    (void)state;
    for (int i = 0; i < TINY_COUNT; i++) {
        size_t size;
        uint8_t *bytes = tiny_load(tiny_files[i], &size);
        seen.opened = seen.refused = 0;
        for (size_t bit = 0; bit < 8 * size; bit++) {
            bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
            open_damaged(bytes, size);
            bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
        }
        print_message("%s: %zu bits flipped, %zu refused\n", tiny_files[i], 8 * size, seen.refused);
        assert_true(seen.refused > 100);
        free(bytes);
    }
}

/* Whole bytes set to values that make large and negative numbers. */
static void test_every_byte_set_to_extremes(void **state)
{
    (void)state;
    for (int i = 0; i < TINY_COUNT; i++) {
        size_t size;
        uint8_t *bytes = tiny_load(tiny_files[i], &size);
        for (size_t at = 0; at < size; at++) {
            size_t n = size - at < 8 ? size - at : 8;
            uint8_t kept[8];
            memcpy(kept, bytes + at, n);
            for (size_t width = 1; width <= n; width *= 2) {
                memset(bytes + at, 0xff, width);
                open_damaged(bytes, size);
                bytes[at + width - 1] = 0x7f;
                open_damaged(bytes, size);
                memcpy(bytes + at, kept, n);
            }
        }
        free(bytes);
    }
}

static void test_every_failing_allocation(void **state)
{
    (void)state;
    for (int i = 0; i < TINY_COUNT; i++) {
        char path[512];
        snprintf(path, sizeof path, "%s/%s", GOLDEN("formats"), tiny_files[i]);
        for (uint64_t n = 1;; n++) {
            struct error err = {0};
            struct checkpoint *ck;
            fault_arm(FAULT_ALLOC, n);
            enum status st = checkpoint_open(&ck, path, &err);
            bool fired = fault_fired();
            fault_disarm();
            if (!fired) {
                assert_true(n > 3);
                checkpoint_close(ck);
                break;
            }
            if (st != ST_NOMEM && strcmp(tiny_files[i], "evil.pt") != 0)
                fail_msg("%s: allocation %llu failed, got %s: %s", tiny_files[i], (unsigned long long)n,
                         status_row(st)->name, err.text);
            assert_null(ck);
        }
    }
}

static void test_failing_opens_and_maps(void **state)
{
    (void)state;
    static const enum fault_point points[] = {FAULT_OPEN, FAULT_MMAP};
    for (int i = 0; i < 2; i++) {
        struct error err = {0};
        struct checkpoint *ck;
        fault_arm(points[i], 1);
        enum status st = checkpoint_open(&ck, TINY("tiny.gguf"), &err);
        fault_disarm();
        assert_true(st != ST_OK);
        assert_non_null(strstr(err.text, "tiny.gguf"));
    }
}

/* ---- files that are large in little ---- */

static void big(struct buf *b)
{
    assert_false(b->failed);
    open_damaged((const uint8_t *)b->ptr, b->len);
    buf_free(b);
}

static void put_u32(struct buf *b, uint32_t v)
{
    buf_append(b, &v, 4);
}

static void put_u64(struct buf *b, uint64_t v)
{
    buf_append(b, &v, 8);
}

enum { MANY = 400000 };

static void test_many_small_things_stay_within_the_bound(void **state)
{
    (void)state;
    struct buf b = {0};
    /* GGUF: one-byte values, then empty tensors */
    buf_append(&b, "GGUF\3\0\0\0", 8);
    put_u64(&b, MANY);
    put_u64(&b, MANY);
    for (uint32_t i = 0; i < MANY; i++) {
        put_u64(&b, 3);
        buf_append(&b, &i, 3);
        put_u32(&b, GGUF_U8);
        buf_append_char(&b, 1);
    }
    for (uint32_t i = 0; i < MANY; i++) {
        put_u64(&b, 3);
        buf_append(&b, &i, 3);
        put_u32(&b, 1);
        put_u64(&b, 0);
        put_u32(&b, 0);
        put_u64(&b, 0);
    }
    seen.opened = 0;
    big(&b);
    assert_int_equal(seen.opened, 1);
    /* GGUF: an array of empty strings */
    buf_append(&b, "GGUF\3\0\0\0", 8);
    put_u64(&b, 0);
    put_u64(&b, 1);
    put_u64(&b, 1);
    buf_append(&b, "k", 1);
    put_u32(&b, GGUF_ARRAY);
    put_u32(&b, GGUF_STRING);
    put_u64(&b, MANY);
    for (uint32_t i = 0; i < MANY; i++)
        put_u64(&b, 0);
    seen.opened = 0;
    big(&b);
    assert_int_equal(seen.opened, 1);
    /* safetensors: a header of many numbers, and one of many empty tensors */
    for (int kind = 0; kind < 2; kind++) {
        struct buf header = {0};
        buf_append(&header, kind ? "{\"__metadata__\":{}" : "{\"a\":[0", kind ? 18 : 7);
        for (uint32_t i = 0; i < 4 * MANY / (kind ? 16 : 1); i++)
            kind ? buf_printf(&header, ",\"%x\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}", i)
                 : buf_append(&header, ",0", 2);
        buf_append(&header, kind ? "}" : "]}", kind ? 1 : 2);
        put_u64(&b, header.len);
        buf_append(&b, header.ptr, header.len);
        buf_free(&header);
        seen.opened = 0;
        big(&b);
        assert_int_equal(seen.opened, kind);
    }
}

/* A stored zip around one data.pkl, without checksum trouble: the CRC is computed here. */
static uint32_t crc32_of(const char *p, size_t n)
{
    uint32_t c = ~0u;
    for (size_t i = 0; i < n; i++) {
        c ^= (uint8_t)p[i];
        for (int k = 0; k < 8; k++)
            c = c >> 1 ^ (0xedb88320u & -(c & 1));
    }
    return ~c;
}

static void zip_of(struct buf *out, struct str pickle)
{
    const char *name = "a/data.pkl";
    uint32_t crc = crc32_of(pickle.ptr, pickle.len), n = (uint32_t)pickle.len;
    uint8_t zeros[16] = {0};
    for (int central = 0; central < 2; central++) {
        buf_append(out, central ? "PK\1\2\24\0\24\0" : "PK\3\4\24\0", central ? 8 : 6);
        buf_append(out, zeros, 8); /* flags, method, time, date */
        put_u32(out, crc);
        put_u32(out, n);
        put_u32(out, n);
        put_u32(out, 10); /* name and extra bytes */
        buf_append(out, zeros, central ? 14 : 0);
        buf_append(out, name, 10);
        if (!central)
            buf_append_str(out, pickle);
    }
    uint32_t directory = 40 + n;
    buf_append(out, "PK\5\6\0\0\0\0\1\0\1\0", 12);
    put_u32(out, 56);
    put_u32(out, directory);
    buf_append(out, zeros, 2);
}

static enum status open_pickle(struct error *err, const char *bytes, size_t n)
{
    struct buf b = {0};
    struct checkpoint *ck;
    zip_of(&b, str_n(bytes, n));
    open_damaged((const uint8_t *)b.ptr, b.len);
    enum status st = checkpoint_open_memory(&ck, b.ptr, b.len, err);
    checkpoint_close(ck);
    buf_free(&b);
    return st;
}
#define PICKLE(text) open_pickle(&err, "" text, sizeof(text) - 1)

static void test_pickles_made_to_harm(void **state)
{
    (void)state;
    struct error err;
    FAILS(ST_OK, PICKLE("\x80\2}."));
    FAILS(ST_LIMIT, PICKLE("\x80\2]q\1h\1a."));   /* a list that holds itself */
    FAILS(ST_CORRUPT, PICKLE("\x80\2]q\1h\2a.")); /* a memo entry never set */
    FAILS(ST_CORRUPT, PICKLE("\x80\2t."));        /* no mark */
    FAILS(ST_CORRUPT, PICKLE("\x80\2N(."));       /* a mark at the end */
    FAILS(ST_CORRUPT, PICKLE("\x80\2N}(NNNu."));  /* an odd number of items */
    FAILS(ST_CORRUPT, PICKLE("\x80\2NR."));
    FAILS(ST_UNSUPPORTED, PICKLE("\x80\2cos\nsystem\n."));
    assert_non_null(strstr(err.text, "os.system"));
    FAILS(ST_UNSUPPORTED, PICKLE("\x80\2\x81."));
    assert_non_null(strstr(err.text, "opcode 0x81"));
    FAILS(ST_UNSUPPORTED, PICKLE("\x80\4N."));
    FAILS(ST_UNSUPPORTED, PICKLE("\x80\2}(NNu.")); /* a key that is no string */
    FAILS(ST_UNSUPPORTED, PICKLE("\x80\2\x8a\x09\1\2\3\4\5\6\7\x08\x09."));
    FAILS(ST_OK, PICKLE("\x80\2\x8a\x02\x00\xff."));
    /* 30 lists, each holding the one before twice: 2^30 values in 200 bytes */
    struct buf b = {0};
    buf_append(&b, "\x80\2(]q\0", 6);
    for (char i = 1; i < 30; i++) {
        buf_append(&b, "](h", 3);
        buf_append_char(&b, (char)(i - 1));
        buf_append(&b, "h", 1);
        buf_append_char(&b, (char)(i - 1));
        buf_append(&b, "eq", 2);
        buf_append_char(&b, i);
    }
    buf_append(&b, "t.", 2);
    FAILS(ST_LIMIT, open_pickle(&err, b.ptr, b.len));
    buf_clear(&b);
    /* values that cost one byte each, more than the budget allows */
    buf_append(&b, "\x80\2](", 4);
    for (int i = 0; i < 1 << 17; i++)
        buf_append(&b, "]]]]]]]]", 8), i % 4096 == 4095 ? buf_append(&b, "e(", 2) : (void)0;
    buf_append(&b, "e.", 2);
    FAILS(ST_LIMIT, open_pickle(&err, b.ptr, b.len));
    buf_clear(&b);
    /* more open values than the stack holds */
    buf_append(&b, "\x80\2", 2);
    for (int i = 0; i < 1 << 19; i++)
        buf_append_char(&b, 'N');
    FAILS(ST_LIMIT, open_pickle(&err, b.ptr, b.len));
    buf_free(&b);
}

/* The same archive as files beyond 4 GiB are written: every number that could be too large stands in 64 bits. */
static void zip64_of(struct buf *out, struct str pickle)
{
    struct buf narrow = {0};
    zip_of(&narrow, pickle);
    size_t directory = 40 + pickle.len;
    buf_append(out, narrow.ptr, directory + 20);
    for (int i = 0; i < 2; i++)
        put_u32(out, UINT32_MAX);                     /* packed, size */
    put_u32(out, 10 | 28 << 16);                      /* name, extra */
    buf_append(out, narrow.ptr + directory + 32, 10); /* comment to attributes */
    put_u32(out, UINT32_MAX);                         /* offset of the local header */
    buf_append(out, narrow.ptr + directory + 46, 10);
    put_u32(out, 1 | 24 << 16);
    put_u64(out, pickle.len);
    put_u64(out, pickle.len);
    put_u64(out, 0);
    uint64_t end = out->len;
    buf_append(out, "PK\6\6", 4);
    put_u64(out, 44);
    put_u32(out, 0);
    put_u64(out, 0); /* disks */
    put_u64(out, 1);
    put_u64(out, 1);
    put_u64(out, end - directory);
    put_u64(out, directory);
    buf_append(out, "PK\6\7\0\0\0\0", 8);
    put_u64(out, end);
    put_u32(out, 1);
    buf_append(out, "PK\5\6\0\0\0\0\377\377\377\377\377\377\377\377\377\377\377\377\0\0", 22);
    buf_free(&narrow);
}

static void test_zip64(void **state)
{
    (void)state;
    struct error err;
    struct checkpoint *ck;
    struct buf b = {0};
    zip64_of(&b, STR("\x80\2}X\1\0\0\0aK\7s."));
    OK(checkpoint_open_memory(&ck, b.ptr, b.len, &err));
    assert_int_equal(json_int(json_get(ck->config, "a"), 0), 7);
    checkpoint_close(ck);
    seen.opened = seen.refused = 0;
    for (size_t bit = 0; bit < 8 * b.len; bit++) {
        b.ptr[bit / 8] ^= (char)(1 << bit % 8);
        open_damaged((const uint8_t *)b.ptr, b.len);
        b.ptr[bit / 8] ^= (char)(1 << bit % 8);
    }
    assert_true(seen.refused > 500);
    buf_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_truncation_at_every_byte),
        cmocka_unit_test(test_every_flipped_bit),
        cmocka_unit_test(test_every_byte_set_to_extremes),
        cmocka_unit_test(test_every_failing_allocation),
        cmocka_unit_test(test_failing_opens_and_maps),
        cmocka_unit_test(test_many_small_things_stay_within_the_bound),
        cmocka_unit_test(test_pickles_made_to_harm),
        cmocka_unit_test(test_zip64),
    };
    return RUN(tests);
}
