/* ingot bench serve URL|MODEL - what clients of a server see under load: ours, or anybody's that speaks OpenAI's API */
#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "cli/cli.h"
#include "load/load.h"

#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

enum { RATES_MAX = 32, SERVER_ARGS_MAX = 64, START_MS = 600000 };

/* ---- a server of our own ---- */

struct server {
    pid_t pid;
    int log; /* what it writes to its standard error, in memory: a pipe would have to be emptied */
    char url[200];
};

static void server_exec(const struct server *s, char *const *args, int n_arg)
{
    char *argv[SERVER_ARGS_MAX + 8] = {(char[]){"ingot"}, (char[]){"serve"},       args[0],         (char[]){"--port"},
                                       (char[]){"0"},     (char[]){"--log-level"}, (char[]){"warn"}};
    for (int i = 1; i < n_arg; i++)
        argv[6 + i] = args[i];
    dup2(s->log, STDERR_FILENO);
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    execv("/proc/self/exe", argv);
    _exit(127);
}

static void server_log(const struct server *s, struct buf *out)
{
    char bytes[4096];
    ssize_t n;
    for (off_t at = 0; (n = pread(s->log, bytes, sizeof bytes, at)) > 0; at += n)
        buf_append(out, bytes, (size_t)n);
}

/* "ingot: ready http://127.0.0.1:8080 model=NAME" */
static bool find_ready(struct server *s, const struct buf *log)
{
    size_t at = str_find(buf_str(log), STR("ingot: ready "), 0);
    return at != SIZE_MAX && sscanf(log->ptr + at, "ingot: ready %199s model=", s->url) == 1 &&
           str_find(buf_str(log), STR(" model="), at) != SIZE_MAX;
}

static enum status server_wait(struct server *s, struct error *err)
{
    uint64_t deadline = clock_ns() + (uint64_t)START_MS * 1000000;
    for (;;) {
        struct buf log = {0};
        int state;
        bool ended = waitpid(s->pid, &state, WNOHANG) == s->pid;
        server_log(s, &log);
        bool ready = !ended && find_ready(s, &log);
        enum status st = ST_OK;
        if (ended) {
            s->pid = 0;
            st = fail(err, ST_IO, "the server did not start: %.*s", STR_ARG(str_trim(buf_str(&log))));
        } else if (!ready && (clock_ns() > deadline || cli_interrupted)) {
            st = fail(err, ST_CANCELED, "the server was not ready in time");
        }
        buf_free(&log);
        if (ready || st != ST_OK)
            return st;
        progress_show("starting", 0, "the server loads its model");
        usleep(20000);
    }
}

static void server_stop(struct server *s)
{
    if (s->pid > 0) {
        kill(s->pid, SIGTERM);
        waitpid(s->pid, NULL, 0);
    }
    if (s->log >= 0)
        close(s->log);
}

static enum status server_start(struct server *s, char *const *args, int n_arg, struct error *err)
{
    if (n_arg > SERVER_ARGS_MAX)
        return fail(err, ST_INVALID, "more than %d arguments for the server", SERVER_ARGS_MAX);
    s->log = memfd_create("log", MFD_CLOEXEC);
    s->pid = s->log < 0 ? -1 : fork();
    if (s->pid == 0)
        server_exec(s, args, n_arg);
    if (s->pid < 0)
        return fail(err, ST_IO, "a server cannot be started: %s", strerror(errno));
    return server_wait(s, err);
}

/* ---- options ---- */

struct options {
    struct load_shape shape;
    struct load_target target;
    struct load_slo slo;
    double rates[RATES_MAX];
    int n_rate;
    int64_t clients, requests, seed, shared, in_most, pid;
    double timeout_s;
    const char *rate, *input, *output, *slo_text, *json, *svg, *model, *api;
    bool nano, chat;
};

/* "100-1024", or one number. */
static enum status parse_span(int *least, int *most, const char *name, const char *text, struct error *err)
{
    struct str s = str_of(text);
    size_t dash = str_find(s, STR("-"), 0);
    int64_t a, b;
    bool good = str_to_i64(&a, dash == SIZE_MAX ? s : str_n(s.ptr, dash));
    b = a;
    if (good && dash != SIZE_MAX)
        good = str_to_i64(&b, str_from(s, dash + 1));
    if (!good || a < 1 || b < a || b > 10000000)
        return fail(err, ST_INVALID, "--%s %s: expected tokens such as 512 or 100-1024", name, text);
    *least = (int)a;
    *most = (int)b;
    return ST_OK;
}

