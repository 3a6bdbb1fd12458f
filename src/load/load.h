/* load - load on an OpenAI-compatible server, and what its clients saw
 *
 *   TRY(load_plan_make(&plan, &shape, err));          // which requests, how long, when
 *   TRY(load_open(&l, &target, err));                 // finds the model, learns how many tokens a word is
 *   TRY(load_run(l, &plan, &result, err));            // a sample a request
 *   load_report_add(&report, &result); load_report_text(...); load_report_json(...); load_chart(...);
 *
 * Open loop: a request is sent when its time has come, whatever became of those before it, and every latency counts
 * from that intended time, so that a server that stalls cannot hide it by keeping the generator waiting (coordinated
 * omission). Closed loop: so many streams, each asking again when answered; latencies count from the sending.
 *
 * Threads  one owner; load_run runs its own loop
 * Errors   of the plan and of the target; what goes wrong with a request is part of the result
 */
#ifndef LOAD_LOAD_H
#define LOAD_LOAD_H

#include "base/arena.h"
#include "base/json.h"
#include "base/status.h"

/* ---- the plan ---- */
struct load_item {
    double at_s; /* after the run's begin; open loop */
    int n_in, n_out;
    struct str text; /* the prompt itself; ptr NULL: made of words, n_in tokens long */
    /* made prompts: first so many tokens that all requests share, or blocks of them by number (a trace's prefix cache)
     */
    int n_shared, n_block, block_tokens;
    const uint32_t *blocks;
};
struct load_shape {
    /* lengths: uniform between the two, or a trace's */
    int in_min, in_max, out_min, out_max;
    int shared; /* tokens of the prompt that all requests begin with */
    const char *trace;
    double from_s, for_s; /* the part of the trace; 0 = all */
    double scale;         /* of all lengths; 0 = 1 */
    /* times: closed loop with so many streams, or a mean rate, or, for a trace without either, its own times */
    int clients;
    double rate, speed; /* speed: how much faster than the trace; 0 = 1 */
    int n_request;      /* 0 = what duration and rate make, or the whole trace */
    double duration_s;  /* of new requests; 0 = until all are sent */
    int in_most;        /* prompts of a trace that are longer are cut to it; 0 = never */
    uint64_t seed;
};
struct load_plan {
    struct load_item *items;
    size_t n, capacity;
    int clients;
    double rate;        /* offered, requests per second; 0 in a closed loop */
    double duration_s;  /* a closed loop ends after it; 0 = when all are done */
    struct arena arena; /* of texts and blocks */
};
MUST_USE enum status load_plan_make(struct load_plan *out, const struct load_shape *shape, struct error *err);
/* Azure's CSV (TIMESTAMP,ContextTokens,GeneratedTokens), Mooncake's and AIBrix's JSON lines; times from the first on.
 */
MUST_USE enum status load_trace_read(struct load_plan *out, struct str text, struct error *err);
void load_plan_free(struct load_plan *p);

/* ---- the target ---- */
enum load_api { LOAD_COMPLETIONS, LOAD_CHAT };
struct load_target {
    const char *url; /* http://host:port[/v1] or https:// */
    const char *api_key, *model;
    const char *authorities; /* PEM file; NULL = the system's */
    bool unchecked;          /* believe any certificate */
    enum load_api api;
    const char *extra; /* more fields of every request, as a JSON object */
    bool honor_eos;    /* do not send ignore_eos: an OpenAI server refuses it */
    double temperature;
    int timeout_ms; /* of a request [600,000] */
    int server_pid; /* a local server's process, to see what it uses; 0 = unknown */
    /* asked ten times a second; true ends the run early. done of total requests have ended. May be NULL. */
    bool (*progress)(void *ctx, size_t done, size_t total);
    void *ctx;
};
struct load;
MUST_USE enum status load_open(struct load **out, const struct load_target *target, struct error *err);
void load_close(struct load *l);
const char *load_model(const struct load *l);

/* ---- a run ---- */
enum load_outcome { /* or an HTTP status other than 200 */
                    LOAD_OK,
                    LOAD_NO_CONNECT,
                    LOAD_CUT,       /* the connection or the stream ended early */
                    LOAD_MALFORMED, /* what came is no HTTP, no event, no JSON, or not what it should say */
                    LOAD_TIMEOUT,
                    LOAD_ERROR_EVENT, /* a stream that said "error" */
                    LOAD_EMPTY,       /* a good answer without a token */
                    LOAD_UNSENT,      /* the run was ended before */
                    LOAD_KINDS
};
struct load_sample { /* seconds from the run's begin; negative: never */
    double intended, sent, first, last, end;
    int outcome;
    int n_in, n_out; /* tokens, as the server counts them; else chunks */
    float longest_gap;
};
struct load_result {
    double rate;
    int clients;
    size_t n;
    struct load_sample *samples;
    float *gaps; /* between one token's arrival and the next, seconds, all requests */
    size_t n_gap, gap_capacity;
    uint32_t *bins; /* tokens that came in each tenth of a second */
    size_t n_bin, bin_capacity;
    double seconds;                    /* first intended time to last end */
    double client_cpu_s, server_cpu_s; /* server: negative when unknown */
    uint64_t server_rss_peak, client_rss_peak;
    bool interrupted;
    char complaint[200]; /* the first answer that was no success, in the server's words */
};
MUST_USE enum status load_run(struct load *l, const struct load_plan *plan, struct load_result *out, struct error *err);
void load_result_free(struct load_result *r);

/* ---- what it says ---- */
struct load_quantiles {
    size_t n;
    double mean, p50, p90, p95, p99, max; /* linear between ranks, as numpy.percentile */
};
/* Sorts values. */
struct load_quantiles load_quantiles_of(double *values, size_t n);

struct load_slo { /* seconds; 0 = not asked for. A request meets it when it was answered and each is at most this: */
    double ttft, itl, tpot, e2e; /* itl: its longest gap; tpot: its mean time a token after the first */
};
MUST_USE enum status load_slo_parse(struct load_slo *out, const char *text,
                                    struct error *err); /* "ttft=500ms,itl=0.1s" */

struct load_summary {
    double rate, seconds;
    int clients;
    size_t n, n_ok, n_good; /* good: met the SLO (all that are ok without one) */
    size_t by_kind[LOAD_KINDS];
    struct load_status_count {
        int status;
        size_t n;
    } statuses[16];
    int n_status;
    double tokens_in, tokens_out;
    struct load_quantiles ttft, itl, tpot, e2e, late, refused; /* refused: how long a 4xx or 5xx took */
    double client_cpu_s, client_share, server_cpu_s;
    uint64_t server_rss_peak, client_rss_peak;
    bool interrupted;
    const char *void_reason; /* NULL: the numbers count */
};
/* False: out of memory. */
bool load_summarize(struct load_summary *out, const struct load_result *r, const struct load_slo *slo);
struct load_report {
    const struct load_target *target;
    const struct load_shape *shape;
    const struct load_slo *slo;
    const char *model, *cpu;
    const struct load_result *results;
    const struct load_summary *summaries;
    size_t n;
};
void load_report_text(const struct load_report *r, struct buf *out);
void load_report_json(const struct load_report *r, struct buf *out);
void load_chart(const struct load_report *r, struct buf *out); /* one SVG, nothing loaded from elsewhere */

#endif
