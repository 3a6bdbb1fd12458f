/* template - the chat room's own header: tokens, syntax tree, values and the state of one rendering
 *
 *   source -> lex.c -> tokens -> parse*.c -> tree in the template's arena -> exec.c, eval.c -> text with provenance
 *
 * Every string value carries where its bytes came from: mask NULL = the template's own text, MASK_PLAIN = the context,
 * else one byte a byte. Operations copy the mask with the bytes, so that what a user wrote stays marked wherever a
 * template moves it (ARCHITECTURE: it never becomes a special token).
 */
#ifndef CHAT_TEMPLATE_H
#define CHAT_TEMPLATE_H

#include "base/map.h"
#include "chat/chat.h"

/* ---- tokens ---- */
enum token_type {
    T_DATA,
    T_VAR_BEGIN,
    T_VAR_END,
    T_BLOCK_BEGIN,
    T_BLOCK_END,
    T_NAME,
    T_STRING,
    T_INT,
    T_REAL,
    T_OP,
    T_EOF
};
enum op { /* single characters stand for themselves */
          OP_EQ = 128,
          OP_NE,
          OP_LE,
          OP_GE,
          OP_FLOORDIV,
          OP_POW,
          OP_IN,
          OP_NOT_IN,
          OP_AND,
          OP_OR,
          OP_NOT,
          OP_NEG,
          OP_POS
};
struct token {
    uint8_t type, op;
    uint32_t line;
    struct str text;
    union {
        int64_t integer;
        double real;
    };
};
MUST_USE enum status template_lex(struct token **out, size_t *n, struct arena *arena, struct str source,
                                  struct error *err);

/* ---- values ---- */
enum value_type {
    V_MISSING, /* an argument or variable that was not given */
    V_UNDEFINED,
    V_NONE,
    V_BOOL,
    V_INT,
    V_REAL,
    V_STR,
    V_LIST,
    V_TUPLE,
    V_DICT,
    V_NAMESPACE,
    V_MACRO,
    V_BUILTIN,
    V_METHOD,
    V_LOOP,
    V_CYCLER
};
struct value {
    uint8_t type;
    bool safe;    /* V_STR that went through "safe" or "escape": joined to other text, it makes that escaped */
    bool lazy;    /* V_LIST that Python would make a generator of: true even when empty */
    uint32_t len; /* V_STR: bytes; V_UNDEFINED: of the name */
    union {
        bool b;
        int64_t i;
        double r;
        const char *s;
        struct list *list; /* also V_TUPLE and V_CYCLER */
        struct dict *dict; /* also V_NAMESPACE */
        struct macro *macro;
        const struct builtin *builtin;
        struct method *method;
        struct loop *loop;
    };
    const char *mask; /* V_STR: provenance */
};
extern const char mask_plain_all[1];
#define MASK_PLAIN (mask_plain_all)

struct list {
    struct value *items;
    size_t n, capacity;
    size_t next; /* V_CYCLER */
};
struct entry {
    struct value key, value;
};
struct dict { /* in order of insertion; an index from DICT_INDEXED entries on */
    struct entry *entries;
    size_t n, capacity;
    uint32_t *index; /* entry + 1, open addressing; NULL when small or after a removal */
    size_t index_mask;
};
struct args {
    struct value *items; /* positional */
    size_t n;
    struct entry *named;
    size_t n_named;
};

