#include "gateway/private.h"

#include "base/clock.h"
#include "base/mem.h"

#include <stdio.h>

/* What beam searches will hold, or hold. */
static size_t beam_bytes(const struct job *j)
{
    size_t n = 0;
    for (int i = 0; j->ask.beam_search && i < j->n_prompt; i++) {
        int n_ctx = model_config(j->bundle->model)->n_ctx;
        int most = j->ask.sampling.max_tokens, n_prompt = (int)j->prompts[i].count, room = n_ctx - n_prompt;
        n += beams_bytes(j->ask.best_of, most > 0 && most < room ? n_prompt + most : n_ctx);
    }
    return n;
}

static size_t job_bytes(const struct job *j)
{
    size_t n = j->body.capacity + j->request.capacity + j->answer.capacity + j->echo.capacity + j->out.capacity +
               j->log.capacity;
    n += embed_bytes(j) + beam_bytes(j);
    for (int i = 0; i < j->n_prompt; i++)
        n += j->prompts[i].capacity * sizeof *j->prompts[i].ids;
    for (int i = 0; i < j->n_choice; i++) {
        const struct choice *c = &j->choices[i];
        n += c->n_inbox + c->outbox.capacity + say_bytes(c) + c->logprobs.capacity + c->tops.capacity +
             c->values.capacity + c->offsets.capacity + c->replay_ids.capacity + c->replay_text.capacity;
    }
    return n;
}

bool job_hold(struct job *j, size_t limit)
{
    return budget_hold(&j->g->memory, &j->held, job_bytes(j), limit);
}

void job_gone(struct job *j)
{
    j->x = NULL;
    if (j->phase == JOB_GENERATE && j->ask.background) {
        generate_pump(j); /* what waited for the client goes on */
    } else if (j->phase == JOB_GENERATE) {
        j->phase = JOB_DONE;
        generate_cancel(j);
    } else if (j->phase == JOB_CONTENT && model_forget(j)) {
        j->phase = JOB_DONE;
    }
    if (j->phase == JOB_DONE && generate_over(j))
        job_free(j);
}

static void on_gone(void *user)
{
    job_gone(user);
}

/* Before anything was written; j->x is NULL after it. */
static void job_refuse(struct job *j, const struct refusal *why)
{
    struct http_exchange *x = j->x;
    j->x = NULL;
    if (j->socket)
        socket_refuse(j->socket, why);
    else
        answer_refusal(j->g, x, why);
}

/* The answer is an error: as a whole, or, once a stream has begun, as its last event. */
void job_fail(struct job *j, const struct refusal *why)
{
    struct http_exchange *x = j->x;
    j->phase = JOB_DONE;
    generate_cancel(j);
    telemetry_http(j->g, j->protocol->path, why->http);
    if (!j->begun && x) {
        job_refuse(j, why);
        return;
    }
    j->why = *why;
    j->x = NULL;
    if (j->begun)
        j->protocol->refuse(j, why);
    if (j->ask.background)
        responses_keep(j, why);
    wire_end(j, x);
}

/* Wherever it is: with a worker, in a queue, waiting for its model, in the engine, or held up by its client. The engine
 * ends its part by itself too, and then within a step. */
static void expire(struct job *j)
{
    struct refusal why;
    refuse(&why, 504, NULL, NULL, "the deadline passed before the answer was complete");
    if (j->phase == JOB_GENERATE) {
        job_fail(j, &why);
    } else { /* a worker may have it, or get it: it ends when it comes back */
        telemetry_http(j->g, j->path, why.http);
        job_refuse(j, &why);
        if (j->phase == JOB_CONTENT && model_forget(j))
            j->phase = JOB_DONE;
    }
}

void jobs_expire(struct gateway *g, uint64_t now_ns)
{
    uint64_t answer_ns = (uint64_t)g->options.answer_ms * 1000000;
    for (struct job *j = g->jobs, *next; answer_ns && j; j = next) {
        next = j->next;
        if (!j->x || now_ns < j->begin_ns + answer_ns)
            continue;
        expire(j);
        if (j->phase == JOB_DONE && generate_over(j))
            job_free(j);
    }
}

static void answer_content(struct job *j)
{
    struct http_exchange *x = j->x;
    j->phase = JOB_DONE;
    telemetry_http(j->g, j->protocol->path, j->why.http ? j->why.http : 200);
    if (j->why.http) {
        job_refuse(j, &j->why);
        return;
    }
    j->x = NULL;
    answer_json(j->g, x, 200, &j->answer);
}

void job_writable(struct job *j)
{
    if (j->phase == JOB_GENERATE)
        generate_pump(j);
    if (j->phase == JOB_DONE && generate_over(j))
        job_free(j);
}

static void on_writable(void *user)
{
    job_writable(user);
}

