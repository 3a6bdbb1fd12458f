/* Invariants
 * 1. At most one exchange of a connection is open; while it is, further requests wait in the connection's input, and a
 *    client that sends CONN_INPUT_MAX bytes ahead is dropped (its leaving could no longer be seen).
 * 2. on_gone is called exactly once for an exchange that was handed to on_head or on_request and not answered.
 * 3. A connection's memory is freed only in `drop`, which is never called from inside `proceed` before its last line.
 *
 *   accepted -> IDLE --first byte--> HEAD --head--> BODY --whole--> BUSY --answered--> IDLE
 *                 \____ deadline ______\______________\   (408)       \--answered, close--> FLUSH --sent--> LINGER ->
 *                                                          BUSY --http_upgrade--> RAW --http_stream_end--> FLUSH
 * drop
 */
#include "net/server.h"

#include "base/clock.h"
#include "base/mem.h"

#include <time.h>

enum phase { PHASE_IDLE, PHASE_HEAD, PHASE_BODY, PHASE_BUSY, PHASE_RAW, PHASE_FLUSH, PHASE_LINGER };
enum { PIECE = 64 * 1024 }; /* of a large answer; the next one goes when little of it is left */
enum { SWEEP_MS = 250, LINGER_MS = 2000, AHEAD_FREE = 8192 }; /* AHEAD_FREE: a pipelined request or two */

struct session {            /* one connection */
    struct http_exchange x; /* first: an exchange is its session */
    struct http_server *server;
    struct conn *conn;
    struct http1 in;
    enum phase phase;
    uint64_t deadline_ns; /* of IDLE, HEAD, BODY, LINGER */
    size_t held;          /* of the budget */
    struct buf rest;      /* of an answer, sent up to rest_at */
    size_t rest_at;
    bool close_after, proceeding, ended, peer_closed;
    struct session *prev, *next;
};

struct http_server {
    struct http_server_options options;
    const struct http_handler *handler;
    void *ctx;
    struct loop *loop;
    struct listener *listener;
    int port, n_session;
    bool draining;
    struct session *sessions;
};

static struct session *session_of(const struct http_exchange *x)
{
    return (struct session *)(uintptr_t)x;
}

static void enter(struct session *s, enum phase phase, int timeout_ms)
{
    s->phase = phase;
    s->deadline_ns = timeout_ms ? clock_ns() + (uint64_t)timeout_ms * 1000000 : UINT64_MAX;
}

/* What the connection keeps in memory, told to the budget. */
static bool hold(struct session *s, size_t limit)
{
    size_t now = s->in.body.capacity + s->rest.capacity + conn_input_total(s->conn) + conn_queued(s->conn);
    return budget_hold(s->server->options.budget, &s->held, now, limit);
}

static void exchange_end(struct session *s)
{
    buf_free(&s->x.headers);
    s->x = (struct http_exchange){.phase = EXCHANGE_NONE};
}

static void drop(struct session *s)
{
    struct http_server *server = s->server;
    if (s->x.phase != EXCHANGE_NONE && s->x.on_gone)
        s->x.on_gone(s->x.user);
    exchange_end(s);
    budget_hold(server->options.budget, &s->held, 0, 0);
    conn_close(s->conn);
    http1_free(&s->in);
    buf_free(&s->rest);
    if (s->prev)
        s->prev->next = s->next;
    else
        server->sessions = s->next;
    if (s->next)
        s->next->prev = s->prev;
    server->n_session--;
    mem_free(s);
}

/* Everything is queued and nothing more will come: when it is sent, say so, and wait a little for the client to read.
 * Closing at once with unread input would reset the connection, and the client could lose our answer. */
static void finish(struct session *s)
{
    enter(s, PHASE_FLUSH, 0);
    if (conn_queued(s->conn) > 0)
        return;
    s->ended |= s->peer_closed;
    conn_finish_sending(s->conn);
    enter(s, PHASE_LINGER, LINGER_MS);
}

static void answered(struct session *s)
{
    exchange_end(s);
    http1_reset(&s->in);
    hold(s, (size_t)BUDGET_NO_LIMIT);
    if (s->close_after || s->server->draining)
        finish(s);
    else
        enter(s, PHASE_IDLE, s->server->options.idle_ms);
}

/* ---- answers ---- */

const struct http1 *http_request(const struct http_exchange *x)
{
    return &session_of(x)->in;
}

struct buf http_take_body(struct http_exchange *x)
{
    struct session *s = session_of(x);
    struct buf body = s->in.body;
    s->in.body = (struct buf){0};
    hold(s, (size_t)BUDGET_NO_LIMIT); /* the new owner's from now on */
    return body;
}

