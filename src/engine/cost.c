#include "engine/cost.h"

#include <math.h>

enum { ROW, KEY, LOGIT, STEP };

static int size_of(const struct cost_work *w)
{
    int size = 0;
    for (double rows = w->rows; rows > 1.01 && size < COST_SIZES - 1; rows *= 0.7071067811865475)
        size++;
    return size + (w->rows > w->logits ? COST_SIZES : 0);
}

static void set_terms(double *terms, const struct cost_model *m, const struct cost_work *w)
{
    terms[ROW] = w->rows + m->head_rows * w->logits;
    terms[KEY] = w->keys;
    terms[LOGIT] = w->logits;
    terms[STEP] = 1;
}

static double cost(const double *price, const double *terms)
{
    double sum = 0;
    for (int i = 0; i < COST_TERMS; i++)
        sum += price[i] * terms[i];
    return sum;
}

struct equations {
    double a[COST_TERMS][COST_TERMS], b[COST_TERMS];
};

/* Solves for the terms in use, the others being 0: Gauss, without pivots because `a` is positive definite. */
static void solve(double *x, struct equations e, const bool *used)
{
    for (int i = 0; i < COST_TERMS; i++)
        for (int row = i + 1; used[i] && row < COST_TERMS; row++) {
            double f = e.a[row][i] / e.a[i][i];
            for (int k = i; k < COST_TERMS; k++)
                e.a[row][k] -= f * e.a[i][k];
            e.b[row] -= f * e.b[i];
        }
    for (int i = COST_TERMS - 1; i >= 0; i--) {
        double sum = e.b[i];
        for (int k = i + 1; k < COST_TERMS; k++)
            sum -= e.a[i][k] * x[k];
        x[i] = used[i] ? sum / e.a[i][i] : 0;
    }
}

/* Least squares of (cost - seconds) / seconds over the kept steps. What they leave open goes to rows rather than to
 * keys. Logits get what steps of many logits show: a long chunk takes nearly the same time whether an answer beside it
 * costs a millisecond or ten, so a few percent of noise made it ten, a step of 32 answers then seemed to take half a
 * second, and chunks grew to that. So steps in which the logits, at the price of a row, would be less than the square
 * root of `doubt` say little about them. A price below 0 becomes 0, and the others are fitted again. */
static void fit(struct cost_model *m)
{
    static const double weak[COST_TERMS] = {[ROW] = 1e-4, [KEY] = 1e-2, [STEP] = 1e-4}, doubt = 0.03;
    struct equations e = {{{0}}, {0}};
    for (int size = 0; size < 2 * COST_SIZES; size++)
        for (int k = 0; k < COST_DEPTH && k < m->n_step[size]; k++) {
            const struct cost_step *s = &m->steps[size][k];
            double weight = 1 / (s->seconds * s->seconds);
            for (int i = 0; i < COST_TERMS; i++) {
                e.b[i] += weight * s->terms[i] * s->seconds;
                for (int j = 0; j < COST_TERMS; j++)
                    e.a[i][j] += weight * s->terms[i] * s->terms[j];
            }
        }
    double row_s = e.b[ROW] / e.a[ROW][ROW];
    if (e.a[LOGIT][LOGIT] > 0)
        e.a[LOGIT][LOGIT] += doubt / (row_s * row_s);
    e.b[ROW] += weak[ROW] * e.b[ROW];
    for (int i = 0; i < COST_TERMS; i++)
        e.a[i][i] += weak[i] * e.a[i][i];
    bool used[COST_TERMS]; /* no logits were computed yet: nothing is known of them */
    for (int i = 0; i < COST_TERMS; i++)
        used[i] = e.a[i][i] > 0;
    for (int worst = 0; worst >= 0;) {
        solve(m->price, e, used);
        worst = -1;
        for (int i = 0; i < COST_TERMS; i++)
            if (m->price[i] < 0 && (worst < 0 || m->price[i] * e.a[i][i] < m->price[worst] * e.a[worst][worst]))
                worst = i;
        if (worst >= 0)
            used[worst] = false;
    }
}

/* What most of the kept steps of that size took beyond their price. */
static double excess_of(const struct cost_model *m, int size)
{
    double ratios[COST_DEPTH];
    int n = 0;
    for (; n < COST_DEPTH && n < m->n_step[size]; n++) {
        const struct cost_step *s = &m->steps[size][n];
        double ratio = s->seconds / cost(m->price, s->terms);
        int at = n;
        for (; at > 0 && ratios[at - 1] > ratio; at--)
            ratios[at] = ratios[at - 1];
        ratios[at] = ratio;
    }
    double median = n ? ratios[(n - 1) / 2] : 1;
    return median > 1 ? median - 1 : 0;
}

void cost_learn(struct cost_model *m, const struct cost_work *w, double seconds)
{
    const double forgets = 0.999; /* a size that is avoided because it took long is tried again at last */
    if (seconds <= 0 || w->rows <= 0)
        return;
    if (!m->warm) { /* the first step brings the weights in */
        m->warm = true;
        return;
    }
    int size = size_of(w);
    struct cost_step *step = &m->steps[size][m->n_step[size]++ % COST_DEPTH];
    step->seconds = seconds;
    set_terms(step->terms, m, w);
    if (m->n_step[size] == 2 * COST_DEPTH)
        m->n_step[size] = COST_DEPTH; /* it only has to stay above the depth */
    fit(m);
    for (int i = 0; i < 2 * COST_SIZES; i++)
        m->excess[i] *= forgets;
    m->excess[size] = excess_of(m, size);
}

double cost_seconds(const struct cost_model *m, const struct cost_work *w)
{
    double terms[COST_TERMS];
    set_terms(terms, m, w);
    return cost(m->price, terms);
}

double cost_seconds_at_most(const struct cost_model *m, const struct cost_work *w)
{
    return cost_seconds(m, w) * (1 + m->excess[size_of(w)]);
}

double cost_span_seconds(const struct cost_model *m, int pos0, int n_row)
{
    struct cost_work w = {0};
    cost_span(&w, pos0, n_row);
    return m->price[ROW] * w.rows + m->price[KEY] * w.keys;
}

double cost_rows(const struct cost_model *m, int pos0, double seconds)
{
    double first = m->price[ROW] + m->price[KEY] * (pos0 + 0.5); /* and each row sees those before it */
    double sum = first + sqrt(first * first + 2 * m->price[KEY] * seconds);
    return sum > 0 ? 2 * seconds / sum : seconds > 0 ? 1e9 : 0;
}
