#include "formats/pickle.h"

#include "base/cursor.h"
#include "base/mem.h"

enum { STACK_MAX = 1 << 17 };

enum global { ORDERED_DICT, REBUILD_TENSOR, REBUILD_PARAMETER, SIZE, STORAGE };
static const struct {
    const char *module, *name;
    enum global what;
    enum dtype type; /* of a storage */
} globals[] = {
    {"collections", "OrderedDict", ORDERED_DICT, 0},
    {"torch._utils", "_rebuild_tensor_v2", REBUILD_TENSOR, 0},
    {"torch._utils", "_rebuild_parameter", REBUILD_PARAMETER, 0},
    {"torch", "Size", SIZE, 0},
    {"torch", "FloatStorage", STORAGE, DT_F32},
    {"torch", "HalfStorage", STORAGE, DT_F16},
    {"torch", "BFloat16Storage", STORAGE, DT_BF16},
    {"torch", "DoubleStorage", STORAGE, DT_F64},
    {"torch", "CharStorage", STORAGE, DT_I8},
    {"torch", "ByteStorage", STORAGE, DT_U8},
    {"torch", "ShortStorage", STORAGE, DT_I16},
    {"torch", "IntStorage", STORAGE, DT_I32},
    {"torch", "LongStorage", STORAGE, DT_I64},
    {"torch", "BoolStorage", STORAGE, DT_BOOL},
};

struct machine {
    struct loading *l;
    struct cursor c;
    const struct pickle **stack; /* NULL: a mark */
    size_t n, capacity;
    const struct pickle **memo;
    size_t memo_max;
    struct error *err;
};

/* ---- values and stack ---- */

static enum status fail_pickle(struct machine *m, const char *what)
{
    return fail(m->err, ST_CORRUPT, "pickle: %s at byte %zu; the file is damaged", what, cursor_offset(&m->c));
}

static enum status push(struct machine *m, const struct pickle *v)
{
    if (m->n >= STACK_MAX)
        return fail(m->err, ST_LIMIT, "pickle: more than %d values are open at byte %zu", STACK_MAX,
                    cursor_offset(&m->c));
    if (!MEM_GROW(m->stack, m->capacity, m->n) || !m->stack)
        return fail_nomem(m->err, "the pickle's stack");
    m->stack[m->n++] = v;
    return ST_OK;
}

static enum status push_new(struct machine *m, struct pickle v)
{
    void *memory;
    TRY(loading_alloc(&memory, m->l, 1, sizeof v, "pickle", m->err));
    memcpy(memory, &v, sizeof v);
    return push(m, memory);
}

static const struct pickle *top(const struct machine *m)
{
    return m->stack && m->n ? m->stack[m->n - 1] : NULL;
}

static enum status pop(const struct pickle **out, struct machine *m)
{
    *out = top(m);
    if (!*out)
        return fail_pickle(m, "a value is missing");
    m->n--;
    return ST_OK;
}

/* Index of the first value above the last mark. */
static enum status find_mark(size_t *first, struct machine *m)
{
    for (*first = m->n; *first > 0; --*first)
        if (!m->stack[*first - 1])
            return ST_OK;
    return fail_pickle(m, "a mark is missing");
}

static enum status append(struct machine *m, struct pickle *list, const struct pickle *value)
{
    void *memory;
    TRY(loading_alloc(&memory, m->l, 1, sizeof(struct pickle_item), "pickle", m->err));
    struct pickle_item *item = memory;
    *item = (struct pickle_item){.value = value};
    if (list->items.last)
        list->items.last->next = item;
    else
        list->items.first = item;
    list->items.last = item;
    return ST_OK;
}

/* Moves the values from `first` on into the container below `below` (which is first, or first - 1 for a mark). */
static enum status append_from(struct machine *m, size_t first, size_t below, enum pickle_type type)
{
    struct pickle *list = below ? (struct pickle *)m->stack[below - 1] : NULL;
    if (!list || list->type != type || (type == PICKLE_DICT && (m->n - first) % 2))
        return fail_pickle(m, type == PICKLE_DICT ? "items for no dictionary" : "items for no list");
    for (size_t i = first; i < m->n; i++)
        TRY(append(m, list, m->stack[i]));
    m->n = below;
    return ST_OK;
}

