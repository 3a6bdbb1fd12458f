/* From tokenized prompts to a written answer.
 *
 * Invariants
 * 1. The engine thread touches a choice only inside its callbacks and under g->mail_lock, wakes the loop under it too,
 *    and never touches it after `finished` is set: then the loop may free the job.
 * 2. Mail is written in order, by the loop alone. A stream is paused, its mail left where it is, while more than
 *    STREAM_QUEUE_MAX bytes wait for the client; a mailbox over MAIL_MAX drops the client, who is far too slow.
 * 3. An exchange is answered once: whoever answers sets j->x to NULL and the phase to JOB_DONE.
 */
#include "gateway/private.h"

#include "base/clock.h"

#include <stdio.h>
#include <stdlib.h>

enum { MAIL_MAX = 1 << 20, PING_MS = 10000 };

/* ---- engine thread ---- */

static void on_token(void *ctx, const struct token_event *e)
{
    struct choice *c = ctx;
    struct gateway *g = c->job->g;
    struct mail m = {e->id, e->logprob, (uint32_t)e->text.len, (uint32_t)e->n_top, e->is_prompt};
    if (e->id >= 0 && !e->is_prompt)
        telemetry_token(g, c, clock_ns());
    pthread_mutex_lock(&g->mail_lock);
    if (c->inbox.len > MAIL_MAX || c->inbox.failed) {
        c->overflowed = true;
    } else {
        buf_append(&c->inbox, &m, sizeof m);
        buf_append_str(&c->inbox, e->text);
        buf_append(&c->inbox, e->top, (size_t)e->n_top * sizeof *e->top);
        c->overflowed |= c->inbox.failed;
    }
    loop_wake(g->loop, &c->job->task);
    pthread_mutex_unlock(&g->mail_lock);
}

static void on_finish(void *ctx, const struct finish_event *e)
{
    struct choice *c = ctx;
    struct gateway *g = c->job->g;
    c->end = *e;
    snprintf(c->end_message, sizeof c->end_message, "%s", e->message ? e->message : "the engine stopped");
    telemetry_finish(g, c, clock_ns());
    pthread_mutex_lock(&g->mail_lock);
    c->finished = true;
    loop_wake(g->loop, &c->job->task);
    pthread_mutex_unlock(&g->mail_lock);
}

/* ---- loop thread ---- */

static bool is_finished(const struct choice *c)
{
    pthread_mutex_t *lock = &c->job->g->mail_lock;
    pthread_mutex_lock(lock);
    bool finished = c->finished;
    pthread_mutex_unlock(lock);
    return finished;
}

bool generate_over(struct job *j)
{
    if (j->embed)
        return embed_over(j);
    for (int i = 0; i < j->n_submitted; i++)
        if (!is_finished(&j->choices[i]))
            return false;
    return true;
}

void generate_cancel(struct job *j)
{
    if (j->embed)
        embed_cancel(j);
    for (int i = 0; i < j->n_submitted; i++)
        if (!is_finished(&j->choices[i]))
            engine_cancel(j->engine, j->choices[i].request.id);
}

static void add_timing(struct job *j)
{
    char ms[32];
    if (j->socket)
        return; /* its headers are long gone */
    snprintf(ms, sizeof ms, "%llu", (unsigned long long)((clock_ns() - j->begin_ns) / 1000000));
    http1_write_header(&j->x->headers, "openai-processing-ms", str_of(ms));
    if (j->fingerprint[0])
        http1_write_header(&j->x->headers, "ingot-fingerprint", str_of(j->fingerprint));
}

/* The prompt's text, as a stream's first event; with logprobs that waits until the prompt's are all there. */
static void send_echo(struct job *j, struct choice *c)
{
    if (!j->ask.echo || !j->ask.stream || c->said_echo)
        return;
    c->said_echo = true;
    say(j, c, BLOCK_TEXT, job_echo(j, c));
}

