/* WebSocket routes over the stand-in engine, spoken by hand: frames in, frames out, and how connections end. */
#include "test.h"

#include "base/fault.h"
#include "gateway/harness.h"
#include "net/websocket.h"

#include <arpa/inet.h>
#include <poll.h>
#include <sys/socket.h>

struct peer { /* a client */
    int fd;
    struct buf in;
};

static void send_bytes(struct peer *p, struct str bytes)
{
    while (bytes.len) {
        ssize_t n = send(p->fd, bytes.ptr, bytes.len, MSG_NOSIGNAL);
        assert_true(n > 0);
        bytes = str_from(bytes, (size_t)n);
    }
}

/* More bytes; false when the server closed, or nothing came for ten seconds. */
static bool more(struct peer *p)
{
    char bytes[4096];
    struct pollfd wait = {.fd = p->fd, .events = POLLIN};
    if (poll(&wait, 1, 10000) != 1)
        fail_msg("%s", "nothing came");
    ssize_t n = recv(p->fd, bytes, sizeof bytes, 0);
    if (n <= 0)
        return false;
    buf_append(&p->in, bytes, (size_t)n);
    return true;
}

static void take(struct peer *p, size_t n)
{
    memmove(p->in.ptr, p->in.ptr + n, p->in.len - n + 1);
    p->in.len -= n;
}

