#include "load/load.h"

#include <stdio.h>

static const char *load_outcome_name(int outcome, char text[32])
{
    static const char *const names[LOAD_KINDS] = {"ok",      "no_connection", "cut",   "malformed",
                                                  "timeout", "error_event",   "empty", "unsent"};
    if (outcome < LOAD_KINDS)
        return names[outcome];
    snprintf(text, 32, "http_%d", outcome);
    return text;
}

static double per_second(double n, const struct load_summary *s)
{
    return s->seconds > 0 ? n / s->seconds : 0;
}

/* ---- for people ---- */

static void text_row(struct buf *out, const char *name, const struct load_quantiles *q)
{
    buf_printf(out, "  %-22s%9.1f%9.1f%9.1f%9.1f%9.1f%9.1f\n", name, q->mean * 1e3, q->p50 * 1e3, q->p90 * 1e3,
               q->p95 * 1e3, q->p99 * 1e3, q->max * 1e3);
}

static void text_errors(struct buf *out, const struct load_summary *s)
{
    char name[32];
    for (int i = 1; i < LOAD_KINDS; i++)
        if (s->by_kind[i])
            buf_printf(out, ", %zu %s", s->by_kind[i], load_outcome_name(i, name));
    for (int i = 0; i < s->n_status; i++)
        buf_printf(out, ", %zu %s", s->statuses[i].n, load_outcome_name(s->statuses[i].status, name));
}

static void text_run(struct buf *out, const struct load_report *r, const struct load_summary *s, const char *complaint)
{
    if (s->clients)
        buf_printf(out, "%d streams, closed loop", s->clients);
    else
        buf_printf(out, "open loop, %.4g requests/s offered", s->rate);
    buf_printf(out, ": %zu requests in %.2f s, %zu ok", s->n, s->seconds, s->n_ok);
    text_errors(out, s);
    buf_printf(out,
               "\n  output %.1f tok/s, in and out %.1f tok/s, %.2f requests/s answered; %.0f tokens in, %.0f out\n",
               per_second(s->tokens_out, s), per_second(s->tokens_in + s->tokens_out, s),
               per_second((double)s->n_ok, s), s->tokens_in, s->tokens_out);
    buf_printf(out, "  %-22s%9s%9s%9s%9s%9s%9s\n", "milliseconds", "mean", "p50", "p90", "p95", "p99", "max");
    text_row(out, "time to first token", &s->ttft);
    text_row(out, "between tokens", &s->itl);
    text_row(out, "per token, a request", &s->tpot);
    text_row(out, "whole answer", &s->e2e);
    if (s->refused.n)
        text_row(out, "until refused", &s->refused);
    if (r->slo && (r->slo->ttft > 0 || r->slo->itl > 0 || r->slo->tpot > 0 || r->slo->e2e > 0))
        buf_printf(out, "  goodput %.2f requests/s: %zu of %zu (%.1f %%) met the objectives\n",
                   per_second((double)s->n_good, s), s->n_good, s->n,
                   s->n ? 100.0 * (double)s->n_good / (double)s->n : 0);
    if (s->server_cpu_s >= 0)
        buf_printf(out, "  server %.2f CPU-s, %.1f us a token out, at most %.0f MB resident\n", s->server_cpu_s,
                   s->tokens_out > 0 ? s->server_cpu_s / s->tokens_out * 1e6 : 0, (double)s->server_rss_peak / 1e6);
    buf_printf(out, "  generator %.0f %% of a core, sent %.2f ms late (p99)\n", s->client_share * 100,
               s->late.p99 * 1e3);
    if (complaint[0])
        buf_printf(out, "  first error: %s\n", complaint);
    if (s->interrupted)
        buf_printf(out, "  interrupted: what was under way is not counted as ok\n");
    if (s->void_reason)
        buf_printf(out, "  VOID: %s\n", s->void_reason);
}

void load_report_text(const struct load_report *r, struct buf *out)
{
    buf_printf(out, "%s, model %s, %s%s%s\n", r->target->url, r->model,
               r->target->api == LOAD_CHAT ? "chat" : "completions", *r->cpu ? "; client on " : "", r->cpu);
    for (size_t i = 0; i < r->n; i++)
        text_run(out, r, &r->summaries[i], r->results[i].complaint);
}

/* ---- for programs ---- */

static void json_quantiles(struct json_writer *w, const char *key, const struct load_quantiles *q)
{
    json_key(w, key);
    json_begin_object(w);
    json_put_int(w, "n", (int64_t)q->n);
    json_put_real(w, "mean", q->mean * 1e3);
    json_put_real(w, "p50", q->p50 * 1e3);
    json_put_real(w, "p90", q->p90 * 1e3);
    json_put_real(w, "p95", q->p95 * 1e3);
    json_put_real(w, "p99", q->p99 * 1e3);
    json_put_real(w, "max", q->max * 1e3);
    json_end_object(w);
}

