#include "test.h"

#include "base/fault.h"
#include "net/http1.h"

static const struct http1_limits limits = {2048, 4096};

/* Feeds in pieces of `step` bytes; returns how many bytes the message took. */
static size_t feed(struct http1 *p, struct str s, size_t step)
{
    size_t at = 0;
    while (at < s.len && p->state != HTTP1_DONE && p->state != HTTP1_BAD) {
        size_t n = s.len - at < step ? s.len - at : step, used = http1_feed(p, s.ptr + at, n);
        at += used;
        if (used == 0 && p->state != HTTP1_DONE && p->state != HTTP1_BAD && p->state != HTTP1_HEAD_DONE)
            fail_msg("no progress in state %d", p->state);
    }
    if (p->state == HTTP1_HEAD_DONE)
        http1_feed(p, "", 0);
    return at;
}

struct row {
    const char *name, *bytes;
    int fault;        /* 0: accepted */
    const char *path; /* accepted: expected path and body */
    const char *body;
};
#define POST    "POST /x HTTP/1.1\r\nHost: a\r\n"
#define CHUNKED POST "Transfer-Encoding: chunked\r\n\r\n"
static const struct row rows[] = {
    {"plain get", "GET /a?b=c HTTP/1.1\r\nHost: a\r\n\r\n", 0, "/a", ""},
    {"http 1.0 without host", "GET / HTTP/1.0\r\n\r\n", 0, "/", ""},
    {"absolute form", "GET http://h.example/p?q HTTP/1.1\r\nHost: h\r\n\r\n", 0, "/p", ""},
    {"absolute form without path", "GET http://h HTTP/1.1\r\nHost: h\r\n\r\n", 0, "/", ""},
    {"one empty line first", "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 0, "/", ""},
    {"asterisk", "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", 0, "*", ""},
    {"length", POST "Content-Length: 5\r\n\r\nhello", 0, "/x", "hello"},
    {"length zero", POST "Content-Length: 0\r\n\r\n", 0, "/x", ""},
    {"chunks", CHUNKED "3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", 0, "/x", "abcde"},
    {"chunk extension", CHUNKED "3;name=\"v\"\r\nabc\r\n0;x\r\n\r\n", 0, "/x", "abc"},
    {"chunk size with zeros and case", CHUNKED "00A\r\n0123456789\r\n0\r\n\r\n", 0, "/x", "0123456789"},
    {"trailers are dropped", CHUNKED "1\r\na\r\n0\r\nContent-Length: 9\r\nX: y\r\n\r\n", 0, "/x", "a"},
    {"chunked in capitals", POST "Transfer-Encoding: Chunked\r\n\r\n0\r\n\r\n", 0, "/x", ""},
    {"tab around a value", "GET / HTTP/1.1\r\nHost:\ta \t\r\n\r\n", 0, "/", ""},
    {"high bytes in a value", "GET / HTTP/1.1\r\nHost: a\r\nX: \xc3\xa4\r\n\r\n", 0, "/", ""},
    {"empty value", "GET / HTTP/1.1\r\nHost: a\r\nX:\r\n\r\n", 0, "/", ""},
    /* framing attacks */
    {"length twice, equal", POST "Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello", 400, NULL, NULL},
    {"length twice, different", POST "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!", 400, NULL, NULL},
    {"length list", POST "Content-Length: 5, 5\r\n\r\nhello", 400, NULL, NULL},
    {"length plus sign", POST "Content-Length: +5\r\n\r\nhello", 400, NULL, NULL},
    {"length minus", POST "Content-Length: -1\r\n\r\n", 400, NULL, NULL},
    {"length hexadecimal", POST "Content-Length: 0x5\r\n\r\nhello", 400, NULL, NULL},
    {"length empty", POST "Content-Length:\r\n\r\n", 400, NULL, NULL},
    {"length with a blank inside", POST "Content-Length: 1 0\r\n\r\n", 400, NULL, NULL},
    {"length beyond 64 bits", POST "Content-Length: 18446744073709551621\r\n\r\nhello", 400, NULL, NULL},
    {"length and chunked", POST "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, NULL, NULL},
    {"chunked and length", POST "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", 400, NULL, NULL},
    {"coding twice", POST "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, NULL, NULL},
    {"coding identity twice", POST "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n", 400, NULL,
     NULL},
    {"coding list", POST "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501, NULL, NULL},
    {"coding unknown", POST "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 501, NULL, NULL},
    {"coding in 1.0", "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, NULL, NULL},
    {"coding with vertical tab",
     POST "Transfer-Encoding: \x0b"
          "chunked\r\n\r\n",
     400, NULL, NULL},
    {"blank before colon", POST "Content-Length : 5\r\n\r\nhello", 400, NULL, NULL},
    {"folded line", POST "X: a\r\n b\r\n\r\n", 400, NULL, NULL},
    {"folded first header", "GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400, NULL, NULL},
    {"bare CR hides a coding", POST "X-Abc: \rxTransfer-Encoding: chunked\r\n\r\n", 400, NULL, NULL},
    {"bare LF ends a line", "GET / HTTP/1.1\nHost: a\r\n\r\n", 400, NULL, NULL},
    {"bare LF ends the head", "GET / HTTP/1.1\r\nHost: a\r\n\n", 400, NULL, NULL},
    {"CR CR LF", "GET / HTTP/1.1\r\r\nHost: a\r\n\r\n", 400, NULL, NULL},
    {"header without colon", POST "Nothing\r\n\r\n", 400, NULL, NULL},
    {"empty header name", POST ": x\r\n\r\n", 400, NULL, NULL},
    {"name with parenthesis", POST "A(b): x\r\n\r\n", 400, NULL, NULL},
    {"host twice", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400, NULL, NULL},
    {"host missing", "GET / HTTP/1.1\r\n\r\n", 400, NULL, NULL},
    {"two authorizations", POST "Authorization: a\r\nauthorization: b\r\n\r\n", 400, NULL, NULL},
    /* chunks */
    {"chunk size empty", CHUNKED "\r\nabc\r\n0\r\n\r\n", 400, NULL, NULL},
    {"chunk size with 0x", CHUNKED "0x3\r\nabc\r\n0\r\n\r\n", 400, NULL, NULL},
    {"chunk size minus", CHUNKED "-3\r\nabc\r\n0\r\n\r\n", 400, NULL, NULL},
    {"chunk size with blank", CHUNKED "3 \r\nabc\r\n0\r\n\r\n", 400, NULL, NULL},
    {"chunk size of 65 bits", CHUNKED "10000000000000003\r\nabc\r\n0\r\n\r\n", 400, NULL, NULL},
    {"chunk size of 64 bits", CHUNKED "ffffffffffffffff\r\nabc\r\n0\r\n\r\n", 413, NULL, NULL},
    {"chunk size with many zeros", CHUNKED "00000000000000003\r\nabc\r\n0\r\n\r\n", 400, NULL, NULL},
    {"chunk longer than said", CHUNKED "3\r\nabcd\r\n0\r\n\r\n", 400, NULL, NULL},
    {"chunk end by bare LF", CHUNKED "3\r\nabc\n0\r\n\r\n", 400, NULL, NULL},
    {"chunk size line by bare LF", CHUNKED "3\nabc\r\n0\r\n\r\n", 400, NULL, NULL},
    {"bare CR in extension", CHUNKED "3;a\rb\r\nabc\r\n0\r\n\r\n", 400, NULL, NULL},
    {"bare LF in trailer", CHUNKED "0\r\nX: a\n\r\n\r\n", 400, NULL, NULL},
    {"trailer without colon", CHUNKED "0\r\nabc\r\n\r\n", 400, NULL, NULL},
    {"chunk just within the limit waits", CHUNKED "1000\r\n", 0, "/x", NULL},
    {"one chunk too large", CHUNKED "1001\r\n", 413, NULL, NULL},
    /* first line and limits */
    {"version 2", "GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505, NULL, NULL},
    {"version 1.2", "GET / HTTP/1.2\r\nHost: a\r\n\r\n", 505, NULL, NULL},
    {"version 0.9", "GET /\r\n\r\n", 400, NULL, NULL},
    {"lower-case protocol", "GET / http/1.1\r\nHost: a\r\n\r\n", 400, NULL, NULL},
    {"two blanks", "GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400, NULL, NULL},
    {"blank at the end", "GET / HTTP/1.1 \r\nHost: a\r\n\r\n", 400, NULL, NULL},
    {"tab as blank", "GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", 400, NULL, NULL},
    {"method with slash", "GE/T / HTTP/1.1\r\nHost: a\r\n\r\n", 400, NULL, NULL},
    {"no slash", "GET x HTTP/1.1\r\nHost: a\r\n\r\n", 400, NULL, NULL},
    {"high byte in target", "GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n", 400, NULL, NULL},
    {"escape in target", "GET /\x1b HTTP/1.1\r\nHost: a\r\n\r\n", 400, NULL, NULL},
    {"TLS hello", "\x16\x03\x01\x02", 400, NULL, NULL},
    {"two empty lines", "\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400, NULL, NULL},
    {"length over the limit", POST "Content-Length: 4097\r\n\r\n", 413, NULL, NULL},
    {"length of 2^63", POST "Content-Length: 9223372036854775808\r\n\r\n", 413, NULL, NULL},
    {"expectation unknown", POST "Expect: 200-ok\r\n\r\n", 417, NULL, NULL},
};

static void check_row(const struct row *r, size_t step)
{
    struct http1 p;
    http1_init(&p, HTTP1_REQUEST, &limits);
    feed(&p, str_of(r->bytes), step);
    if (r->fault) {
        if (p.state != HTTP1_BAD || p.fault.status != r->fault)
            fail_msg("%s, step %zu: state %d, status %d, expected %d", r->name, step, p.state, p.fault.status,
                     r->fault);
        assert_true(strlen(p.fault.text) > 5);
    } else {
        if (p.state != (r->body ? HTTP1_DONE : HTTP1_BODY))
            fail_msg("%s, step %zu: state %d: %s", r->name, step, p.state, p.fault.text ? p.fault.text : "");
        assert_true(str_is(p.path, r->path));
        assert_true(!r->body || str_is(buf_str(&p.body), r->body));
    }
    http1_free(&p);
}

static void test_http1_table_whole_and_in_pieces(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        for (size_t step = 1; step < 200; step += step < 8 ? 1 : 61)
            check_row(&rows[i], step);
}

static void test_http1_nul_is_refused(void **state)
{
    (void)state;
    static const char bytes[] = "GET / HTTP/1.1\r\nHost: a\0b\r\n\r\n";
    struct http1 p;
    http1_init(&p, HTTP1_REQUEST, &limits);
    feed(&p, str_n(bytes, sizeof bytes - 1), 100);
    assert_int_equal(p.fault.status, 400);
    http1_free(&p);
}

static void test_http1_truncations_wait_and_never_finish(void **state)
{
    (void)state;
    struct str all = STR(CHUNKED "3;e\r\nabc\r\n2\r\nde\r\n0\r\nT: x\r\n\r\n");
    for (size_t n = 0; n < all.len; n++) {
        struct http1 p;
        char *copy = malloc(n + 1); /* exact size: a read beyond it is seen by the sanitizer */
        memcpy(copy, all.ptr, n);
        http1_init(&p, HTTP1_REQUEST, &limits);
        assert_int_equal(feed(&p, str_n(copy, n), n ? n : 1), n);
        assert_true(p.state == HTTP1_HEAD || p.state == HTTP1_BODY);
        http1_end(&p);
        assert_int_equal(p.state, HTTP1_BAD);
        http1_free(&p);
        free(copy);
    }
}

static void test_http1_every_bit_flip_is_safe(void **state)
{
    (void)state;
    static const char all[] = POST "Content-Length: 5\r\nX: y\r\n\r\nhello";
    for (size_t bit = 0; bit < 8 * (sizeof all - 1); bit++) {
        char copy[sizeof all];
        memcpy(copy, all, sizeof all);
        copy[bit / 8] = (char)(copy[bit / 8] ^ (1 << bit % 8));
        struct http1 whole, bytes;
        http1_init(&whole, HTTP1_REQUEST, &limits);
        http1_init(&bytes, HTTP1_REQUEST, &limits);
        size_t used_whole = feed(&whole, str_n(copy, sizeof all - 1), sizeof all);
        size_t used_bytes = feed(&bytes, str_n(copy, sizeof all - 1), 1);
        assert_int_equal(whole.state, bytes.state);
        assert_int_equal(whole.fault.status, bytes.fault.status);
        assert_true(whole.state == HTTP1_BAD || used_whole == used_bytes);
        http1_free(&whole);
        http1_free(&bytes);
    }
}

static void test_http1_limits_at_the_edge(void **state)
{
    (void)state;
    for (int over = 0; over < 2; over++) { /* head of exactly 2048 bytes, then one more */
        struct buf b = {0};
        buf_append_str(&b, STR("GET / HTTP/1.1\r\nHost: a\r\nX: "));
        while (b.len < 2044 + (size_t)over)
            buf_append_char(&b, 'y');
        buf_append_str(&b, STR("\r\n\r\n"));
        struct http1 p;
        http1_init(&p, HTTP1_REQUEST, &limits);
        feed(&p, buf_str(&b), 7);
        assert_int_equal(p.fault.status, over ? 431 : 0);
        http1_free(&p);
        buf_free(&b);
    }
    for (int n = 99; n <= 101; n++) { /* headers: 100 with Host */
        struct buf b = {0};
        buf_append_str(&b, STR("GET / HTTP/1.1\r\nHost: a\r\n"));
        for (int i = 1; i < n; i++)
            buf_append_str(&b, STR("a:b\r\n"));
        buf_append_str(&b, STR("\r\n"));
        struct http1 p;
        http1_init(&p, HTTP1_REQUEST, &limits);
        feed(&p, buf_str(&b), 1000);
        assert_int_equal(p.fault.status, n > 100 ? 431 : 0);
        http1_free(&p);
        buf_free(&b);
    }
}

static void test_http1_pipelined_messages_keep_their_bytes(void **state)
{
    (void)state;
    struct str s = STR(POST "Content-Length: 2\r\n\r\nabGET /2 HTTP/1.1\r\nHost: a\r\nConnection: x, close\r\n\r\n");
    struct http1 p;
    http1_init(&p, HTTP1_REQUEST, &limits);
    size_t used = feed(&p, s, 1000);
    assert_true(str_is(buf_str(&p.body), "ab") && p.keep_alive);
    http1_reset(&p);
    assert_false(http1_started(&p));
    assert_int_equal(feed(&p, str_from(s, used), 1000), s.len - used);
    assert_true(p.state == HTTP1_DONE && str_is(p.path, "/2") && !p.keep_alive);
    http1_free(&p);
}

static void test_http1_responses(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        int status;
        const char *body;
    } good[] = {
        {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", 200, "hi"},
        {"HTTP/1.1 200\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n", 200, "hi"},
        {"HTTP/1.1 204 No Content\r\n\r\n", 204, ""},
        {"HTTP/1.1 200 OK\r\n\r\nuntil the end", 200, "until the end"},
    };
    for (size_t i = 0; i < 4; i++) {
        struct http1 p;
        http1_init(&p, HTTP1_RESPONSE, &limits);
        feed(&p, str_of(good[i].bytes), 3);
        http1_end(&p);
        assert_int_equal(p.state, HTTP1_DONE);
        assert_int_equal(p.status, good[i].status);
        assert_true(str_is(buf_str(&p.body), good[i].body));
        http1_free(&p);
    }
    static const char *const wrong[] = {"HTTP/1.1 20 OK\r\n\r\n", "HTTP/1.1 2000\r\n\r\n", "HTTP/3.0 200 OK\r\n\r\n",
                                        "ICY 200 OK\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx"};
    for (size_t i = 0; i < 5; i++) {
        struct http1 p;
        http1_init(&p, HTTP1_RESPONSE, &limits);
        feed(&p, str_of(wrong[i]), 100);
        http1_end(&p);
        assert_int_equal(p.state, HTTP1_BAD);
        http1_free(&p);
    }
}

static void test_http1_allocation_failures(void **state)
{
    (void)state;
    bool fired = true;
    for (uint64_t n = 1; fired; n++) {
        struct http1 p;
        http1_init(&p, HTTP1_REQUEST, &limits);
        fault_arm(FAULT_ALLOC, n);
        feed(&p, STR(CHUNKED "3\r\nabc\r\n0\r\n\r\n"), 5);
        fired = fault_fired();
        fault_disarm();
        assert_true(fired ? p.state == HTTP1_BAD && p.fault.status == 503 : p.state == HTTP1_DONE);
        http1_free(&p);
    }
}

static void test_http1_written_headers_cannot_be_split(void **state)
{
    (void)state;
    struct buf b = {0};
    http1_write_header(&b, "x", STR("a\r\nSet-Cookie: b"));
    assert_string_equal(b.ptr, "x: a  Set-Cookie: b\r\n");
    buf_clear(&b);
    http1_write_chunk(&b, STR(""));
    http1_write_chunk(&b, STR("0123456789abcdef"));
    http1_write_last_chunk(&b);
    assert_string_equal(b.ptr, "10\r\n0123456789abcdef\r\n0\r\n\r\n");
    buf_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_http1_table_whole_and_in_pieces),
        cmocka_unit_test(test_http1_nul_is_refused),
        cmocka_unit_test(test_http1_truncations_wait_and_never_finish),
        cmocka_unit_test(test_http1_every_bit_flip_is_safe),
        cmocka_unit_test(test_http1_limits_at_the_edge),
        cmocka_unit_test(test_http1_pipelined_messages_keep_their_bytes),
        cmocka_unit_test(test_http1_responses),
        cmocka_unit_test(test_http1_allocation_failures),
        cmocka_unit_test(test_http1_written_headers_cannot_be_split),
    };
    return RUN(tests);
}
