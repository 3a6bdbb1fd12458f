/* Invariants
 * 1. After conn_close no callback of that connection runs: libevent drops deferred callbacks of a freed bufferevent.
 * 2. Callbacks never run inside conn_send or conn_consume (BEV_OPT_DEFER_CALLBACKS), so a handler may send and close.
 * 3. reserve_fd is open except while one connection is being refused for want of file descriptors.
 */
#include "net/conn.h"

#include "base/clock.h"
#include "base/fault.h"
#include "base/mem.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/bufferevent_ssl.h>
#include <event2/event.h>
#include <openssl/err.h>
#include <openssl/ssl.h>

struct tls {
    SSL_CTX *ctx;
    bool unchecked; /* a client that believes anybody */
};

struct conn {
    struct bufferevent *bev;
    const struct conn_handler *handler;
    void *ctx;
    uint64_t progress_ns;
    bool open, direct; /* direct: no TLS between us and the socket */
};

struct listener {
    struct loop *loop;
    struct tls *tls;
    struct event *event;
    accept_fn *on_accept;
    void *ctx;
    int fd, reserve_fd, port;
};

/* ---- connections ---- */

static void on_read(struct bufferevent *bev, void *ctx)
{
    struct conn *c = ctx;
    (void)bev;
    if (fault_hit(FAULT_RECV))
        c->handler->on_end(c->ctx, false);
    else
        c->handler->on_data(c->ctx);
}

static void on_write(struct bufferevent *bev, void *ctx)
{
    struct conn *c = ctx;
    (void)bev;
    c->handler->on_drained(c->ctx);
}

static void on_event(struct bufferevent *bev, short what, void *ctx)
{
    struct conn *c = ctx;
    (void)bev;
    c->open |= (what & BEV_EVENT_CONNECTED) != 0;
    if (what & (BEV_EVENT_EOF | BEV_EVENT_ERROR | BEV_EVENT_TIMEOUT))
        c->handler->on_end(c->ctx, (what & BEV_EVENT_EOF) && !(what & BEV_EVENT_ERROR));
}

static void on_output(struct evbuffer *out, const struct evbuffer_cb_info *info, void *ctx)
{
    struct conn *c = ctx;
    (void)out;
    if (info->n_deleted || info->orig_size == 0)
        c->progress_ns = clock_ns();
}

/* name: of the server to be checked; NULL when the server is us. */
static struct bufferevent *make_bufferevent(struct loop *loop, struct tls *tls, int fd, const char *name)
{
    int options = BEV_OPT_CLOSE_ON_FREE | BEV_OPT_DEFER_CALLBACKS;
    if (!tls)
        return bufferevent_socket_new(loop_base(loop), fd, options);
    SSL *ssl = SSL_new(tls->ctx);
    bool good = ssl != NULL;
    if (good && name)
        good = SSL_set_tlsext_host_name(ssl, name) == 1 && (tls->unchecked || SSL_set1_host(ssl, name) == 1);
    struct bufferevent *bev =
        good ? bufferevent_openssl_socket_new(loop_base(loop), fd, ssl,
                                              name ? BUFFEREVENT_SSL_CONNECTING : BUFFEREVENT_SSL_ACCEPTING, options)
             : NULL;
    if (!bev)
        SSL_free(ssl);
    return bev;
}

static void watch(struct conn *c)
{
    c->progress_ns = clock_ns();
    evbuffer_add_cb(bufferevent_get_output(c->bev), on_output, c);
    bufferevent_setwatermark(c->bev, EV_READ, 0, CONN_INPUT_MAX);
    bufferevent_setwatermark(c->bev, EV_WRITE, CONN_OUTPUT_LOW, 0);
}

/* Takes over fd, also on failure. */
static struct conn *conn_create(struct listener *li, int fd)
{
    struct conn *c = mem_alloc_zero(1, sizeof *c);
    int one = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one); /* a token must not wait for the next one */
    if (c)
        c->bev = make_bufferevent(li->loop, li->tls, fd, NULL);
    if (!c || !c->bev) {
        close(fd);
        mem_free(c);
        return NULL;
    }
    c->open = true;
    c->direct = !li->tls;
    watch(c);
    return c;
}

void conn_set_handler(struct conn *c, const struct conn_handler *handler, void *ctx)
{
    c->handler = handler;
    c->ctx = ctx;
    bufferevent_setcb(c->bev, on_read, on_write, on_event, c);
    bufferevent_enable(c->bev, EV_READ | EV_WRITE);
}

