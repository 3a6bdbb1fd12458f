/* schema_number - numbers as texts: ranges, multiples and values become automata over decimal digits
 *
 * A number without any condition may have an exponent. Under a condition it is written in plain decimals (-12.50), so
 * that digits can be compared as they come; an integer is written without a fraction.
 */
#include "grammar/schema.h"

#include <math.h>
#include <stdio.h>

enum { DIGITS_MAX = 400, MULTIPLE_STATES_MAX = 50000 };

struct decimal { /* digits without superfluous zeros; whole may be empty, for 0 */
    bool negative;
    char whole[DIGITS_MAX], part[DIGITS_MAX];
    int n_whole, n_part;
};

static bool put_digit(char *to, int *n, char digit)
{
    if (*n >= DIGITS_MAX)
        return false;
    to[(*n)++] = digit;
    return true;
}

/* The value as decimal digits, exponent worked in. */
static bool decimal_of(struct schema *s, const struct json *v, struct decimal *d)
{
    struct buf text = {0};
    struct json_writer w;
    memset(d, 0, sizeof *d);
    if (v->type != JSON_INT && v->type != JSON_REAL)
        return schema_refuse(s, ST_INVALID, v, "a number was expected");
    if (v->type == JSON_REAL && !isfinite(v->real))
        return schema_refuse(s, ST_UNSUPPORTED, v, "the number is too large");
    json_writer_init(&w, &text);
    json_write_value(&w, v);
    if (text.failed) {
        s->b->status = fail_nomem(s->b->err, s->b->what);
        buf_free(&text);
        return false;
    }
    const char *at = text.ptr;
    char digits[64];
    int n = 0, point = -1;
    d->negative = *at == '-';
    for (at += *at == '-'; *at && (*at | 32) != 'e' && n < 60; at++)
        if (*at == '.')
            point = n;
        else
            digits[n++] = *at;
    point = point < 0 ? n : point;
    point += (*at | 32) == 'e' ? atoi(at + 1) : 0;
    bool ok = true;
    for (int i = point < 0 ? point : 0; i < n || i < point; i++) {
        char digit = '0';
        if (i >= 0 && i < n)
            digit = digits[i];
        if (i < point) /* leading zeros are none */
            ok = ok && ((d->n_whole == 0 && digit == '0') || put_digit(d->whole, &d->n_whole, digit));
        else
            ok = ok && put_digit(d->part, &d->n_part, digit);
    }
    while (d->n_part && d->part[d->n_part - 1] == '0')
        d->n_part--;
    buf_free(&text);
    return ok || schema_refuse(s, ST_UNSUPPORTED, v, "the number has more than %d digits", DIGITS_MAX);
}

/* ---- fixed automata ---- */

static struct dfa *once(struct schema *s, struct dfa **keep, const char *regex)
{
    if (!*keep)
        *keep = regex_compile(s->b, str_of(regex), 0);
    return *keep;
}
struct dfa *schema_number_dfa(struct schema *s)
{
    return once(s, &s->number, "-?(0|[1-9][0-9]*)(\\.[0-9]+)?([eE][+-]?[0-9]+)?");
}
static struct dfa *plain_dfa(struct schema *s)
{
    return once(s, &s->plain, "-?(0|[1-9][0-9]*)(\\.[0-9]+)?");
}
static struct dfa *integer_dfa(struct schema *s)
{
    return once(s, &s->integer, "-?(0|[1-9][0-9]*)");
}
static struct dfa *fraction_dfa(struct schema *s) /* what is no whole number */
{
    return once(s, &s->fraction, "-?(0|[1-9][0-9]*)\\.[0-9]*[1-9][0-9]*");
}

/* ---- comparing ---- */

enum { LESS = 1, EQUAL = 2, MORE = 4 };

/* Which digits go from a state in which all so far were as in the bound. */
static bool compare_digit(struct nfa *n, uint32_t from, char bound, uint32_t less, uint32_t equal, uint32_t more)
{
    return (bound == '0' || nfa_edge(n, from, less, EDGE_BYTES, '0', (unsigned)bound - 1)) &&
           nfa_edge(n, from, equal, EDGE_BYTES, (unsigned)bound, (unsigned)bound) &&
           (bound == '9' || nfa_edge(n, from, more, EDGE_BYTES, (unsigned)bound + 1, '9'));
}

static bool accept(struct nfa *n, uint32_t node, unsigned allowed, unsigned is)
{
    n->nodes.at[node].tag = allowed & is ? 1 : 0;
    return true;
}

