/* One SVG of what a run was like: how latencies are spread, throughput over time, and, when several rates were tried,
 * latency against rate. Plain shapes and text: nothing is loaded from elsewhere, it prints as it looks. */
#include "load/load.h"

#include "base/mem.h"
#include "kernels/kernels.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { WIDTH = 880, PANEL = 260, LEFT = 70, RIGHT = 150, TOP = 34, BOTTOM = 42, POINTS = 240 };

static const char *const colors[] = {"#2a6fb0", "#d9822b", "#3a9a5b", "#a04ab5",
                                     "#b83a3a", "#6b7785", "#0f8f8f", "#8a6d1a"};
enum { N_COLOR = sizeof colors / sizeof *colors };

struct panel {
    struct buf *out;
    double top, x0, x1, y0, y1; /* of the data; with log scales, of their logarithms */
    bool log_x, log_y;
    int n_line;
};

/* The nearest whole power of ten is exact: ticks stand on those. */
static double decades(double x)
{
    double d = fn_log64(x) / 2.302585092994046, whole = round(d);
    return fabs(d - whole) < 1e-9 ? whole : d;
}

static double on_x(const struct panel *p, double x)
{
    double t = ((p->log_x ? decades(x) : x) - p->x0) / (p->x1 - p->x0);
    return LEFT + t * (WIDTH - LEFT - RIGHT);
}

static double on_y(const struct panel *p, double y)
{
    double t = ((p->log_y ? decades(y) : y) - p->y0) / (p->y1 - p->y0);
    return p->top + PANEL - BOTTOM - t * (PANEL - TOP - BOTTOM);
}

static void put_text(struct buf *out, double x, double y, const char *anchor, const char *text)
{
    buf_printf(out, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\">", x, y, anchor);
    for (const char *c = text; *c; c++)
        if (*c == '<' || *c == '&' || *c == '>')
            buf_printf(out, "&#%d;", *c);
        else
            buf_append_char(out, *c);
    buf_append_str(out, STR("</text>\n"));
}

/* A round step that makes about five of them. */
static double step_of(double span)
{
    double raw = span / 5, base = fn_pow(10, floor(decades(raw)));
    return raw / base < 1.5 ? base : raw / base < 3.5 ? 2 * base : raw / base < 7.5 ? 5 * base : 10 * base;
}

static void tick(struct panel *p, bool is_x, double value)
{
    char text[32];
    snprintf(text, sizeof text, "%.6g", value);
    if (is_x) {
        double x = on_x(p, value);
        buf_printf(p->out, "<path class=\"g\" d=\"M%.1f %.1fV%.1f\"/>\n", x, p->top + TOP, p->top + PANEL - BOTTOM);
        put_text(p->out, x, p->top + PANEL - BOTTOM + 15, "middle", text);
    } else {
        double y = on_y(p, value);
        buf_printf(p->out, "<path class=\"g\" d=\"M%d %.1fH%d\"/>\n", LEFT, y, WIDTH - RIGHT);
        put_text(p->out, LEFT - 6, y + 4, "end", text);
    }
}

static void axis(struct panel *p, bool is_x, bool is_log)
{
    double from = is_x ? p->x0 : p->y0, to = is_x ? p->x1 : p->y1;
    if (is_log) {
        for (double e = ceil(from - 1e-9); e <= to + 1e-9; e++)
            tick(p, is_x, fn_pow(10, e));
        return;
    }
    double step = step_of(to - from);
    for (double v = ceil(from / step) * step; v <= to + step * 1e-6; v += step)
        tick(p, is_x, fabs(v) < step * 1e-9 ? 0 : v);
}

static struct panel panel_begin(struct buf *out, int index, const char *title, const char *x_name)
{
    struct panel p = {.out = out, .top = 24 + index * PANEL};
    buf_printf(out, "<g>\n<text class=\"t\" x=\"%d\" y=\"%.1f\">%s</text>\n", LEFT, p.top + 20, title);
    put_text(out, (LEFT + WIDTH - RIGHT) / 2.0, p.top + PANEL - 8, "middle", x_name);
    return p;
}