struct str conn_input(struct conn *c)
{
    struct evbuffer_iovec first;
    if (evbuffer_peek(bufferevent_get_input(c->bev), -1, NULL, &first, 1) < 1)
        return (struct str){"", 0};
    return str_n(first.iov_base, first.iov_len);
}

size_t conn_input_total(const struct conn *c)
{
    return evbuffer_get_length(bufferevent_get_input(c->bev));
}

void conn_consume(struct conn *c, size_t n)
{
    evbuffer_drain(bufferevent_get_input(c->bev), n);
}

/* Nothing waits before these bytes: most fit into the socket at once, without a turn of the loop and two changes of
 * what it waits for. Says how many went; the rest is for the buffered way. False: the connection is broken. */
static bool send_now(struct conn *c, struct str bytes, size_t *sent)
{
    *sent = 0;
    if (!c->direct || !c->open || evbuffer_get_length(bufferevent_get_output(c->bev)) > 0)
        return true;
    ssize_t n = send(bufferevent_getfd(c->bev), bytes.ptr, bytes.len, MSG_NOSIGNAL);
    if (n < 0)
        return errno == EAGAIN || errno == EINTR;
    c->progress_ns = clock_ns();
    *sent = (size_t)n;
    return true;
}

void conn_send(struct conn *c, struct str bytes)
{
    size_t sent = 0;
    bool good = !fault_hit(FAULT_SEND) && send_now(c, bytes, &sent);
    if (good && sent < bytes.len)
        good = bufferevent_write(c->bev, bytes.ptr + sent, bytes.len - sent) == 0;
    if (!good)
        bufferevent_trigger_event(c->bev, BEV_EVENT_ERROR | BEV_EVENT_WRITING, BEV_TRIG_DEFER_CALLBACKS);
    else if (sent == bytes.len && sent > CONN_OUTPUT_LOW) /* its writer may have paused: tell it, as if it had waited */
        bufferevent_trigger(c->bev, EV_WRITE, BEV_TRIG_DEFER_CALLBACKS);
}

size_t conn_queued(const struct conn *c)
{
    return evbuffer_get_length(bufferevent_get_output(c->bev));
}

uint64_t conn_progress_ns(const struct conn *c)
{
    return c->progress_ns;
}

void conn_finish_sending(struct conn *c)
{
    SSL *ssl = bufferevent_openssl_get_ssl(c->bev);
    if (ssl && SSL_is_init_finished(ssl)) {
        SSL_shutdown(ssl); /* the close alert; a full socket buffer loses it, and nobody waits for its answer */
        ERR_clear_error();
    }
    shutdown(bufferevent_getfd(c->bev), SHUT_WR);
}

void conn_close(struct conn *c)
{
    evbuffer_remove_cb(bufferevent_get_output(c->bev), on_output, c);
    bufferevent_setcb(c->bev, NULL, NULL, NULL, NULL);
    bufferevent_free(c->bev);
    mem_free(c);
}

/* ---- connecting ---- */

enum status peer_resolve(struct peer *out, const char *host, int port, struct error *err)
{
    char text[16];
    if (port < 1 || port > 65535)
        return fail(err, ST_INVALID, "port %d: expected 1 to 65535", port);
    snprintf(text, sizeof text, "%d", port);
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV}, *found;
    int rc = getaddrinfo(host, text, &hints, &found);
    if (rc != 0)
        return fail(err, ST_NOT_FOUND, "host %s: %s", host, gai_strerror(rc));
    *out = (struct peer){.host = host, .address_len = (uint32_t)found->ai_addrlen};
    bool fits = found->ai_addrlen <= sizeof out->address;
    if (fits)
        memcpy(out->address, found->ai_addr, found->ai_addrlen);
    freeaddrinfo(found);
    return fits ? ST_OK : fail(err, ST_UNSUPPORTED, "host %s: its address is of an unknown kind", host);
}

