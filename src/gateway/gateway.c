/* Starts and ends the server, and finds each request's row of routes.def.
 *
 *   head  --phase_route, phase_origin, phase_key--> body --handler--> answer
 *   running --gateway_drain--> draining --all answered, or drain_ms later--> loop_stop --> gateway_run returns
 */
#include "gateway/private.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/rng.h"
#include "base/thread.h"

#include <signal.h>
#include <stdio.h>
#include <unistd.h>

enum { TICK_MS = 100, REQUEST_BYTES = 1 << 30, STORE_BYTES = 64 << 20 };

/* ---- routes ---- */

enum access { PUBLIC, KEY };
typedef void route_fn(struct gateway *g, struct http_exchange *x);

struct route {
    const char *method, *path;
    enum access access;
    /* one of these */
    route_fn *handler; /* answers at once, on the loop */
    const struct protocol *protocol;
    const struct admin_call *call;
};

static void route_models(struct gateway *g, struct http_exchange *x)
{
    struct buf body = {0};
    openai_write_models(g, &body);
    answer_json(g, x, 200, &body);
}

static void route_model(struct gateway *g, struct http_exchange *x)
{
    struct str id = str_from(http_request(x)->path, strlen("/v1/models/"));
    struct buf body = {0};
    struct refusal why;
    if (!openai_write_named(g, id, &body)) {
        refuse(&why, 404, "model_not_found", "model", "the model %.*s does not exist; this server has %s", STR_ARG(id),
               g->bundle->id);
        answer_refusal(g, x, &why);
        return;
    }
    answer_json(g, x, 200, &body);
}

static void route_metrics(struct gateway *g, struct http_exchange *x)
{
    struct buf body = {0};
    telemetry_write(g, &body);
    answer_body(g, x, 200, "text/plain; version=0.0.4; charset=utf-8", &body);
}

static void route_live(struct gateway *g, struct http_exchange *x)
{
    (void)g;
    http_respond(x, 200, "application/json", STR("{\"status\":\"alive\"}"));
}

static void route_ready(struct gateway *g, struct http_exchange *x)
{
    health_answer(g, x, g->draining ? "draining" : "ready");
}

/* Healthy = every engine that has work moves. */
static void route_health(struct gateway *g, struct http_exchange *x)
{
    health_answer(g, x, NULL);
}

static void route_socket(struct gateway *g, struct http_exchange *x)
{
    socket_start(g, x);
}

static void route_response(struct gateway *g, struct http_exchange *x)
{
    responses_get(g, x);
}

static void route_response_delete(struct gateway *g, struct http_exchange *x)
{
    responses_delete(g, x);
}

static void route_response_cancel(struct gateway *g, struct http_exchange *x)
{
    responses_cancel(g, x);
}

static void route_tags(struct gateway *g, struct http_exchange *x)
{
    ollama_answer_tags(g, x);
}

static void route_ps(struct gateway *g, struct http_exchange *x)
{
    ollama_answer_ps(g, x);
}

static void route_version(struct gateway *g, struct http_exchange *x)
{
    ollama_answer_version(g, x);
}

static void route_page(struct gateway *g, struct http_exchange *x)
{
    page_answer(g, x);
}

static const struct route routes[] = {
#define ROUTE(method, path, access, handler) {method, path, access, route_##handler, NULL, NULL},
#define ASK(path, protocol)                  {"POST", path, KEY, NULL, &protocol, NULL},
#define ADMIN(method, path, call)            {method, path, KEY, NULL, NULL, &call},
#include "gateway/routes.def"
};
enum { N_ROUTE = sizeof routes / sizeof *routes };

static bool path_fits(struct str path, const char *pattern)
{
    struct str p = str_of(pattern);
    if (p.ptr[p.len - 1] != '*')
        return str_eq(path, p);
    return path.len > p.len - 1 && str_starts(path, str_n(p.ptr, p.len - 1));
}

static const struct route *route_find(const struct http1 *r, struct refusal *why, const char **allowed)
{
    bool path_known = false;
    for (int i = 0; i < N_ROUTE; i++) {
        if (!path_fits(r->path, routes[i].path))
            continue;
        if (str_is(r->method, routes[i].method) || (str_is(r->method, "HEAD") && !strcmp(routes[i].method, "GET")))
            return &routes[i];
        path_known = true;
        *allowed = strcmp(routes[i].method, "GET") != 0 ? routes[i].method : "GET, HEAD";
    }
    if (path_known)
        refuse(why, 405, "method_not_allowed", NULL, "%.*s takes %s, not %.*s", STR_ARG(r->path), *allowed,
               STR_ARG(r->method));
    else
        refuse(why, 404, "unknown_url", NULL, "nothing is served at %.*s %.*s", STR_ARG(r->method), STR_ARG(r->path));
    return NULL;
}

/* ---- phases of a head, in this order; each may refuse ---- */

enum head_phase { PHASE_ROUTE, PHASE_ORIGIN, PHASE_KEY, PHASE_COUNT };

