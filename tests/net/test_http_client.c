/* The client on the loop against a server that misbehaves; the reader of events against every cut; the timer. */
#include "test.h"

#include "base/clock.h"
#include "base/fault.h"
#include "base/rng.h"
#include "net/http_client.h"
#include "net/sse_reader.h"

#include "net/stub.h"

static struct loop *loop;
static struct http_client *client;
static struct stub stub;

static void script(struct stub_call *c)
{
    if (!strcmp(c->path, "/echo")) {
        stub_printf(c, "HTTP/1.1 200 OK\r\ncontent-length: %zu\r\n\r\n%.*s", c->body.len, (int)c->body.len,
                    c->body.ptr);
    } else if (!strcmp(c->path, "/stream")) {
        stub_say(c, "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
        for (int i = 0; i < 5; i++) {
            stub_chunk(c, "data: x\n\n");
            usleep(2000);
        }
        stub_say(c, "0\r\n\r\n");
    } else if (!strcmp(c->path, "/until-close")) {
        stub_say(c, "HTTP/1.1 200 OK\r\n\r\nrest");
        c->close = true;
    } else if (!strcmp(c->path, "/once")) { /* keeps alive, but ends before the second request's answer */
        if (c->nth == 0)
            stub_answer(c, 200, "text/plain", "once");
        c->close = c->nth > 0;
    } else if (!strcmp(c->path, "/cut")) {
        stub_say(c, "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf");
        c->close = true;
    } else if (!strcmp(c->path, "/reset")) {
        stub_say(c, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
        usleep(20000);
        c->reset = true;
    } else if (!strcmp(c->path, "/nonsense")) {
        stub_say(c, "220 mail.example.org ESMTP\r\n\r\n");
        c->close = true;
    } else if (!strcmp(c->path, "/silent")) {
        usleep(300000);
        c->close = true;
    } else { /* closes without a word */
        c->close = true;
    }
}

struct seen {
    struct http_fetch f;
    struct buf request, body;
    enum fetch_end end;
    int ends, status, cancel_after; /* cancel_after: bytes of body */
    bool stop;                      /* the loop, at the end */
};

static void on_body(struct http_fetch *f, struct str bytes)
{
    struct seen *s = f->user;
    buf_append_str(&s->body, bytes);
    assert_non_null(f->answer);
    if (s->cancel_after && s->body.len >= (size_t)s->cancel_after) {
        http_fetch_cancel(f);
        loop_stop(loop);
    }
}

static void on_end(struct http_fetch *f, enum fetch_end end)
{
    struct seen *s = f->user;
    s->end = end;
    s->ends++;
    s->status = f->answer ? f->answer->status : 0;
    if (s->stop)
        loop_stop(loop);
}

static void prepare(struct seen *s, const char *path, const char *body)
{
    *s = (struct seen){.stop = true};
    http_request_write(&s->request, *body ? "POST" : "GET", path, "stub", "x-test: 1\r\n", str_of(body));
    s->f = (struct http_fetch){.request = buf_str(&s->request), .on_body = on_body, .on_end = on_end, .user = s};
}

static void forget(struct seen *s)
{
    buf_free(&s->request);
    buf_free(&s->body);
}

static void run_loop(void)
{
    struct error err;
    OK(loop_run(loop, &err));
}

static void open_client(int port)
{
    struct error err;
    struct peer to;
    OK(loop_create(&loop, &err));
    OK(peer_resolve(&to, "127.0.0.1", port, &err));
    OK(http_client_open(&client, loop, &to, &err));
}

static int start(void **state)
{
    (void)state;
    stub_start(&stub, script);
    open_client(stub.port);
    return 0;
}

static int stop(void **state)
{
    (void)state;
    http_client_close(client);
    loop_destroy(loop);
    stub_stop(&stub);
    return 0;
}

/* loop_stop ends a loop for good; a fresh client on a fresh loop for the next call. */
static void again(void)
{
    http_client_close(client);
    loop_destroy(loop);
    open_client(stub.port);
}

static void test_client_ends_every_answer_once(void **state)
{
    static const struct {
        const char *path, *body, *got;
        enum fetch_end end;
        int status;
    } rows[] = {
        {"/echo", "hello", "hello", FETCH_DONE, 200},
        {"/stream", "x", "data: x\n\ndata: x\n\ndata: x\n\ndata: x\n\ndata: x\n\n", FETCH_DONE, 200},
        {"/until-close", "", "rest", FETCH_DONE, 200},
        {"/once", "", "once", FETCH_DONE, 200},
        {"/cut", "", "half", FETCH_CUT, 200},
        {"/reset", "", "", FETCH_CUT, 200},
        {"/nonsense", "", "", FETCH_BAD, 0},
        {"/gone", "", "", FETCH_CUT, 0},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct seen s;
        prepare(&s, rows[i].path, rows[i].body);
        http_fetch_start(client, &s.f);
        assert_int_equal(s.ends, 0);
        run_loop();
        assert_int_equal(s.ends, 1);
        assert_int_equal(s.end, rows[i].end);
        assert_int_equal(s.status, rows[i].status);
        assert_true(str_is(buf_str(&s.body), rows[i].got));
        forget(&s);
        again();
    }
}

static struct seen second;

static void then_another(struct http_fetch *f, enum fetch_end end)
{
    on_end(f, end);
    http_fetch_start(client, &second.f);
}

static void test_client_keeps_connections_and_repeats_on_a_stale_one(void **state)
{
    (void)state;
    struct seen s;
    prepare(&s, "/echo", "one");
    prepare(&second, "/echo", "two");
    s.stop = false;
    s.f.on_end = then_another;
    http_fetch_start(client, &s.f);
    run_loop();
    assert_true(str_is(buf_str(&second.body), "two"));
    assert_int_equal(stub.connections, 1);
    assert_int_equal(http_client_connections(client), 1);
    forget(&s);
    forget(&second);
    again();
    int before = stub.connections;
    prepare(&s, "/once", "");
    prepare(&second, "/once", ""); /* the server closes the kept connection: asked again on a new one */
    s.stop = false;
    s.f.on_end = then_another;
    http_fetch_start(client, &s.f);
    run_loop();
    assert_int_equal(second.end, FETCH_DONE);
    assert_true(str_is(buf_str(&second.body), "once"));
    assert_int_equal(stub.connections - before, 2);
    forget(&s);
    forget(&second);
}

static void test_client_cancels(void **state)
{
    (void)state;
    struct seen s;
    prepare(&s, "/stream", "x");
    s.cancel_after = 1;
    http_fetch_start(client, &s.f);
    run_loop();
    assert_int_equal(s.ends, 0);
    assert_int_equal(http_client_connections(client), 0);
    http_fetch_cancel(&s.f); /* again: nothing */
    forget(&s);
    again();
    prepare(&s, "/silent", "");
    http_fetch_start(client, &s.f);
    http_fetch_cancel(&s.f);
    assert_int_equal(http_client_connections(client), 0);
    forget(&s);
}

static void test_client_without_a_server(void **state)
{
    struct error err;
    struct peer to;
    struct seen s;
    (void)state;
    http_client_close(client);
    loop_destroy(loop);
    int free_port = stub.port;
    stub_stop(&stub);
    open_client(free_port);
    prepare(&s, "/", "");
    http_fetch_start(client, &s.f);
    run_loop();
    assert_int_equal(s.end, FETCH_NO_CONNECT);
    assert_int_equal(s.ends, 1);
    forget(&s);
    FAILS(ST_INVALID, peer_resolve(&to, "127.0.0.1", 0, &err));
    FAILS(ST_NOT_FOUND, peer_resolve(&to, "not a host", 80, &err));
    struct tls *tls;
    FAILS(ST_INVALID, tls_open_client(&tls, "/nonexistent", false, &err));
    stub_start(&stub, script);
}

static void test_client_survives_failing_memory_and_network(void **state)
{
    static const enum fault_point points[] = {FAULT_ALLOC, FAULT_RECV, FAULT_SEND};
    (void)state;
    for (size_t p = 0; p < 3; p++) {
        bool fired = true;
        for (uint64_t n = 1; fired && n < 200; n++) {
            struct seen s;
            prepare(&s, "/stream", "x");
            fault_arm(points[p], n);
            http_fetch_start(client, &s.f);
            run_loop();
            fired = fault_fired();
            fault_disarm();
            assert_int_equal(s.ends, 1);
            if (!fired)
                assert_int_equal(s.end, FETCH_DONE);
            forget(&s);
            again();
        }
        assert_false(fired);
    }
}

/* ---- events ---- */

static bool note(void *ctx, struct str data)
{
    buf_printf(ctx, "[%.*s]", (int)data.len, data.ptr);
    return !str_is(data, "stop");
}

static const char stream[] = ": hi\n\ndata: one\n\nevent: ping\ndata: {}\n\ndata: two\r\ndata:lines\r\n\r\nid: 7\n\n"
                             "data\n\ndata: \xc3\xa9\r\rdataset: no\n\ndata:  kept\n\ndata: lost";
static const char wanted[] = "[one][{}][two\nlines][][\xc3\xa9][ kept]";

static void test_events_are_the_same_however_cut(void **state)
{
    (void)state;
    struct str all = str_of(stream);
    for (size_t cut = 0; cut <= all.len; cut++)
        for (size_t step = 1; step < 4; step++) {
            struct sse_reader r = {0};
            struct buf got = {0};
            assert_true(sse_read(&r, str_n(all.ptr, cut), note, &got));
            for (size_t at = cut; at < all.len; at += step)
                assert_true(sse_read(&r, str_n(all.ptr + at, all.len - at < step ? all.len - at : step), note, &got));
            assert_string_equal(got.ptr, wanted);
            assert_true(sse_inside_event(&r));
            sse_reader_free(&r);
            buf_free(&got);
        }
}

static void test_events_stop_and_have_a_limit(void **state)
{
    (void)state;
    struct sse_reader r = {0};
    struct buf got = {0}, big = {0};
    assert_false(sse_read(&r, STR("data: stop\n\ndata: after\n\n"), note, &got));
    assert_string_equal(got.ptr, "[stop]");
    sse_reader_free(&r);
    for (int i = 0; i < 1 << 20; i++)
        buf_append_str(&big, STR("data: 0123456789abcdef\n"));
    assert_false(sse_read(&r, buf_str(&big), note, &got));
    assert_true(r.failed);
    sse_reader_free(&r);
    buf_free(&big);
    buf_free(&got);
    for (uint64_t n = 1;; n++) {
        struct buf out = {0};
        fault_arm(FAULT_ALLOC, n);
        bool good = sse_read(&r, STR("data: a\ndata: b\n\ndat"), note, &out);
        bool fired = fault_fired();
        fault_disarm();
        if (!fired)
            assert_true(good);
        sse_reader_free(&r);
        buf_free(&out);
        if (!fired)
            break;
    }
}

/* ---- timer ---- */

static uint64_t rang;

static void ring(void *ctx)
{
    (void)ctx;
    rang = clock_ns();
    loop_stop(loop);
}

static void test_timer_rings_when_set(void **state)
{
    struct error err;
    struct loop_timer *t;
    (void)state;
    OK(loop_timer_open(&t, loop, ring, NULL, &err));
    uint64_t at = clock_ns() + 7300000;
    loop_timer_at(t, at + 1000000000);
    loop_timer_at(t, at); /* the last word counts */
    run_loop();
    assert_true(rang >= at && rang < at + 500000000); /* a busy machine may be late, never early */
    loop_timer_close(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_client_ends_every_answer_once, start, stop),
        cmocka_unit_test_setup_teardown(test_client_keeps_connections_and_repeats_on_a_stale_one, start, stop),
        cmocka_unit_test_setup_teardown(test_client_cancels, start, stop),
        cmocka_unit_test_setup_teardown(test_client_without_a_server, start, stop),
        cmocka_unit_test_setup_teardown(test_client_survives_failing_memory_and_network, start, stop),
        cmocka_unit_test(test_events_are_the_same_however_cut),
        cmocka_unit_test(test_events_stop_and_have_a_limit),
        cmocka_unit_test_setup_teardown(test_timer_rings_when_set, start, stop),
    };
    return RUN(tests);
}
