/* The chat page, embedded at build from web/. */
#include "gateway/private.h"

#include "web_pages_table.h"

struct page {
    const char *path, *type;
    const unsigned char *bytes;
    size_t size;
};
static const struct page pages[] = {
    {"/", "text/html; charset=utf-8", web_index_html, sizeof web_index_html},
    {"/chat.css", "text/css; charset=utf-8", web_chat_css, sizeof web_chat_css},
    {"/chat.js", "text/javascript; charset=utf-8", web_chat_js, sizeof web_chat_js},
};

/* Ollama's own clients look here to see whether a server runs. */
static bool is_ollama(const struct http_exchange *x)
{
    struct str agent = http1_header(http_request(x), "user-agent");
    return agent.len >= 6 && str_eq_nocase(str_n(agent.ptr, 6), STR("ollama"));
}

void page_answer(struct gateway *g, struct http_exchange *x)
{
    struct str path = http_request(x)->path;
    if (str_is(path, "/") && is_ollama(x)) {
        http_respond(x, 200, "text/plain; charset=utf-8", STR("Ollama is running"));
        return;
    }
    const struct page *p = pages;
    (void)g;
    for (size_t i = 0; i < sizeof pages / sizeof *pages; i++)
        if (str_is(path, pages[i].path))
            p = &pages[i];
    /* Nothing from elsewhere is loaded, and nobody frames the page. */
    http1_write_header(&x->headers, "content-security-policy",
                       STR("default-src 'self'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'"));
    http1_write_header(&x->headers, "x-content-type-options", STR("nosniff"));
    http1_write_header(&x->headers, "referrer-policy", STR("no-referrer"));
    http1_write_header(&x->headers, "cache-control", STR("no-cache"));
    http_respond(x, 200, p->type, str_n(p->bytes, p->size));
}