static bool pass(struct gateway *g, struct http_exchange *x, enum head_phase phase, struct refusal *why)
{
    const struct http1 *r = http_request(x);
    const struct route *route = x->user;
    const char *allowed = NULL;
    switch (phase) {
    case PHASE_ROUTE:
        x->user = (void *)(uintptr_t)route_find(r, why, &allowed);
        if (allowed && !x->user)
            http1_write_header(&x->headers, "allow", str_of(allowed));
        return x->user != NULL;
    case PHASE_ORIGIN:
        return access_origin(g, r, why);
    case PHASE_KEY:
        return route->access == PUBLIC || access_key(g, x, why);
    case PHASE_COUNT:
        break;
    }
    return true;
}

/* The client's id when it is one harmless word, else ours. */
static void add_request_id(struct gateway *g, struct http_exchange *x)
{
    struct str given = http1_header(http_request(x), "x-request-id");
    char own[32];
    bool good = given.len > 0 && given.len <= 128;
    for (size_t i = 0; good && i < given.len; i++)
        good = (given.ptr[i] >= '0' && given.ptr[i] <= '9') ||
               ((given.ptr[i] | 32) >= 'a' && (given.ptr[i] | 32) <= 'z') || given.ptr[i] == '-' ||
               given.ptr[i] == '_' || given.ptr[i] == '.';
    if (!good) {
        uint64_t n = g->id_next++;
        snprintf(own, sizeof own, "req_%016llx", (unsigned long long)str_hash(str_n(&n, sizeof n), g->id_key));
        given = str_of(own);
    }
    http1_write_header(&x->headers, "x-request-id", given); /* OpenAI's name */
    http1_write_header(&x->headers, "request-id", given);   /* Anthropic's */
}

static bool on_head(void *ctx, struct http_exchange *x)
{
    struct gateway *g = ctx;
    struct refusal why;
    add_request_id(g, x);
    for (enum head_phase phase = 0; phase < PHASE_COUNT; phase++)
        if (!pass(g, x, phase, &why)) {
            telemetry_http(g, "refused", why.http);
            answer_refusal(g, x, &why);
            return false;
        }
    return true;
}

static void on_request(void *ctx, struct http_exchange *x)
{
    struct gateway *g = ctx;
    const struct route *route = x->user;
    x->user = NULL;
    if (route->protocol) {
        job_start(g, x, route->protocol);
    } else if (route->call) {
        admin_start(g, x, route->call);
    } else {
        telemetry_http(g, route->path, 200);
        route->handler(g, x);
    }
}

static const char *on_fault(void *ctx, const struct http1_fault *fault, struct buf *out)
{
    struct refusal why;
    const char *code = fault->status == 413   ? "request_too_large"
                       : fault->status == 408 ? "timeout"
                       : fault->status == 503 ? "server_is_overloaded"
                                              : NULL;
    telemetry_http(ctx, "refused", fault->status);
    refuse(&why, fault->status, code, NULL, "%s", fault->text);
    openai_write_refusal(out, &why, STR(""));
    return "application/json";
}

/* ---- draining ---- */

static void stop_when_done(struct gateway *g)
{
    if (g->draining && g->n_job == 0 && http_server_busy(g->server) == 0)
        loop_stop(g->loop);
}

static void drain(void *ctx)
{
    struct gateway *g = ctx;
    if (g->draining)
        return;
    log_infof("gateway", "draining: %d requests to finish", g->n_job);
    g->draining = true;
    g->drain_until_ns = clock_ns() + (uint64_t)g->options.drain_ms * 1000000;
    http_server_drain(g->server);
    stop_when_done(g);
}

static void on_signal(void *ctx)
{
    struct gateway *g = ctx;
    if (g->draining)
        loop_stop(g->loop);
    else
        drain(g);
}

static void on_hangup(void *ctx)
{
    struct gateway *g = ctx;
    struct error err;
    size_t n;
    if (keys_reload(g->options.keys, &n, &err) == ST_OK)
        log_infof("gateway", "%zu API keys were read again", n);
    else
        log_errorf("gateway", "the API keys stay as they were: %s", err.text);
}

static void tick(void *ctx)
{
    struct gateway *g = ctx;
    uint64_t now = clock_ns();
    thread_mark("loop", "looks at the clock");
    __atomic_store_n(&g->beat_ns, now, __ATOMIC_RELAXED);
    watchdog_jobs(g);
    socket_tick(g, now);
    jobs_expire(g, now);
    for (struct job *j = g->jobs; j; j = j->next) {
        generate_ping(j, now);
        if (g->draining && now > g->drain_until_ns)
            generate_cancel(j);
    }
    stop_when_done(g);
}

void gateway_drain(struct gateway *g)
{
    loop_wake(g->loop, &g->drain_task);
}

/* ---- life ---- */

