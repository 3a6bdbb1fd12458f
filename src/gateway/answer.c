/* Whole answers, and errors as each family of routes writes them. */
#include "gateway/private.h"

static const struct {
    const char *prefix;
    refusal_fn *write;
} families[] = {
    {"", openai_write_refusal},
    {"/v1/messages", anthropic_write_refusal},
    {"/api/", ollama_write_refusal},
};

void request_id(char out[REQUEST_ID_MAX], const struct http_exchange *x)
{
    struct str headers = buf_str(&x->headers), mark = STR("\nrequest-id: ");
    size_t at = str_find(headers, mark, 0), n = 0;
    struct str rest = at == SIZE_MAX ? STR("") : str_from(headers, at + mark.len);
    while (n < rest.len && n + 1 < REQUEST_ID_MAX && rest.ptr[n] != '\r')
        n++;
    memcpy(out, rest.ptr, n);
    out[n] = 0;
}

struct str query_get(struct str query, const char *key)
{
    size_t n = strlen(key);
    while (query.len) {
        size_t end = str_find(query, STR("&"), 0);
        struct str one = str_n(query.ptr, end == SIZE_MAX ? query.len : end);
        if (one.len > n && str_starts(one, str_of(key)) && one.ptr[n] == '=')
            return str_from(one, n + 1);
        query = end == SIZE_MAX ? STR("") : str_from(query, end + 1);
    }
    return (struct str){NULL, 0};
}

void answer_refusal(struct gateway *g, struct http_exchange *x, const struct refusal *why)
{
    struct buf body = {0};
    struct str path = http_request(x)->path;
    refusal_fn *write = openai_write_refusal;
    (void)g;
    for (size_t i = 0; i < sizeof families / sizeof *families; i++) /* the last that fits */
        if (path.ptr && str_starts(path, str_of(families[i].prefix)))
            write = families[i].write;
    char id[REQUEST_ID_MAX];
    request_id(id, x);
    int status = write(&body, why, str_of(id));
    if (why->http == 503)
        http1_write_header(&x->headers, "retry-after", STR("1"));
    if (why->http == 401)
        http1_write_header(&x->headers, "www-authenticate", STR("Bearer"));
    http_respond(x, status, "application/json", buf_str(&body));
    buf_free(&body);
}

void answer_body(struct gateway *g, struct http_exchange *x, int status, const char *type, struct buf *body)
{
    struct refusal why;
    if (body->failed) {
        refuse(&why, 503, NULL, NULL, "out of memory");
        answer_refusal(g, x, &why);
        buf_free(body);
    } else {
        http_respond_take(x, status, type, body);
    }
}

void answer_json(struct gateway *g, struct http_exchange *x, int status, struct buf *body)
{
    answer_body(g, x, status, "application/json", body);
}
