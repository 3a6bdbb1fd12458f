/* GET /v1/responses/ID/input_items: what a response was made from, a page at a time.
 *
 * The items are told from the kept conversation: all that the model was given, what previous_response_id stood for
 * included, without the instructions. Their ids are the response's with their number: they stay the same.
 */
#include "gateway/private.h"

#include <stdio.h>

enum { PARSED_MAX = 64 << 20, ITEMS_SHOWN = 20, ITEMS_SHOWN_MAX = 100 };

struct page {
    struct str suffix; /* of ids */
    struct buf *out;   /* the items that are shown, comma separated */
    bool descending, started, more;
    struct str after; /* ptr NULL: from the beginning */
    int left;
    char first[96], last[96];
};

/* ---- one item ---- */

struct item {
    const char *type, *prefix, *part; /* part: of a message's text */
    const struct json *message, *call;
};

static void put_content(struct json_writer *w, const char *part, struct str text)
{
    json_key(w, "content");
    json_begin_array(w);
    json_begin_object(w);
    json_put_str(w, "type", str_of(part));
    json_put_str(w, "text", text);
    if (!strcmp(part, "output_text")) {
        json_key(w, "annotations");
        json_write_raw(w, STR("[]"));
    }
    json_end_object(w);
    json_end_array(w);
}

static void put_item(struct json_writer *w, const struct item *t, const char *id)
{
    const struct json *m = t->message, *function = json_get(t->call, "function");
    json_begin_object(w);
    json_put_str(w, "id", str_of(id));
    json_put_str(w, "type", str_of(t->type));
    json_put_str(w, "status", STR("completed"));
    if (t->call) {
        json_put_str(w, "call_id", json_str(json_get(t->call, "id")));
        json_put_str(w, "name", json_str(json_get(function, "name")));
        json_put_str(w, "arguments", json_str(json_get(function, "arguments")));
    } else if (!t->part) {
        json_put_str(w, "call_id", json_str(json_get(m, "tool_call_id")));
        json_put_str(w, "output", json_str(json_get(m, "content")));
    } else if (!strcmp(t->type, "reasoning")) {
        json_key(w, "summary");
        json_write_raw(w, STR("[]"));
        put_content(w, t->part, json_str(json_get(m, "reasoning_content")));
    } else {
        json_put_str(w, "role", json_str(json_get(m, "role")));
        put_content(w, t->part, json_str(json_get(m, "content")));
    }
    json_end_object(w);
}

/* The k-th of a message's items; false: it has no more. */
static bool item_of(struct item *t, const struct json *m, size_t k)
{
    struct str role = json_str(json_get(m, "role"));
    const struct json *calls = json_get(m, "tool_calls");
    bool reason = json_str(json_get(m, "reasoning_content")).len > 0, assistant = str_is(role, "assistant");
    *t = (struct item){
        .type = "message", .prefix = "msg_", .part = assistant ? "output_text" : "input_text", .message = m};
    if (str_is(role, "tool"))
        *t = (struct item){.type = "function_call_output", .prefix = "fco_", .message = m};
    if (!assistant)
        return k == 0;
    if (reason && k == 0) {
        *t = (struct item){.type = "reasoning", .prefix = "rs_", .part = "reasoning_text", .message = m};
        return true;
    }
    k -= reason;
    if (json_str(json_get(m, "content")).len) {
        if (k == 0)
            return true;
        k--;
    }
    *t = (struct item){.type = "function_call", .prefix = "fc_", .message = m, .call = json_at(calls, k)};
    return t->call != NULL;
}

/* ---- the page ---- */

static void show(struct page *p, const struct item *t, size_t number)
{
    char id[96];
    struct json_writer w;
    snprintf(id, sizeof id, "%s%.*sin%02zx", t->prefix, STR_ARG(p->suffix), number);
    if (!p->started) {
        p->started = str_is(p->after, id);
        return;
    }
    if (!p->left) {
        p->more = true;
        return;
    }
    if (p->out->len)
        buf_append_char(p->out, ',');
    else
        snprintf(p->first, sizeof p->first, "%s", id);
    snprintf(p->last, sizeof p->last, "%s", id);
    json_writer_init(&w, p->out);
    put_item(&w, t, id);
    p->left--;
}

/* Every item in order, into all[] unless that is NULL; returns how many. */
static size_t items_of(struct item *all, const struct json *messages, size_t n_message)
{
    struct item t;
    size_t n = 0;
    JSON_EACH (m, messages) {
        if (!n_message--)
            break; /* the answer */
        for (size_t k = 0; item_of(&t, m, k); k++, n++)
            if (all)
                all[n] = t;
    }
    return n;
}

static bool walk(struct page *p, const struct json *messages, size_t n_message, struct arena *arena)
{
    size_t n = items_of(NULL, messages, n_message);
    struct item *all = arena_alloc_zero(arena, n + 1, sizeof *all);
    if (!all)
        return false;
    items_of(all, messages, n_message);
    for (size_t k = 0; k < n; k++) {
        size_t at = p->descending ? n - 1 - k : k;
        show(p, &all[at], at);
    }
    return true;
}

static bool read_page(struct page *p, const struct http1 *r, struct refusal *why)
{
    struct str order = query_get(r->query, "order"), limit = query_get(r->query, "limit");
    int64_t n = ITEMS_SHOWN;
    p->after = query_get(r->query, "after");
    p->started = !p->after.ptr;
    p->descending = !str_is(order, "asc");
    if (order.ptr && p->descending && !str_is(order, "desc"))
        return refuse(why, 400, "invalid_value", "order", "order: expected asc or desc");
    if (limit.ptr && (!str_to_i64(&n, limit) || n < 1 || n > ITEMS_SHOWN_MAX))
        return refuse(why, 400, "invalid_value", "limit", "limit: expected 1 to %d", ITEMS_SHOWN_MAX);
    p->left = (int)n;
    return true;
}

static void put_page(struct json_writer *w, const struct page *p)
{
    json_begin_object(w);
    json_put_str(w, "object", STR("list"));
    json_key(w, "data");
    json_begin_array(w);
    if (p->out->len)
        json_write_raw(w, buf_str(p->out));
    json_end_array(w);
    json_put_str(w, "first_id", str_of(p->first));
    json_put_str(w, "last_id", str_of(p->last));
    json_put_bool(w, "has_more", p->more);
    json_end_object(w);
}

void responses_items(struct gateway *g, struct http_exchange *x, struct str id)
{
    struct buf talk = {0}, items = {0}, body = {0};
    struct page p = {.out = &items};
    struct json_writer w;
    struct refusal why = {0};
    struct arena arena;
    struct error err;
    const struct json *messages;
    bool answered;
    arena_init(&arena, PARSED_MAX);
    buf_append_char(&talk, '[');
    if (!responses_conversation(g, x->client, id, &talk, &answered))
        responses_not_kept(&why, id);
    else
        p.suffix = str_from(id, strlen(openai_responses.id_prefix));
    buf_append_char(&talk, ']');
    if (!why.http && read_page(&p, http_request(x), &why) &&
        (json_parse(&messages, &arena, buf_str(&talk), 0, &err) != ST_OK ||
         !walk(&p, messages, json_count(messages) - answered, &arena)))
        refuse(&why, 503, NULL, NULL, "out of memory");
    json_writer_init(&w, &body);
    put_page(&w, &p);
    body.failed |= items.failed | talk.failed;
    if (why.http)
        answer_refusal(g, x, &why), buf_free(&body);
    else
        answer_json(g, x, 200, &body);
    buf_free(&talk);
    buf_free(&items);
    arena_free(&arena);
}
