/* Connections that speak WebSocket: requests come as text frames, answers go as text frames of the same events that a
 * stream of HTTP has.
 *
 *   /v1/stream      one request (a chat's or a completion's body), a frame a token, then close 1000
 *   /v1/responses   response.create after response.create, one at a time, until the client closes
 *
 * Invariants
 * 1. x belongs to the socket as long as it is not gone; a job borrows it, and gives it back in socket_over.
 * 2. A socket has at most one job; the job knows its socket until it is over or the client has left.
 */
#include "gateway/private.h"

#include "base/clock.h"
#include "base/mem.h"
#include "net/websocket.h"

enum {
    MESSAGE_MAX = 16 << 20,
    IDLE_S = 300,
    UNREAD_MAX = 1 << 20 /* bytes: who asks on without reading what it got is dropped */
};

struct socket {
    struct gateway *g;
    struct http_exchange *x;
    const struct socket_row *row;
    struct websocket in;
    struct job *job; /* NULL: none runs */
    size_t held;     /* of g->memory */
    uint64_t last_ns;
    struct socket *prev, *next; /* of g->sockets */
};

static const struct socket_row {
    const char *path;
    const struct protocol *protocol;
    bool once;
} rows[] = {{"/v1/stream", &openai_stream, true}, {"/v1/responses", &openai_responses, false}};

/* ---- frames ---- */

static void begin_frame(struct buf *out, const char *event)
{
    (void)event;                                                              /* the payload tells its type */
    buf_append(out, (const char[WEBSOCKET_HEAD_MAX]){0}, WEBSOCKET_HEAD_MAX); /* its length is known at the end */
}

static void end_frame(struct buf *out, size_t at)
{
    unsigned char head[WEBSOCKET_HEAD_MAX];
    if (out->failed)
        return;
    size_t n = out->len - at - WEBSOCKET_HEAD_MAX, n_head = websocket_head(head, WEBSOCKET_OP_TEXT, n);
    memmove(out->ptr + at + n_head, out->ptr + at + WEBSOCKET_HEAD_MAX, n);
    memcpy(out->ptr + at, head, n_head);
    out->len = at + n_head + n;
}

const struct wire wire_socket = {NULL, begin_frame, end_frame, "\x89", 2}; /* an empty ping */

static void send_frame(struct socket *s, struct buf *frame)
{
    if (frame->failed || http_stream_queued(s->x) > UNREAD_MAX)
        http_stream_break(s->x);
    else
        http_stream_write(s->x, buf_str(frame));
    buf_free(frame);
}

/* ---- life ---- */

static void release(struct socket *s)
{
    struct gateway *g = s->g;
    if (s->prev)
        s->prev->next = s->next;
    else
        g->sockets = s->next;
    if (s->next)
        s->next->prev = s->prev;
    budget_hold(&g->memory, &s->held, 0, 0);
    websocket_free(&s->in);
    mem_free(s);
}

static void on_gone(void *user)
{
    struct socket *s = user;
    struct job *j = s->job;
    if (j) {
        j->socket = NULL;
        job_gone(j);
    }
    release(s);
}

static void on_writable(void *user)
{
    struct socket *s = user;
    if (s->job)
        job_writable(s->job);
}

/* Says goodbye; the socket is dead after it. */
static void close_socket(struct socket *s, int code, const char *reason)
{
    struct buf out = {0};
    struct http_exchange *x = s->x;
    if (s->job) {
        s->job->socket = NULL;
        job_gone(s->job);
    }
    websocket_write_close(&out, code, str_of(reason));
    send_frame(s, &out);
    release(s);
    x->on_gone = NULL;
    http_stream_end(x);
}

static void refuse_message(struct socket *s, const struct refusal *why)
{
    struct buf out = {0};
    struct json_writer w;
    begin_frame(&out, NULL);
    json_writer_init(&w, &out);
    json_begin_object(&w);
    json_put_str(&w, "type", STR("error"));
    json_put_int(&w, "status", why->http);
    json_key(&w, "error");
    openai_put_error(&w, why);
    json_end_object(&w);
    end_frame(&out, 0);
    send_frame(s, &out);
}

void socket_adopt(struct socket *s, struct job *j)
{
    s->job = j;
}

