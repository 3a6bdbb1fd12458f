/* RFC 6455's codec: what each kind of frame becomes, cut at every place, and what is refused, with its code. */
#include "test.h"

#include "base/fault.h"
#include "net/websocket.h"

/* A client's frame: masked. */
static void frame(struct buf *out, unsigned first, struct str payload)
{
    static const unsigned char mask[4] = {0x37, 0xFA, 0x21, 0x3D};
    unsigned char head[WEBSOCKET_HEAD_MAX];
    size_t n = websocket_head(head, WEBSOCKET_OP_TEXT, payload.len);
    head[0] = (unsigned char)first;
    head[1] |= 0x80;
    buf_append(out, head, n);
    buf_append(out, mask, 4);
    for (size_t i = 0; i < payload.len; i++)
        buf_append_char(out, (char)(payload.ptr[i] ^ (char)mask[i & 3]));
}

/* Events as one line: M(text) B(binary) I(ping) O(pong) C(code reason) X(code) */
static struct buf run(struct str bytes, size_t step, size_t message_max)
{
    struct websocket w;
    struct buf out = {0};
    websocket_init(&w, message_max);
    for (size_t i = 0; i < bytes.len;) {
        size_t n = bytes.len - i < step ? bytes.len - i : step;
        size_t used = websocket_feed(&w, bytes.ptr + i, n);
        assert_true(used <= n);
        i += used;
        switch (w.event) {
        case WEBSOCKET_NOTHING:
            assert_true(used == n);
            break;
        case WEBSOCKET_MESSAGE:
            buf_printf(&out, "%c(%.*s)", w.binary ? 'B' : 'M', (int)w.message.len, buf_str(&w.message).ptr);
            break;
        case WEBSOCKET_PING:
        case WEBSOCKET_PONG:
            buf_printf(&out, "%c(%.*s)", w.event == WEBSOCKET_PING ? 'I' : 'O', (int)w.control.len,
                       buf_str(&w.control).ptr);
            break;
        case WEBSOCKET_CLOSE:
            buf_printf(&out, "C(%d %.*s)", w.code, (int)w.control.len, buf_str(&w.control).ptr);
            i = bytes.len;
            break;
        case WEBSOCKET_BAD:
            buf_printf(&out, "X(%d)", w.code);
            i = bytes.len;
            break;
        }
    }
    websocket_free(&w);
    return out;
}

#define MORE   0x00
#define TEXT   0x01
#define BINARY 0x02
#define CLOSE  0x88
#define PING   0x89
#define PONG   0x8A
#define FIN    0x80

static const struct row {
    struct {
        unsigned first;
        const char *payload;
        int n; /* -1: to the payload's end */
    } frames[5];
    const char *expect;
} rows[] = {
    {{{FIN | TEXT, "Hello", -1}}, "M(Hello)"},
    {{{FIN | TEXT, "", -1}}, "M()"},
    {{{TEXT, "Hel", -1}, {FIN | MORE, "lo", -1}}, "M(Hello)"},
    {{{TEXT, "", -1}, {MORE, "", -1}, {FIN | MORE, "", -1}}, "M()"},
    {{{TEXT, "a", -1}, {PING, "p", -1}, {MORE, "b", -1}, {PONG, "", -1}, {FIN | MORE, "c", -1}}, "I(p)O()M(abc)"},
    {{{FIN | BINARY, "\xFF\xFE", -1}}, "B(\xFF\xFE)"},
    {{{FIN | TEXT, "a", -1}, {FIN | TEXT, "b", -1}}, "M(a)M(b)"},
    {{{TEXT, "\xC3", -1}, {FIN | MORE, "\xA9", -1}}, "M(\xC3\xA9)"}, /* a character over two fragments */
    {{{FIN | TEXT, "\xC3", -1}}, "X(1007)"},
    {{{FIN | TEXT, "\xED\xA0\x80", -1}}, "X(1007)"}, /* a surrogate */
    {{{FIN | TEXT, "\xF4\x90\x80\x80", -1}}, "X(1007)"},
    {{{CLOSE, "", -1}}, "C(1005 )"},
    {{{CLOSE,
       "\x03\xE8"
       "bye",
       -1}},
     "C(1000 bye)"},
    {{{CLOSE, "\x0F\xA0", -1}}, "C(4000 )"},
    {{{CLOSE, "\x03", -1}}, "X(1002)"},
    {{{CLOSE, "\x03\xED", -1}}, "X(1002)"}, /* 1005 */
    {{{CLOSE, "\x03\xEE", -1}}, "X(1002)"}, /* 1006 */
    {{{CLOSE, "\x00\x00", 2}}, "X(1002)"},
    {{{CLOSE, "\x13\x88", -1}}, "X(1002)"}, /* 5000 */
    {{{CLOSE, "\x03\xE8\xFF", -1}}, "X(1007)"},
    {{{FIN | 0x40 | TEXT, "a", -1}}, "X(1002)"}, /* reserved bits */
    {{{FIN | 0x10 | TEXT, "a", -1}}, "X(1002)"},
    {{{FIN | 3, "a", -1}}, "X(1002)"}, /* reserved opcodes */
    {{{FIN | 11, "a", -1}}, "X(1002)"},
    {{{0x09, "a", -1}}, "X(1002)"}, /* a fragment of a ping */
    {{{FIN | MORE, "a", -1}}, "X(1002)"},
    {{{TEXT, "a", -1}, {FIN | TEXT, "b", -1}}, "X(1002)"},
    {{{FIN | TEXT, "a", -1}, {FIN | MORE, "b", -1}}, "M(a)X(1002)"},
    {{{FIN | TEXT, "0123456789abcdefg", -1}}, "X(1009)"},
    {{{TEXT, "0123456789", -1}, {FIN | MORE, "abcdefg", -1}}, "X(1009)"},
};

