/* One run. The loop's timer sends what is due; answers arrive as events; ten times a second somebody looks at
 * deadlines.
 *
 *   item -> FLYING --whole answer, error, deadline--> sample filled -> in a closed loop, the next item
 */
#include "load/load_private.h"

#include "base/clock.h"
#include "base/mem.h"
#include "net/sse_reader.h"

#include <math.h>
#include <stdio.h>

enum { TICK_MS = 100, BINS_MAX = 10 * 24 * 3600 * 10 };

struct runner;
struct flight {
    struct runner *r;
    struct load_sample *sample;
    struct http_fetch fetch;
    struct sse_reader events;
    struct buf request, complaint;
    struct flight *prev, *next;
    uint64_t due_ns;    /* its deadline */
    double now;         /* when the bytes in hand came */
    int chunks, failed; /* failed: an outcome that is known before the end */
    bool finished;      /* the stream has said its last word */
};
struct runner {
    struct load *load;
    const struct load_plan *plan;
    struct load_result *out;
    struct loop *loop;
    struct http_client *client;
    struct loop_timer *timer;
    struct arena arena;
    uint64_t begin_ns, salt;
    char path[300];
    size_t next, n_ended;
    int n_live;
    struct flight *live, *ready; /* ready: the next one, already written */
    bool stopping, out_of_memory;
};

static double now_s(const struct runner *r)
{
    return (double)(clock_ns() - r->begin_ns) * 1e-9;
}

/* ---- the end of a request ---- */

static void flight_free(struct flight *f)
{
    sse_reader_free(&f->events);
    buf_free(&f->request);
    buf_free(&f->complaint);
    mem_free(f);
}

static void send_due(struct runner *r);

static void stop_when_done(struct runner *r)
{
    if (r->n_live == 0 && (r->stopping || r->next == r->plan->n))
        loop_stop(r->loop);
}

static void complain(struct runner *r, const struct flight *f)
{
    struct str s = str_trim(buf_str(&f->complaint));
    if (!r->out->complaint[0] && s.len)
        snprintf(r->out->complaint, sizeof r->out->complaint, "%.*s", STR_ARG(s));
}

static void land(struct flight *f, int outcome)
{
    struct runner *r = f->r;
    f->sample->outcome = outcome;
    f->sample->end = now_s(r);
    if (f->sample->n_out == 0)
        f->sample->n_out = f->chunks;
    *(f->prev ? &f->prev->next : &r->live) = f->next;
    if (f->next)
        f->next->prev = f->prev;
    r->n_live--;
    r->n_ended++;
    complain(r, f);
    flight_free(f);
    if (r->plan->clients && r->plan->duration_s > 0 && now_s(r) >= r->plan->duration_s)
        r->stopping = true;
    if (r->plan->clients && !r->stopping)
        send_due(r);
    stop_when_done(r);
}

/* ---- events ---- */

static bool has_text(const struct json *v)
{
    return json_str(v).len > 0;
}

static bool holds_token(const struct json *choice)
{
    const struct json *delta = json_get(choice, "delta");
    if (!delta)
        return has_text(json_get(choice, "text"));
    return has_text(json_get(delta, "content")) || has_text(json_get(delta, "reasoning_content")) ||
           has_text(json_get(delta, "reasoning")) || json_count(json_get(delta, "tool_calls")) > 0;
}

static void count_token(struct flight *f)
{
    struct runner *r = f->r;
    struct load_result *out = r->out;
    struct load_sample *s = f->sample;
    size_t bin = f->now > 0 ? (size_t)(f->now * 10) : 0;
    if (f->chunks++ == 0) {
        s->first = f->now;
    } else {
        float gap = (float)(f->now - s->last);
        s->longest_gap = gap > s->longest_gap ? gap : s->longest_gap;
        if (MEM_GROW(out->gaps, out->gap_capacity, out->n_gap))
            out->gaps[out->n_gap++] = gap;
        else
            r->out_of_memory = true;
    }
    s->last = f->now;
    while (out->n_bin <= bin && bin < BINS_MAX) {
        if (!MEM_GROW(out->bins, out->bin_capacity, out->n_bin)) {
            r->out_of_memory = true;
            return;
        }
        out->bins[out->n_bin++] = 0;
    }
    if (bin < out->n_bin)
        out->bins[bin]++;
}

