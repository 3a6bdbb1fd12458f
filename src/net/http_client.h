/* http_client - many HTTP/1.1 requests on a loop, their answers as they come; connections are kept and used again
 *
 *   TRY(http_client_open(&cl, loop, &peer, err));
 *   f = (struct http_fetch){.request = bytes, .on_body = take, .on_end = done, .user = me};
 *   http_fetch_start(cl, &f);        // on_body as bytes come, then on_end exactly once, never from inside the call
 *   http_fetch_cancel(&f);           // instead: closes its connection, no callback after it
 *
 * A request on a kept connection that the server closed before any byte of an answer is sent again, once, on a new one.
 * There are no deadlines: who has one looks at its clock and cancels.
 *
 * Memory   request must live until on_end or cancel; answers are not kept, their heads are (f.answer, in callbacks)
 * Threads  loop thread only
 */
#ifndef NET_HTTP_CLIENT_H
#define NET_HTTP_CLIENT_H

#include "net/conn.h"
#include "net/http1.h"

enum fetch_end {
    FETCH_DONE,       /* the whole answer came, whatever its status */
    FETCH_NO_CONNECT, /* no connection, or no TLS with whom it should be */
    FETCH_CUT,        /* the connection ended before the answer did */
    FETCH_BAD,        /* what came is not HTTP/1.1 */
};

struct http_client;
struct http_fetch {
    struct str request; /* head and body; http_request_write makes one */
    void (*on_body)(struct http_fetch *f, struct str bytes);
    void (*on_end)(struct http_fetch *f, enum fetch_end end);
    void *user;
    const struct http1 *answer; /* status and headers from the first on_body on; NULL without a head */
    /* private */
    struct http_client *client;
    struct wire *wire;
    struct http_fetch *next; /* of those that could not even be begun */
    bool again;              /* it has been sent twice */
};

MUST_USE enum status http_client_open(struct http_client **out, struct loop *loop, const struct peer *to,
                                      struct error *err);
void http_client_close(struct http_client *cl); /* cancels what is open */
void http_fetch_start(struct http_client *cl, struct http_fetch *f);
void http_fetch_cancel(struct http_fetch *f);
int http_client_connections(const struct http_client *cl);

/* POST with a body, GET without; headers: more lines, each ended by CRLF, or "". */
void http_request_write(struct buf *out, const char *method, const char *path, const char *host, const char *headers,
                        struct str body);

#endif
