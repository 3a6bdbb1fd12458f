/* metrics - counters, gauges and histograms with labels, described by a table of rows; Prometheus text exposition 0.0.4
 *
 *   enum { M_REQUESTS, M_TTFT, M_COUNT };
 *   static const double ttft_buckets[] = {0.001, 0.01, 0.1, 1};
 *   static const struct metric_row rows[M_COUNT] = {
 *       [M_REQUESTS] = {METRIC_COUNTER, "vllm:request_success_total", "Requests finished", {"finished_reason"}},
 *       [M_TTFT] = {METRIC_HISTOGRAM, "vllm:time_to_first_token_seconds", "Time to first token", .buckets =
 * ttft_buckets, .n_bucket = 4},
 *   };
 *   TRY(metrics_create(&m, rows, M_COUNT, err));
 *   metrics_add(m, M_REQUESTS, (const char *[]){"stop"}, 1);      // label values in the row's order; NULL without
 * labels series_observe(ttft, seconds);                                // struct series *ttft = metrics_series(m,
 * M_TTFT, NULL) metrics_write(m, &out);
 *
 * Rows without labels exist from the start (as 0); others when first touched. A row keeps at most METRIC_SERIES_MAX
 * combinations: later ones are counted under "other", so that a hostile label value cannot fill the memory.
 *
 * Memory   rows and their strings are borrowed for the life of the metrics; label values are copied
 * Errors   recording cannot fail: without memory for a new series, the sample is lost (series functions take NULL)
 * Threads  recording and writing from any thread, without locks; create and free by one owner
 */
#ifndef OBSERVE_METRICS_H
#define OBSERVE_METRICS_H

#include "base/status.h"
#include "base/str.h"

enum metric_kind { METRIC_COUNTER, METRIC_GAUGE, METRIC_HISTOGRAM };
enum { METRIC_LABELS_MAX = 5, METRIC_SERIES_MAX = 512 };

struct metric_row {
    enum metric_kind kind;
    const char *name, *help;
    const char *labels[METRIC_LABELS_MAX]; /* names; NULL ends */
    const double *buckets;                 /* histogram: upper bounds, ascending, without +Inf */
    int n_bucket;
};

struct metrics;
struct series; /* one row with one combination of label values */

MUST_USE enum status metrics_create(struct metrics **out, const struct metric_row *rows, int n_row, struct error *err);
void metrics_free(struct metrics *m);
/* Finds or makes; the pointer stays valid until metrics_free. NULL when out of memory. */
struct series *metrics_series(struct metrics *m, int row, const char *const *values);

void series_add(struct series *s, double amount);    /* counters: amount >= 0 */
void series_set(struct series *s, double value);     /* gauges */
void series_observe(struct series *s, double value); /* histograms */
/* A histogram: so many more in each of its buckets (the last: beyond every bound), and their sum. */
void series_merge(struct series *s, const uint64_t *counts, double sum);
double series_value(const struct series *s);   /* counter, gauge: the value; histogram: the sum */
uint64_t series_count(const struct series *s); /* histogram: how many observations */

static inline void metrics_add(struct metrics *m, int row, const char *const *values, double amount)
{
    series_add(metrics_series(m, row, values), amount);
}
static inline void metrics_set(struct metrics *m, int row, const char *const *values, double value)
{
    series_set(metrics_series(m, row, values), value);
}
static inline void metrics_observe(struct metrics *m, int row, const char *const *values, double value)
{
    series_observe(metrics_series(m, row, values), value);
}

void metrics_reset(struct metrics *m, int row); /* every value of a counter or gauge to 0 */
/* A row that is not kept, with one sample: for labels that change all the time, of which only the newest are of use. */
void metrics_write_one(const struct metric_row *row, const char *const *values, double value, struct buf *out);

/* All rows in order, as text/plain; version=0.0.4. A histogram's count is always the sum of its buckets. */
void metrics_write(const struct metrics *m, struct buf *out);

#endif