static bool on_event(void *ctx, struct str data)
{
    struct flight *f = ctx;
    const struct json *doc;
    if (str_is(data, "[DONE]")) {
        f->finished = true;
        return true;
    }
    arena_reset(&f->r->arena);
    if (json_parse(&doc, &f->r->arena, data, 0, NULL) != ST_OK || !json_is(doc, JSON_OBJECT)) {
        f->failed = LOAD_MALFORMED;
        buf_append_str(&f->complaint, data);
        return false;
    }
    if (json_type(json_get(doc, "error")) != JSON_NULL) {
        f->failed = LOAD_ERROR_EVENT;
        buf_append_str(&f->complaint, data);
        return true;
    }
    const struct json *usage = json_get(doc, "usage"), *choice = json_at(json_get(doc, "choices"), 0);
    if (json_is(usage, JSON_OBJECT)) {
        f->sample->n_in = (int)json_int(json_get(usage, "prompt_tokens"), f->sample->n_in);
        f->sample->n_out = (int)json_int(json_get(usage, "completion_tokens"), f->sample->n_out);
    }
    if (choice && holds_token(choice))
        count_token(f);
    f->finished |= json_is(json_get(choice, "finish_reason"), JSON_STRING);
    return true;
}

static void on_body(struct http_fetch *fetch, struct str bytes)
{
    struct flight *f = fetch->user;
    f->now = now_s(f->r);
    if (fetch->answer->status != 200) {
        if (f->complaint.len < 400)
            buf_append(&f->complaint, bytes.ptr, bytes.len < 400 ? bytes.len : 400);
        return;
    }
    if (sse_read(&f->events, bytes, on_event, f))
        return;
    http_fetch_cancel(fetch);
    land(f, f->failed ? f->failed : LOAD_MALFORMED);
}

static void on_end(struct http_fetch *fetch, enum fetch_end end)
{
    struct flight *f = fetch->user;
    int status = fetch->answer ? fetch->answer->status : 0;
    int outcome = end == FETCH_NO_CONNECT                           ? LOAD_NO_CONNECT
                  : end == FETCH_BAD                                ? LOAD_MALFORMED
                  : status && status != 200                         ? status
                  : f->failed                                       ? f->failed
                  : f->finished && f->chunks                        ? LOAD_OK
                  : end == FETCH_CUT || (f->chunks && !f->finished) ? LOAD_CUT
                  : sse_inside_event(&f->events) && !f->finished    ? LOAD_MALFORMED
                                                                    : LOAD_EMPTY;
    land(f, outcome);
}

/* ---- sending ---- */

static struct flight *flight_make(struct runner *r, size_t index)
{
    const struct load_item *item = &r->plan->items[index];
    struct load *l = r->load;
    struct flight *f = mem_alloc_zero(1, sizeof *f);
    struct buf prompt = {0}, body = {0};
    if (!f)
        return NULL;
    words_prompt(&l->words, &prompt, item, r->salt + index);
    load_body_write(l, &body, buf_str(&prompt), item->n_out, true);
    http_request_write(&f->request, "POST", r->path, l->authority, l->headers, buf_str(&body));
    bool good = !prompt.failed && !body.failed && !f->request.failed;
    buf_free(&prompt);
    buf_free(&body);
    if (!good) {
        flight_free(f);
        return NULL;
    }
    f->r = r;
    f->sample = &r->out->samples[index];
    f->sample->n_in = item->n_in;
    f->fetch = (struct http_fetch){.request = buf_str(&f->request), .on_body = on_body, .on_end = on_end, .user = f};
    return f;
}

static void launch(struct runner *r)
{
    struct flight *f = r->ready ? r->ready : flight_make(r, r->next);
    struct load_sample *s = &r->out->samples[r->next];
    double at = r->plan->items[r->next].at_s;
    r->ready = NULL;
    r->next++;
    if (!f) {
        r->out_of_memory = r->stopping = true;
        return;
    }
    s->sent = now_s(r);
    s->intended = r->plan->clients ? s->sent : at;
    f->due_ns = clock_ns() + (uint64_t)r->load->target.timeout_ms * 1000000;
    f->next = r->live;
    if (f->next)
        f->next->prev = f;
    r->live = f;
    r->n_live++;
    http_fetch_start(r->client, &f->fetch);
}

