/* Invariants
 * 1. A wire has a fetch (and waits for its answer), or lies in `idle`, or is about to be closed.
 * 2. on_end is called with the fetch detached: it may start another, also on the same wire.
 * 3. While `feeding`, a wire is not freed: cancel only marks it.
 * 4. f->client is set from start until on_end begins or cancel.
 *
 *   dial -> BUSY --whole answer, keep-alive--> idle -> BUSY ...
 *              \--end, fault, cancel--> closed
 */
#include "net/http_client.h"

#include "base/mem.h"

enum { HEAD_MAX = 64 << 10 };

struct wire {
    struct http_client *client;
    struct conn *conn;
    struct http1 in;
    struct http_fetch *fetch;
    struct wire *prev, *next, *idle_next;
    bool used_before, feeding, closing;
};
struct http_client {
    struct loop *loop;
    struct peer to;
    struct wire *all, *idle;
    int n_wire;
    struct http_fetch *failed; /* could not even dial: told by the task, not inside http_fetch_start */
    struct loop_task tell;
};

static void wire_free(struct wire *w)
{
    struct http_client *cl = w->client;
    for (struct wire **at = &cl->idle; *at; at = &(*at)->idle_next)
        if (*at == w) {
            *at = w->idle_next;
            break;
        }
    *(w->prev ? &w->prev->next : &cl->all) = w->next;
    if (w->next)
        w->next->prev = w->prev;
    cl->n_wire--;
    conn_close(w->conn);
    http1_free(&w->in);
    mem_free(w);
}

static void end_fetch(struct wire *w, enum fetch_end end)
{
    struct http_fetch *f = w->fetch;
    w->fetch = NULL;
    f->wire = NULL;
    f->client = NULL;
    f->answer = w->in.status ? &w->in : NULL;
    f->on_end(f, end);
}

static void put_idle(struct wire *w)
{
    w->used_before = true;
    w->idle_next = w->client->idle;
    w->client->idle = w;
}

static void finish_answer(struct wire *w)
{
    struct http1 head = w->in; /* the wire may get its next request inside on_end; the head's bytes stay ours */
    struct http_fetch *f = w->fetch;
    bool keep = head.keep_alive && head.framing != HTTP1_UNTIL_CLOSE && conn_input_total(w->conn) == 0;
    w->fetch = NULL;
    f->wire = NULL;
    f->client = NULL;
    f->answer = &head;
    http1_init(&w->in, HTTP1_RESPONSE, &head.limits);
    w->closing = !keep;
    if (keep)
        put_idle(w);
    f->on_end(f, FETCH_DONE);
    http1_free(&head);
}

/* Hands on what the parser has; false when the wire has nothing more to do here. */
static bool advance(struct wire *w)
{
    if (w->in.state == HTTP1_HEAD_DONE)
        http1_feed(&w->in, "", 0);
    if (w->in.state == HTTP1_DONE && w->in.status / 100 == 1) { /* 100 Continue comes before the answer */
        http1_reset(&w->in);
        return true;
    }
    if (w->in.body.len) {
        w->fetch->answer = &w->in;
        w->fetch->on_body(w->fetch, buf_str(&w->in.body));
        buf_clear(&w->in.body);
    }
    if (!w->fetch || w->closing)
        return false;
    if (w->in.state == HTTP1_DONE) {
        finish_answer(w);
        return false;
    }
    if (w->in.state == HTTP1_BAD) {
        w->closing = true;
        end_fetch(w, FETCH_BAD);
        return false;
    }
    return true;
}

static void on_data(void *ctx)
{
    struct wire *w = ctx;
    w->feeding = true;
    if (!w->fetch)
        w->closing = true; /* an answer to nothing */
    while (!w->closing && w->fetch) {
        struct str input = conn_input(w->conn);
        if (!input.len)
            break;
        size_t used = http1_feed(&w->in, input.ptr, input.len);
        conn_consume(w->conn, used);
        if (!advance(w))
            break;
    }
    w->feeding = false;
    if (w->closing)
        wire_free(w);
}

static void on_drained(void *ctx)
{
    (void)ctx;
}