void job_attach(struct job *j, struct http_exchange *x)
{
    j->x = x;
    x->user = j;
    x->on_gone = on_gone;
    x->on_writable = on_writable;
}

/* Ids tell nothing about other users' requests: a counter under a random key. */
void make_id(struct gateway *g, char *out, size_t size, const char *prefix)
{
    uint64_t n = g->id_next++;
    uint64_t a = str_hash(str_n(&n, sizeof n), g->id_key), b = str_hash(str_n(&n, sizeof n), ~g->id_key);
    snprintf(out, size, "%s%016llx%08llx", prefix ? prefix : "", (unsigned long long)a,
             (unsigned long long)(b & 0xffffffffu));
}

static void start(struct job *j)
{
    make_id(j->g, j->id, sizeof j->id, j->protocol->id_prefix);
    if (j->embed)
        embed_start(j);
    else
        generate_start(j);
}

static void on_task(void *ctx)
{
    struct job *j = ctx;
    if (j->phase == JOB_CONTENT) {
        if (!j->x) /* the client left meanwhile */
            j->phase = JOB_DONE;
        else if (j->why.http || j->answered)
            answer_content(j);
        else
            start(j);
    } else if (j->phase == JOB_GENERATE) {
        generate_pump(j);
    } else if (j->phase == JOB_WRITE) {
        if (j->x)
            answer_content(j);
        j->phase = JOB_DONE;
    }
    if (j->phase == JOB_DONE && generate_over(j))
        job_free(j);
}

void job_start(struct gateway *g, struct http_exchange *x, const struct protocol *protocol)
{
    struct buf body = http_take_body(x);
    job_start_on(g, x, protocol, &body, NULL);
}

void job_start_on(struct gateway *g, struct http_exchange *x, const struct protocol *protocol, struct buf *body,
                  struct socket *socket)
{
    struct refusal why;
    struct job *j = mem_alloc_zero(1, sizeof *j);
    if (!j) {
        buf_free(body);
        refuse(&why, 503, NULL, NULL, "out of memory");
        if (socket)
            socket_refuse(socket, &why);
        else
            answer_refusal(g, x, &why);
        return;
    }
    *j = (struct job){.g = g,
                      .x = x,
                      .protocol = protocol,
                      .wire = protocol->wire,
                      .kind = protocol->kind,
                      .path = protocol->path,
                      .over_socket = socket != NULL};
    j->bundle = g->bundle;
    j->engine = g->engine;
    j->voice = &g->voice;
    j->name = g->bundle->id;
    j->begin_ns = x->begin_ns;
    j->client = x->client;
    request_id(j->request_id, x);
    j->task = (struct loop_task){.fn = on_task, .ctx = j};
    j->body = *body;
    *body = (struct buf){0};
    j->socket = socket;
    if (socket) {
        j->wire = &wire_socket;
        j->begin_ns = clock_ns();
        socket_adopt(socket, j);
    }
    j->created = (int64_t)(clock_wall_ns() / 1000000000);
    job_hold(j, (size_t)BUDGET_NO_LIMIT); /* the connection held it until now */
    arena_init(&j->arena, 0);
    j->arena.budget = &g->memory;
    j->arena.budget_limit = g->memory.max;
    if (!socket)
        job_attach(j, x);
    j->next = g->jobs;
    if (j->next)
        j->next->prev = j;
    g->jobs = j;
    g->n_job++;
    if (!workers_put(g->workers, j)) {
        refuse(&j->why, 503, "server_is_overloaded", NULL, "too many requests wait to be read: try again");
        answer_content(j);
        job_free(j);
    }
}

void job_free(struct job *j)
{
    struct gateway *g = j->g;
    if (j->prev)
        j->prev->next = j->next;
    else
        g->jobs = j->next;
    if (j->next)
        j->next->prev = j->prev;
    g->n_job--;
    grammar_release(j->grammar);
    model_leave(j);
    loop_forget(g->loop, &j->task); /* the engine's last wake may still be queued */
    for (int i = 0; i < j->n_choice; i++) {
        struct choice *c = &j->choices[i];
        struct buf *bufs[] = {&c->inbox,  &c->outbox,  &c->logprobs,   &c->tops,
                              &c->values, &c->offsets, &c->replay_ids, &c->replay_text};
        for (size_t k = 0; k < sizeof bufs / sizeof *bufs; k++)
            buf_free(bufs[k]);
        say_free(c);
    }
    for (int i = 0; i < j->n_prompt; i++)
        ids_free(&j->prompts[i]);
    buf_free(&j->body);
    buf_free(&j->request);
    buf_free(&j->answer);
    buf_free(&j->out);
    buf_free(&j->log);
    buf_free(&j->echo);
    embed_free(j);
    arena_free(&j->arena);
    budget_hold(&g->memory, &j->held, 0, 0);
    mem_free(j);
}