/* Behind the digits of a whole part that decided already: any fraction. */
static bool any_fraction(struct nfa *n, uint32_t from, unsigned allowed, unsigned is)
{
    uint32_t point = nfa_node(n), digits = nfa_node(n);
    return point && digits && accept(n, from, allowed, is) && accept(n, digits, allowed, is) &&
           nfa_edge(n, from, point, EDGE_BYTES, '.', '.') && nfa_edge(n, point, digits, EDGE_BYTES, '0', '9') &&
           nfa_edge(n, digits, digits, EDGE_BYTES, '0', '9');
}

/* The whole part was equal to the bound's: now its fraction, digit by digit. */
static bool equal_fraction(struct nfa *n, uint32_t from, const struct decimal *d, unsigned allowed)
{
    uint32_t less = nfa_node(n), more = nfa_node(n), at = nfa_node(n);
    if (!less || !more || !at || !accept(n, from, allowed, d->n_part ? LESS : EQUAL) ||
        !nfa_edge(n, from, at, EDGE_BYTES, '.', '.') || !accept(n, less, allowed, LESS) ||
        !accept(n, more, allowed, MORE) || !nfa_edge(n, less, less, EDGE_BYTES, '0', '9') ||
        !nfa_edge(n, more, more, EDGE_BYTES, '0', '9'))
        return false;
    for (int i = 0; i < d->n_part; i++) {
        uint32_t next = nfa_node(n);
        if (!next || !compare_digit(n, at, d->part[i], less, next, more) ||
            !accept(n, next, allowed, i == d->n_part - 1 ? EQUAL : LESS))
            return false;
        at = next;
    }
    uint32_t zeros = nfa_node(n);
    return zeros && accept(n, zeros, allowed, EQUAL) && nfa_edge(n, at, zeros, EDGE_BYTES, '0', '0') &&
           nfa_edge(n, at, more, EDGE_BYTES, '1', '9') && nfa_edge(n, zeros, zeros, EDGE_BYTES, '0', '0') &&
           nfa_edge(n, zeros, more, EDGE_BYTES, '1', '9');
}

/* Texts of numbers without sign that are less, equal or more (as `allowed` says) than the bound's digits. */
static bool compare_magnitude(struct nfa *n, uint32_t from, const struct decimal *d, unsigned allowed)
{
    static const char zero[] = "0";
    const char *whole = d->n_whole ? d->whole : zero;
    int size = d->n_whole ? d->n_whole : 1;
    uint32_t equal = from, less = 0, more = 0, longer = nfa_node(n), zero_node = nfa_node(n);
    if (!longer || !zero_node || !nfa_edge(n, longer, longer, EDGE_BYTES, '0', '9') ||
        !any_fraction(n, longer, allowed, MORE))
        return false;
    for (int i = 0; i < size; i++) { /* after i + 1 digits: all equal, or decided by one of them */
        uint32_t next_equal = nfa_node(n), next_less = nfa_node(n), next_more = nfa_node(n);
        bool last = i == size - 1;
        if (!next_equal || !next_less || !next_more)
            return false;
        if (i == 0 && whole[0] != '0') { /* no number begins with 0 but 0 itself */
            if ((whole[0] > '1' && !nfa_edge(n, equal, next_less, EDGE_BYTES, '1', (unsigned)whole[0] - 1)) ||
                !nfa_edge(n, equal, next_equal, EDGE_BYTES, (unsigned)whole[0], (unsigned)whole[0]) ||
                (whole[0] < '9' && !nfa_edge(n, equal, next_more, EDGE_BYTES, (unsigned)whole[0] + 1, '9')) ||
                !nfa_edge(n, equal, zero_node, EDGE_BYTES, '0', '0') || !any_fraction(n, zero_node, allowed, LESS))
                return false;
        } else if (!compare_digit(n, equal, whole[i], next_less, next_equal, next_more)) {
            return false;
        }
        if (less && (!nfa_edge(n, less, next_less, EDGE_BYTES, '0', '9') ||
                     !nfa_edge(n, more, next_more, EDGE_BYTES, '0', '9')))
            return false;
        bool is_zero = last && size == 1 && whole[0] == '0';
        /* Fewer digits are less, more digits are more. */
        if (last ? !any_fraction(n, next_less, allowed, LESS) || !any_fraction(n, next_more, allowed, MORE) ||
                       !equal_fraction(n, next_equal, d, allowed) ||
                       !nfa_edge(n, next_less, longer, EDGE_BYTES, '0', '9') ||
                       !nfa_edge(n, next_more, longer, EDGE_BYTES, '0', '9') ||
                       (!is_zero && !nfa_edge(n, next_equal, longer, EDGE_BYTES, '0', '9'))
                 : !any_fraction(n, next_less, allowed, LESS) || !any_fraction(n, next_more, allowed, LESS) ||
                       !any_fraction(n, next_equal, allowed, LESS))
            return false;
        equal = next_equal;
        less = next_less;
        more = next_more;
    }
    return true;
}

