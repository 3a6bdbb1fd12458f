/* Responses that were answered, or are being answered: GET, DELETE, cancel. */
#include "gateway/private.h"

static const char prefix[] = "/v1/responses/";

static void not_kept(struct gateway *g, struct http_exchange *x, struct str id)
{
    struct refusal why;
    refuse(&why, 404, "response_not_found", NULL, "no response %.*s is kept here", STR_ARG(id));
    answer_refusal(g, x, &why);
}

void responses_get(struct gateway *g, struct http_exchange *x)
{
    struct str id = str_from(http_request(x)->path, strlen(prefix));
    struct buf body = {0};
    if (store_body(g->store, client_id(x->client), id, &body))
        answer_json(g, x, 200, &body);
    else
        not_kept(g, x, id);
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

/* The phase is looked at first: before it a worker has the job, and may change its protocol.
 * Ends the stream of another connection; that one is told with response.failed, status cancelled. */
static bool cancel(struct gateway *g, const struct client *client, struct str id)
{
    for (struct job *j = g->jobs; j; j = j->next)
        if (j->phase == JOB_GENERATE && j->protocol == &openai_responses && j->client == client && str_is(id, j->id)) {
            j->cancelled = true;
            generate_cancel(j);
            return true;
        }
    return false;
}

void responses_cancel(struct gateway *g, struct http_exchange *x)
{
    struct str id = str_from(http_request(x)->path, strlen(prefix)), end = STR("/cancel");
    struct buf body = {0};
    struct json_writer w;
    struct refusal why;
    if (!str_ends(id, end)) {
        refuse(&why, 404, "unknown_url", NULL, "nothing is served at POST %.*s", STR_ARG(http_request(x)->path));
        answer_refusal(g, x, &why);
        return;
    }
    id.len -= end.len;
    bool cancelled = cancel(g, x->client, id);
    if (!cancelled && !store_body(g->store, client_id(x->client), id, &body)) {
        not_kept(g, x, id);
        return;
    }
    buf_clear(&body);
    if (!cancelled) {
        refuse(&why, 400, "invalid_value", NULL, "the response %.*s is completed already", STR_ARG(id));
        answer_refusal(g, x, &why);
        buf_free(&body);
        return;
    }
    json_writer_init(&w, &body);
    json_begin_object(&w);
    json_put_str(&w, "id", id);
    json_put_str(&w, "object", STR("response"));
    json_put_str(&w, "status", STR("cancelled"));
    json_put_str(&w, "model", str_of(g->bundle->id));
    json_key(&w, "output");
    json_write_raw(&w, STR("[]"));
    json_end_object(&w);
    answer_json(g, x, 200, &body);
}
