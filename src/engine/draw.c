/* draw - one id from a row: top-k, top-p, min-p, typical-p, then the inverse CDF (docs/numerics.md section 6)
 *
 * Tokens stand in descending order of logit, then id; what is kept is a beginning of them. With top-k that beginning is
 * sorted and walked. Without, it may be most of a vocabulary, and only its border is looked for: each probability
 * counts as a multiple of 2^-52, so no sum is ever rounded, and the mass of what lies above a logit needs no order. A
 * sample of the row says where to look; whatever it says, the border found is the same.
 */
#include "engine/engine_private.h"

#include "base/rng.h"

#include <float.h>
#include <math.h>

struct order {
    struct sampler_scratch *s;
    const float *row;
    int n;
    real temperature, zero; /* probability of a logit x: e^(x / temperature - zero) */
    bool looked, sampled;   /* s->first, s->sample are of this row */
};

/* Ascending keys for descending logits. Adding zero makes -0 equal to 0. */
static uint32_t sort_key(float x)
{
    uint32_t bits;
    x = x + 0.0f;
    memcpy(&bits, &x, sizeof bits);
    return bits >> 31 ? bits : ~bits & 0x7FFFFFFFu;
}

/* s->sorted[0 .. n-1], in order of id, becomes descending by logit: radix sort, stable, so that ids stay in order among
 * equals. */
static void sort_descending(struct sampler_scratch *s, int n)
{
    enum { BITS_MAX = 11 };
    const int bits = n < 4096 ? 8 : BITS_MAX; /* few have no use for many buckets */
    const uint32_t n_bucket = 1u << bits;
    uint32_t starts[1 << BITS_MAX];
    for (int shift = 0; shift < 32; shift += bits) {
        memset(starts, 0, n_bucket * sizeof *starts);
        for (int i = 0; i < n; i++)
            starts[sort_key(s->sorted[i].logit) >> shift & (n_bucket - 1)]++;
        for (uint32_t b = 0, at = 0; b < n_bucket; b++) {
            uint32_t count = starts[b];
            starts[b] = at;
            at += count;
        }
        for (int i = 0; i < n; i++)
            s->spare[starts[sort_key(s->sorted[i].logit) >> shift & (n_bucket - 1)]++] = s->sorted[i];
        struct candidate *swap = s->sorted;
        s->sorted = s->spare;
        s->spare = swap;
    }
}

/* The probabilities of s->sorted[0 .. n-1]. */
static void fill_probabilities(const struct order *o, int n)
{
    for (int i = 0; i < n; i++)
        o->s->p[i] = (real)o->s->sorted[i].logit / o->temperature - o->zero;
    exp_forward(o->s->p, o->s->p, n);
}

/* s->sorted and s->p: the tokens from the logit `low` on, in order. */
static int sort_from(const struct order *o, float low)
{
    int n = (int)row_collect(o->s->sorted, o->row, o->s->maxima, o->n, low, INFINITY);
    sort_descending(o->s, n);
    fill_probabilities(o, n);
    return n;
}

/* ---- the border in a long order ---- */

/* The first token at which the mass, itself included, is above the target; or reaches it. */
struct border {
    double target;
    bool reached;
    struct candidate token;
    double mass; /* up to it */
};
static bool passes(const struct border *b, double mass)
{
    return mass > b->target || (b->reached && mass == b->target);
}

/* Walks s->sorted[0 .. n-1], in order. False: it is not among them. The last that has a mass is kept in any case. */
static bool walk(struct border *b, const struct order *o, int n, double mass)
{
    for (int i = 0; i < n; i++) {
        double more = mass_of(o->s->p[i]);
        mass += more;
        if (i == 0 || more > 0) {
            b->token = o->s->sorted[i];
            b->mass = mass;
        }
        if (passes(b, mass))
            return true;
    }
    return false;
}

