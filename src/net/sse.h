/* sse - server-sent events written to an exchange
 *
 *   sse_begin(x);  sse_data(x, json);  if (sse_full(x)) wait for on_writable;  sse_comment(x, "ping");  sse_end(x);
 *
 * Source   WHATWG HTML section 9.2. Each line of the payload becomes a data line, so that nothing can break framing
 */
#ifndef NET_SSE_H
#define NET_SSE_H

#include "net/server.h"

enum { SSE_QUEUE_MAX = 64 * 1024 };

void sse_begin(struct http_exchange *x); /* status 200; tells proxies not to buffer */
void sse_data(struct http_exchange *x, struct str payload);
void sse_comment(struct http_exchange *x, const char *text);
bool sse_full(const struct http_exchange *x); /* the client reads slower than we write */
void sse_end(struct http_exchange *x);

#endif
