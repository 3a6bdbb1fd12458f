/* Responses that were answered, or are being answered: GET, DELETE, cancel. */
#include "gateway/private.h"

static const char prefix[] = "/v1/responses/";

bool responses_not_kept(struct refusal *why, struct str id)
{
    return refuse(why, 404, "response_not_found", NULL, "no response %.*s is kept here", STR_ARG(id));
}

static void not_kept(struct gateway *g, struct http_exchange *x, struct str id)
{
    struct refusal why;
    responses_not_kept(&why, id);
    answer_refusal(g, x, &why);
}

void responses_get(struct gateway *g, struct http_exchange *x)
{
    struct str id = str_from(http_request(x)->path, strlen(prefix)), query = http_request(x)->query,
               items = STR("/input_items"), after = query_get(query, "starting_after");
    struct buf body = {0};
    struct json_writer w;
    struct refusal why;
    const struct job *j;
    int64_t number = -1;
    if (str_ends(id, items)) {
        id.len -= items.len;
        responses_items(g, x, id);
    } else if (after.ptr && !str_to_i64(&number, after)) {
        refuse(&why, 400, "invalid_value", "starting_after", "starting_after: expected an event's number");
        answer_refusal(g, x, &why);
    } else if (str_is(query_get(query, "stream"), "true")) {
        responses_follow(g, x, id, number);
    } else if ((j = responses_live(g, x->client, id))) {
        json_writer_init(&w, &body);
        responses_put(&w, j, NULL);
        answer_json(g, x, 200, &body);
    } else if (store_body(g->store, client_id(x->client), id, &body)) {
        answer_json(g, x, 200, &body);
    } else {
        not_kept(g, x, id);
    }
}

void responses_delete(struct gateway *g, struct http_exchange *x)
{
    struct str id = str_from(http_request(x)->path, strlen(prefix));
    struct buf body = {0};
    struct json_writer w;
    json_writer_init(&w, &body);
    json_begin_object(&w);
    json_put_str(&w, "id", id);
    json_put_str(&w, "object", STR("response"));
    json_put_bool(&w, "deleted", true);
    json_end_object(&w);
    if (store_delete(g->store, client_id(x->client), id)) {
        answer_json(g, x, 200, &body);
        return;
    }
    buf_free(&body);
    not_kept(g, x, id);
}

/* Who reads its stream is told with response.failed, status cancelled. */
static void cancel(struct job *j, struct buf *body)
{
    struct refusal why;
    struct json_writer w;
    j->cancelled = true;
    generate_cancel(j);
    refuse(&why, 499, "cancelled", NULL, "the response was cancelled");
    json_writer_init(&w, body);
    responses_put(&w, j, &why);
}

void responses_cancel(struct gateway *g, struct http_exchange *x)
{
    struct str id = str_from(http_request(x)->path, strlen(prefix)), end = STR("/cancel");
    struct buf body = {0};
    struct refusal why;
    if (!str_ends(id, end)) {
        refuse(&why, 404, "unknown_url", NULL, "nothing is served at POST %.*s", STR_ARG(http_request(x)->path));
        answer_refusal(g, x, &why);
        return;
    }
    id.len -= end.len;
    struct job *j = responses_live(g, x->client, id);
    if (j) {
        cancel(j, &body);
        answer_json(g, x, 200, &body);
    } else if (store_has(g->store, client_id(x->client), id)) {
        refuse(&why, 400, "invalid_value", NULL, "the response %.*s is completed already", STR_ARG(id));
        answer_refusal(g, x, &why);
    } else {
        not_kept(g, x, id);
    }
}
