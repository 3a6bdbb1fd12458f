/* The server on a real loop in its own thread, met by raw sockets and by our client. */
#include "test.h"

#include "base/clock.h"
#include "base/fault.h"
#include "net/client.h"
#include "net/server.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sys/resource.h>
#include <sys/socket.h>

static struct site {
    struct loop *loop;
    struct http_server *server;
    struct loop_task drain, finish; /* what a test wants done on the loop */
    pthread_t thread;
    int port;
    int gone, requests;          /* atomics */
    struct http_exchange *held;  /* of /hold */
    struct http_exchange *flood; /* of /flood: writes whenever there is room */
} site;

static int count(int *counter)
{
    return __atomic_load_n(counter, __ATOMIC_SEQ_CST);
}

static void on_gone(void *user)
{
    (void)user;
    site.held = site.flood = NULL;
    __atomic_add_fetch(&site.gone, 1, __ATOMIC_SEQ_CST);
}

static void flood(void *user)
{
    static const char block[8192];
    (void)user;
    while (http_stream_queued(site.flood) <= 1 << 16)
        http_stream_write(site.flood, str_n(block, sizeof block));
}

/* Writes much in one piece, and the rest when told that there is room. */
static void burst_ends(void *user)
{
    struct http_exchange *x = user;
    x->on_writable = NULL;
    http_stream_write(x, STR("rest"));
    http_stream_end(x);
}

static void burst(struct http_exchange *x)
{
    static const char block[200000];
    x->user = x;
    x->on_gone = NULL;
    x->on_writable = burst_ends;
    http_stream_begin(x, 200, "text/plain");
    http_stream_write(x, str_n(block, sizeof block));
}

static bool on_head(void *ctx, struct http_exchange *x)
{
    (void)ctx;
    if (!str_is(http_request(x)->path, "/forbidden"))
        return true;
    http_respond(x, 403, "text/plain", STR("no"));
    return false;
}

static void on_request(void *ctx, struct http_exchange *x)
{
    (void)ctx;
    const struct http1 *r = http_request(x);
    __atomic_add_fetch(&site.requests, 1, __ATOMIC_SEQ_CST);
    x->on_gone = on_gone;
    if (str_is(r->path, "/hold")) {
        site.held = x;
    } else if (str_is(r->path, "/pieces")) {
        http1_write_header(&x->headers, "x-accel-buffering", STR("no"));
        http_stream_begin(x, 200, "text/event-stream");
        http_stream_write(x, STR("data: one\n\n"));
        http_stream_write(x, STR("data: two\n\n"));
        http_stream_end(x);
    } else if (str_is(r->path, "/burst")) {
        burst(x);
    } else if (str_is(r->path, "/flood")) {
        x->on_writable = flood;
        http_stream_begin(x, 200, "text/plain");
        site.flood = x;
        flood(NULL);
    } else {
        http_respond(x, 200, "text/plain", r->body.len ? buf_str(&r->body) : r->path);
    }
}

static const char *on_fault(void *ctx, const struct http1_fault *fault, struct buf *out)
{
    (void)ctx;
    buf_append_str(out, str_of(fault->text));
    return "text/plain";
}

static void drain_now(void *ctx)
{
    (void)ctx;
    http_server_drain(site.server);
}

static void finish_held(void *ctx)
{
    (void)ctx;
    http_respond(site.held, 200, "text/plain", STR("late"));
}

static void *run(void *arg)
{
    struct error err;
    (void)arg;
    assert_int_equal(loop_run(site.loop, &err), ST_OK);
    return NULL;
}

static int start(void **state)
{
    static const struct http_handler handler = {on_head, on_request, on_fault};
    struct http_server_options o = {.listen = {.host = "127.0.0.1", .loopback_only = true}, .limits = {4096, 1 << 20}};
    struct error err;
    (void)state;
    site = (struct site){0};
    OK(loop_create(&site.loop, &err));
    OK(http_server_open(&site.server, site.loop, &o, &handler, NULL, &err));
    site.port = http_server_port(site.server);
    site.drain = (struct loop_task){.fn = drain_now};
    site.finish = (struct loop_task){.fn = finish_held};
    pthread_create(&site.thread, NULL, run, NULL);
    return 0;
}

static int stop(void **state)
{
    (void)state;
    loop_stop(site.loop);
    pthread_join(site.thread, NULL);
    http_server_close(site.server);
    loop_destroy(site.loop);
    return 0;
}

static int dial(void)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)site.port)};
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof a), 0);
    return fd;
}

/* Time jumps forward, for both sides. */
static void pass_seconds(int seconds)
{
    static int64_t total_ns;
    total_ns += (int64_t)seconds * 1000000000;
    clock_jump(total_ns, 0);
}

