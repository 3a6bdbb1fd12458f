#include "net/sse_reader.h"

/* A whole line without its end; false when on_event said stop. */
static bool take_line(struct sse_reader *r, struct str line, sse_event_fn *on_event, void *ctx)
{
    if (line.len == 0) {
        bool go_on = !r->has_data || on_event(ctx, buf_str(&r->data));
        r->has_data = false;
        buf_clear(&r->data);
        return go_on;
    }
    bool is_data = str_starts(line, STR("data")) && (line.len == 4 || line.ptr[4] == ':');
    if (!is_data)
        return true;
    struct str value = str_from(line, 5);
    if (value.len && value.ptr[0] == ' ')
        value = str_from(value, 1);
    if (r->has_data)
        buf_append_char(&r->data, '\n');
    buf_append_str(&r->data, value);
    r->has_data = true;
    return true;
}

/* Length of the line that `bytes` begins with; *ended when its end is there too. */
static size_t line_length(struct str bytes, bool *ended)
{
    size_t n = 0;
    while (n < bytes.len && bytes.ptr[n] != '\n' && bytes.ptr[n] != '\r')
        n++;
    *ended = n < bytes.len;
    return n;
}

bool sse_read(struct sse_reader *r, struct str bytes, sse_event_fn *on_event, void *ctx)
{
    r->line.limit = r->data.limit = SSE_EVENT_MAX;
    while (bytes.len && !r->failed) {
        bool ended, go_on = true;
        if (r->after_cr && bytes.ptr[0] == '\n')
            bytes = str_from(bytes, 1);
        r->after_cr = false;
        size_t n = line_length(bytes, &ended);
        struct str line = str_n(bytes.ptr, n);
        if (!ended || r->line.len) {
            buf_append_str(&r->line, line);
            line = buf_str(&r->line);
        }
        if (!ended) {
            r->failed = r->line.failed;
            return !r->failed;
        }
        r->after_cr = bytes.ptr[n] == '\r';
        bytes = str_from(bytes, n + 1);
        if (!r->line.failed)
            go_on = take_line(r, line, on_event, ctx);
        r->failed = r->line.failed || r->data.failed;
        buf_clear(&r->line);
        if (!go_on)
            return false;
    }
    return !r->failed;
}

bool sse_inside_event(const struct sse_reader *r)
{
    return r->line.len > 0 || r->has_data;
}

void sse_reader_free(struct sse_reader *r)
{
    buf_free(&r->line);
    buf_free(&r->data);
    *r = (struct sse_reader){0};
}