/* Sends what is due; then writes the next request, so that only its sending is left when its time comes. */
static void send_due(struct runner *r)
{
    const struct load_plan *p = r->plan;
    while (!r->stopping && r->next < p->n && (p->clients ? r->n_live < p->clients : p->items[r->next].at_s <= now_s(r)))
        launch(r);
    if (!r->stopping && r->next < p->n && !r->ready)
        r->ready = flight_make(r, r->next);
    if (!r->stopping && !p->clients && r->next < p->n)
        loop_timer_at(r->timer, r->begin_ns + (uint64_t)(p->items[r->next].at_s * 1e9) + 1);
}

static void on_timer(void *ctx)
{
    struct runner *r = ctx;
    send_due(r);
    stop_when_done(r);
}

static void on_tick(void *ctx)
{
    struct runner *r = ctx;
    const struct load_target *t = &r->load->target;
    uint64_t now = clock_ns();
    if (t->progress && t->progress(t->ctx, r->n_ended, r->plan->n)) {
        r->stopping = r->out->interrupted = true;
        now = UINT64_MAX;
    }
    for (struct flight *f = r->live, *next; f; f = next) {
        next = f->next;
        if (now < f->due_ns)
            continue;
        http_fetch_cancel(&f->fetch);
        land(f, r->out->interrupted ? LOAD_UNSENT : LOAD_TIMEOUT);
    }
    stop_when_done(r);
}

/* ---- the whole ---- */

static enum status runner_open(struct runner *r, struct error *err)
{
    struct load *l = r->load;
    snprintf(r->path, sizeof r->path, "%s/%s", l->base,
             l->target.api == LOAD_CHAT ? "chat/completions" : "completions");
    r->salt = 0x200000000u + (++l->n_run << 32);
    arena_init(&r->arena, 0);
    TRY(loop_create(&r->loop, err));
    TRY(http_client_open(&r->client, r->loop, &l->peer, err));
    TRY(loop_timer_open(&r->timer, r->loop, on_timer, r, err));
    return loop_every(r->loop, TICK_MS, on_tick, r, err);
}

static void runner_close(struct runner *r)
{
    while (r->live) {
        struct flight *f = r->live;
        r->live = f->next;
        http_fetch_cancel(&f->fetch);
        flight_free(f);
    }
    if (r->ready)
        flight_free(r->ready);
    loop_timer_close(r->timer);
    http_client_close(r->client);
    if (r->loop)
        loop_destroy(r->loop);
    arena_free(&r->arena);
}

static void fill_result(struct runner *r)
{
    struct load_result *out = r->out;
    double first = INFINITY, last = 0;
    out->n = r->plan->clients || r->stopping ? r->next : r->plan->n;
    for (size_t i = 0; i < out->n; i++) {
        const struct load_sample *s = &out->samples[i];
        first = s->intended >= 0 && s->intended < first ? s->intended : first;
        last = s->end > last ? s->end : last;
    }
    out->seconds = last > first ? last - first : 0;
}

enum status load_run(struct load *l, const struct load_plan *plan, struct load_result *out, struct error *err)
{
    struct runner r = {.load = l, .plan = plan, .out = out};
    *out = (struct load_result){.rate = plan->rate, .clients = plan->clients};
    out->samples = mem_alloc_zero(plan->n, sizeof *out->samples);
    if (!out->samples)
        return fail_nomem(err, "samples");
    for (size_t i = 0; i < plan->n; i++)
        out->samples[i] = (struct load_sample){-1, -1, -1, -1, -1, LOAD_UNSENT, 0, 0, 0};
    enum status st = runner_open(&r, err);
    if (st == ST_OK) {
        double cpu = cpu_seconds(), server = cpu_seconds_of(l->target.server_pid);
        r.begin_ns = clock_ns();
        send_due(&r);
        st = loop_run(r.loop, err);
        fill_result(&r);
        out->client_cpu_s = cpu_seconds() - cpu;
        double server_now = cpu_seconds_of(l->target.server_pid);
        out->server_cpu_s = server >= 0 && server_now >= 0 ? server_now - server : -1;
        out->server_rss_peak = l->target.server_pid ? rss_peak(l->target.server_pid) : 0;
        out->client_rss_peak = rss_peak(0);
    }
    runner_close(&r);
    if (st == ST_OK && r.out_of_memory)
        st = fail_nomem(err, "samples");
    if (st != ST_OK)
        load_result_free(out);
    return st;
}

void load_result_free(struct load_result *r)
{
    mem_free(r->samples);
    mem_free(r->gaps);
    mem_free(r->bins);
    *r = (struct load_result){0};
}
