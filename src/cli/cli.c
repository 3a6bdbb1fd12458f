#include "cli/cli.h"

#include "base/mem.h"

#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { OPTIONS_MAX = 96 };

/* ---- help ---- */

static void print_option(const struct cli_option *o)
{
    char left[64];
    int n = snprintf(left, sizeof left, o->letter ? "  -%c, --%s" : "%*s--%s", o->letter ? o->letter : 6,
                     o->letter ? o->name : "", o->name);
    if (!o->letter)
        n = snprintf(left, sizeof left, "      --%s", o->name);
    if (o->value && n > 0 && (size_t)n < sizeof left)
        snprintf(left + n, sizeof left - (size_t)n, " %s", o->value);
    printf("%-30s %s\n", left, o->help);
}

static void cli_help(const struct cli_spec *spec)
{
    printf("usage: %s\n\n%s\n", spec->usage, spec->about);
    if (spec->n_option)
        printf("\noptions:\n");
    for (size_t i = 0; i < spec->n_option; i++)
        print_option(&spec->options[i]);
    printf("  -h, --help                   this text\n");
    if (spec->examples)
        printf("\nexamples:\n%s\n", spec->examples);
}

/* ---- values ---- */

static enum status value_wrong(const struct cli_option *o, const char *value, const char *wanted, struct error *err)
{
    return fail(err, ST_INVALID, "--%s %s: expected %s", o->name, value, wanted);
}

static enum status parse_bytes(uint64_t *out, const struct cli_option *o, const char *value, struct error *err)
{
    struct str s = str_of(value);
    static const char units[] = "KMG";
    uint64_t scale = 1;
    if (s.len && (s.ptr[s.len - 1] == 'B' || s.ptr[s.len - 1] == 'b'))
        s.len--;
    const char *unit = s.len ? strchr(units, toupper((unsigned char)s.ptr[s.len - 1])) : NULL;
    if (unit && *unit) {
        scale = (uint64_t)1 << (10 * (unit - units + 1));
        s.len--;
    }
    double n;
    if (!str_to_f64(&n, s) || !(n >= 0) || n * (double)scale > 9e18)
        return value_wrong(o, value, "a size such as 512M or 2G", err);
    *out = (uint64_t)(n * (double)scale);
    return ST_OK;
}

static enum status add_text(const struct cli_option *o, const char *value, struct error *err)
{
    struct cli_texts *texts = o->out;
    if (texts->of_environment)
        texts->count = 0;
    texts->of_environment = false;
    if (texts->count == (int)(sizeof texts->items / sizeof *texts->items))
        return fail(err, ST_INVALID, "--%s: at most %d of them", o->name, texts->count);
    if (*value)
        texts->items[texts->count++] = value;
    return ST_OK;
}

static enum status set_value(const struct cli_option *o, const char *value, struct error *err)
{
    double number;
    switch (o->kind) {
    case CLI_FLAG:
        *(bool *)o->out = true;
        return ST_OK;
    case CLI_TEXT:
        *(const char **)o->out = value;
        return ST_OK;
    case CLI_TEXTS:
        return add_text(o, value, err);
    case CLI_INT:
        return str_to_i64(o->out, str_of(value)) ? ST_OK : value_wrong(o, value, "a whole number", err);
    case CLI_REAL:
        return str_to_f64(&number, str_of(value)) && number == number ? (*(double *)o->out = number, ST_OK)
                                                                      : value_wrong(o, value, "a number", err);
    case CLI_BYTES:
        return parse_bytes(o->out, o, value, err);
    }
    return ST_OK;
}

/* INGOT_KV_BYTES for --kv-bytes. */
static enum status from_environment(const struct cli_option *o, struct error *err)
{
    char name[80] = "INGOT_";
    size_t n = 6;
    for (const char *p = o->name; *p && n < sizeof name - 1; p++)
        name[n++] = (char)(*p == '-' ? '_' : toupper((unsigned char)*p));
    const char *value = getenv(name);
    if (!value || !*value)
        return ST_OK;
    if (o->kind == CLI_FLAG && (!strcmp(value, "0") || !strcmp(value, "false")))
        return ST_OK;
    enum status st = set_value(o, value, err);
    if (o->kind == CLI_TEXTS)
        ((struct cli_texts *)o->out)->of_environment = true;
    return st == ST_OK ? st : fail_context(err, "%s", name);
}

/* ---- parsing ---- */

