/* Metrics under vLLM's names, so that its dashboards and Kubernetes' endpoint pickers read them unchanged. */
#include "gateway/private.h"

#include "base/clock.h"

#include <stdio.h>
#include <unistd.h>

enum metric {
    M_RUNNING,
    M_WAITING,
    M_KV_USAGE,
    M_PROMPT_TOKENS,
    M_GENERATION_TOKENS,
    M_PREFIX_QUERIES,
    M_PREFIX_HITS,
    M_PREEMPTIONS,
    M_SPILL_WRITTEN,
    M_SPILL_READ,
    M_SPILL_DAMAGED,
    M_DRAFTED,
    M_ACCEPTED,
    M_SUCCESS,
    M_TTFT,
    M_ITL,
    M_TPOT,
    M_E2E,
    M_QUEUE,
    M_INFERENCE,
    M_PREFILL,
    M_DECODE,
    M_REQUEST_PROMPT,
    M_REQUEST_OUTPUT,
    M_REQUEST_N,
    M_REQUEST_MAX,
    M_ITERATION,
    M_CACHE_CONFIG,
    M_HTTP,
    M_STEPS,
    M_STALLS,
    M_MEMORY,
    M_MEMORY_MAX,
    M_MEMORY_REFUSED,
    /* names that vLLM has dropped; only with options.legacy_metrics */
    M_OLD_KV_USAGE,
    M_OLD_TPOT,
    M_COUNT,
    M_CURRENT = M_OLD_KV_USAGE
};

static const double seconds_first[] = {0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5,
                                       0.75,  1,     1.5,  2.5,  5,    7.5,  10,   20,  40,   80};
static const double seconds_token[] = {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15,
                                       0.2,   0.3,    0.4,   0.5,  0.75,  1,    2.5,   5,   10};
static const double seconds_request[] = {0.01, 0.05, 0.1, 0.3, 0.5, 0.8, 1,  1.5, 2,   2.5, 5,
                                         10,   15,   20,  30,  40,  50,  60, 120, 240, 480};
static const double tokens_request[] = {1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000};

static const double tokens_step[] = {1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384};
static const double choices[] = {1, 2, 5, 10, 20};
_Static_assert(sizeof tokens_step / sizeof *tokens_step == ENGINE_STEP_SIZES - 1, "one bucket a size, and the rest");

#define LABELS                                                                                                         \
    {                                                                                                                  \
        "model_name", "engine"                                                                                         \
    }
#define BUCKETS(b) .buckets = b, .n_bucket = sizeof b / sizeof *b
#define SECONDS(n, h, b)                                                                                               \
    {                                                                                                                  \
        METRIC_HISTOGRAM, "vllm:" n, h, LABELS, BUCKETS(b)                                                             \
    }
