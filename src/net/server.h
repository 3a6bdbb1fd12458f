/* server - HTTP/1.1 over conn: keep-alive, pipelining, limits and deadlines, streamed answers with back-pressure
 *
 *   TRY(http_server_open(&s, loop, &options, &handler, ctx, err));
 *   on_request(ctx, x):   http_respond(x, 200, "text/plain", body);             // now or later, exactly once
 *                   or:   http_stream_begin(x, 200, "text/event-stream"); http_stream_write(x, bytes); ...
 *                         http_stream_end(x);
 *
 * An exchange is one request and its answer. Until it is answered it belongs to the handler, who may set user, on_gone
 * and on_writable. If the client leaves first (closes, breaks, or takes no byte for write_stall_ms), on_gone is called
 * once and x is dead; after http_respond or http_stream_end it is dead too.
 * Back-pressure: stop writing while http_stream_queued(x) is over 64 KB or so; on_writable says when to go on.
 *
 * Deadlines  the whole head within head_ms of its first byte, the whole body within body_ms of the head, a byte within
 *            idle_ms between requests; looked at four times a second
 * Threads    loop thread only
 */
#ifndef NET_SERVER_H
#define NET_SERVER_H

#include "base/budget.h"
#include "net/conn.h"
#include "net/http1.h"

struct http_server;
struct http_exchange;

struct http_server_options { /* 0 = the default in brackets */
    struct listen_at listen;
    struct http1_limits limits; /* [32 KiB head, 16 MiB body] */
    int head_ms, body_ms;       /* [10,000; 60,000] */
    int idle_ms;                /* [75,000] */
    int write_stall_ms;         /* [30,000] */
    int connections_max;        /* [16,384] */
    /* NULL, or: holds what connections keep in memory (bodies, unread input, unsent answers). A body that takes its use
     * over body_budget is refused with 503; a client who sends ahead beyond its max is dropped. */
    struct budget *budget;
    size_t body_budget;
};

struct http_handler {
    /* The head is there, the body not yet: false when it has been answered already (who may not, shall not upload). */
    bool (*on_head)(void *ctx, struct http_exchange *x);
    void (*on_request)(void *ctx, struct http_exchange *x);
    /* A request that is no HTTP, is too large, or was too slow: write the error's body into `out`, returns its type. */
    const char *(*on_fault)(void *ctx, const struct http1_fault *fault, struct buf *out);
};

struct http_exchange {
    void *user;
    void (*on_gone)(void *user);
    void (*on_writable)(void *user);
    struct buf headers; /* more headers of the answer: http1_write_header(&x->headers, ...) before it begins */
    uint64_t begin_ns;  /* clock_ns when the head was complete */
    int status;         /* of the answer, for the log; 0 = not yet */
    const void *client; /* the handler's: on whose behalf; NULL when a head comes */
    size_t (*on_input)(void *user, struct str bytes); /* after http_upgrade: returns how many it took */
    /* private to server.c */
    enum { EXCHANGE_NONE, EXCHANGE_OPEN, EXCHANGE_STREAM } phase;
    bool chunked, head_only;
};

MUST_USE enum status http_server_open(struct http_server **out, struct loop *loop,
                                      const struct http_server_options *options, const struct http_handler *handler,
                                      void *ctx, struct error *err);
int http_server_port(const struct http_server *s);
void http_server_drain(struct http_server *s);     /* no new connections, idle ones closed; answers end with close */
int http_server_busy(const struct http_server *s); /* connections with a request or an unsent answer */
void http_server_close(struct http_server *s);     /* at once; on_gone for what was open */

const struct http1 *http_request(const struct http_exchange *x);
struct buf http_take_body(struct http_exchange *x); /* moves the body out, for work that may outlive the exchange */
void http_respond(struct http_exchange *x, int status, const char *content_type, struct str body);
void http_stream_begin(struct http_exchange *x, int status, const char *content_type);
void http_stream_write(struct http_exchange *x, struct str bytes);
size_t http_stream_queued(const struct http_exchange *x);
void http_stream_end(struct http_exchange *x);
/* Leaves HTTP: 101 with x->headers is sent, and from here on bytes come to on_input and go by http_stream_write, until
 * http_stream_end closes the connection. */
void http_upgrade(struct http_exchange *x, const char *protocol, size_t (*on_input)(void *user, struct str bytes));
/* Takes the body over and sends it piece by piece: a large answer is in memory once, not once more for the socket. */
void http_respond_take(struct http_exchange *x, int status, const char *content_type, struct buf *body);
/* The answer cannot be completed: the client will see a broken body. on_gone comes soon, never from inside the call. */
void http_stream_break(struct http_exchange *x);

#endif