void socket_refuse(struct socket *s, const struct refusal *why)
{
    s->job = NULL;
    s->last_ns = clock_ns();
    refuse_message(s, why);
    if (s->row->once)
        close_socket(s, why->http >= 500 ? 1011 : 1008, "the request was refused");
}

void socket_over(struct socket *s, bool good)
{
    s->job = NULL;
    s->last_ns = clock_ns();
    if (s->row->once)
        close_socket(s, good ? 1000 : 1011, good ? "" : "the answer ended with an error");
}

/* ---- what comes in ---- */

static void take_message(struct socket *s)
{
    struct refusal why;
    struct buf body = s->in.message;
    s->in.message = (struct buf){0};
    if (s->job || s->in.binary) {
        refuse(&why, 400, "invalid_value", NULL,
               s->job ? "one request at a time: wait for the answer's end" : "expected a text frame with JSON");
        refuse_message(s, &why);
        buf_free(&body);
        return;
    }
    if (s->x->client && !keys_hold(s->g->options.keys, s->x->client)) { /* the file was read again since */
        refuse(&why, 401, "invalid_api_key", NULL, "the API key is not valid any more");
        refuse_message(s, &why);
        buf_free(&body);
        return;
    }
    job_start_on(s->g, s->x, s->row->protocol, &body, s);
}

/* False when the socket is dead. */
static bool take_event(struct socket *s)
{
    struct buf out = {0};
    switch (s->in.event) {
    case WEBSOCKET_MESSAGE:
        take_message(s);
        return true;
    case WEBSOCKET_PING:
        websocket_write(&out, WEBSOCKET_OP_PONG, buf_str(&s->in.control));
        send_frame(s, &out);
        return true;
    case WEBSOCKET_CLOSE:
        close_socket(s, s->in.code, "");
        return false;
    case WEBSOCKET_BAD:
        close_socket(s, s->in.code, "");
        return false;
    default:
        return true;
    }
}

static size_t on_input(void *user, struct str bytes)
{
    struct socket *s = user;
    struct http_exchange *x = s->x;
    size_t used = 0;
    s->last_ns = clock_ns();
    while (used < bytes.len && x->on_gone) { /* on_gone: still ours */
        used += websocket_feed(&s->in, bytes.ptr + used, bytes.len - used);
        if (!budget_hold(&s->g->memory, &s->held, s->in.message.capacity, s->g->intake_max)) {
            close_socket(s, 1013, "the memory for requests is full");
            return bytes.len;
        }
        if (!take_event(s))
            return bytes.len;
    }
    return used;
}

/* ---- the door ---- */

void socket_start(struct gateway *g, struct http_exchange *x)
{
    const struct socket_row *row = rows;
    struct refusal why;
    struct error err;
    char key[WEBSOCKET_KEY];
    while (!str_is(http_request(x)->path, row->path))
        row++;
    if (websocket_accept(key, http_request(x), &err) != ST_OK) {
        http1_write_header(&x->headers, "upgrade", STR("websocket"));
        refuse(&why, 426, "upgrade_required", NULL, "%s", err.text);
        answer_refusal(g, x, &why);
        return;
    }
    struct socket *s = mem_alloc_zero(1, sizeof *s);
    if (!s) {
        refuse(&why, 503, NULL, NULL, "out of memory");
        answer_refusal(g, x, &why);
        return;
    }
    *s = (struct socket){.g = g, .x = x, .row = row, .last_ns = clock_ns(), .next = g->sockets};
    websocket_init(&s->in, MESSAGE_MAX);
    if (s->next)
        s->next->prev = s;
    g->sockets = s;
    x->user = s;
    x->on_gone = on_gone;
    x->on_writable = on_writable;
    http1_write_header(&x->headers, "sec-websocket-accept", str_of(key));
    http_upgrade(x, "websocket", on_input);
}

void socket_tick(struct gateway *g, uint64_t now_ns)
{
    for (struct socket *s = g->sockets, *next; s; s = next) {
        next = s->next;
        if (!s->job && (g->draining || now_ns > s->last_ns + (uint64_t)IDLE_S * 1000000000))
            close_socket(s, 1001, g->draining ? "the server is stopping" : "nothing was asked for five minutes");
    }
}