static enum status make_tuple(struct machine *m, size_t first, size_t below)
{
    for (size_t i = first; i < m->n; i++)
        if (!m->stack[i])
            return fail_pickle(m, "a mark inside a tuple");
    void *memory;
    TRY(loading_alloc(&memory, m->l, 1, sizeof(struct pickle), "pickle", m->err));
    struct pickle *tuple = memory;
    *tuple = (struct pickle){.type = PICKLE_TUPLE};
    for (size_t i = first; i < m->n; i++)
        TRY(append(m, tuple, m->stack[i]));
    m->n = below;
    return push(m, tuple);
}

/* The values of a tuple, at most `most`; the number found, or -1 when v is no tuple or longer. */
static int tuple_values(const struct pickle **values, int most, const struct pickle *v)
{
    int n = 0;
    if (!v || v->type != PICKLE_TUPLE)
        return -1;
    for (const struct pickle_item *i = v->items.first; i; i = i->next) {
        if (n == most)
            return -1;
        values[n++] = i->value;
    }
    return n;
}

/* ---- what may be called, done as data ---- */

static bool integers(int64_t *out, int n, const struct pickle *tuple)
{
    const struct pickle *v[TENSOR_DIMS];
    if (tuple_values(v, TENSOR_DIMS, tuple) != n)
        return false;
    for (int i = 0; i < n; i++) {
        if (v[i]->type != PICKLE_INT || v[i]->integer < 0)
            return false;
        out[i] = v[i]->integer;
    }
    return true;
}

static bool is_contiguous(const int64_t *shape, const int64_t *stride, int n)
{
    int64_t expected = 1;
    for (int i = n - 1; i >= 0; i--) {
        if (shape[i] != 1 && stride[i] != expected)
            return false;
        if (__builtin_mul_overflow(expected, shape[i], &expected))
            return false;
    }
    return true;
}

/* (storage, offset, shape, stride, requires_grad, hooks[, metadata]) */
static enum status rebuild_tensor(struct machine *m, const struct pickle *args)
{
    const struct pickle *a[7], *dims[TENSOR_DIMS];
    int64_t stride[TENSOR_DIMS];
    int n = tuple_values(a, 7, args);
    if (n < 6 || a[0]->type != PICKLE_STORAGE || a[1]->type != PICKLE_INT || a[1]->integer < 0)
        return fail_pickle(m, "a tensor with unexpected arguments");
    if (a[2]->type == PICKLE_TUPLE && tuple_values(dims, TENSOR_DIMS, a[2]) < 0)
        return fail(m->err, ST_UNSUPPORTED, "pickle: a tensor with more than %d dimensions", TENSOR_DIMS);
    void *memory;
    TRY(loading_alloc(&memory, m->l, 1, sizeof(struct pickle_tensor), "pickle", m->err));
    struct pickle_tensor *t = memory;
    *t = *a[0]->tensor;
    t->offset = (uint64_t)a[1]->integer;
    t->shape.n_dim = tuple_values(dims, TENSOR_DIMS, a[2]);
    if (t->shape.n_dim < 0 || !integers(t->shape.shape, t->shape.n_dim, a[2]) ||
        !integers(stride, t->shape.n_dim, a[3]))
        return fail_pickle(m, "a tensor whose shape and strides are no numbers");
    t->contiguous = is_contiguous(t->shape.shape, stride, t->shape.n_dim);
    return push_new(m, (struct pickle){.type = PICKLE_TENSOR, .tensor = t});
}

static enum status op_reduce(struct machine *m)
{
    const struct pickle *args, *callable, *a[3];
    TRY(pop(&args, m));
    TRY(pop(&callable, m));
    if (callable->type != PICKLE_GLOBAL)
        return fail_pickle(m, "a call of something that is no name");
    int n = tuple_values(a, 3, args);
    switch (globals[callable->integer].what) {
    case ORDERED_DICT:
        if (n != 0)
            return fail(m->err, ST_UNSUPPORTED, "pickle: an OrderedDict made from arguments");
        return push_new(m, (struct pickle){.type = PICKLE_DICT});
    case REBUILD_TENSOR:
        return rebuild_tensor(m, args);
    case REBUILD_PARAMETER:
        if (n != 3 || a[0]->type != PICKLE_TENSOR)
            return fail_pickle(m, "a parameter with unexpected arguments");
        return push(m, a[0]);
    case SIZE:
        if (n != 1 || a[0]->type != PICKLE_TUPLE)
            return fail_pickle(m, "a torch.Size with unexpected arguments");
        return push(m, a[0]);
    default:
        return fail_pickle(m, "a call of a storage class");
    }
}

