#include "net/sse.h"

void sse_begin(struct http_exchange *x)
{
    http1_write_header(&x->headers, "cache-control", STR("no-cache"));
    http1_write_header(&x->headers, "x-accel-buffering", STR("no"));
    http_stream_begin(x, 200, "text/event-stream; charset=utf-8");
}

void sse_data(struct http_exchange *x, struct str payload)
{
    struct buf out = {0};
    struct str rest = payload;
    do {
        size_t n = 0;
        while (n < rest.len && rest.ptr[n] != '\n' && rest.ptr[n] != '\r')
            n++;
        buf_append_str(&out, STR("data: "));
        buf_append(&out, rest.ptr, n);
        buf_append_char(&out, '\n');
        bool crlf = n + 1 < rest.len && rest.ptr[n] == '\r' && rest.ptr[n + 1] == '\n';
        rest = str_from(rest, n + (crlf ? 2 : 1));
    } while (rest.len);
    buf_append_char(&out, '\n');
    if (out.failed)
        http_stream_break(x);
    else
        http_stream_write(x, buf_str(&out));
    buf_free(&out);
}

void sse_comment(struct http_exchange *x, const char *text)
{
    struct buf out = {0};
    buf_printf(&out, ": %s\n\n", text);
    http_stream_write(x, buf_str(&out));
    buf_free(&out);
}

bool sse_full(const struct http_exchange *x)
{
    return http_stream_queued(x) > SSE_QUEUE_MAX;
}

void sse_end(struct http_exchange *x)
{
    http_stream_end(x);
}