static struct peer dial(const char *path)
{
    struct peer p = {.fd = socket(AF_INET, SOCK_STREAM, 0)};
    struct sockaddr_in to = {.sin_family = AF_INET,
                             .sin_port = htons((uint16_t)gateway_port(gateway)),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct buf b = {0};
    assert_int_equal(connect(p.fd, (struct sockaddr *)&to, sizeof to), 0);
    buf_printf(&b,
               "GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
               "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
               path);
    send_bytes(&p, buf_str(&b));
    buf_free(&b);
    size_t end;
    while ((end = str_find(buf_str(&p.in), STR("\r\n\r\n"), 0)) == SIZE_MAX)
        assert_true(more(&p));
    assert_true(str_starts(buf_str(&p.in), STR("HTTP/1.1 101 ")));
    assert_int_equal(count(str_n(p.in.ptr, end), "sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), 1);
    take(&p, end + 4);
    return p;
}

static struct buf frame(unsigned first, const char *text)
{
    static const unsigned char mask[4] = {1, 2, 3, 4};
    unsigned char head[WEBSOCKET_HEAD_MAX];
    struct buf b = {0};
    size_t len = strlen(text), n = websocket_head(head, WEBSOCKET_OP_TEXT, len);
    head[0] = (unsigned char)first;
    head[1] |= 0x80;
    buf_append(&b, head, n);
    buf_append(&b, mask, 4);
    for (size_t i = 0; i < len; i++)
        buf_append_char(&b, (char)(text[i] ^ (char)mask[i & 3]));
    return b;
}

static void say_frame(struct peer *p, unsigned first, const char *text)
{
    struct buf b = frame(first, text);
    send_bytes(p, buf_str(&b));
    buf_free(&b);
}

/* The next frame: its first byte; the payload is kept in the test's arena. */
static unsigned next_frame(struct peer *p, struct str *payload)
{
    for (;;) {
        const unsigned char *h = (const unsigned char *)p->in.ptr;
        size_t n = p->in.len, head = n < 2 ? 2 : 2 + (h[1] == 126 ? 2 : h[1] == 127 ? 8 : 0), size = 0;
        if (n >= head) {
            assert_int_equal(h[1] & 0x80, 0); /* servers do not mask */
            size = h[1] < 126 ? h[1] : 0;
            for (size_t i = 2; i < head; i++)
                size = size << 8 | h[i];
        }
        if (n >= 2 && n >= head + size) {
            unsigned first = h[0];
            *payload = str_n(arena_copy(&arena, str_n(p->in.ptr + head, size)), size);
            take(p, head + size);
            return first;
        }
        assert_true(more(p));
    }
}

static const struct json *next_json(struct peer *p)
{
    struct str text;
    struct error err;
    const struct json *doc;
    unsigned first = next_frame(p, &text);
    if (first != 0x81)
        fail_msg("frame %x: %.*s", first, STR_ARG(text));
    OK(json_parse(&doc, &arena, text, 0, &err));
    return doc;
}

/* A close frame with this code, then the end of the connection. */
static void want_close(struct peer *p, int code)
{
    struct str text;
    unsigned first = next_frame(p, &text);
    if (first != 0x88)
        fail_msg("frame %x: %.*s", first, STR_ARG(text));
    assert_int_equal((unsigned char)text.ptr[0] << 8 | (unsigned char)text.ptr[1], code);
    assert_false(more(p));
    close(p->fd);
    buf_free(&p->in);
}

static void test_socket_stream(void **state)
{
    struct buf text = {0};
    (void)state;
    struct peer p = dial("/v1/stream");
    say_frame(&p, 0x81, CHAT(",\"max_tokens\":3,\"stream_options\":{\"include_usage\":true}"));
    want_text(next_json(&p), "choices.0.delta.role", "assistant");
    for (int i = 0; i < 3; i++) { /* a frame a token */
        const struct json *e = next_json(&p);
        want_text(e, "object", "chat.completion.chunk");
        buf_append_str(&text, json_str(at(e, "choices.0.delta.content")));
    }
    assert_true(str_is(buf_str(&text), "w0 w1 w2"));
    want_text(next_json(&p), "choices.0.finish_reason", "length");
    assert_int_equal(json_int(at(next_json(&p), "usage.completion_tokens"), -1), 3);
    want_close(&p, 1000);
    p = dial("/v1/stream");
    say_frame(&p, 0x01, "{\"prompt\":\"a\",");
    say_frame(&p, 0x89, "are you there");
    say_frame(&p, 0x80, "\"max_tokens\":1}");
    struct str pong;
    assert_int_equal(next_frame(&p, &pong), 0x8A);
    assert_true(str_is(pong, "are you there"));
    const struct json *e = next_json(&p);
    want_text(e, "object", "text_completion");
    want_text(e, "choices.0.text", "w0");
    want_text(next_json(&p), "choices.0.finish_reason", "length");
    want_close(&p, 1000);
    buf_free(&text);
}

static void test_socket_refusals(void **state)
{
    static const struct {
        const char *body, *code;
        int close;
    } rows[] = {
        {"{", "invalid_json", 1008},
        {CHAT(",\"temperature\":9"), "invalid_value", 1008},
        {"{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"tools\":[{}]}", "unsupported_value", 1008},
    };
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        struct peer p = dial("/v1/stream");
        say_frame(&p, 0x81, rows[i].body);
        const struct json *e = next_json(&p);
        want_text(e, "type", "error");
        want_text(e, "error.code", rows[i].code);
        want_close(&p, rows[i].close);
    }
    struct peer p = dial("/v1/stream");
    say_frame(&p, 0x81, "{\"messages\":[{\"role\":\"user\",\"content\":\"FAIL\"}]}");
    for (int i = 0; i < 3; i++)
        next_json(&p);
    want_text(next_json(&p), "error.message", "the device is on fire");
    want_close(&p, 1011);
    p = dial("/v1/stream");
    send_bytes(&p, STR("\x81\x02{}")); /* not masked */
    want_close(&p, 1002);
    p = dial("/v1/stream");
    say_frame(&p, 0x81, "\xFF");
    want_close(&p, 1007);
    p = dial("/v1/stream");
    say_frame(&p, 0x88, "\x03\xE8");
    want_close(&p, 1000);
    struct http1 a;
    const struct json *doc = ask(&a, "GET", "/v1/stream", "", NULL);
    assert_int_equal(a.status, 426);
    want_text(doc, "error.code", "upgrade_required");
    assert_true(str_is(http1_header(&a, "upgrade"), "websocket"));
    http1_free(&a);
}

static const struct json *until(struct peer *p, const char *type)
{
    for (;;) {
        const struct json *e = next_json(p);
        if (str_is(json_str(json_get(e, "type")), type))
            return e;
    }
}

static void test_socket_responses(void **state)
{
    char body[300];
    (void)state;
    struct peer p = dial("/v1/responses");
    say_frame(&p, 0x81, "{\"type\":\"response.create\",\"model\":\"fake\",\"input\":\"SAY abc\"}");
    want_text(next_json(&p), "type", "response.created");
    const struct json *e = until(&p, "response.completed");
    want_text(e, "response.output.0.content.0.text", "abc");
    snprintf(body, sizeof body, "{\"type\":\"response.create\",\"input\":\"x\",\"previous_response_id\":\"%.*s\"}",
             STR_ARG(json_str(at(e, "response.id"))));
    say_frame(&p, 0x81, body);
    e = until(&p, "response.completed");
    assert_int_equal(json_int(at(e, "response.usage.input_tokens"), -1), (1 + 7) + (1 + 3) + (1 + 1));
    say_frame(&p, 0x81, "{\"type\":\"response.create\"}");
    e = next_json(&p);
    want_text(e, "type", "error");
    want_text(e, "error.param", "input");
    __atomic_store_n(&fake.hold, 1, __ATOMIC_SEQ_CST);
    say_frame(&p, 0x81, "{\"type\":\"response.create\",\"input\":\"y\"}");
    until(&p, "response.created");
    say_frame(&p, 0x81, "{\"type\":\"response.create\",\"input\":\"z\"}"); /* one at a time */
    want_text(until(&p, "error"), "error.type", "invalid_request_error");
    __atomic_store_n(&fake.hold, 0, __ATOMIC_SEQ_CST);
    until(&p, "response.completed");
    say_frame(&p, 0x88,
              "\x03\xE8"
              "bye");
    want_close(&p, 1000);
}

static bool blocks_return(void)
{
    for (int i = 0; i < 500; i++) {
        struct engine_stats s;
        engine_stats(engine, &s);
        if (s.running == 0)
            return true;
        usleep(10000);
    }
    return false;
}

static void test_socket_clients_who_leave(void **state)
{
    (void)state;
    __atomic_store_n(&fake.hold, 1, __ATOMIC_SEQ_CST);
    for (int i = 0; i < 3; i++) {
        struct peer p = dial(i == 2 ? "/v1/responses" : "/v1/stream");
        say_frame(&p, 0x81, i == 2 ? "{\"type\":\"response.create\",\"input\":\"y\"}" : CHAT(""));
        next_json(&p);
        if (i == 1)
            say_frame(&p, 0x88, "");
        close(p.fd);
        buf_free(&p.in);
    }
    assert_true(blocks_return());
    __atomic_store_n(&fake.hold, 0, __ATOMIC_SEQ_CST);
}

/* Refusals are larger than what asks for them: who does not read them must not fill the memory. */
static void test_socket_clients_who_do_not_read(void **state)
{
    (void)state;
    struct peer p = dial("/v1/responses");
    struct buf one = frame(0x82, ""), many = {0};
    for (int i = 0; i < 1000; i++)
        buf_append_str(&many, buf_str(&one));
    int sent = 0, most = 400; /* 400 000 refusals are more than sockets hold */
    for (; sent < most && send(p.fd, many.ptr, many.len, MSG_NOSIGNAL) > 0; sent++)
        usleep(5000); /* sockets hold some megabytes that the server has not seen yet */
    assert_true(sent < most);
    close(p.fd);
    buf_free(&one);
    buf_free(&many);
    buf_free(&p.in);
}

/* Idle sockets do not keep a server from stopping. */
static void test_socket_drains(void **state)
{
    (void)state;
    start_with(&(struct gateway_options){.host = "127.0.0.1"});
    struct peer p = dial("/v1/responses");
    gateway_drain(gateway);
    want_close(&p, 1001);
    stop(NULL);
}

static void test_socket_survives_failing_memory(void **state)
{
    (void)state;
    for (uint64_t n = 1; n < 60; n++) {
        struct peer p = dial("/v1/stream");
        struct buf request = frame(0x81, CHAT(",\"max_tokens\":2"));
        fault_arm(FAULT_ALLOC, n);
        send_bytes(&p, buf_str(&request));
        char bytes[4096];
        struct pollfd wait = {.fd = p.fd, .events = POLLIN};
        ssize_t got = 1;
        while (got > 0 && poll(&wait, 1, 10000) == 1)
            got = recv(p.fd, bytes, sizeof bytes, 0);
        fault_disarm();
        buf_free(&request);
        if (got > 0)
            fail_msg("allocation %d: no end", (int)n);
        close(p.fd);
        buf_free(&p.in);
    }
    assert_true(blocks_return());
}

/* A whole answer larger than one piece arrives whole, also when its reader is slow. */
static void test_socket_large_answers_go_in_pieces(void **state)
{
    struct http1 a;
    (void)state;
    for (int i = 0; i < 3; i++) {
        const struct json *doc =
            ask(&a, "POST", "/v1/completions", "{\"prompt\":\"BIG\",\"max_tokens\":200,\"n\":3}", NULL);
        assert_int_equal(a.status, 200);
        for (int k = 0; k < 3; k++)
            assert_int_equal(json_str(json_get(json_at(json_get(doc, "choices"), (size_t)k), "text")).len, 200 * 4096);
        http1_free(&a);
    }
}

int main(void)
{
#define ON_SERVER(test) cmocka_unit_test_setup_teardown(test, start, stop)
    const struct CMUnitTest tests[] = {
        ON_SERVER(test_socket_stream),
        ON_SERVER(test_socket_refusals),
        ON_SERVER(test_socket_responses),
        ON_SERVER(test_socket_clients_who_leave),
        ON_SERVER(test_socket_clients_who_do_not_read),
        cmocka_unit_test(test_socket_drains),
        ON_SERVER(test_socket_survives_failing_memory),
        ON_SERVER(test_socket_large_answers_go_in_pieces),
    };
    return RUN(tests);
}