/* Data bounds, widened so that no span is empty. */
static void bounds(struct panel *p, double x0, double x1, double y0, double y1)
{
    if (p->log_x) {
        x0 = floor(decades(x0 > 0 ? x0 : 1e-3));
        x1 = ceil(decades(x1 > 0 ? x1 : 1));
    }
    if (p->log_y) {
        y0 = floor(decades(y0 > 0 ? y0 : 1e-3));
        y1 = ceil(decades(y1 > 0 ? y1 : 1));
    }
    p->x0 = x0;
    p->x1 = x1 > x0 ? x1 : x0 + 1;
    p->y0 = y0;
    p->y1 = y1 > y0 ? y1 : y0 + 1;
    axis(p, true, p->log_x);
    axis(p, false, p->log_y);
}

static void line_begin(struct panel *p, const char *name)
{
    const char *color = colors[p->n_line % N_COLOR];
    double y = p->top + TOP + 12 + 17 * p->n_line;
    buf_printf(p->out, "<path d=\"M%d %.1fh16\" stroke=\"%s\" fill=\"none\" stroke-width=\"2\"/>\n", WIDTH - RIGHT + 10,
               y - 4, color);
    put_text(p->out, WIDTH - RIGHT + 32, y, "start", name);
    buf_printf(p->out, "<polyline fill=\"none\" stroke-width=\"1.6\" stroke=\"%s\" points=\"", color);
    p->n_line++;
}

static void point(struct panel *p, double x, double y)
{
    buf_printf(p->out, "%.1f,%.1f ", on_x(p, x), on_y(p, y));
}

static void line_end(struct panel *p)
{
    buf_append_str(p->out, STR("\"/>\n"));
}

/* ---- how latencies are spread ---- */

enum what { TTFT, ITL, E2E };

/* False for a request that was not answered. */
static bool value_of(const struct load_result *r, enum what what, size_t i, double *seconds)
{
    if (what == ITL) {
        *seconds = r->gaps[i];
        return true;
    }
    const struct load_sample *s = &r->samples[i];
    *seconds = (what == TTFT ? s->first : s->end) - s->intended;
    return s->outcome == LOAD_OK;
}

/* Sorted milliseconds; NULL without any. */
static double *column(const struct load_result *r, enum what what, size_t *n)
{
    size_t most = (what == ITL ? r->n_gap : r->n) + 1;
    double *v = mem_alloc_zero(most, sizeof *v);
    *n = 0;
    for (size_t i = 0; v && i + 1 < most; i++) {
        double seconds;
        if (value_of(r, what, i, &seconds))
            v[(*n)++] = seconds * 1e3;
    }
    load_quantiles_of(v, v ? *n : 0);
    if (*n)
        return v;
    mem_free(v);
    return NULL;
}

static void cdf_line(struct panel *p, const char *name, const double *v, size_t n)
{
    line_begin(p, name);
    for (int i = 0; i <= POINTS; i++) {
        size_t at = (size_t)((double)(n - 1) * i / POINTS);
        double x = v[at] > 1e-3 ? v[at] : 1e-3;
        point(p, x, (double)(at + 1) / (double)n * 100);
    }
    line_end(p);
}

struct spread {
    const double *v;
    size_t n;
    char name[40];
};

static void draw_spread(struct buf *out, const char *title, const struct spread *lines, int n)
{
    struct panel p = panel_begin(out, 0, title, "milliseconds, logarithmic");
    double least = INFINITY, most = 0;
    for (int i = 0; i < n; i++) {
        least = lines[i].v[0] < least ? lines[i].v[0] : least;
        most = lines[i].v[lines[i].n - 1] > most ? lines[i].v[lines[i].n - 1] : most;
    }
    p.log_x = true;
    bounds(&p, least < 1e-3 || n == 0 ? 1e-3 : least, most, 0, 100);
    for (int i = 0; i < n; i++)
        cdf_line(&p, lines[i].name, lines[i].v, lines[i].n);
    buf_append_str(out, STR("</g>\n"));
}

static void run_name(char *text, size_t size, const struct load_result *r)
{
    if (r->clients)
        snprintf(text, size, "%d streams", r->clients);
    else
        snprintf(text, size, "%.4g requests/s", r->rate);
}