static void begin_stream(struct job *j)
{
    add_timing(j);
    wire_begin(j);
    if (j->protocol->begin)
        j->protocol->begin(j);
    for (int i = 0; i < j->n_choice; i++) {
        if (j->protocol->begin_choice)
            j->protocol->begin_choice(j, &j->choices[i]);
        if (j->ask.sampling.n_logprobs < 0)
            send_echo(j, &j->choices[i]);
    }
    wire_flush(j);
}

/* On the wire and in the file of keys, smaller goes first; in the engine, larger. */
static int priority_of(const struct job *j)
{
    int64_t client = j->client ? __atomic_load_n(&j->client->priority, __ATOMIC_RELAXED) : 0;
    int64_t sum = -(client + j->ask.priority);
    return sum > INT32_MAX ? INT32_MAX : sum < -INT32_MAX ? -INT32_MAX : (int)sum;
}

static void fill_request(struct job *j, struct choice *c, int n_ctx)
{
    const struct ids *prompt = &j->prompts[c->prompt];
    int room = n_ctx - (int)prompt->count;
    uint64_t answer_ms = (uint64_t)j->g->options.answer_ms;
    struct request *r = &c->request;
    *r = (struct request){.prompt = prompt->ids,
                          .n_prompt = (int)prompt->count,
                          .sampling = j->ask.sampling,
                          .n_stop = j->ask.n_stop,
                          .shown = j->voice->shown,
                          .n_shown = c->speech ? j->voice->n_shown : 0,
                          .choice = c->index % ask_candidates(&j->ask),
                          .grammar = j->grammar,
                          .lora = j->lease.lora,
                          .echo_logprobs =
                              j->ask.echo && (j->ask.sampling.n_logprobs >= 0 || j->ask.sampling.max_tokens < 0),
                          .priority = priority_of(j),
                          .tenant = client_id(j->client),
                          .cache_salt = j->ask.cache_salt,
                          .deadline_ns = answer_ms ? j->begin_ns + answer_ms * 1000000 : 0,
                          .ctx = c,
                          .on_token = on_token,
                          .on_finish = on_finish};
    memcpy(r->stops, j->ask.stops, sizeof r->stops);
    if (r->sampling.max_tokens > room)
        r->sampling.max_tokens = room;
    if (ask_candidates(&j->ask) > j->ask.n && r->sampling.n_logprobs < 0)
        r->sampling.n_logprobs = 0; /* by which the best are found */
}

/* Choice i; by beam search the first of a prompt brings the others with it. */
static enum status submit(struct job *j, int i, struct error *err)
{
    const struct ask *a = &j->ask;
    if (!a->beam_search)
        return engine_submit(j->engine, &j->choices[i].request, err);
    if (i % a->n)
        return ST_OK;
    struct request *requests[ASK_CHOICES_MAX];
    for (int k = 0; k < a->n; k++)
        requests[k] = &j->choices[i + k].request;
    const struct beam_options how = {a->best_of, (double)a->length_penalty, a->early_stopping};
    return engine_submit_beams(j->engine, requests, a->n, &how, err);
}

static bool submit_all(struct job *j, struct refusal *why)
{
    struct error err;
    for (int i = 0; i < j->n_choice; i++, j->n_submitted++) {
        enum status st = submit(j, i, &err);
        if (st == ST_LIMIT || st == ST_CANCELED)
            return refuse(why, 503, "server_is_overloaded", NULL, "%s", err.text);
        if (st != ST_OK)
            return refuse_status(why, &err, NULL);
    }
    return true;
}

