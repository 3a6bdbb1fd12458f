/* metrics
 *
 * Invariants
 * 1. A row's series form a list that only grows, at its end: a reader can walk it at any time without a lock.
 * 2. Two series of one row never have the same label values: whoever loses the race for the end walks on from there.
 * 3. Values are 64-bit words changed by atomic operations; doubles by compare-and-swap on their bits.
 */
#include "observe/metrics.h"

#include "base/json.h"
#include "base/mem.h"

#include <math.h>

struct series {
    struct series *next;
    const struct metric_row *row;
    uint64_t bits; /* of the double: value, or a histogram's sum */
    char *values[METRIC_LABELS_MAX];
    uint64_t counts[]; /* histogram: [n_bucket + 1], not cumulative; the last is beyond every bound */
};

struct metrics {
    const struct metric_row *rows;
    int n_row;
    struct list {
        struct series *first;
        uint32_t count;
    } lists[];
};

static const char *const other_values[METRIC_LABELS_MAX] = {"other", "other", "other", "other", "other"};

static int count_labels(const struct metric_row *row)
{
    int n = 0;
    while (n < METRIC_LABELS_MAX && row->labels[n])
        n++;
    return n;
}

static bool has_values(const struct series *s, const char *const *values)
{
    for (int i = 0; i < METRIC_LABELS_MAX && s->values[i]; i++)
        if (strcmp(s->values[i], values[i]) != 0)
            return false;
    return true;
}

static void free_series(struct series *s)
{
    for (int i = 0; i < METRIC_LABELS_MAX; i++)
        mem_free(s->values[i]);
    mem_free(s);
}

static struct series *make_series(const struct metric_row *row, const char *const *values)
{
    size_t counts = row->kind == METRIC_HISTOGRAM ? (size_t)row->n_bucket + 1 : 0;
    struct series *s = mem_alloc_zero(1, sizeof *s + counts * sizeof *s->counts);
    if (!s)
        return NULL;
    s->row = row;
    for (int i = 0; i < count_labels(row); i++)
        if (!(s->values[i] = mem_strdup(values[i] ? values[i] : ""))) {
            free_series(s);
            return NULL;
        }
    return s;
}

