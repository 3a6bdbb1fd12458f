/* A scripted HTTP server that misbehaves as told: one thread a connection, raw sockets, nothing of ours that a test
 * makes fail.
 *
 *   static void script(struct stub_call *c) { stub_say(c, "HTTP/1.1 200 OK\r\n..."); usleep(...); c->close = true; }
 *   stub_start(&stub, script);  ... 127.0.0.1 port stub.port ...  stub_stop(&stub);
 */
#ifndef TESTS_NET_STUB_H
#define TESTS_NET_STUB_H

#include "base/str.h"

#include <arpa/inet.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

struct stub;
struct stub_call {
    struct stub *stub;
    int fd, nth; /* nth: requests on this connection before this one */
    char method[16], path[256];
    struct str body;
    bool close; /* set: the connection ends after the answer */
    bool reset; /* set: it ends with a reset */
    char *in;
    size_t n_in, used;
};
typedef void stub_script(struct stub_call *c);
struct stub {
    int port, fd, requests, connections; /* counters: atomic */
    stub_script *script;
    pthread_t thread;
    int live; /* threads; atomic */
};

static inline void stub_bytes(struct stub_call *c, struct str s)
{
    while (s.len) {
        ssize_t n = send(c->fd, s.ptr, s.len, MSG_NOSIGNAL);
        if (n <= 0)
            return;
        s = str_from(s, (size_t)n);
    }
}

static inline void stub_say(struct stub_call *c, const char *text)
{
    stub_bytes(c, str_of(text));
}

static inline void stub_printf(struct stub_call *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static inline void stub_printf(struct stub_call *c, const char *fmt, ...)
{
    char *text;
    va_list ap;
    va_start(ap, fmt);
    int n = vasprintf(&text, fmt, ap);
    va_end(ap);
    if (n < 0)
        abort();
    stub_bytes(c, str_n(text, (size_t)n));
    free(text);
}

/* A whole answer with its length. */
static inline void stub_answer(struct stub_call *c, int status, const char *type, const char *body)
{
    stub_printf(c, "HTTP/1.1 %d X\r\ncontent-type: %s\r\ncontent-length: %zu\r\n\r\n%s", status, type, strlen(body),
                body);
}

static inline void stub_chunk(struct stub_call *c, const char *text)
{
    stub_printf(c, "%zx\r\n%s\r\n", strlen(text), text);
}

/* Receives more behind what is there; false when the client left. */
static inline bool stub_more(struct stub_call *c)
{
    c->in = realloc(c->in, c->n_in + 65537);
    ssize_t n = c->in ? recv(c->fd, c->in + c->n_in, 65536, 0) : -1;
    if (n <= 0)
        return false;
    c->n_in += (size_t)n;
    c->in[c->n_in] = 0;
    return true;
}

/* Reads one request; false when the client left. */
static inline bool stub_read(struct stub_call *c)
{
    size_t head, length = 0;
    while ((head = str_find(str_n(c->in, c->n_in), STR("\r\n\r\n"), 0)) == SIZE_MAX)
        if (!stub_more(c))
            return false;
    const char *field = strcasestr(c->in, "content-length:");
    if (field && field < c->in + head)
        length = (size_t)atol(field + 15);
    while (c->n_in < head + 4 + length)
        if (!stub_more(c))
            return false;
    if (sscanf(c->in, "%15s %255s", c->method, c->path) != 2)
        return false;
    c->body = str_n(c->in + head + 4, length);
    c->used = head + 4 + length;
    return true;
}

static inline void *stub_connection(void *arg)
{
    struct stub_call *c = arg;
    for (; !c->close && !c->reset && stub_read(c); c->nth++) {
        __atomic_add_fetch(&c->stub->requests, 1, __ATOMIC_SEQ_CST);
        c->stub->script(c);
        c->n_in -= c->used;
        memmove(c->in, c->in + c->used, c->n_in);
    }
    struct linger now = {1, 0};
    if (c->reset)
        setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    close(c->fd);
    __atomic_sub_fetch(&c->stub->live, 1, __ATOMIC_SEQ_CST);
    free(c->in);
    free(c);
    return NULL;
}

static inline void *stub_accept(void *arg)
{
    struct stub *s = arg;
    for (;;) {
        int fd = accept(s->fd, NULL, NULL);
        if (fd < 0)
            return NULL;
        struct stub_call *c = calloc(1, sizeof *c);
        pthread_t thread;
        *c = (struct stub_call){.stub = s, .fd = fd};
        __atomic_add_fetch(&s->connections, 1, __ATOMIC_SEQ_CST);
        __atomic_add_fetch(&s->live, 1, __ATOMIC_SEQ_CST);
        pthread_create(&thread, NULL, stub_connection, c);
        pthread_detach(thread);
    }
}

static inline void stub_start(struct stub *s, stub_script *script)
{
    struct sockaddr_in a = {.sin_family = AF_INET};
    socklen_t len = sizeof a;
    *s = (struct stub){.script = script, .fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)};
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (bind(s->fd, (struct sockaddr *)&a, sizeof a) != 0 || listen(s->fd, 1024) != 0 ||
        getsockname(s->fd, (struct sockaddr *)&a, &len) != 0)
        abort();
    s->port = ntohs(a.sin_port);
    pthread_create(&s->thread, NULL, stub_accept, s);
}

/* The clients must be closed: connections end when they do. */
static inline void stub_stop(struct stub *s)
{
    shutdown(s->fd, SHUT_RDWR);
    pthread_join(s->thread, NULL);
    close(s->fd);
    while (__atomic_load_n(&s->live, __ATOMIC_SEQ_CST))
        usleep(1000);
}

#endif