/* Numbers that compare with the bound as `allowed` says. */
static struct dfa *compare_dfa(struct schema *s, const struct decimal *bound, unsigned allowed)
{
    struct nfa n;
    uint32_t start, minus;
    bool zero = bound->n_whole == 0 && bound->n_part == 0;
    unsigned swapped = (allowed & EQUAL) | (allowed & LESS ? MORE : 0) | (allowed & MORE ? LESS : 0);
    struct decimal nothing = {0};
    if (!nfa_init(&n, s->b) || !(start = nfa_node(&n)) || !(minus = nfa_node(&n)) ||
        !nfa_edge(&n, start, minus, EDGE_BYTES, '-', '-'))
        return NULL;
    bool below = zero || bound->negative; /* is a negative number compared by its digits? */
    bool ok = below ? compare_magnitude(&n, minus, bound, swapped)
                    : compare_magnitude(&n, minus, &nothing, allowed & LESS ? LESS | EQUAL | MORE : 0);
    ok = ok && (bound->negative && !zero ? compare_magnitude(&n, start, &nothing, allowed & MORE ? 7 : 0)
                                         : compare_magnitude(&n, start, bound, allowed));
    return ok ? dfa_of_nfa(&n, start) : NULL;
}

/* ---- multiples ---- */

/* Multiples of p / 10^k: the remainder of the digits by p, fractions of at most k digits (and zeros). */
static struct dfa *multiple_dfa(struct schema *s, const struct json *v)
{
    struct decimal d;
    uint64_t p = 0;
    if (!decimal_of(s, v, &d))
        return NULL;
    for (int i = 0; i < d.n_whole + d.n_part && p <= MULTIPLE_STATES_MAX; i++)
        p = p * 10 + (uint64_t)((i < d.n_whole ? d.whole[i] : d.part[i - d.n_whole]) - '0');
    if (d.negative || p == 0) {
        schema_refuse(s, ST_INVALID, v, "\"multipleOf\" is a number greater than 0");
        return NULL;
    }
    uint32_t k = (uint32_t)d.n_part, m = (uint32_t)p;
    if (p > MULTIPLE_STATES_MAX || p * (k + 2) > MULTIPLE_STATES_MAX) {
        schema_refuse(s, ST_UNSUPPORTED, v, "\"multipleOf\" with so many digits (more than %d remainders)",
                      MULTIPLE_STATES_MAX);
        return NULL;
    }
    struct nfa n;
    uint32_t start, minus, zero, end;
    if (!nfa_init(&n, s->b) || !(start = nfa_node(&n)) || !(minus = nfa_node(&n)) || !(zero = nfa_node(&n)) ||
        !(end = nfa_node(&n)) || !nfa_edge(&n, start, minus, EDGE_BYTES, '-', '-') ||
        !nfa_edge(&n, start, minus, EDGE_EMPTY, 0, 0))
        return NULL;
    uint32_t base = (uint32_t)n.nodes.n; /* node (level, r) = base + level * m + r; level 0: whole, 1 + j: j digits */
    for (uint32_t i = 0; i < m * (k + 2); i++)
        if (!nfa_node(&n))
            return NULL;
    n.nodes.at[end].tag = n.nodes.at[zero].tag = 1;
    uint64_t scale = 1; /* 10^(k - j) mod p */
    for (uint32_t level = k + 2; level-- > 0;) {
        uint32_t j = level ? level - 1 : 0;
        scale = level == k + 1 ? 1 % p : level == 0 ? scale : scale * 10 % p;
        for (uint32_t r = 0; r < m; r++) {
            uint32_t at = base + level * m + r;
            bool whole = r * scale % p == 0;
            n.nodes.at[at].tag = whole && level != 1; /* a point is followed by digits */
            if (level == 0 && !nfa_edge(&n, at, base + m + r, EDGE_BYTES, '.', '.'))
                return NULL;
            uint32_t next = level == 0 ? 0 : level + 1;
            for (uint32_t digit = 0; digit < 10 && (level == 0 || j < k); digit++)
                if (!nfa_edge(&n, at, base + next * m + (r * 10 + digit) % m, EDGE_BYTES, '0' + digit, '0' + digit))
                    return NULL;
            if (level && j == k && r * scale % p == 0 && !nfa_edge(&n, at, end, EDGE_BYTES, '0', '0'))
                return NULL;
        }
    }
    for (uint32_t digit = 1; digit < 10; digit++)
        if (!nfa_edge(&n, minus, base + digit % m, EDGE_BYTES, '0' + digit, '0' + digit))
            return NULL;
    if (!nfa_edge(&n, minus, zero, EDGE_BYTES, '0', '0') || !nfa_edge(&n, zero, base + m, EDGE_BYTES, '.', '.') ||
        !nfa_edge(&n, end, end, EDGE_BYTES, '0', '0'))
        return NULL;
    return dfa_of_nfa(&n, start);
}

