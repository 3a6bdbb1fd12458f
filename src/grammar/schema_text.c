/* schema_text - strings: lengths, patterns, formats; and values of every kind to be equal to
 *
 * Formats are enforced, as those who ask for structured output expect (the specification leaves it open). A format that
 * the specification does not know says nothing; one it knows, and which is not in the table, is refused.
 */
#include "grammar/schema.h"

/* ---- formats ---- */
#define DIGIT "[0-9]"
#define LEAP  "(" DIGIT DIGIT "(0[48]|[2468][048]|[13579][26])|([02468][048]|[13579][26])00)"
#define DATE                                                                                                           \
    "(" DIGIT "{4}-((0[13578]|1[02])-(0[1-9]|[12]" DIGIT "|3[01])|(0[469]|11)-(0[1-9]|[12]" DIGIT                      \
    "|30)|02-(0[1-9]|1" DIGIT "|2[0-8]))|" LEAP "-02-29)"
#define ZONE "([Zz]|[+-]([01]" DIGIT "|2[0-3]):[0-5]" DIGIT ")"
#define TIME                                                                                                           \
    "(([01]" DIGIT "|2[0-3]):[0-5]" DIGIT ":[0-5]" DIGIT "(\\." DIGIT "+)?" ZONE "|23:59:60(\\." DIGIT "+)?[Zz])"
#define BYTE "(25[0-5]|2[0-4]" DIGIT "|1" DIGIT DIGIT "|[1-9]?" DIGIT ")"
#define IPV4 BYTE "(\\." BYTE "){3}"
#define H16  "[0-9a-fA-F]{1,4}"
#define LS32 "(" H16 ":" H16 "|" IPV4 ")"
#define IPV6                                                                                                           \
    "((" H16 ":){6}" LS32 "|::(" H16 ":){5}" LS32 "|(" H16 ")?::(" H16 ":){4}" LS32 "|((" H16 ":){0,1}" H16            \
    ")?::(" H16 ":){3}" LS32 "|((" H16 ":){0,2}" H16 ")?::(" H16 ":){2}" LS32 "|((" H16 ":){0,3}" H16 ")?::" H16       \
    ":" LS32 "|((" H16 ":){0,4}" H16 ")?::" LS32 "|((" H16 ":){0,5}" H16 ")?::" H16 "|((" H16 ":){0,6}" H16 ")?::)"
/* At most 63 characters, and no "--" in third place: what stands behind "xn--" obeys rules of its own. */
#define ALNUM "[A-Za-z0-9]"
#define INNER "[A-Za-z0-9-]"
#define LABEL                                                                                                          \
    ALNUM "(" ALNUM "|" INNER ALNUM "|" INNER INNER ALNUM "|" INNER "(" ALNUM INNER "|-" ALNUM ")" INNER               \
          "{0,58}" ALNUM ")?"
#define HEX  "%[0-9A-Fa-f]{2}"
#define WIDE "\\u00A0-\\uD7FF\\uF900-\\uFDCF\\uFDF0-\\uFFEF\\u{10000}-\\u{1FFFD}\\u{20000}-\\u{EFFFD}"
/* RFC 3986 and 3987, the same but for the letters W: pchar, authority, path, query */
#define PCHAR(W) "([A-Za-z0-9._~!$&'()*+,;=:@" W "-]|" HEX ")"
#define AUTHORITY(W)                                                                                                   \
    "(([A-Za-z0-9._~!$&'()*+,;=:" W "-]|" HEX ")*@)?(\\[(" IPV6 "|[vV][0-9A-Fa-f]+\\.[A-Za-z0-9._~!$&'()*+,;=:-]+)\\]" \
    "|([A-Za-z0-9._~!$&'()*+,;=" W "-]|" HEX ")*)(:[0-9]*)?"
#define TAIL(W, PRIVATE) "(\\?(" PCHAR(W PRIVATE) "|[/?])*)?(#(" PCHAR(W) "|[/?])*)?"
#define PRIVATE          "\\uE000-\\uF8FF\\u{F0000}-\\u{FFFFD}\\u{100000}-\\u{10FFFD}"
#define ABSOLUTE(W, P)                                                                                                 \
    "[A-Za-z][A-Za-z0-9+.-]*:(//" AUTHORITY(W) "(/" PCHAR(W) "*)*|/(" PCHAR(W) "+(/" PCHAR(W) "*)*)?|" PCHAR(          \
        W) "+(/" PCHAR(W) "*)*|)" TAIL(W, P)
