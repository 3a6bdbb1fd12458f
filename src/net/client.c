#include "net/client.h"

#include "base/clock.h"
#include "base/fault.h"

#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

static enum status wait_for(int fd, short what, uint64_t deadline_ns, struct error *err)
{
    for (;;) {
        uint64_t now = clock_ns();
        struct pollfd p = {fd, what, 0};
        int rc = now < deadline_ns ? poll(&p, 1, (int)((deadline_ns - now) / 1000000) + 1) : 0;
        if (rc > 0)
            return ST_OK;
        if (rc == 0)
            return fail(err, ST_TIMEOUT, "http: no answer in time");
        if (errno != EINTR)
            return fail(err, ST_IO, "http: %s", strerror(errno));
    }
}

static enum status connect_to(int *out, const struct http_call *call, uint64_t deadline_ns, struct error *err)
{
    char port[16];
    snprintf(port, sizeof port, "%d", call->port);
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found;
    int rc = getaddrinfo(call->host, port, &hints, &found);
    if (rc != 0)
        return fail(err, ST_IO, "http: host %s: %s", call->host, gai_strerror(rc));
    int fd = socket(found->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), reason = 0;
    socklen_t len = sizeof reason;
    rc = fd < 0 ? -1 : connect(fd, found->ai_addr, found->ai_addrlen);
    enum status st = fd < 0 || (rc != 0 && errno != EINPROGRESS) ? ST_IO : wait_for(fd, POLLOUT, deadline_ns, err);
    freeaddrinfo(found);
    if (st == ST_OK && (getsockopt(fd, SOL_SOCKET, SO_ERROR, &reason, &len) != 0 || reason != 0))
        errno = reason, st = ST_IO;
    if (st == ST_IO)
        fail(err, ST_IO, "http: cannot connect to %s port %d: %s", call->host, call->port, strerror(errno));
    if (st != ST_OK && fd >= 0)
        close(fd);
    *out = fd;
    return st;
}

static enum status send_all(int fd, struct str bytes, uint64_t deadline_ns, struct error *err)
{
    while (bytes.len) {
        TRY(wait_for(fd, POLLOUT, deadline_ns, err));
        ssize_t n = fault_hit(FAULT_SEND) ? -1 : send(fd, bytes.ptr, bytes.len, MSG_NOSIGNAL);
        if (n < 0 && errno != EAGAIN && errno != EINTR)
            return fail(err, ST_IO, "http: sending failed: %s", strerror(errno));
        bytes = str_from(bytes, n > 0 ? (size_t)n : 0);
    }
    return ST_OK;
}

static enum status take(struct http1 *in, struct str bytes, const struct http_call *call, struct error *err)
{
    while (bytes.len && in->state != HTTP1_DONE && in->state != HTTP1_BAD) {
        bytes = str_from(bytes, http1_feed(in, bytes.ptr, bytes.len));
        if (in->state == HTTP1_HEAD_DONE)
            http1_feed(in, "", 0);
        if (in->state == HTTP1_DONE && in->status / 100 == 1) /* 100 Continue comes before the answer */
            http1_reset(in);
        if (call->on_body && in->body.len) {
            if (!call->on_body(call->ctx, buf_str(&in->body)))
                return fail(err, ST_CANCELED, "http: stopped by the caller");
            buf_clear(&in->body);
        }
    }
    return ST_OK;
}

static enum status receive(int fd, struct http1 *in, const struct http_call *call, uint64_t deadline_ns,
                           struct error *err)
{
    char bytes[16384];
    while (in->state != HTTP1_DONE && in->state != HTTP1_BAD) {
        TRY(wait_for(fd, POLLIN, deadline_ns, err));
        ssize_t n = fault_hit(FAULT_RECV) ? -1 : recv(fd, bytes, sizeof bytes, 0);
        if (n < 0 && errno != EAGAIN && errno != EINTR)
            return fail(err, ST_IO, "http: receiving failed: %s", strerror(errno));
        if (n == 0)
            http1_end(in);
        if (n > 0)
            TRY(take(in, str_n(bytes, (size_t)n), call, err));
    }
    if (in->state == HTTP1_BAD)
        return fail(err, ST_CORRUPT, "http: the answer cannot be read: %s", in->fault.text);
    return ST_OK;
}

enum status http_call(struct http1 *answer, const struct http_call *call, struct error *err)
{
    struct http1_limits limits = {64 << 10, call->body_max ? call->body_max : (size_t)64 << 20};
    uint64_t deadline_ns = clock_ns() + (uint64_t)(call->timeout_ms ? call->timeout_ms : 60000) * 1000000;
    struct buf out = {0};
    int fd = -1;
    http1_init(answer, HTTP1_RESPONSE, &limits);
    TRY(connect_to(&fd, call, deadline_ns, err));
    buf_printf(&out, "%s %s HTTP/1.1\r\nhost: %s:%d\r\nconnection: close\r\ncontent-length: %zu\r\n%s\r\n",
               call->method, call->path, call->host, call->port, call->body.len, call->headers ? call->headers : "");
    buf_append_str(&out, call->body);
    enum status st = out.failed ? fail_nomem(err, "http") : send_all(fd, buf_str(&out), deadline_ns, err);
    if (st == ST_OK)
        st = receive(fd, answer, call, deadline_ns, err);
    buf_free(&out);
    close(fd);
    if (st != ST_OK)
        http1_free(answer);
    return st;
}
