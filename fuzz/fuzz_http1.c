/* http1: no crash, and the same result whole and in pieces cut by the input itself. */
#include <stdlib.h>

#include "net/http1.h"

static void feed(struct http1 *p, const uint8_t *data, size_t n, size_t step)
{
    size_t at = 0;
    while (at < n && p->state != HTTP1_DONE && p->state != HTTP1_BAD)
        at += http1_feed(p, (const char *)data + at, n - at < step ? n - at : step);
    http1_end(p);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct http1_limits limits = {4096, 4096};
    if (size < 2)
        return 0;
    enum http1_kind kind = data[0] & 1 ? HTTP1_REQUEST : HTTP1_RESPONSE;
    struct http1 a, b;
    http1_init(&a, kind, &limits);
    http1_init(&b, kind, &limits);
    feed(&a, data + 2, size - 2, size);
    feed(&b, data + 2, size - 2, 1 + data[1]);
    if (a.state != b.state || a.fault.status != b.fault.status || a.n_header != b.n_header ||
        (a.state == HTTP1_DONE && !str_eq(buf_str(&a.body), buf_str(&b.body))))
        abort();
    http1_free(&a);
    http1_free(&b);
    return 0;
}