static enum status parse_rates(struct options *o, struct error *err)
{
    struct str rest = str_of(o->rate);
    while (rest.len) {
        const char *comma = memchr(rest.ptr, ',', rest.len);
        struct str part = comma ? str_n(rest.ptr, (size_t)(comma - rest.ptr)) : rest;
        double rate;
        rest = str_from(rest, part.len + 1);
        if (!str_to_f64(&rate, str_trim(part)) || !(rate > 0 && rate <= 1e6) || o->n_rate == RATES_MAX)
            return fail(err, ST_INVALID, "--rate %s: expected at most %d rates in requests a second, as in 0.5,1,2",
                        o->rate, RATES_MAX);
        o->rates[o->n_rate++] = rate;
    }
    return ST_OK;
}

static enum status in_range(const char *name, double value, double least, double most, struct error *err)
{
    return value >= least && value <= most
               ? ST_OK
               : fail(err, ST_INVALID, "--%s %g: expected %g to %g", name, value, least, most);
}

static enum status check_options(struct options *o, struct error *err)
{
    struct load_shape *s = &o->shape;
    if (o->nano) {
        s->in_min = s->out_min = 100;
        s->in_max = s->out_max = 1024;
        o->requests = o->requests ? o->requests : 256;
        o->clients = o->clients ? o->clients : 256;
    }
    if (o->rate && o->clients && !o->nano)
        return fail(err, ST_INVALID, "--rate (open loop) and --clients (closed loop) exclude each other");
    if (o->rate)
        o->clients = 0;
    if (!o->rate && !o->clients && !s->trace)
        o->clients = 8;
    if (!o->requests && !(s->duration_s > 0) && !s->trace)
        o->requests = o->clients ? 8 * o->clients : 100;
    TRY(in_range("clients", (double)o->clients, 0, 100000, err));
    TRY(in_range("requests", (double)o->requests, 0, 1e7, err));
    TRY(in_range("duration", s->duration_s, 0, 1e6, err));
    TRY(in_range("scale", s->scale, 0, 1000, err));
    TRY(in_range("speed", s->speed, 0, 1e6, err));
    TRY(in_range("trace-from", s->from_s, 0, 1e9, err));
    TRY(in_range("trace-for", s->for_s, 0, 1e9, err));
    TRY(in_range("shared-prefix", (double)o->shared, 0, 1e7, err));
    TRY(in_range("input-max", (double)o->in_most, 0, 1e7, err));
    TRY(in_range("timeout", o->timeout_s, 0.001, 1e6, err));
    TRY(in_range("server-pid", (double)o->pid, 0, 1 << 30, err));
    TRY(in_range("temperature", o->target.temperature, 0, 2, err));
    if (o->input)
        TRY(parse_span(&s->in_min, &s->in_max, "input", o->input, err));
    if (o->output)
        TRY(parse_span(&s->out_min, &s->out_max, "output", o->output, err));
    if (o->rate)
        TRY(parse_rates(o, err));
    if (o->slo_text)
        TRY(load_slo_parse(&o->slo, o->slo_text, err));
    s->clients = (int)o->clients;
    s->n_request = (int)o->requests;
    s->shared = (int)o->shared;
    s->in_most = (int)o->in_most;
    s->seed = (uint64_t)o->seed;
    o->target.timeout_ms = (int)fmin(o->timeout_s * 1000, 2e9);
    o->target.server_pid = (int)o->pid;
    o->target.model = o->model;
    o->target.api = o->chat ? LOAD_CHAT : LOAD_COMPLETIONS;
    if (!o->target.api_key || !*o->target.api_key)
        o->target.api_key = getenv("OPENAI_API_KEY");
    return ST_OK;
}

/* ---- runs ---- */

static const char *phase;

static bool progress(void *ctx, size_t done, size_t total)
{
    char text[64];
    (void)ctx;
    snprintf(text, sizeof text, "%zu of %zu requests", done, total);
    progress_show(phase, total ? (double)done / (double)total : 0, text);
    return cli_interrupted != 0;
}

/* Thousands of streams are as many files. */
static void raise_file_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

struct runs {
    struct load_result results[RATES_MAX];
    struct load_summary summaries[RATES_MAX];
    size_t n;
};

