/* client - one blocking HTTP/1.1 request over a plain connection: tests, and tools that talk to a server
 *
 *   struct http1 answer;
 *   TRY(http_call(&answer, &(struct http_call){.host = "127.0.0.1", .port = p, .method = "GET", .path = "/"}, err));
 *   ... answer.status, http1_header(&answer, "content-type"), answer.body ...
 *   http1_free(&answer);
 *
 * Errors   ST_IO (connection), ST_TIMEOUT, ST_CORRUPT (answer is not HTTP), ST_CANCELED (on_body said so)
 */
#ifndef NET_CLIENT_H
#define NET_CLIENT_H

#include "net/http1.h"

struct http_call {
    const char *host;
    int port;
    const char *method, *path;
    const char *headers; /* more header lines, each ended by CRLF; or NULL */
    struct str body;
    int timeout_ms;  /* for the whole call; 0 = 60,000 */
    size_t body_max; /* 0 = 64 MiB */
    /* The answer's body as it comes, instead of answer.body; false stops and closes the connection. May be NULL. */
    bool (*on_body)(void *ctx, struct str bytes);
    void *ctx;
};
MUST_USE enum status http_call(struct http1 *answer, const struct http_call *call, struct error *err);

#endif