static void say(int fd, const char *text)
{
    send(fd, text, strlen(text), MSG_NOSIGNAL);
}

/* Reads until `want` occurs `times` times, the peer closes, or five seconds pass. */
static bool hear(int fd, struct buf *in, const char *want, int times)
{
    for (;;) {
        int n = 0;
        for (size_t at = 0; (at = str_find(buf_str(in), str_of(want), at)) != SIZE_MAX; at++)
            n++;
        if (n >= times)
            return true;
        char bytes[65536];
        struct pollfd p = {fd, POLLIN, 0};
        ssize_t got = poll(&p, 1, 5000) > 0 ? recv(fd, bytes, sizeof bytes, 0) : -1;
        if (got <= 0)
            return false;
        buf_append(in, bytes, (size_t)got);
    }
}

static bool closed(int fd)
{
    char bytes[4096];
    for (;;) {
        struct pollfd p = {fd, POLLIN, 0};
        if (poll(&p, 1, 5000) <= 0)
            return false;
        if (recv(fd, bytes, sizeof bytes, 0) <= 0)
            return true;
    }
}

static bool wait_until(int *counter, int value)
{
    for (int i = 0; i < 500 && count(counter) != value; i++)
        usleep(10000);
    return count(counter) == value;
}

#define GET(path) "GET " path " HTTP/1.1\r\nHost: a\r\n\r\n"

static void test_server_keeps_alive_and_pipelines(void **state)
{
    (void)state;
    int fd = dial();
    struct buf in = {0};
    say(fd, GET("/1") GET("/2") "POST /e HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody" GET("/3"));
    assert_true(hear(fd, &in, "HTTP/1.1 200 OK", 4));
    assert_true(hear(fd, &in, "/3", 1));
    size_t one = str_find(buf_str(&in), STR("/1"), 0), two = str_find(buf_str(&in), STR("/2"), 0);
    assert_true(one < two && two < str_find(buf_str(&in), STR("body"), 0));
    assert_int_equal(str_find(buf_str(&in), STR("connection: close"), 0), SIZE_MAX);
    buf_clear(&in);
    for (const char *c = GET("/slowly"); *c; c++) {
        char one_byte[2] = {*c, 0};
        say(fd, one_byte);
    }
    assert_true(hear(fd, &in, "/slowly", 1));
    say(fd, "GET /last HTTP/1.0\r\n\r\n");
    assert_true(hear(fd, &in, "connection: close", 1) && closed(fd));
    close(fd);
    buf_free(&in);
}

