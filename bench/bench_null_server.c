/* What does the server itself cost, per request and per token, and per live stream? The real gateway, event loop,
 * workers, scheduler and KV accounting over a model that computes nothing: every logit is a constant, a step may wait
 * so that tokens come at a pace. What it used is printed at the end (SIGTERM), user and system time apart: on loopback
 * most of a token's cost is the kernel's, which does the receiver's work too.
 *
 *   bench_null_server [--port N] [--sequences N] [--queue N] [--step-ms X] [--model FILE]
 *   (a small vocabulary keeps the logits of ten thousand streams small: ../shared/data/models/stories260K)
 *   ingot bench serve http://127.0.0.1:N ...           (bench/serving measures the whole table)
 *
 * The clock excludes: the generator (another process), loading the model (its tokenizer is used, its weights are not).
 */
#include "base/clock.h"
#include "base/log.h"
#include "engine/engine_private.h"
#include "gateway/gateway.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

enum { CONTEXT = 4096, BLOCKS_EACH = 8 };

static double step_ms;

static void forward(void *ctx, const struct model_batch *b, real *logits)
{
    static uint64_t next_ns;
    size_t n_vocab = *(const size_t *)ctx;
    for (int i = 0; i < b->n_logit; i++) {
        real *row = logits + (size_t)i * n_vocab;
        memset(row, 0, n_vocab * sizeof *row);
        row[n_vocab / 2 + (size_t)b->ids[b->logit_rows ? b->logit_rows[i] : i] % 16] = 1; /* not one word for ever */
    }
    uint64_t now = clock_ns();
    if (step_ms > 0 && next_ns > now) {
        struct timespec pause = {(time_t)((next_ns - now) / 1000000000), (long)((next_ns - now) % 1000000000)};
        nanosleep(&pause, NULL);
        now = next_ns;
    }
    next_ns = now + (uint64_t)(step_ms * 1e6);
}

static double seconds(struct timeval t)
{
    return (double)t.tv_sec + (double)t.tv_usec / 1e6;
}

static void report(const struct engine *engine, const struct rusage *begin)
{
    struct rusage u;
    struct engine_stats s;
    engine_stats(engine, &s);
    getrusage(RUSAGE_SELF, &u);
    uint64_t requests = s.finished[FINISH_STOP] + s.finished[FINISH_LENGTH];
    printf("{\"requests\":%llu,\"tokens\":%llu,\"steps\":%llu,\"user_s\":%.3f,\"system_s\":%.3f,\"rss_peak\":%ld}\n",
           (unsigned long long)requests, (unsigned long long)s.output_tokens, (unsigned long long)s.steps,
           seconds(u.ru_utime) - seconds(begin->ru_utime), seconds(u.ru_stime) - seconds(begin->ru_stime),
           u.ru_maxrss * 1024L);
    fflush(stdout);
}

static int stop(const struct error *err)
{
    fprintf(stderr, "bench_null_server: %s\n", err->text);
    return 1;
}

int main(int argc, char **argv)
{
    static const struct option longs[] = {{"port", 1, NULL, 'p'},  {"sequences", 1, NULL, 's'},
                                          {"queue", 1, NULL, 'q'}, {"step-ms", 1, NULL, 'm'},
                                          {"model", 1, NULL, 'M'}, {0}};
    struct engine_options o = {.max_sequences = 64, .prefill_chunk = 8192, .itl_ms = 1e6};
    struct gateway_options g = {.signals = true, .n_worker = 1};
    const char *path = "models/storyteller.gguf";
    for (int c; (c = getopt_long(argc, argv, "", longs, NULL)) != -1;)
        switch (c) {
        case 'p':
            g.port = atoi(optarg);
            break;
        case 's':
            o.max_sequences = atoi(optarg);
            break;
        case 'q':
            o.queue_max = atoi(optarg);
            break;
        case 'm':
            step_ms = atof(optarg);
            break;
        case 'M':
            path = optarg;
            break;
        default:
            return 2;
        }
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    struct error err;
    struct pool *pool;
    struct bundle *bundle;
    struct engine *engine;
    struct gateway *gateway;
    if (kernels_init(NULL, &err) != ST_OK || pool_create(&pool, 1, &err) != ST_OK)
        return stop(&err);
    struct model_options m = {.pool = pool, .n_ctx = 64};
    if (bundle_open(&bundle, path, &m, &err) != ST_OK)
        return stop(&err);
    size_t n_vocab = (size_t)model_config(bundle->model)->n_vocab;
    struct executor x = {.forward = forward,
                         .ctx = &n_vocab,
                         .n_vocab = (int)n_vocab,
                         .n_ctx = CONTEXT,
                         .n_block = o.max_sequences * BLOCKS_EACH,
                         .tokenizer = bundle->tokenizer,
                         .pool = pool,
                         .bundle = bundle};
    log_set_level(LOG_WARN);
    if (engine_create_on(&engine, &x, &o, &err) != ST_OK || gateway_create(&gateway, engine, &g, &err) != ST_OK)
        return stop(&err);
    fprintf(stderr, "ingot: ready %s model=%s\n", gateway_url(gateway), bundle->id);
    struct rusage begin;
    getrusage(RUSAGE_SELF, &begin);
    enum status st = gateway_run(gateway, &err);
    report(engine, &begin);
    engine_destroy(engine);
    gateway_destroy(gateway);
    bundle_close(bundle);
    pool_destroy(pool);
    return st == ST_OK ? 0 : stop(&err);
}