/* ---- values ---- */

static const struct dfa *number_literal(struct schema *s, const struct json *v, bool all_spellings)
{
    struct decimal d;
    char text[2 * DIGITS_MAX + 80];
    if (!decimal_of(s, v, &d))
        return NULL;
    bool zero = d.n_whole == 0 && d.n_part == 0;
    snprintf(text, sizeof text, "%s%.*s%s%.*s%s",
             zero         ? "-?"
             : d.negative ? "-"
                          : "",
             d.n_whole ? d.n_whole : 1, d.n_whole ? d.whole : "0", d.n_part ? "\\." : "", d.n_part, d.part,
             all_spellings ? (d.n_part ? "0*" : "(\\.0+)?")
             : d.n_part    ? ""
                           : "(\\.0)?");
    return regex_compile(s->b, str_of(text), 0);
}

/* ---- keywords ---- */

static struct products *one_atom(struct schema *s, const struct dfa *d)
{
    struct product *p = d ? product_new(s) : NULL;
    const struct dfa **at = p ? VEC_ADD(s->b, &p->atoms) : NULL;
    if (!at)
        return NULL;
    *at = d;
    return products_one(s, p);
}

struct products *number_keyword(struct schema *s, const struct json *schema, const char *name, const struct json *v,
                                bool negated)
{
    bool low = !strcmp(name, "minimum") || !strcmp(name, "exclusiveMinimum"), strict = name[0] == 'e';
    if (!strcmp(name, "integer"))
        return one_atom(s, negated ? fraction_dfa(s) : integer_dfa(s));
    if (!strcmp(name, "multipleOf") || !strcmp(name, "divisibleBy")) {
        struct dfa *d = multiple_dfa(s, v), *plain = d && negated ? plain_dfa(s) : d;
        return plain ? one_atom(s, negated ? dfa_combine(s->b, plain, d, DFA_AND_NOT) : d) : NULL;
    }
    if (strict && (json_is(v, JSON_TRUE) || json_is(v, JSON_FALSE))) /* draft 4: it says how minimum is meant */
        return negated ? products_none(s) : products_all(s);
    strict |= json_is(json_get(schema, low ? "exclusiveMinimum" : "exclusiveMaximum"), JSON_TRUE);
    unsigned allowed = (low ? MORE : LESS) | (strict ? 0 : EQUAL);
    struct decimal bound;
    if (!decimal_of(s, v, &bound))
        return NULL;
    return one_atom(s, compare_dfa(s, &bound, negated ? 7 - allowed : allowed));
}

/* Numbers of a list (or one), as one automaton; the others when negated. */
struct products *number_literals(struct schema *s, const struct json *v, bool list, bool negated)
{
    const struct dfa *all = NULL;
    const struct json *end = list ? v + v->size : json_next(v);
    for (const struct json *item = list ? v + 1 : v; item < end; item = json_next(item)) {
        if (item->type != JSON_INT && item->type != JSON_REAL)
            continue;
        const struct dfa *d = number_literal(s, item, negated);
        all = !d ? NULL : all ? dfa_combine(s->b, all, d, DFA_OR) : d;
        if (!all)
            return NULL;
    }
    if (!all)
        return negated ? products_all(s) : products_none(s);
    if (!negated)
        return one_atom(s, all);
    struct dfa *plain = plain_dfa(s);
    return plain ? one_atom(s, dfa_combine(s->b, plain, all, DFA_AND_NOT)) : NULL;
}