static void test_server_answers_faults_and_closes(void **state)
{
    (void)state;
    static const struct {
        const char *request, *answer;
    } rows[] = {
        {"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "HTTP/1.1 400 "},
        {"\x16\x03\x01", "HTTP/1.1 400 "},
        {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1048577\r\n\r\n", "HTTP/1.1 413 "},
        {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nfffffff\r\n", "HTTP/1.1 413 "},
        {"POST /forbidden HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc", "HTTP/1.1 403 "},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct buf in = {0};
        int fd = dial();
        say(fd, rows[i].request);
        assert_true(hear(fd, &in, rows[i].answer, 1));
        assert_true(closed(fd));
        close(fd);
        buf_free(&in);
    }
}

static void test_server_refuses_without_closing_when_no_body_waits(void **state)
{
    (void)state;
    struct buf in = {0};
    int fd = dial();
    say(fd, GET("/forbidden") GET("/after"));
    assert_true(hear(fd, &in, "403 Forbidden", 1) && hear(fd, &in, "/after", 1));
    close(fd);
    buf_free(&in);
}

static void test_server_says_continue_and_head_has_no_body(void **state)
{
    (void)state;
    struct buf in = {0};
    int fd = dial();
    say(fd, "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n");
    assert_true(hear(fd, &in, "100 Continue\r\n\r\n", 1));
    say(fd, "ab");
    assert_true(hear(fd, &in, "\r\n\r\nab", 1));
    buf_clear(&in);
    say(fd, "HEAD /abc HTTP/1.1\r\nHost: a\r\n\r\n" GET("/next"));
    assert_true(hear(fd, &in, "/next", 1));
    assert_true(str_find(buf_str(&in), STR("content-length: 4"), 0) != SIZE_MAX);
    assert_true(str_find(buf_str(&in), STR("/abc"), 0) == SIZE_MAX);
    close(fd);
    buf_free(&in);
}

static void test_server_half_closed_client_gets_its_answer(void **state)
{
    (void)state;
    struct buf in = {0};
    int fd = dial();
    say(fd, GET("/half"));
    shutdown(fd, SHUT_WR);
    assert_true(hear(fd, &in, "/half", 1) && closed(fd));
    close(fd);
    buf_free(&in);
}

static void test_server_deadlines(void **state)
{
    (void)state;
    static const struct {
        const char *sent, *answer;
        int seconds;
    } rows[] = {
        {"GET / HT", "HTTP/1.1 408 ", 11},
        {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc", "HTTP/1.1 408 ", 61},
        {"", NULL, 76},
    };
    for (size_t i = 0; i < 3; i++) {
        struct buf in = {0};
        int fd = dial();
        say(fd, rows[i].sent);
        usleep(100000);
        pass_seconds(rows[i].seconds);
        assert_true(rows[i].answer ? hear(fd, &in, rows[i].answer, 1) : closed(fd));
        if (rows[i].answer) { /* lingers two seconds for a client that goes on sending */
            pass_seconds(3);
            assert_true(closed(fd));
        }
        close(fd);
        buf_free(&in);
    }
}

static void test_server_sees_clients_leave(void **state)
{
    (void)state;
    int before = count(&site.gone), seen = count(&site.requests);
    int fd = dial();
    say(fd, GET("/hold"));
    assert_true(wait_until(&site.requests, seen + 1));
    close(fd);
    assert_true(wait_until(&site.gone, before + 1));
}

static void test_server_pauses_for_slow_readers_and_drops_stalled_ones(void **state)
{
    (void)state;
    int before = count(&site.gone);
    int fd = dial();
    say(fd, GET("/flood"));
    struct buf in = {0};
    assert_true(hear(fd, &in, "200 OK", 1));
    size_t at = in.len;
    while (in.len < at + (8 << 20)) { /* it goes on while we read */
        char bytes[65536];
        ssize_t n = recv(fd, bytes, sizeof bytes, 0);
        assert_true(n > 0);
        buf_append(&in, bytes, (size_t)n);
    }
    usleep(300000); /* the kernel's buffers fill up; nobody reads */
    assert_int_equal(count(&site.gone), before);
    for (int i = 0; i < 20 && count(&site.gone) == before; i++) { /* the kernel may still move a few bytes */
        pass_seconds(31);
        usleep(400000);
    }
    assert_int_equal(count(&site.gone), before + 1);
    close(fd);
    buf_free(&in);
}

/* Also when the kernel takes all of it at once: the writer may have paused, and nothing else will wake it. */
static void test_server_says_when_there_is_room(void **state)
{
    struct error err;
    struct http1 a;
    (void)state;
    for (int i = 0; i < 20; i++) {
        OK(http_call(
            &a,
            &(struct http_call){
                .host = "127.0.0.1", .port = site.port, .method = "GET", .path = "/burst", .timeout_ms = 20000},
            &err));
        assert_int_equal(a.body.len, 200004);
        http1_free(&a);
    }
}

static void test_server_client_reads_events(void **state)
{
    struct error err;
    struct http1 a;
    (void)state;
    OK(http_call(&a, &(struct http_call){.host = "127.0.0.1", .port = site.port, .method = "GET", .path = "/pieces"},
                 &err));
    assert_int_equal(a.status, 200);
    assert_string_equal(a.body.ptr, "data: one\n\ndata: two\n\n");
    assert_true(str_is(http1_header(&a, "x-accel-buffering"), "no"));
    http1_free(&a);
    int nobody = site.port == 1 ? 2 : 1;
    FAILS(ST_IO,
          http_call(&a, &(struct http_call){.host = "127.0.0.1", .port = nobody, .method = "GET", .path = "/"}, &err));
    FAILS(ST_TIMEOUT,
          http_call(&a,
                    &(struct http_call){
                        .host = "127.0.0.1", .port = site.port, .method = "GET", .path = "/hold", .timeout_ms = 50},
                    &err));
}

static bool works(void)
{
    struct error err;
    struct http1 a;
    struct http_call call = {.host = "127.0.0.1", .port = site.port, .method = "POST", .path = "/", .body = STR("abc")};
    if (http_call(&a, &call, &err) != ST_OK)
        return false;
    bool same = a.status == 200 && str_is(buf_str(&a.body), "abc");
    http1_free(&a);
    return same;
}

static void test_server_survives_failing_system_calls(void **state)
{
    (void)state;
    static const enum fault_point points[] = {FAULT_ACCEPT, FAULT_RECV, FAULT_SEND};
    for (size_t i = 0; i < 3; i++)
        for (uint64_t n = 1; n <= 6; n++) {
            fault_arm(points[i], n); /* counts the client's calls too: both sides fail in turn */
            works();
            fault_disarm();
            assert_true(works());
        }
}

static void test_server_without_file_descriptors_refuses_and_recovers(void **state)
{
    (void)state;
    struct rlimit old, low;
    getrlimit(RLIMIT_NOFILE, &old);
    int fds[4], last = 0;
    for (int i = 0; i < 4; i++)
        fds[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), last = fds[i];
    low = (struct rlimit){(rlim_t)last + 1, old.rlim_max};
    setrlimit(RLIMIT_NOFILE, &low);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)site.port)};
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(connect(fds[0], (struct sockaddr *)&a, sizeof a), 0);
    struct buf in = {0};
    bool refused = hear(fds[0], &in, "HTTP/1.1 503 ", 1) && closed(fds[0]);
    setrlimit(RLIMIT_NOFILE, &old);
    assert_true(refused);
    for (int i = 0; i < 4; i++)
        close(fds[i]);
    assert_true(works());
    buf_free(&in);
}

static void test_server_drains(void **state)
{
    (void)state;
    int seen = count(&site.requests);
    int idle = dial(), busy = dial();
    struct buf in = {0};
    say(busy, GET("/hold"));
    assert_true(wait_until(&site.requests, seen + 1));
    loop_wake(site.loop, &site.drain);
    assert_true(closed(idle));
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)site.port)};
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_not_equal(connect(fd, (struct sockaddr *)&a, sizeof a), 0);
    loop_wake(site.loop, &site.finish);
    assert_true(hear(busy, &in, "late", 1) && str_find(buf_str(&in), STR("connection: close"), 0) != SIZE_MAX);
    assert_true(closed(busy));
    close(fd);
    close(idle);
    close(busy);
    buf_free(&in);
}

