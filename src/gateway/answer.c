/* Whole answers, and errors as each family of routes writes them. */
#include "gateway/private.h"

static const struct {
    const char *prefix;
    refusal_fn *write;
} families[] = {
    {"", openai_write_refusal},
};

void answer_refusal(struct gateway *g, struct http_exchange *x, const struct refusal *why)
{
    struct buf body = {0};
    struct str path = http_request(x)->path;
    refusal_fn *write = openai_write_refusal;
    (void)g;
    for (size_t i = sizeof families / sizeof *families; i-- > 0;)
        if (path.ptr && str_starts(path, str_of(families[i].prefix)))
            write = families[i].write;
    write(&body, why, STR(""));
    if (why->http == 503)
        http1_write_header(&x->headers, "retry-after", STR("1"));
    if (why->http == 401)
        http1_write_header(&x->headers, "www-authenticate", STR("Bearer"));
    http_respond(x, why->http, "application/json", buf_str(&body));
    buf_free(&body);
}

void answer_body(struct gateway *g, struct http_exchange *x, int status, const char *type, struct buf *body)
{
    struct refusal why;
    if (body->failed) {
        refuse(&why, 503, NULL, NULL, "out of memory");
        answer_refusal(g, x, &why);
    } else {
        http_respond(x, status, type, buf_str(body));
    }
    buf_free(body);
}

void answer_json(struct gateway *g, struct http_exchange *x, int status, struct buf *body)
{
    answer_body(g, x, status, "application/json", body);
}