/* One run: its three latencies. Several: each one's time to first token. */
static void chart_spread(const struct load_report *r, struct buf *out)
{
    static const char *const names[] = {"first token", "between tokens", "whole answer"};
    struct spread lines[N_COLOR];
    int n = 0;
    for (int i = 0; i < (r->n == 1 ? 3 : (int)r->n) && n < N_COLOR; i++) {
        const struct load_result *result = &r->results[r->n == 1 ? 0 : i];
        lines[n].v = column(result, r->n == 1 ? (enum what)i : TTFT, &lines[n].n);
        if (r->n == 1)
            snprintf(lines[n].name, sizeof lines[n].name, "%s", names[i]);
        else
            run_name(lines[n].name, sizeof lines[n].name, result);
        n += lines[n].v != NULL;
    }
    draw_spread(out,
                r->n == 1 ? "Latency: share of cases at most so long, %" : "Time to first token: share of requests, %",
                lines, n);
    for (int i = 0; i < n; i++)
        mem_free((void *)(uintptr_t)lines[i].v);
}

/* ---- throughput over time ---- */

/* Tokens a second, in so many tenths a point that a line has at most POINTS of them. */
static size_t width_of(const struct load_result *r)
{
    size_t width = (r->n_bin + POINTS - 1) / POINTS;
    return width < 5 ? 5 : width;
}

static double throughput(const struct load_result *r, size_t from, size_t width)
{
    size_t n = from + width < r->n_bin ? width : r->n_bin - from;
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += r->bins[from + i];
    return sum / ((double)n / 10);
}

static void chart_throughput(const struct load_report *r, struct buf *out)
{
    struct panel p = panel_begin(out, 1, "Output tokens a second", "seconds");
    double most = 0, seconds = 0;
    for (size_t i = 0; i < r->n; i++) {
        const struct load_result *x = &r->results[i];
        seconds = fmax(seconds, (double)x->n_bin / 10);
        for (size_t at = 0; at < x->n_bin; at += width_of(x))
            most = fmax(most, throughput(x, at, width_of(x)));
    }
    bounds(&p, 0, seconds, 0, most);
    for (size_t i = 0; i < r->n && i < N_COLOR; i++) {
        const struct load_result *x = &r->results[i];
        char name[40];
        run_name(name, sizeof name, x);
        line_begin(&p, name);
        for (size_t at = 0; at < x->n_bin; at += width_of(x))
            point(&p, (double)at / 10 + (double)width_of(x) / 20, throughput(x, at, width_of(x)));
        line_end(&p);
    }
    buf_append_str(out, STR("</g>\n"));
}

/* ---- latency against rate ---- */

static void chart_rates(const struct load_report *r, struct buf *out)
{
    static const char *const names[] = {"p50", "p90", "p99"};
    struct panel p = panel_begin(out, 2, "Time to first token, ms", "requests a second, offered");
    double least = INFINITY, most = 0, rate = 0;
    for (size_t i = 0; i < r->n; i++) {
        const struct load_summary *s = &r->summaries[i];
        rate = fmax(rate, s->rate);
        if (s->ttft.n) {
            least = fmin(least, s->ttft.p50 * 1e3);
            most = fmax(most, s->ttft.p99 * 1e3);
        }
    }
    p.log_y = true;
    bounds(&p, 0, rate, isfinite(least) ? least : 1, most);
    for (int k = 0; k < 3; k++) {
        line_begin(&p, names[k]);
        for (size_t i = 0; i < r->n; i++) {
            const struct load_quantiles *q = &r->summaries[i].ttft;
            if (q->n)
                point(&p, r->summaries[i].rate, fmax(1e-3, 1e3 * (k == 0 ? q->p50 : k == 1 ? q->p90 : q->p99)));
        }
        line_end(&p);
    }
    buf_append_str(out, STR("</g>\n"));
}

void load_chart(const struct load_report *r, struct buf *out)
{
    bool rates = r->n > 1 && !r->results[0].clients;
    int height = 40 + PANEL * (rates ? 3 : 2);
    char title[200];
    buf_printf(out,
               "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" width=\"%d\" height=\"%d\">\n"
               "<style>text{font:12px sans-serif;fill:#222}.t{font-weight:bold;font-size:13px}.g{stroke:#ddd;fill:none}"
               "</style>\n<rect width=\"100%%\" height=\"100%%\" fill=\"#fff\"/>\n",
               WIDTH, height, WIDTH, height);
    snprintf(title, sizeof title, "%.80s at %.80s", r->model, r->target->url);
    put_text(out, LEFT, 18, "start", title);
    chart_spread(r, out);
    chart_throughput(r, out);
    if (rates)
        chart_rates(r, out);
    buf_append_str(out, STR("</svg>\n"));
}