void generate_start(struct job *j)
{
    struct refusal why;
    struct engine_stats s;
    engine_stats(j->engine, &s);
    j->phase = JOB_GENERATE;
    int each = ask_candidates(&j->ask);
    j->choices = arena_alloc_zero(&j->arena, (size_t)j->n_prompt * (size_t)each, sizeof *j->choices);
    if (!j->choices) {
        refuse(&why, 503, NULL, NULL, "out of memory");
        job_fail(j, &why);
        return;
    }
    j->n_choice = j->n_answer = j->n_prompt * each;
    for (int i = 0; i < j->n_choice; i++) {
        j->choices[i].job = j;
        j->choices[i].index = i;
        j->choices[i].prompt = i / each;
        if (j->ask.echo && !j->ask.stream) /* now: an answer that ends at once brings no token */
            say(j, &j->choices[i], BLOCK_TEXT, job_echo(j, &j->choices[i]));
        if (j->ask.echo && j->ask.sampling.n_logprobs >= 0)
            j->choices[i].n_char = text_chars(job_echo(j, &j->choices[i]));
        say_begin(j, &j->choices[i]);
        fill_request(j, &j->choices[i], s.n_ctx);
    }
    if (!submit_all(j, &why)) {
        job_fail(j, &why);
        return;
    }
    if (j->ask.stream)
        begin_stream(j);
    else if (j->ask.background)
        responses_detach(j);
}

/* Moves new mail into the outbox when that is empty; true when nothing will come after what is there. */
static bool take_mail(struct choice *c, bool *overflowed, bool *piled)
{
    pthread_mutex_lock(&c->job->g->mail_lock);
    if (c->at == c->outbox.len) {
        struct buf empty = c->outbox;
        buf_clear(&empty);
        c->outbox = c->inbox;
        c->inbox = empty;
        c->at = 0;
    }
    bool last = c->finished && c->inbox.len == 0;
    *overflowed = c->overflowed;
    *piled = c->inbox.len > MAIL_MAX / 2;
    c->n_inbox = c->inbox.capacity;
    pthread_mutex_unlock(&c->job->g->mail_lock);
    return last;
}

static void write_next(struct job *j, struct choice *c)
{
    struct mail m;
    struct candidate top[REQUEST_LOGPROBS_MAX];
    const char *at = c->outbox.ptr + c->at;
    memcpy(&m, at, sizeof m); /* our own records, but not aligned */
    struct str text = {at + sizeof m, m.n_text};
    if (m.n_top > REQUEST_LOGPROBS_MAX)
        m.n_top = REQUEST_LOGPROBS_MAX;
    memcpy(top, text.ptr + text.len, m.n_top * sizeof *top);
    c->at += sizeof m + m.n_text + m.n_top * sizeof *top;
    bool logprobs = j->ask.sampling.n_logprobs >= 0;
    if (j->ask.return_replay && !m.is_prompt)
        replay_keep(c, m.id, text);
    if (!m.is_prompt)
        send_echo(j, c);
    if (logprobs)
        logprobs_keep(j, c, &m, text, top);
    if (m.is_prompt)
        return;
    if (text.len > 0)
        say_words(j, c, text);
    if (c->logprobs.len && j->ask.stream)
        j->protocol->delta(j, c, NULL, STR(""));
}

/* Writes what choice c has; stops when the client must be waited for. */
static void pump_choice(struct job *j, struct choice *c)
{
    bool last = false, overflowed = false, piled = false;
    for (;;) {
        last = take_mail(c, &overflowed, &piled);
        if (overflowed) {
            if (j->ask.stream && j->x)
                http_stream_break(j->x); /* on_gone cancels */
            else
                c->failed = true;
            return;
        }
        if (c->at == c->outbox.len)
            break;
        while (c->at < c->outbox.len) {
            if (j->ask.stream && wire_full(j)) {
                if (piled && j->ask.background)
                    http_stream_break(j->x); /* the answer goes on; who reads too slowly may come back for the rest */
                return;
            }
            write_next(j, c);
        }
    }
    if (!last || c->said_end)
        return;
    c->said_end = true;
    if (c->enough && c->end.finish == FINISH_CANCELED)
        c->end.finish = FINISH_STOP; /* by us */
    if (c->end.finish == FINISH_ERROR || c->end.finish == FINISH_CANCELED)
        return;
    send_echo(j, c);
    say_end(j, c);
    if (j->ask.stream && j->protocol->end_choice)
        j->protocol->end_choice(j, c);
}

