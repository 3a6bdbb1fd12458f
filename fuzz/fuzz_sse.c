/* sse_reader: no crash, and the same events whole and in pieces cut by the input itself. */
#include <stdlib.h>

#include "net/sse_reader.h"

static bool note(void *ctx, struct str data)
{
    buf_append_str(ctx, data);
    buf_append_char(ctx, '\1');
    return true;
}

static struct buf events(const uint8_t *data, size_t n, size_t step)
{
    struct sse_reader r = {0};
    struct buf out = {0};
    for (size_t at = 0; at < n; at += step)
        if (!sse_read(&r, str_n(data + at, n - at < step ? n - at : step), note, &out))
            break;
    buf_append_char(&out, sse_inside_event(&r) ? '1' : '0');
    sse_reader_free(&r);
    return out;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1)
        return 0;
    struct buf whole = events(data + 1, size - 1, size), pieces = events(data + 1, size - 1, 1 + data[0]);
    if (!str_eq(buf_str(&whole), buf_str(&pieces)))
        abort();
    buf_free(&whole);
    buf_free(&pieces);
    return 0;
}