static enum status unknown_option(const struct cli_spec *spec, const char *given, struct error *err)
{
    struct str s = str_of(given);
    while (s.len && s.ptr[0] == '-')
        s = str_from(s, 1);
    size_t equal = str_find(s, STR("="), 0);
    if (equal != SIZE_MAX)
        s.len = equal;
    size_t best = s.len / 3 + 2; /* a third of the letters may be wrong */
    const char *near = NULL;
    for (size_t i = 0; i < spec->n_option; i++) {
        const struct cli_option *o = &spec->options[i];
        if (equal != SIZE_MAX && o->kind == CLI_FLAG && str_is(s, o->name))
            return fail(err, ST_INVALID, "%s: --%s takes no value", given, o->name);
        if (s.len == 1 && o->letter == s.ptr[0])
            return fail(err, ST_INVALID, "unknown option %s: did you mean -%c?", given, o->letter);
        if (best && s.len > 1 && str_starts(str_of(o->name), s))
            best = 0, near = o->name; /* begun, but several begin so */
        size_t d = str_distance(s, str_of(spec->options[i].name), best);
        if (d < best)
            best = d, near = spec->options[i].name;
    }
    if (near)
        return fail(err, ST_INVALID, "unknown option %s: did you mean --%s?", given, near);
    return fail(err, ST_INVALID, "unknown option %s: --help lists all", given);
}

static enum status count_check(const struct cli_spec *spec, int n, char *const *positional, struct error *err)
{
    for (int i = 0; i < n; i++)
        if (!*positional[i])
            return fail(err, ST_INVALID, "an argument is empty; usage: %s", spec->usage);
    if (n < spec->positional_min)
        return fail(err, ST_INVALID, "an argument is missing; usage: %s", spec->usage);
    if (spec->positional_max >= 0 && n > spec->positional_max)
        return fail(err, ST_INVALID, "unexpected argument %s; usage: %s", positional[spec->positional_max],
                    spec->usage);
    return ST_OK;
}

enum status cli_parse(struct cli_args *out, const struct cli_spec *spec, int argc, char **argv, struct error *err)
{
    struct option longs[OPTIONS_MAX + 2];
    char shorts[2 * OPTIONS_MAX + 4] = ":h";
    size_t n_short = 2;
    *out = (struct cli_args){0};
    for (size_t i = 0; i < spec->n_option && i < OPTIONS_MAX; i++) {
        const struct cli_option *o = &spec->options[i];
        longs[i] = (struct option){o->name, o->kind == CLI_FLAG ? no_argument : required_argument, NULL, 256 + (int)i};
        if (o->letter) {
            shorts[n_short++] = o->letter;
            if (o->kind != CLI_FLAG)
                shorts[n_short++] = ':';
        }
        TRY(from_environment(o, err));
    }
    longs[spec->n_option] = (struct option){"help", no_argument, NULL, 'h'};
    longs[spec->n_option + 1] = (struct option){0};
    opterr = 0;
    optind = 0; /* getopt starts over: a program may parse twice */
    for (int c; (c = getopt_long(argc, argv, shorts, longs, NULL)) != -1;) {
        const struct cli_option *o = NULL;
        if (c == 'h') {
            cli_help(spec);
            out->done = true;
            return ST_OK;
        }
        if (c == ':')
            return fail(err, ST_INVALID, "%s needs a value", argv[optind - 1]);
        for (size_t i = 0; i < spec->n_option; i++)
            if (c == 256 + (int)i || c == spec->options[i].letter)
                o = &spec->options[i];
        if (!o) /* c is '?' */
            return unknown_option(spec, argv[optind - 1], err);
        TRY(set_value(o, optarg, err));
    }
    out->positional = argv + optind;
    out->n_positional = argc - optind;
    return count_check(spec, out->n_positional, out->positional, err);
}

/* ---- models ---- */

static enum status range_check(const char *name, int64_t value, int64_t least, int64_t most, struct error *err)
{
    if (value < least || value > most)
        return fail(err, ST_INVALID, "--%s %lld: expected %lld to %lld", name, (long long)value, (long long)least,
                    (long long)most);
    return ST_OK;
}

/* DIR as given, also to commands without --cache by $INGOT_CACHE; $XDG_CACHE_HOME/ingot, or ~/.cache/ingot; NULL:
 * none. */