struct series *metrics_series(struct metrics *m, int row, const char *const *values)
{
    static const char *const none[METRIC_LABELS_MAX] = {"", "", "", "", ""};
    struct list *list = &m->lists[row];
    struct series *made = NULL, **end = &list->first;
    if (!values)
        values = none;
    for (;;) {
        struct series *s = __atomic_load_n(end, __ATOMIC_ACQUIRE);
        if (s && has_values(s, values)) {
            if (made)
                free_series(made);
            return s;
        }
        if (s) {
            end = &s->next;
            continue;
        }
        if (values != other_values && __atomic_load_n(&list->count, __ATOMIC_RELAXED) >= METRIC_SERIES_MAX) {
            if (made)
                free_series(made);
            return metrics_series(m, row, other_values);
        }
        if (!made && !(made = make_series(&m->rows[row], values)))
            return NULL;
        if (__atomic_compare_exchange_n(end, &s, made, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
            __atomic_add_fetch(&list->count, 1, __ATOMIC_RELAXED);
            return made;
        }
    }
}

enum status metrics_create(struct metrics **out, const struct metric_row *rows, int n_row, struct error *err)
{
    *out = NULL;
    struct metrics *m = mem_alloc_zero(1, sizeof *m + (size_t)n_row * sizeof *m->lists);
    if (!m)
        return fail_nomem(err, "metrics");
    m->rows = rows;
    m->n_row = n_row;
    for (int i = 0; i < n_row; i++)
        if (!rows[i].labels[0] && !metrics_series(m, i, NULL)) {
            metrics_free(m);
            return fail_nomem(err, "metrics");
        }
    *out = m;
    return ST_OK;
}

void metrics_free(struct metrics *m)
{
    if (!m)
        return;
    for (int i = 0; i < m->n_row; i++)
        for (struct series *s = m->lists[i].first, *next; s; s = next) {
            next = s->next;
            free_series(s);
        }
    mem_free(m);
}

/* ---- recording ---- */

static double to_double(uint64_t bits)
{
    double v;
    memcpy(&v, &bits, sizeof v);
    return v;
}

static uint64_t to_bits(double v)
{
    uint64_t bits;
    memcpy(&bits, &v, sizeof bits);
    return bits;
}

void series_add(struct series *s, double amount)
{
    if (!s)
        return;
    uint64_t old = __atomic_load_n(&s->bits, __ATOMIC_RELAXED);
    while (!__atomic_compare_exchange_n(&s->bits, &old, to_bits(to_double(old) + amount), true, __ATOMIC_RELAXED,
                                        __ATOMIC_RELAXED)) {
    }
}

void series_set(struct series *s, double value)
{
    if (s)
        __atomic_store_n(&s->bits, to_bits(value), __ATOMIC_RELAXED);
}

void series_observe(struct series *s, double value)
{
    if (!s)
        return;
    int bucket = 0;
    while (bucket < s->row->n_bucket && !(value <= s->row->buckets[bucket]))
        bucket++;
    __atomic_add_fetch(&s->counts[bucket], 1, __ATOMIC_RELAXED);
    series_add(s, value);
}

void series_merge(struct series *s, const uint64_t *counts, double sum)
{
    if (!s)
        return;
    for (int i = 0; i <= s->row->n_bucket; i++)
        __atomic_add_fetch(&s->counts[i], counts[i], __ATOMIC_RELAXED);
    series_add(s, sum);
}

void metrics_reset(struct metrics *m, int row)
{
    for (struct series *s = __atomic_load_n(&m->lists[row].first, __ATOMIC_ACQUIRE); s;
         s = __atomic_load_n(&s->next, __ATOMIC_ACQUIRE))
        series_set(s, 0);
}

double series_value(const struct series *s)
{
    return s ? to_double(__atomic_load_n(&s->bits, __ATOMIC_RELAXED)) : 0;
}

uint64_t series_count(const struct series *s)
{
    uint64_t n = 0;
    for (int i = 0; s && s->row->kind == METRIC_HISTOGRAM && i <= s->row->n_bucket; i++)
        n += __atomic_load_n(&s->counts[i], __ATOMIC_RELAXED);
    return n;
}

/* ---- exposition ---- */

static void write_number(struct buf *out, double v)
{
    struct json_writer w;
    json_writer_init(&w, out);
    if (isnan(v))
        buf_append_str(out, STR("NaN"));
    else if (isinf(v))
        buf_append_str(out, v > 0 ? STR("+Inf") : STR("-Inf"));
    else if (v == floor(v) && fabs(v) < 1e15)
        json_write_int(&w, (int64_t)v);
    else
        json_write_real(&w, v);
}

static void write_escaped(struct buf *out, const char *text, bool quotes)
{
    for (; *text; text++) {
        if (*text == '\\' || *text == '\n' || (quotes && *text == '"'))
            buf_append_char(out, '\\');
        buf_append_char(out, *text == '\n' ? 'n' : *text);
    }
}

/* name_suffix{label="value",...,le="bound"} value; bound NULL: no le */
static void write_sample(struct buf *out, const struct series *s, const char *suffix, const double *bound, double value)
{
    buf_printf(out, "%s%s", s->row->name, suffix);
    char before = '{';
    for (int i = 0; i < METRIC_LABELS_MAX && s->values[i]; i++) {
        buf_printf(out, "%c%s=\"", before, s->row->labels[i]);
        write_escaped(out, s->values[i], true);
        buf_append_char(out, '"');
        before = ',';
    }
    if (bound) {
        buf_printf(out, "%cle=\"", before);
        write_number(out, *bound);
        buf_append_char(out, '"');
        before = ',';
    }
    buf_append_str(out, before == ',' ? STR("} ") : STR(" "));
    write_number(out, value);
    buf_append_char(out, '\n');
}

static void write_histogram(struct buf *out, const struct series *s)
{
    uint64_t n = 0;
    for (int i = 0; i <= s->row->n_bucket; i++) {
        double bound = i < s->row->n_bucket ? s->row->buckets[i] : INFINITY;
        n += __atomic_load_n(&s->counts[i], __ATOMIC_RELAXED);
        write_sample(out, s, "_bucket", &bound, (double)n);
    }
    write_sample(out, s, "_sum", NULL, series_value(s));
    write_sample(out, s, "_count", NULL, (double)n);
}

static void write_head(struct buf *out, const struct metric_row *row)
{
    static const char *const kinds[] = {"counter", "gauge", "histogram"};
    buf_printf(out, "# HELP %s ", row->name);
    write_escaped(out, row->help, false);
    buf_printf(out, "\n# TYPE %s %s\n", row->name, kinds[row->kind]);
}

void metrics_write_one(const struct metric_row *row, const char *const *values, double value, struct buf *out)
{
    struct series s = {.row = row};
    for (int i = 0; i < count_labels(row); i++)
        s.values[i] = (char *)(uintptr_t)values[i];
    write_head(out, row);
    write_sample(out, &s, "", NULL, value);
}

void metrics_write(const struct metrics *m, struct buf *out)
{
    for (int i = 0; i < m->n_row; i++) {
        const struct metric_row *row = &m->rows[i];
        write_head(out, row);
        for (const struct series *s = __atomic_load_n(&m->lists[i].first, __ATOMIC_ACQUIRE); s;
             s = __atomic_load_n(&s->next, __ATOMIC_ACQUIRE)) {
            if (row->kind == METRIC_HISTOGRAM)
                write_histogram(out, s);
            else
                write_sample(out, s, "", NULL, series_value(s));
        }
    }
}