static bool failed_choice(struct job *j, struct refusal *why)
{
    for (int i = 0; i < j->n_choice; i++) {
        struct choice *c = &j->choices[i];
        if (j->outgrown)
            return !refuse(why, 503, "server_is_overloaded", NULL,
                           "the memory for requests is full: try again, with a smaller n or max_tokens, or stream");
        if (c->failed)
            return !refuse(why, 503, NULL, NULL, "out of memory");
        if (c->said_end && c->end.finish == FINISH_CANCELED)
            return !refuse(why, j->cancelled ? 499 : 503, j->cancelled ? "cancelled" : "server_is_overloaded", NULL,
                           j->cancelled ? "the response was cancelled" : "the server is stopping");
        if (c->said_end && c->end.finish == FINISH_ERROR) {
            int http = status_row(c->end.status)->http;
            http = c->end.status == ST_LIMIT ? 400 : http >= 400 ? http : 500; /* a bound on a grammar's work */
            return !refuse(why, http, NULL, NULL, "%s", c->end_message);
        }
    }
    return false;
}

static double mean_logprob(const struct choice *c)
{
    return c->end.n_output ? c->end.logprob / c->end.n_output : 0;
}

static int by_likelihood(const void *x, const void *y) /* equals in the order they were drawn */
{
    const struct choice *a = x, *b = y;
    double p = mean_logprob(a), q = mean_logprob(b);
    return p != q ? (p < q) - (p > q) : (a->index > b->index) - (a->index < b->index);
}

/* best_of: each prompt's n likeliest candidates, by a token's mean log-probability, come to the front. The engine has
 * finished with all of them, so that they may be moved. */
static void choose_best(struct job *j)
{
    int each = ask_candidates(&j->ask), n = j->ask.n;
    if (each == n)
        return;
    for (int i = 0; i < j->n_prompt; i++) {
        qsort(j->choices + i * each, (size_t)each, sizeof *j->choices, by_likelihood);
        for (int k = 0; k < n; k++) {
            struct choice *to = &j->choices[i * n + k], *from = &j->choices[i * each + k], swap = *to;
            *to = *from;
            *from = swap;
        }
    }
    j->n_answer = j->n_prompt * n;
    for (int i = 0; i < j->n_answer; i++)
        j->choices[i].index = i;
}

static void end_answered(struct job *j)
{
    struct http_exchange *x = j->x;
    struct buf out = {0};
    telemetry_http(j->g, j->protocol->path, 200);
    if (j->ask.stream) {
        j->protocol->end(j);
    } else {
        choose_best(j);
        j->protocol->answer(j, &out);
        if (x)
            add_timing(j);
    }
    j->x = NULL;
    j->phase = JOB_DONE;
    if (j->ask.stream)
        wire_end(j, x);
    else if (x)
        answer_json(j->g, x, 200, &out);
    else
        buf_free(&out);
}

void generate_pump(struct job *j)
{
    if (j->embed) {
        embed_pump(j);
        return;
    }
    struct refusal why;
    bool all_said = true;
    for (int i = 0; i < j->n_choice; i++) {
        pump_choice(j, &j->choices[i]);
        all_said &= j->choices[i].said_end;
    }
    j->outgrown = !job_hold(j, j->g->memory.max);
    if (failed_choice(j, &why))
        job_fail(j, &why);
    else if (all_said)
        end_answered(j);
    else if (j->ask.stream)
        wire_flush(j);
}

/* Proxies and clients give up on silent streams. */
void generate_ping(struct job *j, uint64_t now_ns)
{
    if (j->phase != JOB_GENERATE || !j->ask.stream || !j->x || now_ns < j->write_ns + (uint64_t)PING_MS * 1000000)
        return;
    if (!wire_full(j)) {
        if (j->protocol->ping)
            j->protocol->ping(j);
        else if (j->wire->ping)
            buf_append(&j->out, j->wire->ping, j->wire->n_ping);
        wire_flush(j);
    }
    j->write_ns = now_ns;
}