static void on_wire_end(void *ctx, bool clean)
{
    struct wire *w = ctx;
    struct http_fetch *f = w->fetch;
    bool open = conn_is_open(w->conn), nothing = !http1_started(&w->in);
    w->feeding = true; /* callbacks may cancel */
    w->closing = true;
    if (f && clean)
        http1_end(&w->in);
    if (f && open && nothing && w->used_before && !f->again) {
        struct http_client *cl = w->client;
        w->fetch = NULL;
        f->wire = NULL;
        f->again = true;
        wire_free(w);
        http_fetch_start(cl, f);
        return;
    }
    if (f)
        end_fetch(w, w->in.state == HTTP1_DONE ? FETCH_DONE : open ? FETCH_CUT : FETCH_NO_CONNECT);
    wire_free(w);
}

static struct wire *wire_open(struct http_client *cl)
{
    static const struct conn_handler handler = {on_data, on_drained, on_wire_end};
    struct error err;
    struct wire *w = mem_alloc_zero(1, sizeof *w);
    if (!w || conn_dial(&w->conn, cl->loop, &cl->to, &err) != ST_OK) {
        mem_free(w);
        return NULL;
    }
    w->client = cl;
    http1_init(&w->in, HTTP1_RESPONSE, &(struct http1_limits){HEAD_MAX, SIZE_MAX / 2});
    w->next = cl->all;
    if (w->next)
        w->next->prev = w;
    cl->all = w;
    cl->n_wire++;
    conn_set_handler(w->conn, &handler, w);
    return w;
}

static void tell_failed(void *ctx)
{
    struct http_client *cl = ctx;
    struct http_fetch *f = cl->failed;
    if (!f)
        return;
    cl->failed = f->next;
    if (cl->failed)
        loop_wake(cl->loop, &cl->tell);
    f->client = NULL;
    f->on_end(f, FETCH_NO_CONNECT);
}

void http_fetch_start(struct http_client *cl, struct http_fetch *f)
{
    struct wire *w = cl->idle;
    if (w && !f->again)
        cl->idle = w->idle_next;
    else
        w = wire_open(cl);
    f->client = cl;
    f->wire = w;
    f->answer = NULL;
    if (!w) {
        f->next = cl->failed;
        cl->failed = f;
        loop_wake(cl->loop, &cl->tell);
        return;
    }
    http1_reset(&w->in);
    w->fetch = f;
    conn_send(w->conn, f->request);
}

void http_fetch_cancel(struct http_fetch *f)
{
    struct wire *w = f->wire;
    struct http_client *cl = f->client;
    f->client = NULL;
    for (struct http_fetch **at = w || !cl ? NULL : &cl->failed; at && *at; at = &(*at)->next)
        if (*at == f) {
            *at = f->next;
            break;
        }
    if (!w)
        return;
    w->fetch = NULL;
    f->wire = NULL;
    w->closing = true;
    if (!w->feeding)
        wire_free(w);
}

enum status http_client_open(struct http_client **out, struct loop *loop, const struct peer *to, struct error *err)
{
    struct http_client *cl = mem_alloc_zero(1, sizeof *cl);
    if (!cl)
        return fail_nomem(err, "http client");
    *cl = (struct http_client){.loop = loop, .to = *to, .tell = {.fn = tell_failed, .ctx = cl}};
    *out = cl;
    return ST_OK;
}

void http_client_close(struct http_client *cl)
{
    if (!cl)
        return;
    while (cl->all)
        wire_free(cl->all);
    loop_forget(cl->loop, &cl->tell);
    mem_free(cl);
}

int http_client_connections(const struct http_client *cl)
{
    return cl->n_wire;
}

void http_request_write(struct buf *out, const char *method, const char *path, const char *host, const char *headers,
                        struct str body)
{
    buf_printf(out, "%s %s HTTP/1.1\r\nhost: %s\r\naccept: */*\r\n%s", method, path, host, headers);
    if (body.len)
        buf_printf(out, "content-type: application/json\r\ncontent-length: %zu\r\n", body.len);
    buf_append_str(out, STR("\r\n"));
    buf_append_str(out, body);
}