static const char *cache_folder(const char *given)
{
    static char path[4096]; /* of the process: every command opens one model's cache */
    const char *xdg = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    given = given ? given : getenv("INGOT_CACHE");
    if (given && *given)
        return strcmp(given, "off") == 0 ? NULL : given;
    if (xdg && *xdg == '/')
        return path_join(path, sizeof path, xdg, "ingot");
    return home && *home == '/' ? path_join(path, sizeof path, home, ".cache/ingot") : NULL;
}

/* All but the pool. */
enum status cli_model_numbers(struct model_options *out, const struct cli_model *m, struct error *err)
{
    TRY(range_check("ctx", m->ctx, 0, 1 << 24, err));
    *out = (struct model_options){.n_ctx = (int)m->ctx, .exact = m->exact, .kv = m->exact ? KV_F32 : KV_F16};
    out->any_task = m->any_task;
    if (m->pooling) {
        out->pooling = pooling_parse(str_of(m->pooling));
        if (!out->pooling)
            return fail(err, ST_INVALID,
                        "--pooling %s: expected mean, cls, last, max, sqrt or weighted, several as cls+max, or rank",
                        m->pooling);
    }
    if (m->kv) {
        int found = -1;
        for (int i = 0; i < 3; i++)
            found = strcmp(m->kv, model_kv_names[i]) == 0 ? i : found;
        if (found < 0)
            return fail(err, ST_INVALID, "--kv %s: expected f32, f16 or int8", m->kv);
        out->kv = (enum kv_type)found;
    }
    out->cache = cache_folder(m->cache);
    out->cache_bytes_max = m->cache_bytes;
    out->progress = progress_model;
    return ST_OK;
}

enum status cli_model_options(struct model_options *out, struct pool **pool, const struct cli_model *m,
                              struct error *err)
{
    TRY(range_check("threads", m->threads, 0, 1024, err));
    TRY(cli_model_numbers(out, m, err));
    TRY(pool_create(pool, m->threads ? (int)m->threads : cpu_count(), err));
    out->pool = *pool;
    return ST_OK;
}

enum status cli_bundle_open(struct bundle **out, struct pool **pool, const char *path, const struct cli_model *m,
                            struct error *err)
{
    struct model_options options;
    TRY(cli_model_options(&options, pool, m, err));
    enum status st = bundle_open(out, path, &options, err);
    progress_end();
    if (st != ST_OK) {
        pool_destroy(*pool);
        *pool = NULL;
    }
    return st;
}

static enum status open_draft(struct bundle **out, const struct cli_model *m, struct pool *pool, struct error *err)
{
    struct model_options options;
    TRY(cli_model_numbers(&options, m, err));
    options.pool = pool;
    enum status st = bundle_open(out, m->draft, &options, err);
    progress_end();
    return st;
}

enum status cli_engine_options(struct engine_options *out, const struct cli_model *m, struct pool *pool,
                               struct error *err)
{
    TRY(range_check("prefill-chunk", m->prefill_chunk, 0, 1 << 16, err));
    TRY(range_check("max-sequences", m->max_sequences, 0, 1 << 16, err));
    TRY(range_check("queue", m->queue_max, 0, 1 << 20, err));
    TRY(range_check("draft-tokens", m->draft_tokens, 0, DRAFT_MAX, err));
    if (!(m->itl_ms >= 0 && m->itl_ms <= 1e9))
        return fail(err, ST_INVALID, "--itl-ms %g: expected milliseconds, 0 to 1e9", m->itl_ms);
    *out = (struct engine_options){
        .n_thread = (int)m->threads,
        .kv_bytes = m->kv_bytes,
        .prefill_chunk = (int)m->prefill_chunk,
        .max_sequences = (int)m->max_sequences,
        .queue_max = (int)m->queue_max,
        .itl_ms = m->itl_ms,
        .no_prefix_cache = m->no_prefix_cache,
        .kv_spill = m->kv_spill,
        .kv_spill_bytes = m->kv_spill_bytes,
        .draft_tokens = (int)m->draft_tokens,
        .pool = pool,
    };
    return m->draft && m->draft_tokens ? open_draft(&out->draft, m, pool, err) : ST_OK;
}

enum status cli_engine_start(struct engine **out, struct bundle *bundle, const struct cli_model *m, struct pool *pool,
                             struct error *err)
{
    struct engine_options options;
    *out = NULL;
    TRY(cli_engine_options(&options, m, pool, err));
    options.max_sequences = 1;
    return engine_create(out, bundle, &options, err);
}

/* ---- sampling ---- */

