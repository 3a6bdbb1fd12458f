/* conn - listening sockets and connections on a loop, plain or TLS, with bounded queues
 *
 *   TRY(listener_open(&li, loop, &where, on_accept, ctx, err));
 *   conn_set_handler(c, &handler, ctx);    // in on_accept; then on_data, on_drained, on_end arrive, never nested
 *
 *   TRY(peer_resolve(&to, "127.0.0.1", 8080, err));   // to a server: what is sent before it is open waits
 *   TRY(conn_dial(&c, loop, &to, err));               // then conn_set_handler; a failure arrives as on_end
 *
 * Input is read until INPUT_MAX bytes wait; more stays in the kernel until some are consumed. Output is queued without
 * limit: the writer looks at conn_queued and pauses; on_drained tells when less than OUTPUT_LOW is left. What the
 * kernel takes at once is never queued, and no on_drained tells of it.
 *
 * Threads  loop thread only
 * Faults   FAULT_ACCEPT, FAULT_RECV and FAULT_SEND act here (base/fault.h)
 */
#ifndef NET_CONN_H
#define NET_CONN_H

#include "base/str.h"
#include "net/loop.h"

enum { CONN_INPUT_MAX = 128 * 1024, CONN_OUTPUT_LOW = 16 * 1024 };

struct conn;
struct listener;
struct tls;

struct conn_handler {
    void (*on_data)(void *ctx);    /* bytes came: conn_input */
    void (*on_drained)(void *ctx); /* at most CONN_OUTPUT_LOW bytes are left to send */
    /* The peer closed (clean: what is queued can still be sent) or the connection broke (only conn_close is left). */
    void (*on_end)(void *ctx, bool clean);
};
void conn_set_handler(struct conn *c, const struct conn_handler *handler, void *ctx);
struct str conn_input(struct conn *c); /* the first contiguous bytes that wait; valid until conn_consume */
size_t conn_input_total(const struct conn *c);
void conn_consume(struct conn *c, size_t n);
void conn_send(struct conn *c, struct str bytes); /* copies; a failure arrives as on_end */
size_t conn_queued(const struct conn *c);
uint64_t conn_progress_ns(const struct conn *c); /* clock_ns when bytes last left, or began to wait */
void conn_finish_sending(struct conn *c); /* nothing more will be sent: tells the peer (call with an empty queue) */
void conn_close(struct conn *c);          /* at once; no callback after it */

struct peer { /* a server to connect to */
    const char *host;
    struct tls *tls;   /* of tls_open_client; NULL = plain. Set it after peer_resolve. */
    char address[128]; /* a struct sockaddr */
    uint32_t address_len;
};
/* Asks the name service, so it may block; host is borrowed. */
MUST_USE enum status peer_resolve(struct peer *out, const char *host, int port, struct error *err);
MUST_USE enum status conn_dial(struct conn **out, struct loop *loop, const struct peer *to, struct error *err);
bool conn_is_open(
    const struct conn *c); /* the connection was made (of a dialled one; TLS: and the server is who it says) */

struct listen_at {
    const char *host;   /* name or numeric address */
    int port;           /* 0 = any free one */
    struct tls *tls;    /* NULL = plain */
    bool loopback_only; /* ST_DENIED for an address other machines can reach */
};
/* What to do with a fresh connection; without room for it (too many open files), the kernel's client gets a 503. */
typedef void accept_fn(void *ctx, struct conn *c);
MUST_USE enum status listener_open(struct listener **out, struct loop *loop, const struct listen_at *where,
                                   accept_fn *on_accept, void *ctx, struct error *err);
int listener_port(const struct listener *li);
void listener_close(struct listener *li); /* takes what already waits in the kernel first, so that nobody is reset */

MUST_USE enum status tls_open(struct tls **out, const char *cert_path, const char *key_path, struct error *err);
/* For conn_dial: the server's certificate must be good for its name, by the system's authorities or those of the PEM
 * file; unchecked: anybody is believed. TLS 1.2 or later. */
MUST_USE enum status tls_open_client(struct tls **out, const char *authorities_path, bool unchecked, struct error *err);
void tls_close(struct tls *tls); /* after the last connection */

#endif