/* ---- syntax tree ---- */
enum node_kind {
    /* expressions */
    N_CONST,
    N_NAME,
    N_TUPLE,
    N_LIST,
    N_DICT, /* a: key, value, key, value ... */
    N_UNARY,
    N_BINARY,
    N_COMPARE, /* a, then b: chain of N_OPERAND */
    N_OPERAND,
    N_TERNARY, /* a if b else c */
    N_ATTR,    /* a.sym */
    N_ITEM,    /* a[b] */
    N_SLICE,   /* a:b:c, each may be NULL */
    N_CALL,    /* a(b: list of N_ARG) */
    N_FILTER,  /* a | sym(b); a NULL in a filter block */
    N_TEST,    /* a is sym(b) */
    N_ARG,     /* op: 0 positional, 1 named sym, '*', OP_POW */
    /* statements */
    N_TEXT,
    N_PRINT,
    N_IF,         /* a: condition, b: body, c: else (a body, or one N_IF) */
    N_FOR,        /* target a, iterable b, body c, orelse d, filter e; op: recursive */
    N_SET,        /* a = b */
    N_SET_BLOCK,  /* a = body c through filter b */
    N_NSREF,      /* sym.sym2, as a target */
    N_MACRO,      /* sym, a: parameters (N_PARAM), c: body; op: takes varargs and kwargs */
    N_PARAM,      /* sym, a: default or NULL */
    N_CALL_BLOCK, /* b: the call, a: an N_MACRO made of the body */
    N_FILTER_BLOCK,
    N_WITH,  /* a: N_SET list, c: body */
    N_SCOPE, /* c: body, captured and printed (generation) */
    N_BREAK,
    N_CONTINUE
};
struct node {
    uint8_t kind, op;
    uint32_t line, sym, sym2;
    struct node *a, *b, *c, *d, *e, *next;
    struct value value; /* N_CONST, N_TEXT */
};

/* Names known before any template; the rest are interned behind them. */
enum { SYM_LOOP, SYM_CALLER, SYM_VARARGS, SYM_KWARGS, SYM_KNOWN };

struct template
{
    struct arena arena;
    struct node *body;
    struct str *names; /* by symbol */
    size_t n_name, name_capacity;
    struct map symbols;
};
MUST_USE enum status template_parse_tokens(struct template *t, const struct token *tokens, size_t n, struct error *err);
MUST_USE enum status template_intern(uint32_t *out, struct template *t, struct str name, struct error *err);

/* ---- one rendering ---- */
struct binding {
    uint32_t sym;
    struct value value;
};
struct frame {
    struct frame *parent;
    struct binding *vars;
    size_t n, capacity;
};
struct macro {
    const struct node *node;
    struct frame *closure;
};
struct method {
    const struct builtin *row;
    struct value self;
};
struct loop {
    const struct node *node; /* recursive loops call it again */
    struct frame *frame;     /* the frame outside the loop */
    struct value *items;
    size_t n, i;
    uint32_t depth;
    struct value changed;
};

struct run {
    const struct template *t;
    struct error *err;
    struct arena arena;
    struct value *globals; /* by symbol */
    struct frame *frame;   /* NULL at the top */
    struct text *out;
    uint32_t line;
    uint64_t steps, steps_max;
    uint32_t depth, depth_max; /* macro calls, captures and loops within each other */
    uint32_t nest, nest_max;   /* all recursion: bounds the C stack */
    size_t output_max;
    int64_t now_s;
    bool json_style;
};

/* Text under construction: bytes and their provenance. Failures are recorded in run->err and are sticky. */
struct text {
    struct run *run;
    char *ptr, *mask; /* mask: only once bytes of both origins met */
    size_t n, capacity;
    bool has_own, has_plain;
    enum status failed;
};
void text_init(struct text *t, struct run *r);
void text_add(struct text *t, const char *bytes, size_t n, const char *mask);
void text_add_own(struct text *t, const char *literal);
void text_add_value(struct text *t, const struct value *s); /* V_STR */
MUST_USE enum status text_take(struct text *t, struct value *out);

/* A builtin: filter, test, function or method. params names its arguments in order; "*" takes them raw. */
typedef enum status builtin_fn(struct run *r, struct value *out, const struct value *self, const struct value *a,
                               const struct args *raw);
struct builtin {
    const char *name, *params;
    int required;
    builtin_fn *fn;
    uint32_t types; /* methods: bits of the value types that have it */
};
enum { BUILTIN_ARGS_MAX = 6 };
const struct builtin *filter_find(struct str name);
const struct builtin *test_find(struct str name);
const struct builtin *method_find(enum value_type type, struct str name);
extern const struct builtin template_functions[];
extern const size_t template_n_function;
MUST_USE enum status builtin_call(struct run *r, struct value *out, const struct builtin *row, const struct value *self,
                                  const struct args *args);

