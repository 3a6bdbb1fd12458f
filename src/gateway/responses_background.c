/* Responses that go on without a client ("background": true), and those who look at them.
 *
 *   POST  answered at once with the response in progress; or streamed, for as long as the client stays
 *   GET   the response so far; with stream=true its events behind starting_after, and then those that come
 *   end   kept as every response is, whatever it ended with; its events, too
 *
 * One connection at a time follows a stream. Everything here runs on the loop.
 */
#include "gateway/private.h"

struct job *responses_live(struct gateway *g, const struct client *client, struct str id)
{
    for (struct job *j = g->jobs; j; j = j->next) /* before this phase a worker has the job */
        if (j->phase == JOB_GENERATE && j->protocol == &openai_responses && j->client == client && str_is(id, j->id))
            return j;
    return NULL;
}

bool responses_conversation(struct gateway *g, const struct client *client, struct str id, struct buf *out,
                            bool *answered)
{
    const struct job *j = responses_live(g, client, id);
    *answered = !j;
    if (!j)
        return store_conversation(g->store, client_id(client), id, out);
    buf_append_str(out, j->ask.conversation);
    return true;
}

void responses_detach(struct job *j)
{
    struct http_exchange *x = j->x;
    struct buf body = {0};
    struct json_writer w;
    json_writer_init(&w, &body);
    responses_put(&w, j, NULL);
    j->x = NULL;
    answer_json(j->g, x, 200, &body);
}

/* The log behind the event of that number: they are numbered from 0, and end in an empty line. */
static struct str events_after(struct str log, int64_t number)
{
    for (size_t at; number >= 0 && log.len; number--) {
        at = str_find(log, STR("\n\n"), 0);
        log = at == SIZE_MAX ? STR("") : str_from(log, at + 2);
    }
    return log;
}

static void send_kept(struct http_exchange *x, struct str events)
{
    http1_write_header(&x->headers, "cache-control", STR("no-cache"));
    http_stream_begin(x, 200, wire_sse.content_type);
    http_stream_write(x, events);
    http_stream_end(x);
}

void responses_follow(struct gateway *g, struct http_exchange *x, struct str id, int64_t after)
{
    struct job *j = responses_live(g, x->client, id);
    bool streams = j && j->ask.background && j->ask.stream;
    struct buf log = {0};
    struct refusal why;
    if (streams && !j->x) {
        job_attach(j, x);
        wire_begin(j);
        http_stream_write(x, events_after(buf_str(&j->log), after));
        return;
    }
    if (!j && store_events(g->store, client_id(x->client), id, &log)) {
        send_kept(x, events_after(buf_str(&log), after));
        buf_free(&log);
        return;
    }
    if (streams)
        refuse(&why, 409, "conflict", NULL, "the events of %.*s are being read by another connection", STR_ARG(id));
    else if (j || store_has(g->store, client_id(x->client), id))
        refuse(&why, 400, "invalid_value", "stream",
               "stream: %.*s was not made with \"background\": true and \"stream\": true", STR_ARG(id));
    else
        responses_not_kept(&why, id);
    answer_refusal(g, x, &why);
}