/* The same for s->sorted[0 .. n-1] in order of id: buckets of neighbouring logits, of which only one is sorted. */
static bool walk_unsorted(struct border *b, const struct order *o, int n, double mass)
{
    enum { BITS = 10, BUCKETS = 1 << BITS };
    double masses[BUCKETS] = {0};
    struct candidate *sorted = o->s->sorted;
    uint32_t least = UINT32_MAX, most = 0;
    int shift = 0, last = 0, kept = 0;
    for (int i = 0; i < n; i++) {
        uint32_t key = sort_key(sorted[i].logit);
        least = key < least ? key : least;
        most = key > most ? key : most;
    }
    while (n > 0 && (most - least) >> shift >= BUCKETS)
        shift++;
    for (int i = 0; i < n; i++)
        masses[(sort_key(sorted[i].logit) - least) >> shift] += mass_of(o->s->p[i]);
    for (int i = 0; i < BUCKETS; i++)
        last = masses[i] > 0 ? i : last;
    uint32_t found = 0;
    while ((int)found < last && !passes(b, mass + masses[found]))
        mass += masses[found++];
    for (int i = 0; i < n; i++)
        if ((sort_key(sorted[i].logit) - least) >> shift == found)
            sorted[kept++] = sorted[i];
    sort_descending(o->s, kept);
    fill_probabilities(o, kept);
    return walk(b, o, kept, mass);
}

static void take_sample(struct order *o)
{
    for (int i = 0; i < SAMPLER_SAMPLE; i++)
        o->s->sorted[i] = (struct candidate){i, o->row[(int64_t)i * o->n / SAMPLER_SAMPLE]};
    sort_descending(o->s, SAMPLER_SAMPLE);
    fill_probabilities(o, SAMPLER_SAMPLE);
    memcpy(o->s->sample, o->s->sorted, sizeof o->s->sample);
    o->s->up_to[0] = 0;
    for (int i = 0; i < SAMPLER_SAMPLE; i++)
        o->s->up_to[i + 1] = o->s->up_to[i] + (double)o->s->p[i];
    o->sampled = true;
}

