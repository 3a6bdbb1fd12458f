/* sse_reader - server-sent events from bytes as they come
 *
 *   struct sse_reader r = {0};
 *   sse_read(&r, bytes, on_event, ctx);      // on_event(ctx, data) for every event; false when it said so, or r.failed
 *   sse_reader_free(&r);
 *
 * Of an event only its data are handed on: several data lines are joined by newlines. Comments, other fields and events
 * without data are passed over. The same bytes give the same events however they are cut into pieces.
 *
 * Memory   one line and one event at a time, at most SSE_EVENT_MAX bytes each; beyond it failed is set
 * Source   WHATWG HTML section 9.2.6. An event the stream ends in is not one
 */
#ifndef NET_SSE_READER_H
#define NET_SSE_READER_H

#include "base/str.h"

enum { SSE_EVENT_MAX = 16 << 20 };

struct sse_reader {
    struct buf line, data; /* of what has not ended yet */
    bool has_data, after_cr, failed;
};
typedef bool sse_event_fn(void *ctx, struct str data);

bool sse_read(struct sse_reader *r, struct str bytes, sse_event_fn *on_event, void *ctx);
bool sse_inside_event(const struct sse_reader *r); /* an end now cuts an event */
void sse_reader_free(struct sse_reader *r);

#endif