static const struct metric_row rows[M_COUNT] = {
    [M_RUNNING] = {METRIC_GAUGE, "vllm:num_requests_running", "Sequences in the running batch.", LABELS, NULL, 0},
    [M_WAITING] = {METRIC_GAUGE, "vllm:num_requests_waiting", "Sequences waiting to be run.", LABELS, NULL, 0},
    [M_KV_USAGE] = {METRIC_GAUGE, "vllm:kv_cache_usage_perc", "KV-cache usage; 1 means all blocks.", LABELS, NULL, 0},
    [M_PROMPT_TOKENS] = {METRIC_COUNTER, "vllm:prompt_tokens_total", "Prefill tokens processed.", LABELS, NULL, 0},
    [M_GENERATION_TOKENS] = {METRIC_COUNTER, "vllm:generation_tokens_total", "Tokens generated.", LABELS, NULL, 0},
    [M_PREFIX_QUERIES] = {METRIC_COUNTER, "vllm:prefix_cache_queries_total",
                          "Tokens of requests that were looked up in the prefix cache.", LABELS, NULL, 0},
    [M_PREFIX_HITS] = {METRIC_COUNTER, "vllm:prefix_cache_hits_total", "Of these, tokens that were found.", LABELS,
                       NULL, 0},
    [M_PREEMPTIONS] = {METRIC_COUNTER, "vllm:num_preemptions_total", "Sequences put back to waiting.", LABELS, NULL, 0},
    [M_SPILL_WRITTEN] = {METRIC_COUNTER, "ingot:kv_spill_written_total", "KV blocks written to disk.", LABELS, NULL, 0},
    [M_SPILL_READ] = {METRIC_COUNTER, "ingot:kv_spill_read_total", "KV blocks read from disk.", LABELS, NULL, 0},
    [M_SPILL_DAMAGED] = {METRIC_COUNTER, "ingot:kv_spill_damaged_total", "Files of KV blocks that were damaged.",
                         LABELS, NULL, 0},
    [M_DRAFTED] = {METRIC_COUNTER, "vllm:spec_decode_num_draft_tokens_total", "Tokens proposed by speculation.", LABELS,
                   NULL, 0},
    [M_ACCEPTED] = {METRIC_COUNTER, "vllm:spec_decode_num_accepted_tokens_total", "Of these, verified.", LABELS, NULL,
                    0},
    [M_SUCCESS] = {METRIC_COUNTER,
                   "vllm:request_success_total",
                   "Sequences finished, by reason.",
                   {"model_name", "engine", "finished_reason"},
                   NULL,
                   0},
    [M_TTFT] =
        SECONDS("time_to_first_token_seconds", "Time from the request's head to its first token.", seconds_first),
    [M_ITL] = SECONDS("inter_token_latency_seconds", "Time from one token to the next.", seconds_token),
    [M_TPOT] = SECONDS("request_time_per_output_token_seconds", "Mean time per token after the first, a request.",
                       seconds_token),
    [M_E2E] =
        SECONDS("e2e_request_latency_seconds", "Time from the request's head to its last token.", seconds_request),
    [M_QUEUE] = SECONDS("request_queue_time_seconds", "Time a sequence waited.", seconds_request),
    [M_INFERENCE] = SECONDS("request_inference_time_seconds", "Time a sequence ran.", seconds_request),
    [M_PREFILL] = SECONDS("request_prefill_time_seconds", "Time of a sequence's prefill.", seconds_request),
    [M_DECODE] = SECONDS("request_decode_time_seconds", "Time of a sequence's decoding.", seconds_request),
    [M_REQUEST_PROMPT] = {METRIC_HISTOGRAM, "vllm:request_prompt_tokens", "Prompt tokens of a sequence.", LABELS,
                          BUCKETS(tokens_request)},
    [M_REQUEST_OUTPUT] = {METRIC_HISTOGRAM, "vllm:request_generation_tokens", "Tokens generated of a sequence.", LABELS,
                          BUCKETS(tokens_request)},
    [M_REQUEST_N] = {METRIC_HISTOGRAM, "vllm:request_params_n", "The n of a request.", LABELS, BUCKETS(choices)},
    [M_REQUEST_MAX] = {METRIC_HISTOGRAM, "vllm:request_params_max_tokens", "The max_tokens of a request.", LABELS,
                       BUCKETS(tokens_request)},
    [M_ITERATION] = {METRIC_HISTOGRAM, "vllm:iteration_tokens_total", "Tokens computed by an engine step.", LABELS,
                     BUCKETS(tokens_step)},
    [M_CACHE_CONFIG] = {METRIC_GAUGE,
                        "vllm:cache_config_info",
                        "The KV cache of a loaded model: 1; 0 once it is not loaded any more.",
                        {"block_size", "num_gpu_blocks", "cache_dtype", "engine", "model_name"},
                        NULL,
                        0},
    [M_HTTP] = {METRIC_COUNTER, "http_requests_total", "HTTP requests answered.", {"handler", "status"}, NULL, 0},
    [M_STEPS] = {METRIC_COUNTER, "ingot:engine_steps_total", "Engine steps.", LABELS, NULL, 0},
    [M_STALLS] = {METRIC_COUNTER,
                  "ingot:stalls_total",
                  "How often the watchdog found nothing moving.",
                  {"model_name", "thread"},
                  NULL,
                  0},
    [M_MEMORY] = {METRIC_GAUGE, "ingot:request_memory_bytes", "Held by requests and unsent answers.", LABELS, NULL, 0},
    [M_MEMORY_MAX] = {METRIC_GAUGE, "ingot:request_memory_max_bytes", "The bound on it.", LABELS, NULL, 0},
    [M_MEMORY_REFUSED] = {METRIC_COUNTER, "ingot:request_memory_refused_total",
                          "Requests and answers that found it full.", LABELS, NULL, 0},
    [M_OLD_KV_USAGE] = {METRIC_GAUGE, "vllm:gpu_cache_usage_perc", "Old name of kv_cache_usage_perc.", LABELS, NULL, 0},
    [M_OLD_TPOT] = SECONDS("time_per_output_token_seconds", "Old name of inter_token_latency_seconds.", seconds_token),
};