static void json_errors(struct json_writer *w, const struct load_summary *s)
{
    char name[32];
    json_key(w, "errors");
    json_begin_object(w);
    for (int i = 1; i < LOAD_KINDS; i++)
        if (s->by_kind[i])
            json_put_int(w, load_outcome_name(i, name), (int64_t)s->by_kind[i]);
    for (int i = 0; i < s->n_status; i++)
        json_put_int(w, load_outcome_name(s->statuses[i].status, name), (int64_t)s->statuses[i].n);
    json_end_object(w);
}

static void json_slo(struct json_writer *w, const struct load_slo *slo)
{
    const struct {
        const char *name;
        double value;
    } rows[] = {{"ttft", slo->ttft}, {"itl", slo->itl}, {"tpot", slo->tpot}, {"e2e", slo->e2e}};
    json_key(w, "slo_ms");
    json_begin_object(w);
    for (size_t i = 0; i < 4; i++)
        if (rows[i].value > 0)
            json_put_real(w, rows[i].name, rows[i].value * 1e3);
    json_end_object(w);
}

static void json_run(struct json_writer *w, const struct load_summary *s, const char *complaint)
{
    json_begin_object(w);
    if (s->clients)
        json_put_int(w, "clients", s->clients);
    else
        json_put_real(w, "rate", s->rate);
    json_put_int(w, "requests", (int64_t)s->n);
    json_put_int(w, "ok", (int64_t)s->n_ok);
    json_errors(w, s);
    json_put_real(w, "seconds", s->seconds);
    json_put_real(w, "input_tokens", s->tokens_in);
    json_put_real(w, "output_tokens", s->tokens_out);
    json_put_real(w, "output_tok_s", per_second(s->tokens_out, s));
    json_put_real(w, "total_tok_s", per_second(s->tokens_in + s->tokens_out, s));
    json_put_real(w, "requests_s", per_second((double)s->n_ok, s));
    json_put_real(w, "goodput_s", per_second((double)s->n_good, s));
    json_put_real(w, "good_share", s->n ? (double)s->n_good / (double)s->n : 0);
    json_quantiles(w, "ttft_ms", &s->ttft);
    json_quantiles(w, "itl_ms", &s->itl);
    json_quantiles(w, "tpot_ms", &s->tpot);
    json_quantiles(w, "e2e_ms", &s->e2e);
    json_quantiles(w, "refused_ms", &s->refused);
    json_quantiles(w, "sent_late_ms", &s->late);
    json_put_real(w, "client_cpu_s", s->client_cpu_s);
    json_put_real(w, "client_share", s->client_share);
    json_put_int(w, "client_rss_peak", (int64_t)s->client_rss_peak);
    if (s->server_cpu_s >= 0) {
        json_put_real(w, "server_cpu_s", s->server_cpu_s);
        json_put_int(w, "server_rss_peak", (int64_t)s->server_rss_peak);
    }
    if (complaint[0])
        json_put_str(w, "first_error", str_of(complaint));
    json_put_bool(w, "interrupted", s->interrupted);
    json_put_bool(w, "void", s->void_reason != NULL);
    if (s->void_reason)
        json_put_str(w, "void_reason", str_of(s->void_reason));
    json_end_object(w);
}

static void json_shape(struct json_writer *w, const struct load_shape *s)
{
    json_key(w, "load");
    json_begin_object(w);
    if (s->trace) {
        json_put_str(w, "trace", str_of(s->trace));
        json_put_real(w, "from_s", s->from_s);
        json_put_real(w, "for_s", s->for_s);
        json_put_real(w, "speed", s->speed > 0 ? s->speed : 1);
    } else {
        json_put_int(w, "input_min", s->in_min);
        json_put_int(w, "input_max", s->in_max);
        json_put_int(w, "output_min", s->out_min);
        json_put_int(w, "output_max", s->out_max);
    }
    json_put_real(w, "scale", s->scale > 0 ? s->scale : 1);
    json_put_int(w, "shared_tokens", s->shared);
    json_put_int(w, "seed", (int64_t)s->seed);
    json_end_object(w);
}

void load_report_json(const struct load_report *r, struct buf *out)
{
    struct json_writer w;
    json_writer_init(&w, out);
    w.indent = 1;
    json_begin_object(&w);
    json_put_str(&w, "url", str_of(r->target->url));
    json_put_str(&w, "model", str_of(r->model));
    json_put_str(&w, "api", r->target->api == LOAD_CHAT ? STR("chat") : STR("completions"));
    json_put_str(&w, "client_cpu", str_of(r->cpu));
    json_shape(&w, r->shape);
    if (r->slo)
        json_slo(&w, r->slo);
    json_key(&w, "runs");
    json_begin_array(&w);
    for (size_t i = 0; i < r->n; i++)
        json_run(&w, &r->summaries[i], r->results[i].complaint);
    json_end_array(&w);
    json_end_object(&w);
    buf_append_char(out, '\n');
}