static void send_buf(struct session *s, struct buf *b)
{
    if (b->failed)
        s->ended = true; /* half an answer must not be sent: proceed or the sweep drops the connection */
    else
        conn_send(s->conn, buf_str(b));
    hold(s, (size_t)BUDGET_NO_LIMIT); /* in the place of what the answer was made of */
    buf_free(b);
}

static void write_date(struct buf *out)
{
    time_t now = (time_t)(clock_wall_ns() / 1000000000);
    struct tm tm;
    char text[40];
    size_t n = strftime(text, sizeof text, "%a, %d %b %Y %H:%M:%S GMT", gmtime_r(&now, &tm));
    http1_write_header(out, "date", str_n(text, n));
}

static void write_head(struct session *s, struct buf *out, int status, const char *content_type)
{
    s->x.status = status;
    if (!s->in.keep_alive || s->server->draining)
        s->close_after = true;
    http1_write_status(out, status);
    write_date(out);
    http1_write_header(out, "content-type", str_of(content_type));
    buf_append_str(out, buf_str(&s->x.headers));
    if (s->close_after)
        http1_write_header(out, "connection", STR("close"));
    else if (s->in.minor == 0)
        http1_write_header(out, "connection", STR("keep-alive"));
    out->failed |= s->x.headers.failed;
}

static void proceed(struct session *s);

void http_respond(struct http_exchange *x, int status, const char *content_type, struct str body)
{
    struct session *s = session_of(x);
    struct buf out = {0};
    if (s->in.state != HTTP1_DONE)
        s->close_after = true; /* the rest of the body would be read as the next request */
    write_head(s, &out, status, content_type);
    buf_printf(&out, "content-length: %zu\r\n\r\n", body.len);
    if (!s->x.head_only)
        buf_append_str(&out, body);
    send_buf(s, &out);
    answered(s);
    proceed(s);
}

/* The next piece of a large answer; true when there is none. */
static bool send_rest(struct session *s)
{
    while (s->rest_at < s->rest.len && conn_queued(s->conn) <= CONN_OUTPUT_LOW) {
        struct str piece = str_from(buf_str(&s->rest), s->rest_at);
        if (piece.len > PIECE)
            piece.len = PIECE;
        conn_send(s->conn, piece);
        s->rest_at += piece.len;
    }
    if (s->rest_at < s->rest.len)
        return false;
    buf_free(&s->rest);
    s->rest_at = 0;
    return true;
}

void http_respond_take(struct http_exchange *x, int status, const char *content_type, struct buf *body)
{
    struct session *s = session_of(x);
    struct buf out = {0};
    if (body->len <= PIECE || x->head_only || body->failed) {
        s->ended |= body->failed;
        http_respond(x, status, content_type, buf_str(body));
        buf_free(body);
        return;
    }
    if (s->in.state != HTTP1_DONE)
        s->close_after = true;
    write_head(s, &out, status, content_type);
    buf_printf(&out, "content-length: %zu\r\n\r\n", body->len);
    s->rest = *body;
    s->rest_at = 0;
    *body = (struct buf){0};
    exchange_end(s); /* the handler's part is over; the connection stays busy until on_drained has sent the rest */
    send_buf(s, &out);
    if (send_rest(s)) {
        answered(s);
        proceed(s);
    }
}

void http_upgrade(struct http_exchange *x, const char *protocol, size_t (*on_input)(void *user, struct str bytes))
{
    struct session *s = session_of(x);
    struct buf out = {0};
    x->phase = EXCHANGE_STREAM;
    x->chunked = false;
    x->on_input = on_input;
    x->status = 101;
    s->close_after = true;
    http1_write_status(&out, 101);
    http1_write_header(&out, "upgrade", str_of(protocol));
    http1_write_header(&out, "connection", STR("Upgrade"));
    buf_append_str(&out, buf_str(&x->headers));
    buf_append_str(&out, STR("\r\n"));
    out.failed |= x->headers.failed;
    enter(s, PHASE_RAW, 0);
    send_buf(s, &out);
}

void http_stream_begin(struct http_exchange *x, int status, const char *content_type)
{
    struct session *s = session_of(x);
    struct buf out = {0};
    x->phase = EXCHANGE_STREAM;
    x->chunked = s->in.minor == 1;
    if (!x->chunked)
        s->close_after = true;
    write_head(s, &out, status, content_type);
    buf_append_str(&out, x->chunked ? STR("transfer-encoding: chunked\r\n\r\n") : STR("\r\n"));
    send_buf(s, &out);
}

void http_stream_write(struct http_exchange *x, struct str bytes)
{
    struct session *s = session_of(x);
    struct buf out = {0};
    if (x->head_only)
        return;
    if (!x->chunked) {
        conn_send(s->conn, bytes);
        hold(s, (size_t)BUDGET_NO_LIMIT);
        return;
    }
    http1_write_chunk(&out, bytes);
    send_buf(s, &out);
}