static void set_defaults(struct gateway_options *o)
{
    o->host = o->host ? o->host : "127.0.0.1";
    if (o->api_key && !*o->api_key)
        o->api_key = NULL;
    if (!o->request_bytes) {
        size_t quarter = (size_t)(memory_available() / 4);
        o->request_bytes = quarter && quarter < REQUEST_BYTES ? quarter : REQUEST_BYTES;
    }
    o->n_worker = o->n_worker ? o->n_worker : 2;
    o->drain_ms = o->drain_ms ? o->drain_ms : 120000;
    o->health_ms = o->health_ms ? o->health_ms : 60000;
}

static enum status open_server(struct gateway *g, struct error *err)
{
    static const struct http_handler handler = {on_head, on_request, on_fault};
    const struct gateway_options *o = &g->options;
    if (!o->tls_cert != !o->tls_key)
        return fail(err, ST_INVALID, "--tls-cert and --tls-key go together");
    if (o->tls_cert)
        TRY(tls_open(&g->tls, o->tls_cert, o->tls_key, err));
    struct http_server_options server = {
        .listen = {.host = o->host, .port = o->port, .tls = g->tls, .loopback_only = !access_needs_key(g)},
        .write_stall_ms = o->write_stall_ms,
        .budget = &g->memory,
        .body_budget = g->intake_max};
    TRY(http_server_open(&g->server, g->loop, &server, &handler, g, err));
    g->port = http_server_port(g->server);
    bool v6 = strchr(o->host, ':') != NULL;
    snprintf(g->url, sizeof g->url, "%s://%s%.100s%s:%d", g->tls ? "https" : "http", v6 ? "[" : "", o->host,
             v6 ? "]" : "", g->port);
    TRY(loop_every(g->loop, TICK_MS, tick, g, err));
    if (o->signals) {
        TRY(loop_on_signal(g->loop, SIGTERM, on_signal, g, err));
        TRY(loop_on_signal(g->loop, SIGINT, on_signal, g, err));
        if (o->keys)
            TRY(loop_on_signal(g->loop, SIGHUP, on_hangup, g, err));
    }
    return ST_OK;
}

enum status gateway_create(struct gateway **out, struct engine *engine, const struct gateway_options *options,
                           struct error *err)
{
    struct gateway *g = mem_alloc_zero(1, sizeof *g);
    if (!g)
        return fail_nomem(err, "gateway");
    *g = (struct gateway){
        .options = *options, .engine = engine, .bundle = engine_bundle(engine), .hosting = options->hosting};
    set_defaults(&g->options);
    g->memory.max = g->options.request_bytes;
    g->intake_max = g->memory.max / 4 * 3;
    pthread_mutex_init(&g->mail_lock, NULL);
    served_begin(g);
    g->created = (int64_t)(clock_wall_ns() / 1000000000);
    bundle_fingerprint_begin(g->bundle);
    g->id_key = rng_entropy();
    g->drain_task = (struct loop_task){.fn = drain, .ctx = g};
    enum status st = telemetry_create(g, err);
    if (st == ST_OK && g->options.api_key && !sha256_of(g->key_digest, str_of(g->options.api_key)))
        st = fail_nomem(err, "gateway");
    if (st == ST_OK && !voice_make(&g->voice, g->bundle, options->tool_format))
        st = fail(err, ST_INVALID, "--tool-format %s: expected auto, %s", options->tool_format, speech_names());
    if (st == ST_OK)
        st = store_create(&g->store, g->memory.max / 8 < STORE_BYTES ? g->memory.max / 8 : STORE_BYTES, err);
    if (st == ST_OK)
        st = loop_create(&g->loop, err);
    if (st == ST_OK)
        st = workers_create(&g->workers, g->options.n_worker, err);
    if (st == ST_OK)
        st = watchdog_create(g, err);
    if (st == ST_OK)
        st = open_server(g, err);
    if (st != ST_OK) {
        gateway_destroy(g);
        return st;
    }
    *out = g;
    return ST_OK;
}

const char *gateway_url(const struct gateway *g)
{
    return g->url;
}

int gateway_port(const struct gateway *g)
{
    return g->port;
}

/* Whatever ended the loop: no client and no worker is left that could reach the engine. */
static void close_down(struct gateway *g)
{
    watchdog_stop(g);
    http_server_close(g->server);
    g->server = NULL;
    if (g->hosting)
        hosting_quiet(g->hosting); /* nobody is called back any more, nor waits */
    admin_end_all(g);
    workers_destroy(g->workers);
    g->workers = NULL;
}

enum status gateway_run(struct gateway *g, struct error *err)
{
    enum status st = watchdog_start(g, err);
    if (st == ST_OK)
        st = loop_run(g->loop, err);
    close_down(g);
    return st;
}

void gateway_destroy(struct gateway *g)
{
    if (!g)
        return;
    close_down(g);
    for (struct job *j = g->jobs; j; j = j->next) { /* the gateway's own engine is gone, others run still */
        generate_cancel(j);
        while (!generate_over(j))
            usleep(1000);
    }
    while (g->jobs)
        job_free(g->jobs);
    loop_destroy(g->loop);
    store_destroy(g->store);
    tls_close(g->tls);
    served_end(g);
    metrics_free(g->metrics);
    pthread_mutex_destroy(&g->mail_lock);
    mem_free(g);
}