/* A socket that is out of file descriptors or of local ports fails here; all else arrives as on_end. */
static bool begin_connect(struct conn *c, const struct peer *to)
{
    struct sockaddr_storage address = {0};
    int one = 1;
    memcpy(&address, to->address, to->address_len);
    int fd = socket(address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return false;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    return bufferevent_setfd(c->bev, fd) == 0 &&
           bufferevent_socket_connect(c->bev, (struct sockaddr *)&address, (int)to->address_len) == 0;
}

enum status conn_dial(struct conn **out, struct loop *loop, const struct peer *to, struct error *err)
{
    struct conn *c = mem_alloc_zero(1, sizeof *c);
    if (c)
        c->bev = make_bufferevent(loop, to->tls, -1, to->host);
    if (!c || !c->bev) {
        mem_free(c);
        return fail_nomem(err, "connection");
    }
    c->direct = !to->tls;
    watch(c);
    if (!begin_connect(c, to)) {
        int reason = errno;
        conn_close(c);
        return fail(err, ST_IO, "cannot connect to %s: %s", to->host, strerror(reason));
    }
    *out = c;
    return ST_OK;
}

bool conn_is_open(const struct conn *c)
{
    return c->open;
}

/* ---- listening ---- */

static int accept_seam(int fd)
{
    if (fault_hit(FAULT_ACCEPT))
        return -1;
    return accept4(fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
}

/* Out of file descriptors: without this, the waiting client would keep the loop awake for ever. */
static void refuse_one(struct listener *li)
{
    static const char answer[] = "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\n"
                                 "Connection: close\r\n\r\n";
    close(li->reserve_fd);
    int fd = accept4(li->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd >= 0) {
        if (!li->tls)
            (void)!write(fd, answer, sizeof answer - 1);
        close(fd);
    }
    li->reserve_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
}

static void accept_waiting(struct listener *li)
{
    for (int i = 0; i < 64; i++) { /* then the others' turn */
        int fd = accept_seam(li->fd);
        if (fd < 0 && (errno == EMFILE || errno == ENFILE))
            refuse_one(li);
        if (fd < 0 && errno != ECONNABORTED && errno != EINTR)
            return;
        struct conn *c = fd >= 0 ? conn_create(li, fd) : NULL;
        if (c)
            li->on_accept(li->ctx, c);
    }
}

static void on_acceptable(evutil_socket_t fd, short what, void *ctx)
{
    (void)fd, (void)what;
    accept_waiting(ctx);
}

static bool is_loopback(const struct addrinfo *a)
{
    if (a->ai_family == AF_INET)
        return ntohl(((const struct sockaddr_in *)(const void *)a->ai_addr)->sin_addr.s_addr) >> 24 == 127;
    return IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *)(const void *)a->ai_addr)->sin6_addr);
}