static const struct metric_row lora_row = {METRIC_GAUGE,
                                           "vllm:lora_requests_info",
                                           "Adapters of requests that wait and that run; the value is the time in "
                                           "seconds.",
                                           {"max_lora", "waiting_lora_adapters", "running_lora_adapters"},
                                           NULL,
                                           0};

static struct series *of_model(const struct gateway *g, const char *model, int row)
{
    return metrics_series(g->metrics, row, (const char *const[]){model, "0"});
}

static const char *const reasons[] = {"none", "stop", "length", "abort", "error"}; /* by enum finish */

static bool is_of_model(int row)
{
    return row != M_SUCCESS && row != M_HTTP && row != M_CACHE_CONFIG && row != M_STALLS && row != M_MEMORY &&
           row != M_MEMORY_MAX && row != M_MEMORY_REFUSED;
}

/* Dashboards want zeros, not absence. */
static void begin_model(struct gateway *g, const char *model)
{
    for (int i = 0; i < (g->options.legacy_metrics ? M_COUNT : M_CURRENT); i++)
        if (is_of_model(i))
            of_model(g, model, i);
    for (int i = FINISH_STOP; i <= FINISH_ERROR; i++)
        metrics_add(g->metrics, M_SUCCESS, (const char *const[]){model, "0", reasons[i]}, 0);
    telemetry_stall(g, model, "engine", 0);
}

enum status telemetry_create(struct gateway *g, struct error *err)
{
    TRY(metrics_create(&g->metrics, rows, g->options.legacy_metrics ? M_COUNT : M_CURRENT, err));
    begin_model(g, g->bundle->id);
    telemetry_stall(g, g->bundle->id, "loop", 0);
    return ST_OK;
}

/* A gauge that says by its labels what is configured. */
static void set_configuration(struct gateway *g, const char *model, const struct engine_stats *s)
{
    char size[16], blocks[16];
    snprintf(size, sizeof size, "%d", KV_BLOCK);
    snprintf(blocks, sizeof blocks, "%d", s->blocks_total);
    const char *const labels[] = {size, blocks, s->kv_type ? s->kv_type : "none", "0", model};
    metrics_set(g->metrics, M_CACHE_CONFIG, labels, 1);
}