void cli_sampling_init(struct cli_sampling *s)
{
    const double none = (double)__builtin_nanf("");
    *s = (struct cli_sampling){0, -1, -1, none, none, none, none, none, none, none, {{0}, 0, false}};
}

/* Given on the command line, else the model's own default, else off. */
static float choose(double given, double of_model, float off)
{
    return given == given ? (float)given : of_model == of_model && of_model >= 0 ? (float)of_model : off;
}

enum status cli_sampling_fill(struct request *out, const struct cli_sampling *s, const struct bundle *b,
                              struct error *err)
{
    const double none = (double)__builtin_nanf("");
    struct sampling *to = &out->sampling;
    sampling_defaults(to);
    TRY(range_check("max-tokens", s->n, 0, 1 << 24, err));
    TRY(range_check("top-k", s->top_k, -1, INT32_MAX, err)); /* -1, as everywhere: the model's default */
    TRY(range_check("seed", s->seed, -1, INT64_MAX, err));
    to->max_tokens = (int)s->n;
    to->temperature = choose(s->temperature, b->temperature, 0.7f);
    to->top_p = choose(s->top_p, b->top_p, 1);
    to->min_p = choose(s->min_p, none, 0);
    to->typical_p = choose(s->typical_p, none, 1);
    to->repetition_penalty = choose(s->repetition_penalty, b->repetition_penalty, 1);
    to->presence_penalty = choose(s->presence_penalty, none, 0);
    to->frequency_penalty = choose(s->frequency_penalty, none, 0);
    to->top_k = s->top_k >= 0 ? (int)s->top_k : b->top_k > 0 ? b->top_k : 0;
    to->has_seed = s->seed >= 0;
    to->seed = s->seed >= 0 ? (uint64_t)s->seed : 0;
    to->n_logprobs = -1;
    for (int i = 0; i < s->stops.count; i++)
        out->stops[out->n_stop++] = str_of(s->stops.items[i]);
    const char *param = "";
    if (sampling_check(to, &param, err) == ST_OK)
        return ST_OK;
    char name[64];
    snprintf(name, sizeof name, "--%s", param);
    for (char *p = name; *p; p++)
        *p = *p == '_' ? '-' : *p;
    return fail_context(err, "%s", name);
}

/* ---- output ---- */

static bool bar_shown;

bool cli_is_terminal(int fd)
{
    return isatty(fd) == 1;
}

void progress_show(const char *phase, double done, const char *text)
{
    enum { WIDTH = 30 };
    if (!cli_is_terminal(STDERR_FILENO))
        return;
    char bar[WIDTH + 1];
    int full = (int)((done < 0 ? 0 : done > 1 ? 1 : done) * WIDTH);
    for (int i = 0; i < WIDTH; i++)
        bar[i] = i < full ? '#' : '.';
    bar[WIDTH] = 0;
    fprintf(stderr, "\r\033[K%-10s %s %3.0f %%%s%s", phase, bar, done * 100, text && *text ? "  " : "",
            text ? text : "");
    fflush(stderr);
    bar_shown = true;
}

void progress_model(void *ctx, const char *phase, double done)
{
    (void)ctx;
    progress_show(phase, done, NULL);
}

void progress_end(void)
{
    if (bar_shown)
        fputs("\r\033[K", stderr);
    bar_shown = false;
}

enum status cli_print(const struct buf *text, struct error *err)
{
    if (text->failed)
        return fail_nomem(err, "output");
    if (fwrite(text->ptr ? text->ptr : "", 1, text->len, stdout) != text->len || fflush(stdout))
        return fail(err, ST_IO, "standard output: %s", strerror(errno));
    return ST_OK;
}

char *cli_bytes_text(char *text, size_t size, uint64_t bytes)
{
    static const char *const units[] = {"B", "KB", "MB", "GB", "TB"};
    double n = (double)bytes;
    int unit = 0;
    for (; n >= 1000 && unit < 4; unit++)
        n /= 1000;
    snprintf(text, size, unit ? "%.1f %s" : "%.0f %s", n, units[unit]);
    return text;
}

volatile int cli_interrupted;

static void on_interrupt(int signal_number)
{
    (void)signal_number;
    if (cli_interrupted)
        _exit(130);
    __atomic_store_n(&cli_interrupted, 1, __ATOMIC_RELAXED); /* other threads look at it */
}

void cli_catch_interrupt(void)
{
    struct sigaction action = {.sa_handler = on_interrupt};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}
