/* websocket: whatever bytes come, however cut, the same events, within the message limit. */
#include <stdlib.h>

#include "base/unicode.h"
#include "net/websocket.h"

enum { MESSAGE_MAX = 300 };

static struct buf run(const uint8_t *data, size_t size, size_t step)
{
    struct websocket w;
    struct buf out = {0};
    websocket_init(&w, MESSAGE_MAX);
    for (size_t i = 0; i < size;) {
        size_t n = size - i < step ? size - i : step, used = websocket_feed(&w, (const char *)data + i, n);
        if (used > n || (w.event == WEBSOCKET_NOTHING && used != n))
            abort();
        i += used;
        if (w.event == WEBSOCKET_NOTHING)
            continue;
        if (w.message.len > MESSAGE_MAX || w.control.len > WEBSOCKET_CONTROL_MAX ||
            (w.event == WEBSOCKET_MESSAGE && !w.binary && !utf8_valid(buf_str(&w.message))))
            abort();
        buf_append_char(&out, (char)w.event);
        buf_append(&out, &w.code, sizeof w.code);
        buf_append_str(&out, buf_str(w.event == WEBSOCKET_MESSAGE ? &w.message : &w.control));
        if (w.event == WEBSOCKET_BAD || w.event == WEBSOCKET_CLOSE)
            break;
    }
    websocket_free(&w);
    return out;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct buf whole = run(data, size, size ? size : 1), bytes = run(data, size, 1), some = run(data, size, 5);
    if (!str_eq(buf_str(&whole), buf_str(&bytes)) || !str_eq(buf_str(&whole), buf_str(&some)))
        abort();
    buf_free(&whole);
    buf_free(&bytes);
    buf_free(&some);
    return 0;
}