static void test_websocket_frames_however_they_are_cut(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct buf bytes = {0};
        for (int k = 0; k < 5 && rows[i].frames[k].payload; k++) {
            struct str payload = str_of(rows[i].frames[k].payload);
            if (rows[i].frames[k].n >= 0)
                payload = str_n(payload.ptr, (size_t)rows[i].frames[k].n);
            frame(&bytes, rows[i].frames[k].first, payload);
        }
        for (size_t step = 1; step <= bytes.len; step++) {
            struct buf got = run(buf_str(&bytes), step, 16);
            if (!str_is(buf_str(&got), rows[i].expect))
                fail_msg("row %zu by %zu: got %.*s, expected %s", i, step, (int)got.len, buf_str(&got).ptr,
                         rows[i].expect);
            buf_free(&got);
        }
        for (size_t n = 0; n < bytes.len; n++) { /* cut short: nothing is said that was not there */
            struct buf got = run(str_n(bytes.ptr, n), n ? n : 1, 16);
            struct str whole = str_of(rows[i].expect);
            assert_true(got.len <= whole.len && memcmp(buf_str(&got).ptr, whole.ptr, got.len) == 0);
            buf_free(&got);
        }
        buf_free(&bytes);
    }
}

static void test_websocket_lengths(void **state)
{
    static const size_t sizes[] = {0, 1, 125, 126, 127, 128, 65535, 65536, 200000};
    (void)state;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        struct buf payload = {0}, bytes = {0};
        struct websocket w;
        for (size_t k = 0; k < sizes[i]; k++)
            buf_append_char(&payload, (char)('a' + k % 26));
        frame(&bytes, FIN | TEXT, buf_str(&payload));
        websocket_init(&w, 1 << 20);
        for (size_t at = 0; at < bytes.len;)
            at += websocket_feed(&w, bytes.ptr + at, bytes.len - at < 1000 ? bytes.len - at : 1000);
        assert_int_equal(w.event, WEBSOCKET_MESSAGE);
        assert_true(str_eq(buf_str(&w.message), buf_str(&payload)));
        websocket_free(&w);
        buf_free(&payload);
        buf_free(&bytes);
    }
    static const struct {
        const char *head;
        size_t n;
        int code;
    } bads[] = {
        {"\x81\x05Hello", 7, 1002},                                 /* not masked */
        {"\x81\xFE\x00\x05mask", 8, 1002},                          /* 5 in two bytes */
        {"\x81\xFF\x00\x00\x00\x00\x00\x00\xFF\xFFmask", 14, 1002}, /* 65535 in eight */
        {"\x81\xFF\x80\x00\x00\x00\x00\x00\x00\x00mask", 14, 1002}, /* the highest bit */
        {"\x81\xFF\x7F\xFF\xFF\xFF\xFF\xFF\xFF\xFFmask", 14, 1009},
        {"\x89\xFE\x00\x7Emask", 8, 1002}, /* a ping of 126 bytes */
    };
    for (size_t i = 0; i < sizeof bads / sizeof *bads; i++) {
        struct websocket w;
        websocket_init(&w, 1 << 20);
        size_t used = websocket_feed(&w, bads[i].head, bads[i].n);
        assert_int_equal(w.event, WEBSOCKET_BAD);
        assert_int_equal(w.code, bads[i].code);
        assert_true(used <= bads[i].n && websocket_feed(&w, "more", 4) == 4 && w.event == WEBSOCKET_BAD);
        websocket_free(&w);
    }
}