#define RELATIVE(W, P)                                                                                                 \
    "(//" AUTHORITY(W) "(/" PCHAR(W) "*)*|/(" PCHAR(W) "+(/" PCHAR(W) "*)*)?|([A-Za-z0-9._~!$&'()*+,;=@" W "-]|" HEX   \
                                                                      ")+(/" PCHAR(W) "*)*|)" TAIL(W, P)
#define ATOM "[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"

static const struct format {
    const char *name, *regex; /* NULL: known to the specification, not enforced here */
} formats[] = {
    {"date", DATE},
    {"time", TIME},
    {"date-time", DATE "[Tt]" TIME},
    {"duration", "P((" DIGIT "+D|" DIGIT "+M(" DIGIT "+D)?|" DIGIT "+Y(" DIGIT "+M(" DIGIT "+D)?)?)(T(" DIGIT
                 "+H(" DIGIT "+M(" DIGIT "+S)?)?|" DIGIT "+M(" DIGIT "+S)?|" DIGIT "+S))?|T(" DIGIT "+H(" DIGIT
                 "+M(" DIGIT "+S)?)?|" DIGIT "+M(" DIGIT "+S)?|" DIGIT "+S)|" DIGIT "+W)"},
    {"email", "(" ATOM "(\\." ATOM ")*|\"([^\"\\\\\\x00-\\x1f\\x7f-\\u{10FFFF}]|\\\\[ -~])*\")@(" LABEL "(\\." LABEL
              ")*|\\[(" IPV4 "|IPv6:" IPV6 ")\\])"},
    {"hostname", "(?=[^.]{1,63}(\\.|$))(?!.{254})" LABEL "(\\." LABEL ")*"},
    {"ipv4", IPV4},
    {"ipv6", IPV6},
    {"uri", ABSOLUTE("", "")},
    {"uri-reference", "(" ABSOLUTE("", "") "|" RELATIVE("", "") ")"},
    {"iri", ABSOLUTE(WIDE, PRIVATE)},
    {"iri-reference", "(" ABSOLUTE(WIDE, PRIVATE) "|" RELATIVE(WIDE, PRIVATE) ")"},
    {"uri-template",
     "([^\\x00-\\x20\\x7f\"%<>\\\\^`{|}]|" HEX "|\\{[+#./;?&=,!@|]?([A-Za-z0-9_]|" HEX ")(\\.?([A-Za-z0-9_]|" HEX
     "))*(:[1-9][0-9]{0,3}|\\*)?(,([A-Za-z0-9_]|" HEX ")(\\.?([A-Za-z0-9_]|" HEX "))*(:[1-9][0-9]{0,3}|\\*)?)*\\})*"},
    {"uuid", "[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"},
    {"json-pointer", "(/([^~/]|~[01])*)*"},
    {"relative-json-pointer", "(0|[1-9][0-9]*)(#|(/([^~/]|~[01])*)*)"},
    {"regex", NULL},
    {"idn-email", NULL},
    {"idn-hostname", NULL},
};

static struct dfa *any_dfa(struct schema *s)
{
    if (!s->any)
        s->any = dfa_any(s->b);
    return s->any;
}

const struct dfa *pattern_dfa(struct schema *s, struct str pattern, const struct json *at)
{
    struct error *err = s->b->err, inner = {0};
    s->b->err = &inner;
    const char *what = s->b->what;
    s->b->what = "pattern";
    const struct dfa *d = regex_compile(s->b, pattern, REGEX_SEARCH);
    enum status st = s->b->status;
    s->b->err = err;
    s->b->what = what;
    if (!d && st != ST_OK && st != ST_NOMEM) { /* say where it stands */
        s->b->status = ST_OK;
        schema_refuse(s, st, at, "%s", inner.text);
    } else if (!d && err) {
        *err = inner;
    }
    return d;
}

static struct products *one_atom(struct schema *s, const struct dfa *d, bool negated)
{
    struct product *p = d ? product_new(s) : NULL;
    const struct dfa *any = negated && p ? any_dfa(s) : d;
    const struct dfa *atom = !p || !any ? NULL : negated ? dfa_combine(s->b, any, d, DFA_AND_NOT) : d;
    const struct dfa **at = atom ? VEC_ADD(s->b, &p->atoms) : NULL;
    if (!at)
        return NULL;
    *at = atom;
    return products_one(s, p);
}