size_t http_stream_queued(const struct http_exchange *x)
{
    return conn_queued(session_of(x)->conn);
}

void http_stream_end(struct http_exchange *x)
{
    struct session *s = session_of(x);
    struct buf out = {0};
    if (x->chunked && !x->head_only)
        http1_write_last_chunk(&out);
    send_buf(s, &out);
    answered(s);
    proceed(s);
}

void http_stream_break(struct http_exchange *x)
{
    session_of(x)->ended = true;
}

/* ---- requests ---- */

static void answer_fault(struct session *s, const struct http1_fault *fault)
{
    struct buf body = {0}, out = {0};
    if (s->x.phase != EXCHANGE_NONE && s->x.on_gone)
        s->x.on_gone(s->x.user);
    exchange_end(s);
    const char *type = s->server->handler->on_fault(s->server->ctx, fault, &body);
    if (fault->status == 503)
        http1_write_header(&s->x.headers, "retry-after", STR("1"));
    s->close_after = true;
    write_head(s, &out, fault->status, type);
    buf_printf(&out, "content-length: %zu\r\n\r\n", body.len);
    buf_append_str(&out, buf_str(&body));
    out.failed |= body.failed;
    buf_free(&s->in.body);
    send_buf(s, &out);
    buf_free(&body);
    exchange_end(s);
    finish(s);
}

static void refuse_body(struct session *s)
{
    s->in.state = HTTP1_BAD;
    s->in.fault = (struct http1_fault){503, "the memory for requests is full: try again, or send less"};
}

/* Room for the whole body, if its size is known: better told now than when half of it is here. */
static bool has_room(const struct session *s)
{
    const struct http_server_options *o = &s->server->options;
    if (!o->budget || s->in.framing != HTTP1_LENGTH || s->in.content_length == 0)
        return true;
    return budget_has_room(o->budget, (size_t)s->in.content_length, o->body_budget);
}

/* The head is known. A request without a body is whole already, so that refusing it need not close the connection. */
static void begin_exchange(struct session *s)
{
    s->x = (struct http_exchange){.phase = EXCHANGE_OPEN, .begin_ns = clock_ns()};
    s->x.head_only = str_is(s->in.method, "HEAD");
    enter(s, PHASE_BODY, s->server->options.body_ms);
    if (!has_room(s)) {
        refuse_body(s);
        return;
    }
    http1_feed(&s->in, "", 0);
    bool wants_continue = s->in.expect_continue && s->in.state == HTTP1_BODY && conn_input_total(s->conn) == 0;
    if (s->server->handler->on_head(s->server->ctx, &s->x) && wants_continue)
        conn_send(s->conn, STR("HTTP/1.1 100 Continue\r\n\r\n"));
}

/* Feeds what waits to the parser; true when something moved. */
static bool feed(struct session *s)
{
    struct str input = conn_input(s->conn);
    if (s->phase == PHASE_IDLE && input.len)
        enter(s, PHASE_HEAD, s->server->options.head_ms);
    size_t used = http1_feed(&s->in, input.ptr, input.len);
    conn_consume(s->conn, used);
    if (s->in.state == HTTP1_HEAD_DONE)
        begin_exchange(s);
    if (s->in.state != HTTP1_BAD && !hold(s, s->in.body.len ? s->server->options.body_budget : (size_t)BUDGET_NO_LIMIT))
        refuse_body(s);
    if (s->in.state == HTTP1_BAD) {
        answer_fault(s, &s->in.fault);
    } else if (s->in.state == HTTP1_DONE && s->x.phase == EXCHANGE_OPEN) {
        enter(s, PHASE_BUSY, 0);
        s->server->handler->on_request(s->server->ctx, &s->x);
    }
    return used > 0;
}

/* The bytes of an upgraded connection; true when some were taken. */
static bool feed_raw(struct session *s)
{
    size_t used = s->x.on_input(s->x.user, conn_input(s->conn));
    conn_consume(s->conn, used);
    return used > 0;
}

/* Takes the connection as far as its input allows. Answers given inside come back here and return at once. */
static void proceed(struct session *s)
{
    if (s->proceeding)
        return;
    s->proceeding = true;
    while (!s->ended && s->phase <= PHASE_BODY && feed(s))
        continue;
    while (!s->ended && s->phase == PHASE_RAW && conn_input_total(s->conn) && feed_raw(s))
        continue;
    if (s->phase >= PHASE_FLUSH)
        conn_consume(s->conn, conn_input_total(s->conn));
    const struct budget *budget = s->server->options.budget;
    size_t ahead = s->phase == PHASE_BUSY || s->phase == PHASE_RAW ? conn_input_total(s->conn) : 0;
    if (ahead >= CONN_INPUT_MAX || (budget && ahead > AHEAD_FREE && !hold(s, budget->max)))
        s->ended = true;
    s->proceeding = false;
}

/* ---- events ---- */