/* eval.c */
MUST_USE enum status template_run(struct run *r);
enum status run_error(struct run *r, enum status st, const char *fmt, ...) __attribute__((format(printf, 3, 4), cold));
void *run_alloc(struct run *r, size_t size); /* NULL after filling r->err */
MUST_USE enum status run_step(struct run *r, uint64_t n);
MUST_USE enum status run_enter(struct run *r); /* one more level of recursion; run_leave undoes it */
static inline void run_leave(struct run *r)
{
    r->nest--;
}

/* value.c */
static inline struct value value_of(enum value_type type)
{
    return (struct value){.type = (uint8_t)type};
}
static inline struct value value_bool(bool b)
{
    return (struct value){.type = V_BOOL, .b = b};
}
static inline struct value value_int(int64_t i)
{
    return (struct value){.type = V_INT, .i = i};
}
static inline struct value value_real(double d)
{
    return (struct value){.type = V_REAL, .r = d};
}
struct value value_own(const char *literal);                             /* the template's own text */
struct value value_slice(const struct value *s, size_t start, size_t n); /* bytes of a V_STR */
static inline struct str value_str(const struct value *s)
{
    return str_n(s->s, s->len);
}
static inline bool value_is_number(const struct value *v)
{
    return v->type == V_INT || v->type == V_REAL || v->type == V_BOOL;
}
static inline double value_number(const struct value *v)
{
    return v->type == V_REAL ? v->r : v->type == V_BOOL ? (double)v->b : (double)v->i;
}
const char *value_type_name(const struct value *v);
bool value_truth(const struct value *v);
MUST_USE enum status value_equal(struct run *r, bool *out, const struct value *a, const struct value *b);
MUST_USE enum status value_compare(struct run *r, int *out, const struct value *a, const struct value *b);
MUST_USE enum status value_contains(struct run *r, bool *out, const struct value *in, const struct value *what);
MUST_USE enum status value_length(struct run *r, size_t *out, const struct value *v);
MUST_USE enum status value_to_text(struct text *t, const struct value *v); /* what {{ v }} prints */
MUST_USE enum status value_to_str(struct run *r, struct value *out, const struct value *v);
/* The items of anything iterable, as a fresh or borrowed array. */
MUST_USE enum status value_items(struct run *r, struct value **out, size_t *n, const struct value *v);
MUST_USE enum status value_attr(struct run *r, struct value *out, const struct value *v, struct str name);
MUST_USE enum status value_item(struct run *r, struct value *out, const struct value *v, const struct value *key);
MUST_USE enum status value_slice_of(struct run *r, struct value *out, const struct value *v, const struct value *start,
                                    const struct value *stop, const struct value *step);
MUST_USE enum status value_from_json(struct run *r, struct value *out, const struct json *j, bool plain);
struct json_style {
    struct value item, key; /* separators */
    struct value indent;    /* V_MISSING: none */
    bool sort_keys, ascii;
};
MUST_USE enum status value_to_json(struct text *t, const struct value *v, const struct json_style *style, int level);

MUST_USE enum status list_new(struct run *r, struct value *out, enum value_type type, size_t n);
MUST_USE enum status list_push(struct run *r, struct list *l, const struct value *v);
MUST_USE enum status dict_new(struct run *r, struct value *out, enum value_type type);
MUST_USE enum status dict_put(struct run *r, struct dict *d, const struct value *key, const struct value *value);
MUST_USE enum status dict_find(struct run *r, struct value **out, const struct dict *d, const struct value *key);
struct value *dict_find_str(const struct dict *d, struct str key);
void dict_remove(struct dict *d, struct value *slot);

/* unicode helpers over UTF-8 */
size_t chars_count(struct str s);
size_t chars_offset(struct str s, size_t chars); /* byte offset of the n-th character */
bool char_is_space(uint32_t c);                  /* as Python's str.isspace */
struct str str_strip(struct str s, bool left, bool right);
enum letter_case { CASE_UPPER, CASE_LOWER, CASE_TITLE };
enum { CASE_BYTES_MAX = 16 };
size_t char_case(char out[CASE_BYTES_MAX], uint32_t c, enum letter_case to); /* bytes written */
bool char_is_cased(uint32_t c);

#endif