static void test_listener_refuses_public_addresses_and_bad_ports(void **state)
{
    struct error err;
    struct loop *loop;
    struct http_server *s;
    static const struct http_handler handler = {on_head, on_request, on_fault};
    (void)state;
    OK(loop_create(&loop, &err));
    struct http_server_options o = {.listen = {.host = "0.0.0.0", .loopback_only = true}};
    FAILS(ST_DENIED, http_server_open(&s, loop, &o, &handler, NULL, &err));
    o.listen = (struct listen_at){.host = "127.0.0.1", .port = 65536};
    FAILS(ST_INVALID, http_server_open(&s, loop, &o, &handler, NULL, &err));
    o.listen = (struct listen_at){.host = "not a host"};
    FAILS(ST_INVALID, http_server_open(&s, loop, &o, &handler, NULL, &err));
    struct tls *tls;
    FAILS(ST_INVALID, tls_open(&tls, "/nonexistent", "/nonexistent", &err));
    loop_destroy(loop);
}

static void *wake_often(void *arg)
{
    for (int i = 0; i < 20000; i++)
        loop_wake(site.loop, arg);
    return NULL;
}

static void tick(void *ctx)
{
    ++*(int *)ctx;
}

static void test_loop_wakes_from_many_threads(void **state)
{
    (void)state;
    int ran[4] = {0};
    struct loop_task tasks[4];
    pthread_t threads[4];
    for (int i = 0; i < 4; i++) {
        tasks[i] = (struct loop_task){.fn = tick, .ctx = &ran[i]};
        pthread_create(&threads[i], NULL, wake_often, &tasks[i]);
    }
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    assert_true(works()); /* a round trip later every task has run */
    stop(NULL);
    for (int i = 0; i < 4; i++)
        assert_true(ran[i] >= 1 && ran[i] <= 20000);
    start(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_server_keeps_alive_and_pipelines, start, stop),
        cmocka_unit_test_setup_teardown(test_server_answers_faults_and_closes, start, stop),
        cmocka_unit_test_setup_teardown(test_server_refuses_without_closing_when_no_body_waits, start, stop),
        cmocka_unit_test_setup_teardown(test_server_says_continue_and_head_has_no_body, start, stop),
        cmocka_unit_test_setup_teardown(test_server_half_closed_client_gets_its_answer, start, stop),
        cmocka_unit_test_setup_teardown(test_server_deadlines, start, stop),
        cmocka_unit_test_setup_teardown(test_server_sees_clients_leave, start, stop),
        cmocka_unit_test_setup_teardown(test_server_pauses_for_slow_readers_and_drops_stalled_ones, start, stop),
        cmocka_unit_test_setup_teardown(test_server_says_when_there_is_room, start, stop),
        cmocka_unit_test_setup_teardown(test_server_client_reads_events, start, stop),
        cmocka_unit_test_setup_teardown(test_server_survives_failing_system_calls, start, stop),
        cmocka_unit_test_setup_teardown(test_server_without_file_descriptors_refuses_and_recovers, start, stop),
        cmocka_unit_test_setup_teardown(test_server_drains, start, stop),
        cmocka_unit_test(test_listener_refuses_public_addresses_and_bad_ports),
        cmocka_unit_test_setup_teardown(test_loop_wakes_from_many_threads, start, stop),
    };
    return RUN(tests);
}
