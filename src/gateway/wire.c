/* Events of a stream, framed as its protocol wants; whole events go out together when the loop has written them. */
#include "gateway/private.h"

#include "base/clock.h"

static void begin_sse(struct buf *out, const char *event)
{
    if (event) {
        buf_append_str(out, STR("event: "));
        buf_append_str(out, str_of(event));
        buf_append_char(out, '\n');
    }
    buf_append_str(out, STR("data: "));
}

static void end_sse(struct buf *out, size_t at)
{
    (void)at; /* JSON holds no line ends of its own: one data line is enough */
    buf_append_str(out, STR("\n\n"));
}

static void begin_line(struct buf *out, const char *event)
{
    (void)out, (void)event;
}

static void end_line(struct buf *out, size_t at)
{
    (void)at;
    buf_append_char(out, '\n');
}

const struct wire wire_sse = {"text/event-stream; charset=utf-8", begin_sse, end_sse, ": ping\n\n", 8};
const struct wire wire_lines = {"application/x-ndjson", begin_line, end_line, NULL, 0};

struct json_writer *event_begin(struct job *j, const char *event)
{
    j->event_at = j->out.len;
    j->wire->begin(&j->out, event);
    json_writer_init(&j->writer, &j->out);
    return &j->writer;
}

void event_end(struct job *j)
{
    j->wire->end(&j->out, j->event_at);
    if (j->ask.background) {
        buf_append(&j->log, j->out.ptr + j->event_at, j->out.len - j->event_at);
        j->out.failed |= j->log.failed;
    }
}

void wire_begin(struct job *j)
{
    j->begun = true;
    j->write_ns = clock_ns(); /* a silence begins: the first ping is due after all of it */
    if (j->socket)
        return;
    http1_write_header(&j->x->headers, "cache-control", STR("no-cache"));
    http1_write_header(&j->x->headers, "x-accel-buffering", STR("no")); /* proxies: pass it on at once */
    http_stream_begin(j->x, 200, j->wire->content_type);
}

bool wire_full(const struct job *j)
{
    return j->x && http_stream_queued(j->x) + j->out.len > STREAM_QUEUE_MAX;
}

void wire_flush(struct job *j)
{
    if (j->out.failed && j->x)
        http_stream_break(j->x);
    else if (j->out.len && j->x)
        http_stream_write(j->x, buf_str(&j->out));
    if (j->out.len)
        j->write_ns = clock_ns();
    if (j->out.capacity > 4096)
        buf_free(&j->out); /* ten thousand streams: each waits with little */
    else
        buf_clear(&j->out);
}

void wire_end(struct job *j, struct http_exchange *x)
{
    if (!x) {
        buf_free(&j->out);
        return;
    }
    if (j->out.len && !j->out.failed)
        http_stream_write(x, buf_str(&j->out));
    bool failed = j->out.failed;
    buf_free(&j->out);
    if (failed) { /* the job ends here: the exchange must not tell it of anything */
        if (j->socket)
            socket_adopt(j->socket, NULL);
        else
            x->on_gone = x->on_writable = NULL;
        http_stream_break(x);
    } else if (j->socket) {
        socket_over(j->socket, j->why.http == 0);
    } else {
        http_stream_end(x);
    }
}