static enum status bind_at(struct listener *li, const struct addrinfo *a, const struct listen_at *where,
                           struct error *err)
{
    int one = 1;
    if (where->loopback_only && !is_loopback(a))
        return fail(err, ST_DENIED, "%s can be reached from other machines: set an API key first, or use 127.0.0.1",
                    where->host);
    li->fd = socket(a->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (li->fd < 0)
        return fail(err, ST_IO, "no socket: %s", strerror(errno));
    setsockopt(li->fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    struct sockaddr_in6 bound = {0}; /* larger than sockaddr_in, whose port lies at the same place */
    socklen_t len = sizeof bound;
    if (bind(li->fd, a->ai_addr, a->ai_addrlen) != 0 || listen(li->fd, 1024) != 0 ||
        getsockname(li->fd, (struct sockaddr *)&bound, &len) != 0)
        return fail(err, ST_IO, "cannot listen at %s port %d: %s", where->host, where->port, strerror(errno));
    _Static_assert(offsetof(struct sockaddr_in, sin_port) == offsetof(struct sockaddr_in6, sin6_port), "one place");
    li->port = ntohs(bound.sin6_port);
    return ST_OK;
}

static enum status resolve_and_bind(struct listener *li, const struct listen_at *where, struct error *err)
{
    char port[16];
    if (where->port < 0 || where->port > 65535)
        return fail(err, ST_INVALID, "port %d: expected 0 to 65535", where->port);
    snprintf(port, sizeof port, "%d", where->port);
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV}, *found;
    int rc = getaddrinfo(where->host, port, &hints, &found);
    if (rc != 0)
        return fail(err, ST_INVALID, "host %s: %s", where->host, gai_strerror(rc));
    enum status st = bind_at(li, found, where, err);
    freeaddrinfo(found);
    return st;
}

enum status listener_open(struct listener **out, struct loop *loop, const struct listen_at *where, accept_fn *on_accept,
                          void *ctx, struct error *err)
{
    struct listener *li = mem_alloc_zero(1, sizeof *li);
    if (!li)
        return fail_nomem(err, "listener");
    *li = (struct listener){.loop = loop, .tls = where->tls, .on_accept = on_accept, .ctx = ctx, .fd = -1};
    li->reserve_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    enum status st = resolve_and_bind(li, where, err);
    if (st == ST_OK) {
        li->event = event_new(loop_base(loop), li->fd, EV_READ | EV_PERSIST, on_acceptable, li);
        if (!li->event || event_add(li->event, NULL) != 0)
            st = fail_nomem(err, "listener");
    }
    if (st != ST_OK) {
        listener_close(li);
        return st;
    }
    *out = li;
    return ST_OK;
}

int listener_port(const struct listener *li)
{
    return li->port;
}

void listener_close(struct listener *li)
{
    if (!li)
        return;
    if (li->event) {
        accept_waiting(li);
        event_free(li->event);
    }
    if (li->fd >= 0)
        close(li->fd);
    if (li->reserve_fd >= 0)
        close(li->reserve_fd);
    mem_free(li);
}

/* ---- TLS ---- */

static int choose_protocol(SSL *ssl, const unsigned char **out, unsigned char *out_len, const unsigned char *in,
                           unsigned in_len, void *ctx)
{
    static const unsigned char offered[] = "\x08http/1.1";
    (void)ssl, (void)ctx;
    int rc = SSL_select_next_proto((unsigned char **)(uintptr_t)out, out_len, offered, sizeof offered - 1, in, in_len);
    return rc == OPENSSL_NPN_NEGOTIATED ? SSL_TLSEXT_ERR_OK : SSL_TLSEXT_ERR_ALERT_FATAL;
}

static enum status tls_fail(struct error *err, const char *what, const char *path)
{
    char reason[160] = "unknown reason";
    unsigned long code = ERR_get_error();
    if (code)
        ERR_error_string_n(code, reason, sizeof reason);
    ERR_clear_error();
    return fail(err, ST_INVALID, "tls: %s %s cannot be used: %s", what, path, reason);
}

enum status tls_open(struct tls **out, const char *cert_path, const char *key_path, struct error *err)
{
    struct tls *t = mem_alloc_zero(1, sizeof *t);
    if (!t)
        return fail_nomem(err, "tls");
    t->ctx = SSL_CTX_new(TLS_server_method());
    enum status st = t->ctx ? ST_OK : fail_nomem(err, "tls");
    if (st == ST_OK && SSL_CTX_use_certificate_chain_file(t->ctx, cert_path) != 1)
        st = tls_fail(err, "the certificate", cert_path);
    if (st == ST_OK && SSL_CTX_use_PrivateKey_file(t->ctx, key_path, SSL_FILETYPE_PEM) != 1)
        st = tls_fail(err, "the private key", key_path);
    if (st == ST_OK && SSL_CTX_check_private_key(t->ctx) != 1)
        st = tls_fail(err, "the private key does not belong to the certificate:", key_path);
    if (st != ST_OK) {
        tls_close(t);
        return st;
    }
    SSL_CTX_set_min_proto_version(t->ctx, TLS1_3_VERSION);
    SSL_CTX_set_mode(t->ctx, SSL_MODE_RELEASE_BUFFERS); /* an idle connection keeps 34 KB less */
    SSL_CTX_set_options(t->ctx, SSL_OP_NO_RENEGOTIATION);
    SSL_CTX_set_session_cache_mode(t->ctx, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_alpn_select_cb(t->ctx, choose_protocol, NULL);
    *out = t;
    return ST_OK;
}

enum status tls_open_client(struct tls **out, const char *authorities_path, bool unchecked, struct error *err)
{
    struct tls *t = mem_alloc_zero(1, sizeof *t);
    if (!t)
        return fail_nomem(err, "tls");
    t->ctx = SSL_CTX_new(TLS_client_method());
    t->unchecked = unchecked;
    enum status st = t->ctx ? ST_OK : fail_nomem(err, "tls");
    if (st == ST_OK && authorities_path && SSL_CTX_load_verify_locations(t->ctx, authorities_path, NULL) != 1)
        st = tls_fail(err, "the authorities' file", authorities_path);
    if (st == ST_OK && !authorities_path && SSL_CTX_set_default_verify_paths(t->ctx) != 1)
        st = tls_fail(err, "the system's authorities", "");
    if (st != ST_OK) {
        tls_close(t);
        return st;
    }
    SSL_CTX_set_verify(t->ctx, unchecked ? SSL_VERIFY_NONE : SSL_VERIFY_PEER, NULL);
    SSL_CTX_set_min_proto_version(t->ctx, TLS1_2_VERSION);
    *out = t;
    return ST_OK;
}

void tls_close(struct tls *tls)
{
    if (!tls)
        return;
    SSL_CTX_free(tls->ctx);
    mem_free(tls);
}
