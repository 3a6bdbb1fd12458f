#include "load/load.h"

#include "base/mem.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* Of one core: beyond it, what is measured may be the generator. */
static const double CLIENT_SHARE_MAX = 0.8;
/* Requests that leave so late, in the 99th of a hundred, were not sent at the rate that was asked for. */
static const double LATE_MAX_S = 0.05;

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double quantile(const double *sorted, size_t n, double q)
{
    double at = q * (double)(n - 1);
    size_t low = (size_t)at;
    double rest = at - (double)low;
    return low + 1 < n ? sorted[low] + rest * (sorted[low + 1] - sorted[low]) : sorted[n - 1];
}

struct load_quantiles load_quantiles_of(double *values, size_t n)
{
    struct load_quantiles q = {.n = n};
    double sum = 0;
    if (n == 0)
        return q;
    qsort(values, n, sizeof *values, by_value);
    for (size_t i = 0; i < n; i++)
        sum += values[i];
    q.mean = sum / (double)n;
    q.p50 = quantile(values, n, 0.5);
    q.p90 = quantile(values, n, 0.9);
    q.p95 = quantile(values, n, 0.95);
    q.p99 = quantile(values, n, 0.99);
    q.max = values[n - 1];
    return q;
}

/* ---- the SLO ---- */

/* "500ms", "0.5s", "250us"; a number alone is milliseconds. */
static bool parse_duration(double *out, struct str s)
{
    static const struct {
        const char *unit;
        double seconds;
    } units[] = {{"us", 1e-6}, {"ms", 1e-3}, {"s", 1}, {"", 1e-3}};
    for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
        struct str unit = str_of(units[i].unit);
        double n;
        if (!str_ends(s, unit) || !str_to_f64(&n, str_n(s.ptr, s.len - unit.len)) || !(n > 0 && n < 1e9))
            continue;
        *out = n * units[i].seconds;
        return true;
    }
    return false;
}

enum status load_slo_parse(struct load_slo *out, const char *text, struct error *err)
{
    *out = (struct load_slo){0};
    const struct {
        const char *name;
        double *value;
    } rows[] = {{"ttft", &out->ttft}, {"itl", &out->itl}, {"tpot", &out->tpot}, {"e2e", &out->e2e}};
    struct str rest = str_of(text);
    while (rest.len) {
        const char *comma = memchr(rest.ptr, ',', rest.len);
        struct str part = comma ? str_n(rest.ptr, (size_t)(comma - rest.ptr)) : rest;
        size_t equal = str_find(part, STR("="), 0);
        bool known = false;
        rest = str_from(rest, part.len + 1);
        for (size_t i = 0; i < 4 && equal != SIZE_MAX; i++)
            if (str_is(str_trim(str_n(part.ptr, equal)), rows[i].name))
                known = parse_duration(rows[i].value, str_trim(str_from(part, equal + 1)));
        if (!known)
            return fail(err, ST_INVALID,
                        "--slo %.*s: expected ttft, itl, tpot or e2e and a time, as in "
                        "ttft=500ms,itl=100ms",
                        STR_ARG(part));
    }
    return ST_OK;
}

/* ---- one run ---- */

static double tpot_of(const struct load_sample *s)
{
    return s->n_out > 1 && s->last > s->first ? (s->last - s->first) / (s->n_out - 1) : 0;
}

static bool within(double value, double most)
{
    return most <= 0 || value <= most;
}

static bool is_good(const struct load_sample *s, const struct load_slo *slo)
{
    return within(s->first - s->intended, slo->ttft) && within(s->longest_gap, slo->itl) &&
           within(tpot_of(s), slo->tpot) && within(s->end - s->intended, slo->e2e);
}

static void count_status(struct load_summary *out, int status)
{
    enum { MAX = sizeof out->statuses / sizeof *out->statuses };
    int i = 0;
    while (i < out->n_status && out->statuses[i].status != status)
        i++;
    if (i == out->n_status && i < MAX)
        out->statuses[out->n_status++] = (struct load_status_count){status, 0};
    if (i < out->n_status)
        out->statuses[i].n++;
}

struct columns { /* of n values each */
    double *ttft, *tpot, *e2e, *late, *refused, *itl;
    size_t n_ttft, n_tpot, n_late, n_refused;
};

static void take_sample(struct load_summary *out, struct columns *c, const struct load_sample *s,
                        const struct load_slo *slo)
{
    if (s->sent >= 0)
        c->late[c->n_late++] = s->sent - s->intended;
    if (s->outcome >= LOAD_KINDS) {
        count_status(out, s->outcome);
        c->refused[c->n_refused++] = s->end - s->intended;
        return;
    }
    out->by_kind[s->outcome]++;
    if (s->outcome != LOAD_OK)
        return;
    out->n_ok++;
    out->n_good += is_good(s, slo);
    out->tokens_in += s->n_in;
    out->tokens_out += s->n_out;
    c->ttft[c->n_ttft] = s->first - s->intended;
    c->e2e[c->n_ttft++] = s->end - s->intended;
    if (s->n_out > 1)
        c->tpot[c->n_tpot++] = tpot_of(s);
}

static const char *find_void(const struct load_summary *s)
{
    if (s->client_share > CLIENT_SHARE_MAX)
        return "the generator used more than 80 % of a core: it may be what was measured";
    if (s->rate > 0 && s->late.p99 > LATE_MAX_S)
        return "the generator sent requests more than 50 ms late: it had too little CPU";
    return NULL;
}

bool load_summarize(struct load_summary *out, const struct load_result *r, const struct load_slo *slo)
{
    static const struct load_slo none;
    size_t n = r->n + 1;
    double *all = mem_alloc_zero(5 * n + r->n_gap + 1, sizeof *all);
    *out = (struct load_summary){.rate = r->rate,
                                 .clients = r->clients,
                                 .n = r->n,
                                 .seconds = r->seconds,
                                 .client_cpu_s = r->client_cpu_s,
                                 .server_cpu_s = r->server_cpu_s,
                                 .server_rss_peak = r->server_rss_peak,
                                 .client_rss_peak = r->client_rss_peak,
                                 .interrupted = r->interrupted};
    if (!all)
        return false;
    struct columns c = {all, all + n, all + 2 * n, all + 3 * n, all + 4 * n, all + 5 * n, 0, 0, 0, 0};
    for (size_t i = 0; i < r->n; i++)
        take_sample(out, &c, &r->samples[i], slo ? slo : &none);
    for (size_t i = 0; i < r->n_gap; i++)
        c.itl[i] = r->gaps[i];
    out->ttft = load_quantiles_of(c.ttft, c.n_ttft);
    out->e2e = load_quantiles_of(c.e2e, c.n_ttft);
    out->tpot = load_quantiles_of(c.tpot, c.n_tpot);
    out->late = load_quantiles_of(c.late, c.n_late);
    out->refused = load_quantiles_of(c.refused, c.n_refused);
    out->itl = load_quantiles_of(c.itl, r->n_gap);
    out->client_share = r->seconds > 0 ? r->client_cpu_s / r->seconds : 0;
    out->void_reason = find_void(out);
    mem_free(all);
    return true;
}