/* ('storage', class, key, location, count) */
static enum status op_storage(struct machine *m)
{
    const struct pickle *id, *a[5];
    TRY(pop(&id, m));
    if (tuple_values(a, 5, id) != 5 || a[0]->type != PICKLE_STRING || !str_is(a[0]->text, "storage") ||
        a[1]->type != PICKLE_GLOBAL || globals[a[1]->integer].what != STORAGE || a[2]->type != PICKLE_STRING ||
        a[4]->type != PICKLE_INT || a[4]->integer < 0)
        return fail_pickle(m, "a persistent id that is no storage");
    void *memory;
    TRY(loading_alloc(&memory, m->l, 1, sizeof(struct pickle_tensor), "pickle", m->err));
    struct pickle_tensor *t = memory;
    *t = (struct pickle_tensor){.key = a[2]->text, .storage_count = (uint64_t)a[4]->integer};
    t->shape.type = globals[a[1]->integer].type;
    return push_new(m, (struct pickle){.type = PICKLE_STORAGE, .tensor = t});
}

static struct str read_line(struct cursor *c)
{
    const uint8_t *end = c->failed ? NULL : memchr(c->at, '\n', cursor_left(c));
    if (!end) {
        c->failed = true;
        return (struct str){"", 0};
    }
    struct str line = cursor_bytes(c, (size_t)(end - c->at));
    cursor_skip(c, 1);
    return line;
}

static enum status op_global(struct machine *m)
{
    struct str module = read_line(&m->c), name = read_line(&m->c);
    if (m->c.failed)
        return fail_pickle(m, "a name is cut off");
    for (size_t i = 0; i < sizeof globals / sizeof *globals; i++)
        if (str_is(module, globals[i].module) && str_is(name, globals[i].name))
            return push_new(m, (struct pickle){.type = PICKLE_GLOBAL, .integer = (int64_t)i});
    return fail(m->err, ST_UNSUPPORTED,
                "pickle: the file wants %.*s.%.*s; Ingot reads tensors and plain values only and "
                "calls nothing",
                STR_ARG(module), STR_ARG(name));
}

/* ---- opcodes ---- */

static enum status op_string(struct machine *m, uint64_t n)
{
    struct str text = cursor_bytes(&m->c, n);
    return push_new(m, (struct pickle){.type = PICKLE_STRING, .text = text});
}

static enum status op_integer(struct machine *m, int64_t v)
{
    return push_new(m, (struct pickle){.type = PICKLE_INT, .integer = v});
}

/* Little-endian two's complement of n bytes. */
static enum status op_long(struct machine *m, uint8_t n)
{
    struct str bytes = cursor_bytes(&m->c, n);
    if (bytes.len > 8)
        return fail(m->err, ST_UNSUPPORTED, "pickle: an integer of %zu bytes at byte %zu", bytes.len,
                    cursor_offset(&m->c));
    uint64_t v = bytes.len && (bytes.ptr[bytes.len - 1] & 0x80) ? ~(uint64_t)0 : 0;
    for (size_t i = bytes.len; i-- > 0;)
        v = v << 8 | (uint8_t)bytes.ptr[i];
    return op_integer(m, (int64_t)v);
}

static enum status op_real(struct machine *m) /* big-endian */
{
    uint64_t bits = __builtin_bswap64(cursor_u64(&m->c));
    struct pickle v = {.type = PICKLE_REAL};
    memcpy(&v.real, &bits, 8);
    return push_new(m, v);
}

static enum status op_put(struct machine *m, uint64_t index)
{
    if (index >= m->memo_max || !top(m))
        return fail_pickle(m, "a memo entry out of range");
    m->memo[index] = top(m);
    return ST_OK;
}

static enum status op_get(struct machine *m, uint64_t index)
{
    if (index >= m->memo_max || !m->memo[index])
        return fail_pickle(m, "a memo entry that was never set");
    return push(m, m->memo[index]);
}

static enum status op_from_mark(struct machine *m, uint8_t op)
{
    size_t first;
    TRY(find_mark(&first, m));
    if (op == 't')
        return make_tuple(m, first, first - 1);
    return append_from(m, first, first - 1, op == 'u' ? PICKLE_DICT : PICKLE_LIST);
}