/* The counters get what the engine has counted since; two of one name (a model and its successor) add up. */
static void count(struct gateway *g, const char *model, const struct engine_stats *s, struct engine_stats *counted)
{
    const struct {
        int row;
        uint64_t more;
    } counters[] = {{M_PROMPT_TOKENS, s->prompt_tokens - counted->prompt_tokens},
                    {M_GENERATION_TOKENS, s->output_tokens - counted->output_tokens},
                    {M_PREFIX_QUERIES, s->prefix_queries - counted->prefix_queries},
                    {M_PREFIX_HITS, s->prefix_hits - counted->prefix_hits},
                    {M_PREEMPTIONS, s->preemptions - counted->preemptions},
                    {M_SPILL_WRITTEN, s->spill_written - counted->spill_written},
                    {M_SPILL_READ, s->spill_read - counted->spill_read},
                    {M_SPILL_DAMAGED, s->spill_damaged - counted->spill_damaged},
                    {M_DRAFTED, s->drafted - counted->drafted},
                    {M_ACCEPTED, s->accepted - counted->accepted},
                    {M_STEPS, s->steps - counted->steps}};
    for (size_t i = 0; i < sizeof counters / sizeof *counters; i++)
        series_add(of_model(g, model, counters[i].row), (double)counters[i].more);
    uint64_t sizes[ENGINE_STEP_SIZES];
    for (int i = 0; i < ENGINE_STEP_SIZES; i++)
        sizes[i] = s->step_sizes[i] - counted->step_sizes[i];
    series_merge(of_model(g, model, M_ITERATION), sizes, (double)(s->step_tokens - counted->step_tokens));
    *counted = *s;
}

/* On top of what they were reset to: those of a model that is gone stay 0, two of one name add up. */
static void add_gauges(struct gateway *g, const char *model, const struct engine_stats *s)
{
    struct series *usage = of_model(g, model, M_KV_USAGE);
    double used = s->blocks_total ? (double)(s->blocks_total - s->blocks_free) / s->blocks_total : 0;
    series_add(of_model(g, model, M_RUNNING), s->running);
    series_add(of_model(g, model, M_WAITING), s->waiting);
    series_set(usage, used > series_value(usage) ? used : series_value(usage));
    if (g->options.legacy_metrics)
        series_set(of_model(g, model, M_OLD_KV_USAGE), series_value(usage));
}

static void look_at(void *ctx, struct served *served, const struct hosting_row *row)
{
    struct gateway *g = ctx;
    struct engine_stats s;
    engine_stats(row->engine, &s);
    if (!served->begun)
        begin_model(g, row->name);
    served->begun = true;
    add_gauges(g, row->name, &s);
    set_configuration(g, row->name, &s);
    count(g, row->name, &s, &served->counted);
}

void telemetry_close(struct gateway *g, struct served *served, const struct hosting_row *row)
{
    struct engine_stats s;
    for (int i = 0; i < 1000; i++, usleep(1000)) { /* an engine tells a step's end a moment after its answers */
        engine_stats(row->engine, &s);
        if (s.running + s.waiting == 0)
            break;
    }
    count(g, row->name, &s, &served->counted);
}

/* name is added to a list of names, once. */
static void add_name(struct buf *list, const char *name)
{
    for (struct str rest = buf_str(list); rest.len;) {
        size_t comma = str_find(rest, STR(","), 0);
        if (str_is(str_n(rest.ptr, comma == SIZE_MAX ? rest.len : comma), name))
            return;
        rest = comma == SIZE_MAX ? (struct str){NULL, 0} : str_from(rest, comma + 1);
    }
    buf_printf(list, "%s%s", list->len ? "," : "", name);
}

static bool is_running(const struct job *j)
{
    for (int i = 0; i < j->n_choice; i++)
        if (__atomic_load_n(&j->choices[i].request.running, __ATOMIC_RELAXED))
            return true;
    return j->ask.beam_search; /* whose steps are not requests of ours */
}

/* On the loop, which owns the jobs. */
static void write_adapters(struct gateway *g, struct buf *out)
{
    struct buf running = {0}, waiting = {0};
    struct engine_stats s;
    char max[16];
    for (const struct job *j = g->jobs; j; j = j->next)
        if (j->phase == JOB_GENERATE && j->lease.lora)
            add_name(is_running(j) ? &running : &waiting, j->name);
    engine_stats(g->engine, &s);
    snprintf(max, sizeof max, "%d", g->hosting ? s.max_sequences : 0); /* each sequence may have another one */
    buf_append_char(&running, 0);
    buf_append_char(&waiting, 0);
    out->failed |= running.failed || waiting.failed;
    if (!out->failed)
        metrics_write_one(&lora_row, (const char *const[]){max, waiting.ptr, running.ptr},
                          (double)(clock_wall_ns() / 1000000000), out);
    buf_free(&running);
    buf_free(&waiting);
}