static enum status run_all(struct options *o, struct load *l, struct runs *runs, struct error *err)
{
    size_t n = o->n_rate ? (size_t)o->n_rate : 1;
    for (size_t i = 0; i < n && !cli_interrupted; i++) {
        struct load_plan plan;
        char name[32];
        o->shape.rate = o->n_rate ? o->rates[i] : 0;
        TRY(load_plan_make(&plan, &o->shape, err));
        snprintf(name, sizeof name, n > 1 ? "run %zu/%zu" : "run", i + 1, n);
        phase = name;
        enum status st = load_run(l, &plan, &runs->results[i], err);
        load_plan_free(&plan);
        progress_end();
        if (st != ST_OK)
            return st;
        runs->n++;
        if (!load_summarize(&runs->summaries[i], &runs->results[i], &o->slo))
            return fail_nomem(err, "summary");
    }
    return runs->n ? ST_OK : fail(err, ST_CANCELED, "interrupted");
}

static enum status write_report(const struct options *o, const struct load *l, const struct runs *runs,
                                struct error *err)
{
    struct load_report r = {
        &o->target,      &o->shape, o->slo_text ? &o->slo : NULL, load_model(l), kernels_cpu_name(), runs->results,
        runs->summaries, runs->n};
    struct buf text = {0}, json = {0}, svg = {0};
    bool json_to_stdout = o->json && !strcmp(o->json, "-");
    load_report_text(&r, &text);
    load_report_json(&r, &json);
    load_chart(&r, &svg);
    enum status st = text.failed || json.failed || svg.failed ? fail_nomem(err, "report")
                                                              : cli_print(json_to_stdout ? &json : &text, err);
    if (st == ST_OK && o->json && !json_to_stdout)
        st = file_write_all(o->json, buf_str(&json), err);
    if (st == ST_OK && o->svg)
        st = file_write_all(o->svg, buf_str(&svg), err);
    buf_free(&text);
    buf_free(&json);
    buf_free(&svg);
    return st;
}

static enum status judge(const struct runs *runs, struct error *err)
{
    for (size_t i = 0; i < runs->n; i++) {
        const struct load_summary *s = &runs->summaries[i];
        if (s->interrupted)
            return fail(err, ST_CANCELED, "interrupted");
        if (s->n_ok == 0)
            return fail(err, ST_IO, "no request was answered%s%s", *runs->results[i].complaint ? ": " : "",
                        runs->results[i].complaint);
        if (s->void_reason)
            return fail(err, ST_LIMIT, "the numbers are void: %s", s->void_reason);
    }
    return ST_OK;
}

static enum status bench(struct options *o, struct error *err)
{
    struct load *l;
    struct runs *runs = mem_alloc_zero(1, sizeof *runs);
    if (!runs)
        return fail_nomem(err, "runs");
    progress_show("asking", 0, "for the model and its tokens");
    enum status st = load_open(&l, &o->target, err);
    if (st == ST_OK) {
        st = run_all(o, l, runs, err);
        if (st == ST_OK)
            st = write_report(o, l, runs, err);
        load_close(l);
    }
    if (st == ST_OK)
        st = judge(runs, err);
    for (size_t i = 0; i < runs->n; i++)
        load_result_free(&runs->results[i]);
    mem_free(runs);
    return st;
}