static enum status op_with_values(struct machine *m, uint8_t op, size_t n)
{
    if (m->n < n)
        return fail_pickle(m, "a value is missing");
    for (size_t i = m->n - n; i < m->n; i++)
        if (!m->stack[i])
            return fail_pickle(m, "a value is missing");
    if (op == 's' || op == 'a')
        return append_from(m, m->n - n, m->n - n, op == 's' ? PICKLE_DICT : PICKLE_LIST);
    return make_tuple(m, m->n - n, m->n - n);
}

/* Attributes of an OrderedDict (PyTorch's _metadata) carry nothing we need. */
static enum status op_build(struct machine *m)
{
    const struct pickle *state;
    TRY(pop(&state, m));
    if (!top(m) || top(m)->type != PICKLE_DICT)
        return fail(m->err, ST_UNSUPPORTED, "pickle: attributes set on something that is no dictionary, at byte %zu",
                    cursor_offset(&m->c));
    return ST_OK;
}

static enum status step(struct machine *m, uint8_t op)
{
    static const struct pickle none = {.type = PICKLE_NONE}, yes = {.type = PICKLE_BOOL, .integer = 1},
                               no = {.type = PICKLE_BOOL};
    struct cursor *c = &m->c;
    switch (op) {
    case 'N':
        return push(m, &none);
    case 0x88:
        return push(m, &yes);
    case 0x89:
        return push(m, &no);
    case '(':
        return push(m, NULL);
    case 'J':
        return op_integer(m, cursor_i32(c));
    case 'K':
        return op_integer(m, cursor_u8(c));
    case 'M':
        return op_integer(m, cursor_u16(c));
    case 0x8a:
        return op_long(m, cursor_u8(c));
    case 'G':
        return op_real(m);
    case 'X':
        return op_string(m, cursor_u32(c));
    case 'U':
        return op_string(m, cursor_u8(c));
    case '}':
        return push_new(m, (struct pickle){.type = PICKLE_DICT});
    case ']':
        return push_new(m, (struct pickle){.type = PICKLE_LIST});
    case ')':
        return make_tuple(m, m->n, m->n);
    case 0x85:
    case 0x86:
    case 0x87:
        return op_with_values(m, op, op - 0x84u);
    case 's':
        return op_with_values(m, op, 2);
    case 'a':
        return op_with_values(m, op, 1);
    case 't':
    case 'u':
    case 'e':
        return op_from_mark(m, op);
    case 'q':
        return op_put(m, cursor_u8(c));
    case 'r':
        return op_put(m, cursor_u32(c));
    case 'h':
        return op_get(m, cursor_u8(c));
    case 'j':
        return op_get(m, cursor_u32(c));
    case 'c':
        return op_global(m);
    case 'Q':
        return op_storage(m);
    case 'R':
        return op_reduce(m);
    case 'b':
        return op_build(m);
    default:
        return fail(m->err, ST_UNSUPPORTED, "pickle: opcode 0x%02x at byte %zu, which files of tensors do not use", op,
                    cursor_offset(c) - 1);
    }
}

static enum status run(const struct pickle **out, struct machine *m)
{
    if (cursor_u8(&m->c) != 0x80 || cursor_u8(&m->c) != 2)
        return fail(m->err, ST_UNSUPPORTED,
                    "pickle: no protocol 2 header; save the file with torch.save and its defaults");
    for (;;) {
        uint8_t op = cursor_u8(&m->c);
        if (m->c.failed)
            return fail_pickle(m, "the end is missing");
        if (op == '.')
            break;
        TRY(step(m, op));
        if (m->c.failed)
            return fail_pickle(m, "a value is cut off");
    }
    if (m->n != 1)
        return fail_pickle(m, "the end comes while values are open");
    return pop(out, m);
}

enum status pickle_read(const struct pickle **out, struct loading *l, struct str bytes, struct error *err)
{
    /* Setting a memo entry takes two bytes at least. */
    struct machine m = {.l = l, .c = cursor_of(bytes.ptr, bytes.len), .memo_max = bytes.len / 2 + 1, .err = err};
    void *memory;
    TRY(loading_alloc(&memory, l, m.memo_max, sizeof *m.memo, "pickle", err));
    m.memo = memset(memory, 0, m.memo_max * sizeof *m.memo);
    enum status st = run(out, &m);
    mem_free(m.stack);
    return st;
}