static void on_data(void *ctx)
{
    struct session *s = ctx;
    proceed(s);
    if (s->ended)
        drop(s);
}

static void on_drained(void *ctx)
{
    struct session *s = ctx;
    hold(s, (size_t)BUDGET_NO_LIMIT);
    if (s->phase == PHASE_FLUSH) {
        finish(s);
    } else if (s->rest.len) {
        if (send_rest(s)) {
            answered(s);
            proceed(s);
        }
    } else if (s->x.phase == EXCHANGE_STREAM && s->x.on_writable) {
        s->x.on_writable(s->x.user);
    }
    if (s->ended)
        drop(s);
}

static void on_end(void *ctx, bool clean)
{
    struct session *s = ctx;
    if (clean && s->x.phase == EXCHANGE_NONE &&
        conn_queued(s->conn) > 0) { /* it closed its half and waits for answers */
        s->peer_closed = s->close_after = true;
        finish(s);
    } else {
        drop(s);
    }
}

static void on_accept(void *ctx, struct conn *c)
{
    static const struct conn_handler handler = {on_data, on_drained, on_end};
    struct http_server *server = ctx;
    struct session *s = server->n_session < server->options.connections_max ? mem_alloc_zero(1, sizeof *s) : NULL;
    if (!s) {
        conn_close(c);
        return;
    }
    s->server = server;
    s->conn = c;
    http1_init(&s->in, HTTP1_REQUEST, &server->options.limits);
    s->next = server->sessions;
    if (s->next)
        s->next->prev = s;
    server->sessions = s;
    server->n_session++;
    enter(s, PHASE_IDLE, server->options.idle_ms);
    conn_set_handler(c, &handler, s);
}

static void overdue(struct session *s)
{
    static const struct http1_fault slow = {408, "the request took too long to arrive"};
    if (s->phase == PHASE_IDLE || s->phase == PHASE_LINGER)
        s->ended = true;
    else
        answer_fault(s, &slow);
}

static void sweep(void *ctx)
{
    struct http_server *server = ctx;
    uint64_t now = clock_ns(), stall_ns = (uint64_t)server->options.write_stall_ms * 1000000;
    for (struct session *s = server->sessions, *next; s; s = next) {
        next = s->next;
        hold(s, (size_t)BUDGET_NO_LIMIT);
        if (now >= s->deadline_ns)
            overdue(s);
        if (conn_queued(s->conn) > 0 && now > conn_progress_ns(s->conn) + stall_ns)
            s->ended = true;
        if (s->ended)
            drop(s);
    }
}

/* ---- the server ---- */

static void set_defaults(struct http_server_options *o)
{
    o->limits.head_max = o->limits.head_max ? o->limits.head_max : 32 << 10;
    o->limits.body_max = o->limits.body_max ? o->limits.body_max : 16 << 20;
    o->head_ms = o->head_ms ? o->head_ms : 10000;
    o->body_ms = o->body_ms ? o->body_ms : 60000;
    o->idle_ms = o->idle_ms ? o->idle_ms : 75000;
    o->write_stall_ms = o->write_stall_ms ? o->write_stall_ms : 30000;
    o->connections_max = o->connections_max ? o->connections_max : 16384;
}

enum status http_server_open(struct http_server **out, struct loop *loop, const struct http_server_options *options,
                             const struct http_handler *handler, void *ctx, struct error *err)
{
    struct http_server *s = mem_alloc_zero(1, sizeof *s);
    if (!s)
        return fail_nomem(err, "server");
    *s = (struct http_server){.options = *options, .handler = handler, .ctx = ctx, .loop = loop};
    set_defaults(&s->options);
    enum status st = listener_open(&s->listener, loop, &s->options.listen, on_accept, s, err);
    if (st == ST_OK)
        st = loop_every(loop, SWEEP_MS, sweep, s, err);
    if (st != ST_OK) {
        http_server_close(s);
        return st;
    }
    s->port = listener_port(s->listener);
    *out = s;
    return ST_OK;
}

int http_server_port(const struct http_server *s)
{
    return s->port;
}

int http_server_busy(const struct http_server *s)
{
    int n = 0;
    for (const struct session *c = s->sessions; c; c = c->next)
        n += c->phase != PHASE_LINGER && c->phase != PHASE_IDLE;
    return n;
}

void http_server_drain(struct http_server *s)
{
    s->draining = true;
    listener_close(s->listener);
    s->listener = NULL;
    for (struct session *c = s->sessions, *next; c; c = next) {
        next = c->next;
        if (c->phase == PHASE_IDLE && conn_input_total(c->conn) == 0)
            drop(c);
    }
}

void http_server_close(struct http_server *s)
{
    if (!s)
        return;
    listener_close(s->listener);
    while (s->sessions)
        drop(s->sessions);
    mem_free(s);
}