void telemetry_write(struct gateway *g, struct buf *out)
{
    const char *own = g->bundle->id;
    static const int now[] = {M_RUNNING, M_WAITING, M_KV_USAGE, M_CACHE_CONFIG, M_OLD_KV_USAGE};
    for (size_t i = 0; i < sizeof now / sizeof *now; i++)
        if (now[i] < M_CURRENT || g->options.legacy_metrics)
            metrics_reset(g->metrics, now[i]);
    served_each(g, look_at, g);
    uint64_t refused = __atomic_load_n(&g->memory.refused, __ATOMIC_RELAXED);
    series_set(of_model(g, own, M_MEMORY), (double)budget_used(&g->memory));
    series_set(of_model(g, own, M_MEMORY_MAX), (double)g->memory.max);
    series_add(of_model(g, own, M_MEMORY_REFUSED), (double)(refused - g->counted_refused));
    g->counted_refused = refused;
    metrics_write(g->metrics, out);
    write_adapters(g, out);
}

void telemetry_stall(struct gateway *g, const char *model, const char *thread, int n)
{
    metrics_add(g->metrics, M_STALLS, (const char *const[]){model, thread}, n);
}

void telemetry_http(struct gateway *g, const char *handler, int status)
{
    char code[16];
    snprintf(code, sizeof code, "%d", status);
    metrics_add(g->metrics, M_HTTP, (const char *const[]){handler, code}, 1);
}

/* A request counts for the model or adapter it asked for. */
static struct series *of_job(const struct job *j, int row)
{
    return metrics_series(j->g->metrics, row, (const char *const[]){j->name, "0"});
}

void telemetry_token(struct gateway *g, struct choice *c, uint64_t now_ns)
{
    if (c->first_ns == 0) {
        c->first_ns = now_ns;
        series_observe(of_job(c->job, M_TTFT), (double)(now_ns - c->job->begin_ns) * 1e-9);
    } else {
        double seconds = (double)(now_ns - c->last_ns) * 1e-9;
        series_observe(of_job(c->job, M_ITL), seconds);
        if (g->options.legacy_metrics)
            series_observe(of_job(c->job, M_OLD_TPOT), seconds);
    }
    c->last_ns = now_ns;
}

void telemetry_finish(struct gateway *g, const struct choice *c, uint64_t now_ns)
{
    const struct finish_event *e = &c->end;
    metrics_add(g->metrics, M_SUCCESS, (const char *const[]){c->job->name, "0", reasons[e->finish]}, 1);
    series_observe(of_job(c->job, M_E2E), (double)(now_ns - c->job->begin_ns) * 1e-9);
    series_observe(of_job(c->job, M_QUEUE), e->queue_s);
    series_observe(of_job(c->job, M_PREFILL), e->prefill_s);
    series_observe(of_job(c->job, M_DECODE), e->decode_s);
    series_observe(of_job(c->job, M_INFERENCE), e->prefill_s + e->decode_s);
    series_observe(of_job(c->job, M_REQUEST_PROMPT), e->n_prompt);
    series_observe(of_job(c->job, M_REQUEST_OUTPUT), e->n_output);
    if (c->index == 0) {
        series_observe(of_job(c->job, M_REQUEST_N), c->job->ask.n);
        series_observe(of_job(c->job, M_REQUEST_MAX), c->request.sampling.max_tokens);
    }
    if (e->n_output > 1)
        series_observe(of_job(c->job, M_TPOT), e->decode_s / (e->n_output - 1));
}