static int sampled_from(const struct order *o, float edge) /* how many of the sample are no smaller */
{
    int low = 0, high = SAMPLER_SAMPLE;
    while (low < high) {
        int middle = (low + high) / 2;
        if (o->s->sample[middle].logit >= edge)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* One step nearer: from an edge, above which the mass is known, to another. A far one: only the mass between is taken.
 * A near one, with a margin: what lies between is collected and walked. */
struct edge {
    float at;
    double mass; /* of all x >= at */
};
static bool step_nearer(struct border *b, struct order *o, struct edge *e)
{
    enum { FAR = 48, MARGIN = 4 };
    bool up = passes(b, e->mass);
    double need = fabs(b->target - e->mass) * SAMPLER_SAMPLE / o->n;
    int from = sampled_from(o, e->at), to = from;
    if (up)
        while (to > 0 && o->s->up_to[from] - o->s->up_to[to] < need)
            to--;
    else
        while (to < SAMPLER_SAMPLE && o->s->up_to[to] - o->s->up_to[from] < need)
            to++;
    int span = up ? from - to : to - from, margin = span > FAR ? 0 : span / 4 + MARGIN;
    to = up ? to - margin : to + margin;
    while (up && to > 0 && o->s->sample[to - 1].logit <= e->at) /* of equals nothing is learned */
        to--;
    /* a forbidden token, -infinity, has no mass */
    float other = to <= 0 ? INFINITY : to >= SAMPLER_SAMPLE ? -FLT_MAX : fmaxf(o->s->sample[to - 1].logit, -FLT_MAX);
    float low = up ? e->at : other;
    float high = up ? other : e->at;
    if (span > FAR) {
        struct row_mass m = {low, high, o->temperature, o->zero};
        double between = row_mass(o->row, o->s->maxima, o->n, &m);
        *e = (struct edge){other, up ? e->mass - between : e->mass + between};
        return false;
    }
    int n = (int)row_collect(o->s->sorted, o->row, o->s->maxima, o->n, low, high);
    double parts[4] = {0}; /* exact in any order */
    fill_probabilities(o, n);
    for (int i = 0; i < n; i++)
        parts[i % 4] += mass_of(o->s->p[i]);
    double between = parts[0] + parts[1] + parts[2] + parts[3];
    double above = up ? e->mass - between : e->mass;
    if (!passes(b, above) && passes(b, above + between))
        return walk_unsorted(b, o, n, above);
    *e = (struct edge){other, up ? above : above + between};
    return false;
}

static void find_border(struct border *b, struct order *o)
{
    enum { STEPS_MAX = 8 };
    int n = o->n < SAMPLER_FIRST ? o->n : SAMPLER_FIRST;
    if (!o->looked)
        row_top_k(o->s->first, o->row, o->s->maxima, o->n, n);
    o->looked = true;
    memcpy(o->s->sorted, o->s->first, (size_t)n * sizeof *o->s->sorted);
    fill_probabilities(o, n);
    if (walk(b, o, n, 0) || n == o->n)
        return;
    struct edge e = {INFINITY, 0};
    double mass = 0;
    for (int i = 0; i + 1 < n; i++) {
        mass += mass_of(o->s->p[i]);
        if (o->s->sorted[i].logit > o->s->sorted[i + 1].logit) /* all of its equals are among the first */
            e = (struct edge){o->s->sorted[i].logit, mass};
    }
    if (o->n > 4 * SAMPLER_SAMPLE) {
        if (!o->sampled)
            take_sample(o);
        for (int i = 0; i < STEPS_MAX; i++)
            if (step_nearer(b, o, &e))
                return;
    }
    n = (int)row_collect(o->s->sorted, o->row, o->s->maxima, o->n, -FLT_MAX, INFINITY);
    fill_probabilities(o, n);
    walk_unsorted(b, o, n, 0);
}

/* Tokens less likely than `least` go. Those far above it are known without a look; those near it are walked. */
static double mass_of_likely(const struct order *o, double most, float min_p)
{
    double t = (double)o->temperature, zero = (double)o->zero, least = (double)min_p * most;
    double x = t * (fn_log64(least) + zero), near = 1e-5 * (t + fabs(x) + fabs(t * zero));
    struct row_mass m = {(float)(x + near), INFINITY, o->temperature, o->zero};
    double mass = row_mass(o->row, o->s->maxima, o->n, &m);
    int n = (int)row_collect(o->s->sorted, o->row, o->s->maxima, o->n, (float)(x - near), m.low);
    sort_descending(o->s, n);
    fill_probabilities(o, n);
    for (int i = 0; i < n && (double)o->s->p[i] >= least; i++)
        mass += mass_of(o->s->p[i]);
    return mass;
}

/* ---- what is kept ---- */

/* How many of the n sorted ones top-p and min-p keep (at least one), and their mass. */
static int keep(const struct order *o, const struct sampling *how, int n, double *mass)
{
    double cut = (double)how->top_p * *mass, least = (double)how->min_p * (double)o->s->p[0], before = 0;
    for (int i = 0; i < n; i++) {
        double p = (double)o->s->p[i];
        if (i > 0 && ((how->top_p < 1 && before >= cut) || p < least)) {
            *mass = before;
            return i;
        }
        before += p;
    }
    *mass = before;
    return n;
}

/* Of the n largest, those whose log-probability is nearest to its mean over them, until they have the share typical_p
 * of the mass. They lie side by side in the order: returns the first and *end. */
static int typical(struct order *o, const struct sampling *how, int n, int *end, double *mass)
{
    double t = (double)o->temperature, all = 0, mean = 0;
    for (int i = 0; i < n; i++) {
        double p = (double)o->s->p[i];
        all += p;
        if (p > 0) /* a forbidden token's logit is -infinity */
            mean += p * ((double)o->s->sorted[i].logit / t);
    }
    mean /= all;
    int first = 0;
    while (first < n && (double)o->s->sorted[first].logit / t > mean)
        first++;
    *end = first;
    *mass = 0;
    while (*mass < (double)how->typical_p * all && (first > 0 || *end < n)) {
        bool larger = first > 0 && (*end == n || (double)o->s->sorted[first - 1].logit / t - mean <=
                                                     mean - (double)o->s->sorted[*end].logit / t);
        *mass += (double)o->s->p[larger ? --first : (*end)++];
    }
    return first;
}

static float uniform(const struct sampler_in *in)
{
    uint64_t seed = in->how->seed;
    uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    uint32_t counter[4] = {(uint32_t)in->n_ids, (uint32_t)in->choice, 0, 0}, words[4];
    philox4x32(words, counter, key);
    return rng_unit(words[0]);
}

/* From s->sorted[first .. n-1], which have that mass. */
static int32_t draw_sorted(const struct sampler_in *in, const struct order *o, int first, int n, double mass)
{
    double target = (double)uniform(in) * mass, sum = 0;
    int last = first; /* rounding may leave the sum below the target: then the last token that has any probability */
    for (int i = first; i < n; i++) {
        double p = (double)o->s->p[i];
        if (p == 0)
            break; /* descending: nothing follows */
        last = i;
        sum += p;
        if (sum > target)
            break;
    }
    return o->s->sorted[last].id;
}

static int32_t draw_of_few(const struct sampler_in *in, struct order *o)
{
    const struct sampling *how = in->how;
    int k = how->top_k, n = k;
    double mass = 0;
    o->zero = (real)o->row[row_argmax(o->row, o->s->maxima, o->n)] / o->temperature; /* only ratios count */
    if (k <= row_blocks(o->n)) {
        row_top_k(o->s->sorted, o->row, o->s->maxima, o->n, k);
        fill_probabilities(o, k);
    } else
        sort_from(o, -INFINITY);
    for (int i = 0; i < k; i++)
        mass += (double)o->s->p[i];
    if (how->top_p < 1 || how->min_p > 0)
        n = keep(o, how, k, &mass);
    int first = how->typical_p < 1 ? typical(o, how, n, &n, &mass) : 0;
    return draw_sorted(in, o, first, n, mass);
}

int32_t sampler_draw(const struct sampler_in *in, const real *logits, const float *row, struct sampler_scratch *s)
{
    const struct sampling *how = in->how;
    struct order o = {.s = s, .row = row, .n = in->n_vocab, .temperature = (real)how->temperature};
    if (how->top_k > 0 && how->top_k < o.n)
        return draw_of_few(in, &o);
    o.zero = lse_divided(logits, o.temperature, o.n);
    struct border b = {.target = (double)how->top_p, .reached = true};
    double mass = 1; /* of all tokens, by definition of lse */
    if (how->top_p < 1) {
        find_border(&b, &o);
        mass = b.mass;
    }
    if (how->min_p > 0) {
        real top = (real)row[row_argmax(row, s->maxima, o.n)] / o.temperature - o.zero;
        exp_forward(&top, &top, 1);
        double likely = mass_of_likely(&o, (double)top, how->min_p);
        mass = likely < mass ? likely : mass;
    }
    if (how->typical_p < 1) {
        b = (struct border){.target = mass, .reached = true};
        find_border(&b, &o);
        int n = sort_from(&o, b.token.logit), first;
        while (n > 0 && s->sorted[n - 1].id != b.token.id)
            n--;
        first = typical(&o, how, n, &n, &mass);
        return draw_sorted(in, &o, first, n, mass);
    }
    b = (struct border){.target = (double)uniform(in) * mass};
    find_border(&b, &o);
    return b.token.id;
}