static struct products *format_keyword(struct schema *s, const struct json *v, bool negated)
{
    struct str name = json_str(v);
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) {
        if (!str_is(name, formats[i].name))
            continue;
        if (!formats[i].regex) {
            schema_refuse(s, ST_UNSUPPORTED, v, "\"format\": \"%.*s\" cannot be enforced", STR_ARG(name));
            return NULL;
        }
        return one_atom(s, regex_compile(s->b, str_of(formats[i].regex), 0), negated);
    }
    if (!name.ptr) {
        schema_refuse(s, ST_INVALID, v, "\"format\" is a string");
        return NULL;
    }
    return negated ? products_none(s) : products_all(s);
}

bool schema_count(struct schema *s, const struct json *v, uint32_t *out)
{
    double value = json_real(v, -1);
    if (value < 0 || value >= 0x1p63 || value != (double)(int64_t)value)
        return schema_refuse(s, ST_INVALID, v, "a whole number that is not negative was expected");
    *out = value < (double)(REPEAT_NO_MAX - 1) ? (uint32_t)value : REPEAT_NO_MAX - 1;
    return true;
}

struct products *count_bound(struct schema *s, const struct json *v, bool low, bool negated)
{
    struct product *p = product_new(s);
    uint32_t n;
    if (!p || !schema_count(s, v, &n))
        return NULL;
    if (negated && low && n == 0)
        return products_none(s);
    if (low != negated)
        p->min = low ? n : n + 1;
    else
        p->max = low ? n - 1 : n;
    return products_one(s, p);
}

struct products *string_keyword(struct schema *s, const char *name, const struct json *v, bool negated)
{
    if (!strcmp(name, "format"))
        return format_keyword(s, v, negated);
    if (!strcmp(name, "pattern")) {
        if (!json_is(v, JSON_STRING)) {
            schema_refuse(s, ST_INVALID, v, "\"pattern\" is a string");
            return NULL;
        }
        return one_atom(s, pattern_dfa(s, json_str(v), v), negated);
    }
    return count_bound(s, v, !strcmp(name, "minLength"), negated);
}

const struct dfa *product_dfa(struct schema *s, const struct product *p, enum kind kind)
{
    const struct dfa *d = p->atoms.n ? p->atoms.at[0] : kind == KIND_NUMBER ? schema_number_dfa(s) : any_dfa(s);
    for (size_t i = 1; d && i < p->atoms.n; i++)
        if (p->atoms.at[i] != d)
            d = dfa_combine(s->b, d, p->atoms.at[i], DFA_AND);
    return d;
}

/* ---- to be equal to a value ---- */

static struct products *string_literals(struct schema *s, const struct json *v, bool list, bool negated)
{
    struct ast *alt = ast_new(s->b, AST_ALT);
    const struct json *end = list ? v + v->size : json_next(v);
    for (const struct json *item = list ? v + 1 : v; alt && item < end; item = json_next(item))
        if (json_is(item, JSON_STRING))
            alt = ast_add(alt, ast_text(s->b, json_str(item)));
    if (!alt || !alt->child)
        return !alt ? NULL : negated ? products_all(s) : products_none(s);
    return one_atom(s, dfa_of_ast(s->b, alt), negated);
}

static struct products *array_literal(struct schema *s, const struct json *v, bool negated)
{
    struct products *l = products_none(s);
    uint32_t n = v->count, i = 0;
    struct product *p = product_new(s);
    if (!l || !p)
        return NULL;
    if (!negated) {
        p->min = p->max = n;
        p->rest = TYPE_NONE;
    }
    JSON_EACH (item, v) {
        if (negated) { /* long enough, and different here */
            p = product_new(s);
            if (!p || !VEC_ROOM(s->b, &p->prefix, i + 1))
                return NULL;
            p->min = ++i;
            for (p->prefix.n = 0; p->prefix.n < i; p->prefix.n++)
                p->prefix.at[p->prefix.n] = TYPE_ANY;
        }
        uint32_t *at = !negated ? VEC_ADD(s->b, &p->prefix) : &p->prefix.at[i - 1];
        if (!at || (*at = type_of_literal(s, item, negated)) == UINT32_MAX)
            return NULL;
        if (negated)
            l = products_or(s, l, products_one(s, p));
        if (!l)
            return NULL;
    }
    if (!negated)
        return products_one(s, p);
    struct product *longer = product_new(s), *shorter = product_new(s);
    if (!longer || !shorter)
        return NULL;
    longer->min = n + 1;
    l = products_or(s, l, products_one(s, longer));
    shorter->max = n ? n - 1 : 0;
    return l && n ? products_or(s, l, products_one(s, shorter)) : l;
}