enum status cmd_bench_serve(int argc, char **argv, struct error *err)
{
    struct options o = {.shape = {.in_min = 512, .in_max = 512, .out_min = 128, .out_max = 128, .scale = 1, .speed = 1},
                        .target = {.progress = progress},
                        .seed = 1,
                        .timeout_s = 600};
    struct load_shape *s = &o.shape;
    const struct cli_option options[] = {
        {"rate", 'r', CLI_TEXT, &o.rate, "R[,R...]",
         "open loop: requests a second, Poisson arrivals; several are a sweep"},
        {"clients", 'c', CLI_INT, &o.clients, "N",
         "closed loop: N streams, each asking again when answered (default 8)"},
        {"trace", 0, CLI_TEXT, &s->trace, "FILE|-",
         "lengths and times of a trace: Azure's CSV, Mooncake's or AIBrix's JSON lines"},
        {"nano-vllm", 0, CLI_FLAG, &o.nano, NULL,
         "256 requests at once, 100-1024 tokens in and out (with --scale: less)"},
        {"requests", 'n', CLI_INT, &o.requests, "N", "how many (default: 8 a client, 100, or the whole trace)"},
        {"duration", 'd', CLI_REAL, &s->duration_s, "S", "seconds in which requests are sent"},
        {"input", 0, CLI_TEXT, &o.input, "A[-B]", "tokens of a prompt, uniform (default 512)"},
        {"output", 0, CLI_TEXT, &o.output, "A[-B]", "tokens of an answer, uniform (default 128)"},
        {"scale", 0, CLI_REAL, &s->scale, "F", "multiplies all lengths"},
        {"input-max", 0, CLI_INT, &o.in_most, "N", "longer prompts of a trace are cut"},
        {"shared-prefix", 0, CLI_INT, &o.shared, "N", "tokens that all prompts begin with"},
        {"speed", 0, CLI_REAL, &s->speed, "X", "a trace's time runs X times as fast"},
        {"trace-from", 0, CLI_REAL, &s->from_s, "S", "begin so many seconds into the trace"},
        {"trace-for", 0, CLI_REAL, &s->for_s, "S", "and take so many seconds of it"},
        {"seed", 0, CLI_INT, &o.seed, "N", "of lengths, times and words (default 1)"},
        {"slo", 0, CLI_TEXT, &o.slo_text, "LIST",
         "what a good answer is: ttft, itl (longest gap), tpot (mean), e2e, as in ttft=500ms,itl=100ms"},
        {"chat", 0, CLI_FLAG, &o.chat, NULL, "/v1/chat/completions (default: /v1/completions)"},
        {"model", 'm', CLI_TEXT, &o.model, "NAME", "default: the server's first"},
        {"api-key", 'k', CLI_TEXT, &o.target.api_key, "K", "default: $OPENAI_API_KEY"},
        {"temperature", 0, CLI_REAL, &o.target.temperature, "T", "default 0"},
        {"honor-eos", 0, CLI_FLAG, &o.target.honor_eos, NULL, "do not send ignore_eos, which OpenAI refuses"},
        {"extra", 0, CLI_TEXT, &o.target.extra, "JSON", "more fields of every request, e.g. {\"cache_prompt\":false}"},
        {"ca", 0, CLI_TEXT, &o.target.authorities, "FILE", "who may sign the server's certificate (PEM)"},
        {"insecure", 0, CLI_FLAG, &o.target.unchecked, NULL, "believe any certificate"},
        {"timeout", 0, CLI_REAL, &o.timeout_s, "S", "of a request (default 600)"},
        {"server-pid", 0, CLI_INT, &o.pid, "PID", "a local server's process: its CPU time and memory are reported"},
        {"json", 0, CLI_TEXT, &o.json, "FILE|-", "the numbers as JSON"},
        {"svg", 0, CLI_TEXT, &o.svg, "FILE", "charts: latencies, throughput over time, latency against rate"},
    };
    const struct cli_spec spec = {
        "ingot bench serve URL | MODEL [options] [-- options of the server]",
        "Puts load on a server that speaks OpenAI's API and reports what its clients see. With MODEL, `ingot serve` "
        "is\n"
        "started for the time of the bench. Latencies of an open loop count from when a request should have been sent.",
        "  ingot bench serve model.gguf --clients 32\n"
        "  ingot bench serve http://127.0.0.1:8080 --rate 0.5,1,2,4 --duration 60 --slo ttft=500ms,itl=100ms --svg "
        "r.svg\n"
        "  ingot bench serve http://127.0.0.1:8080 --trace AzureLLMInferenceTrace_code.csv --trace-for 120 --speed "
        "0.1\n"
        "  xz -dc conversation_trace.jsonl.xz | ingot bench serve model.gguf --trace - --scale 0.1 --requests 200\n"
        "  ingot bench serve model.gguf --nano-vllm --scale 0.25 --json - -- --kv-bytes 2G",
        CLI_TAKES(options, 1, -1)};
    struct cli_args args;
    TRY(cli_parse(&args, &spec, argc, argv, err));
    if (args.done)
        return ST_OK;
    TRY(check_options(&o, err));
    bool is_url = str_find(str_of(args.positional[0]), STR("://"), 0) != SIZE_MAX;
    if (is_url && args.n_positional > 1)
        return fail(err, ST_INVALID, "unexpected argument %s; usage: %s", args.positional[1], spec.usage);
    raise_file_limit();
    cli_catch_interrupt();
    struct server server = {.log = -1};
    o.target.url = args.positional[0];
    enum status st = ST_OK;
    if (!is_url) {
        st = server_start(&server, args.positional, args.n_positional, err);
        progress_end();
        o.target.url = server.url;
        o.target.server_pid = (int)server.pid;
    }
    if (st == ST_OK)
        st = bench(&o, err);
    progress_end();
    server_stop(&server);
    return st;
}