static void test_websocket_writes(void **state)
{
    struct buf b = {0};
    char reason[200];
    (void)state;
    websocket_write(&b, WEBSOCKET_OP_TEXT, STR("Hello"));
    assert_true(str_is(buf_str(&b), "\x81\x05Hello")); /* RFC 6455, 5.7 */
    buf_clear(&b);
    websocket_write_close(&b, 1000, STR("bye"));
    assert_true(str_eq(buf_str(&b), str_n("\x88\x05\x03\xE8"
                                          "bye",
                                          7)));
    buf_clear(&b);
    websocket_write_close(&b, 1005, STR(""));
    assert_true(str_eq(buf_str(&b), str_n("\x88\x00", 2)));
    buf_clear(&b);
    for (size_t i = 0; i < sizeof reason; i += 2)
        memcpy(reason + i, "\xC3\xA9", 2);
    websocket_write_close(&b, 1011, str_n(reason, sizeof reason));
    assert_int_equal(b.len, 2 + 2 + 122); /* 123 would end inside a character */
    buf_free(&b);
}

static void request(struct http1 *p, const char *headers)
{
    static const struct http1_limits limits = {4096, 4096};
    struct buf b = {0};
    http1_init(p, HTTP1_REQUEST, &limits);
    buf_printf(&b, "GET /x HTTP/1.1\r\nHost: a\r\n%s\r\n", headers);
    http1_feed(p, b.ptr, b.len);
    assert_int_not_equal(p->state, HTTP1_BAD);
    buf_free(&b);
}

static void test_websocket_handshake(void **state)
{
    static const struct {
        const char *headers;
        bool good;
    } tries[] = {
        {"Upgrade: websocket\r\nConnection: keep-alive, Upgrade\r\nSec-WebSocket-Version: 13\r\n"
         "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
         true},
        {"Upgrade: WebSocket\r\nConnection: upgrade\r\nSec-WebSocket-Version: 13\r\n"
         "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
         true},
        {"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", false},
        {"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", false},
        {"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 8\r\n"
         "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
         false},
        {"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: short\r\n",
         false},
        {"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n", false},
    };
    (void)state;
    for (size_t i = 0; i < sizeof tries / sizeof *tries; i++) {
        struct http1 p;
        struct error err;
        char key[WEBSOCKET_KEY];
        request(&p, tries[i].headers);
        enum status st = websocket_accept(key, &p, &err);
        assert_int_equal(st, tries[i].good ? ST_OK : ST_INVALID);
        if (tries[i].good)
            assert_string_equal(key, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="); /* RFC 6455, 1.3 */
        http1_free(&p);
    }
}

static void test_websocket_survives_failing_memory(void **state)
{
    struct buf bytes = {0};
    (void)state;
    frame(&bytes, TEXT, STR("Hel"));
    frame(&bytes, PING, STR("p"));
    frame(&bytes, FIN | MORE, STR("lo"));
    for (uint64_t n = 1;; n++) {
        struct websocket w;
        websocket_init(&w, 100);
        fault_arm(FAULT_ALLOC, n);
        for (size_t at = 0; at < bytes.len;)
            at += websocket_feed(&w, bytes.ptr + at, bytes.len - at);
        bool fired = fault_fired();
        fault_disarm();
        assert_true(w.event == (fired ? WEBSOCKET_BAD : WEBSOCKET_MESSAGE));
        assert_true(!fired || w.code == 1011);
        websocket_free(&w);
        if (!fired)
            break;
    }
    buf_free(&bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_websocket_frames_however_they_are_cut),
        cmocka_unit_test(test_websocket_lengths),
        cmocka_unit_test(test_websocket_writes),
        cmocka_unit_test(test_websocket_handshake),
        cmocka_unit_test(test_websocket_survives_failing_memory),
    };
    return RUN(tests);
}