bool product_rule(struct schema *s, struct product *p, uint32_t matcher, uint32_t type)
{
    struct key_rule *r = matcher != UINT32_MAX && type != UINT32_MAX ? VEC_ADD(s->b, &p->rules) : NULL;
    if (r)
        *r = (struct key_rule){matcher, type};
    return r != NULL;
}

bool product_require(struct schema *s, struct product *p, uint32_t name)
{
    uint32_t *at = name != UINT32_MAX ? VEC_ADD(s->b, &p->required) : NULL;
    if (at)
        *at = name;
    return at != NULL;
}

/* A member that matches, with a value of this type, must exist. */
bool product_want(struct schema *s, struct product *p, uint32_t matcher, uint32_t type)
{
    struct wanted *w = matcher != UINT32_MAX && type != UINT32_MAX ? VEC_ADD(s->b, &p->wanted) : NULL;
    if (w)
        *w = (struct wanted){.matcher = matcher, .type = type, .min = 1, .max = REPEAT_NO_MAX};
    return w != NULL;
}

static struct products *object_literal(struct schema *s, const struct json *v, bool negated)
{
    struct products *l = products_none(s);
    struct product *all = product_new(s);
    uint32_t *names = build_temp(s->b, v->count + 1u, sizeof *names), n = 0;
    JSON_EACH_MEMBER (key, item, v) {
        uint32_t name = name_index(s, key);
        uint32_t matcher = matcher_add(s, (struct matcher){.how = MATCH_NAME, .name = name});
        if (!l || !all || !names || name == UINT32_MAX || matcher == UINT32_MAX)
            return NULL;
        names[n++] = matcher;
        if (!product_rule(s, all, matcher, type_of_literal(s, item, false)) || !product_require(s, all, name))
            return NULL;
        if (negated) {
            struct product *absent = product_new(s), *different = product_new(s);
            if (!absent || !different || !product_rule(s, absent, matcher, TYPE_NONE) ||
                !product_require(s, different, name) ||
                !product_rule(s, different, matcher, type_of_literal(s, item, true)))
                return NULL;
            l = products_or(s, products_or(s, l, products_one(s, absent)), products_one(s, different));
        }
    }
    uint32_t others = matcher_add(s, (struct matcher){.how = MATCH_NONE_OF, .of = names, .n_of = n});
    if (!l || !all || others == UINT32_MAX)
        return NULL;
    if (!negated)
        return product_rule(s, all, others, TYPE_NONE) ? products_one(s, all) : NULL;
    struct product *more = product_new(s);
    if (!more || !product_want(s, more, others, TYPE_ANY))
        return NULL;
    return products_or(s, l, products_one(s, more));
}

struct products *literal_list(struct schema *s, const struct json *list, bool negated, enum kind kind)
{
    return kind == KIND_NUMBER ? number_literals(s, list, true, negated) : string_literals(s, list, true, negated);
}

struct products *literal_products(struct schema *s, const struct json *v, bool negated, enum kind kind)
{
    static const enum kind kinds[] = {KIND_NULL,   KIND_BOOL,   KIND_BOOL,  KIND_NUMBER,
                                      KIND_NUMBER, KIND_STRING, KIND_ARRAY, KIND_OBJECT};
    if (kinds[v->type] != kind)
        return negated ? products_all(s) : products_none(s);
    struct product *p = NULL;
    switch (kind) {
    case KIND_NULL:
        return negated ? products_none(s) : products_all(s);
    case KIND_BOOL:
        p = product_new(s);
        if (p)
            p->bools = (v->type == JSON_TRUE) != negated ? 2 : 1;
        return products_one(s, p);
    case KIND_NUMBER:
        return number_literals(s, v, false, negated);
    case KIND_STRING:
        return string_literals(s, v, false, negated);
    case KIND_ARRAY:
        return array_literal(s, v, negated);
    case KIND_OBJECT:
        return object_literal(s, v, negated);
    case KIND_COUNT:
        break;
    }
    return NULL;
}
