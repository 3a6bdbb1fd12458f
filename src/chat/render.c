/* render - the room's door: parse once, render many; chat messages to a prompt whose user-written parts are marked */
#include "chat/template.h"

#include "base/mem.h"

enum { STEPS_DEFAULT = 10000000, DEPTH_DEFAULT = 100, NEST_PER_DEPTH = 20 };
static const size_t output_default = (size_t)64 << 20, memory_extra = (size_t)64 << 20;
static const size_t chat_output_max = (size_t)16 << 20;

enum status template_intern(uint32_t *out, struct template *t, struct str name, struct error *err)
{
    const uint64_t *known = map_find(&t->symbols, name);
    if (known) {
        *out = (uint32_t)*known;
        return ST_OK;
    }
    char *copy = arena_copy(&t->arena, name);
    if (!copy || !MEM_GROW(t->names, t->name_capacity, t->n_name) ||
        !map_put(&t->symbols, str_n(copy, name.len), t->n_name))
        return fail_nomem(err, "a template's names");
    t->names[t->n_name] = str_n(copy, name.len);
    *out = (uint32_t)t->n_name++;
    return ST_OK;
}

static enum status parse(struct template *t, struct str source, struct error *err)
{
    static const char *const known[SYM_KNOWN] = {"loop", "caller", "varargs", "kwargs"};
    struct token *tokens;
    size_t n;
    uint32_t sym;
    if (!map_init(&t->symbols, 64))
        return fail_nomem(err, "a template's names");
    for (size_t i = 0; i < SYM_KNOWN; i++)
        TRY(template_intern(&sym, t, str_of(known[i]), err));
    TRY(template_lex(&tokens, &n, &t->arena, source, err));
    return template_parse_tokens(t, tokens, n, err);
}

enum status template_parse(struct template **out, struct str source, struct error *err)
{
    struct template *t = mem_alloc_zero(1, sizeof *t);
    *out = NULL;
    if (!t)
        return fail_nomem(err, "a template");
    if (source.len > UINT32_MAX / 2) {
        mem_free(t);
        return fail(err, ST_LIMIT, "template: %zu bytes of source; at most 2 GiB", source.len);
    }
    arena_init(&t->arena, 0);
    enum status st = parse(t, source, err);
    if (st != ST_OK) {
        template_free(t);
        return st;
    }
    *out = t;
    return ST_OK;
}

void template_free(struct template *t)
{
    if (!t)
        return;
    arena_free(&t->arena);
    map_free(&t->symbols);
    mem_free(t->names);
    mem_free(t);
}

/* ---- one rendering ---- */

static enum status run_init(struct run *r, const struct template *t, const struct template_budget *b, struct error *err)
{
    static const struct template_budget none;
    b = b ? b : &none;
    *r = (struct run){.t = t, .err = err, .line = 1, .now_s = b->now_wall_s, .json_style = b->style == TEMPLATE_JSON};
    r->steps_max = b->steps_max ? b->steps_max : STEPS_DEFAULT;
    r->depth_max = b->depth_max ? b->depth_max : DEPTH_DEFAULT;
    r->nest_max = r->depth_max > 1000 ? 1000 * NEST_PER_DEPTH : r->depth_max * NEST_PER_DEPTH;
    r->output_max = b->output_max ? b->output_max : output_default;
    if (r->output_max > UINT32_MAX / 2)
        r->output_max = UINT32_MAX / 2;
    arena_init(&r->arena, r->output_max * 4 + memory_extra);
    r->globals = run_alloc(r, t->n_name * sizeof *r->globals);
    if (!r->globals)
        return err->status;
    memset(r->globals, 0, t->n_name * sizeof *r->globals);
    for (size_t i = 0; i < template_n_function; i++) {
        const uint64_t *sym = map_find(&t->symbols, str_of(template_functions[i].name));
        if (sym)
            r->globals[*sym] = (struct value){.type = V_BUILTIN, .builtin = &template_functions[i]};
    }
    return ST_OK;
}

static void set_global(struct run *r, struct str name, const struct value *v)
{
    const uint64_t *sym = map_find(&r->t->symbols, name);
    if (sym)
        r->globals[*sym] = *v;
}

static enum status set_from_json(struct run *r, const struct json *object)
{
    JSON_EACH_MEMBER (key, value, object) {
        struct value v;
        if (!map_find(&r->t->symbols, key))
            continue;
        TRY(value_from_json(r, &v, value, true));
        set_global(r, key, &v);
    }
    return ST_OK;
}

static enum status render(struct run *r, struct value *out)
{
    struct text text;
    text_init(&text, r);
    r->out = &text;
    TRY(template_run(r));
    return text_take(&text, out);
}

enum status template_render(const struct template *t, struct buf *out, const struct json *context,
                            const struct template_budget *budget, struct error *err)
{
    struct error local;
    struct value text;
    struct run r;
    err = err ? err : &local;
    if (context && json_type(context) != JSON_OBJECT)
        return fail(err, ST_INVALID, "template: the context must be a JSON object");
    enum status st = run_init(&r, t, budget, err);
    if (st == ST_OK)
        st = set_from_json(&r, context);
    if (st == ST_OK)
        st = render(&r, &text);
    if (st == ST_OK) {
        buf_append_str(out, value_str(&text));
        if (out->failed)
            st = fail_nomem(err, "a rendered template");
    }
    arena_free(&r.arena);
    return st;
}

/* ---- chat ---- */

/* A role from this list is the template's vocabulary, not a user's text: templates build special tokens of it. */
static bool role_is_known(struct str role)
{
    static const char *const roles[] = {"system",   "user",    "assistant", "tool",  "developer",
                                        "function", "ipython", "model",     "human", "bot"};
    for (size_t i = 0; i < sizeof roles / sizeof *roles; i++)
        if (str_is(role, roles[i]))
            return true;
    return false;
}

/* [{"type": "text", "text": ...}, ...] becomes one string, as templates for plain models expect. */
static enum status content_value(struct run *r, struct value *out, const struct json *content, size_t index)
{
    struct text t;
    bool first = true;
    if (json_type(content) != JSON_ARRAY)
        return value_from_json(r, out, content, true);
    text_init(&t, r);
    JSON_EACH (part, content) {
        struct str type = json_str(json_get(part, "type")), text = json_str(json_get(part, "text"));
        if (!str_is(type, "text") && !str_is(type, "input_text"))
            return fail(r->err, ST_UNSUPPORTED,
                        "messages[%zu].content: a part of type \"%.*s\"; this model takes text only", index,
                        STR_ARG(type.ptr ? type : STR("?")));
        if (!text.ptr)
            return fail(r->err, ST_INVALID, "messages[%zu].content: a text part without a string \"text\"", index);
        if (!first)
            text_add(&t, "\n", 1, MASK_PLAIN);
        text_add(&t, text.ptr, text.len, MASK_PLAIN);
        first = false;
    }
    return text_take(&t, out);
}

/* OpenAI's clients send a call's arguments as JSON text; templates want the object. */
static enum status parse_arguments(struct run *r, struct value *call)
{
    const struct json *doc;
    struct error ignored;
    struct value *function = dict_find_str(call->dict, STR("function"));
    struct value *holder = function && function->type == V_DICT ? function : call;
    struct value *arguments = dict_find_str(holder->dict, STR("arguments"));
    if (!arguments || arguments->type != V_STR)
        return ST_OK;
    if (json_parse(&doc, &r->arena, value_str(arguments), 0, &ignored) != ST_OK || json_type(doc) != JSON_OBJECT)
        return ST_OK;
    return value_from_json(r, arguments, doc, true);
}

static enum status message_value(struct run *r, struct value *out, const struct json *message, size_t index)
{
    struct str role = json_str(json_get(message, "role"));
    if (json_type(message) != JSON_OBJECT)
        return fail(r->err, ST_INVALID, "messages[%zu]: expected an object with role and content", index);
    if (!role.ptr)
        return fail(r->err, ST_INVALID, "messages[%zu].role: expected a string", index);
    TRY(value_from_json(r, out, message, true));
    struct value *v = dict_find_str(out->dict, STR("role"));
    if (v->type == V_STR && role_is_known(value_str(v))) /* what will be written: a second "role" may say otherwise */
        v->mask = NULL;
    v = dict_find_str(out->dict, STR("content"));
    if (v)
        TRY(content_value(r, v, json_get(message, "content"), index));
    v = dict_find_str(out->dict, STR("tool_calls"));
    for (size_t i = 0; v && v->type == V_LIST && i < v->list->n; i++)
        if (v->list->items[i].type == V_DICT)
            TRY(parse_arguments(r, &v->list->items[i]));
    return ST_OK;
}

static enum status messages_value(struct run *r, struct value *out, const struct json *messages)
{
    size_t index = 0;
    if (json_type(messages) != JSON_ARRAY || json_count(messages) == 0)
        return fail(r->err, ST_INVALID, "messages: expected a list of at least one message");
    TRY(list_new(r, out, V_LIST, json_count(messages)));
    JSON_EACH (message, messages) {
        struct value v;
        TRY(message_value(r, &v, message, index++));
        TRY(list_push(r, out->list, &v));
    }
    return ST_OK;
}

static enum status set_chat(struct run *r, const struct chat_options *o)
{
    struct value v, none = value_of(V_NONE);
    set_global(r, STR("tools"), &none);
    set_global(r, STR("documents"), &none);
    TRY(set_from_json(r, o->extra));
    TRY(messages_value(r, &v, o->messages));
    set_global(r, STR("messages"), &v);
    if (json_count(o->tools)) {
        TRY(value_from_json(r, &v, o->tools, true));
        set_global(r, STR("tools"), &v);
    }
    v = value_bool(!o->no_generation_prompt);
    set_global(r, STR("add_generation_prompt"), &v);
    const struct {
        struct str name, text;
    } own[] = {{STR("bos_token"), o->bos_token}, {STR("eos_token"), o->eos_token}};
    for (size_t i = 0; i < 2; i++)
        if (own[i].text.ptr) {
            v = (struct value){.type = V_STR, .s = own[i].text.ptr, .len = (uint32_t)own[i].text.len};
            set_global(r, own[i].name, &v);
        }
    return ST_OK;
}

/* The same views of out->text that a tokenizer wants: runs of one provenance. */
static enum status make_pieces(struct chat_prompt *out, const struct value *text, struct error *err)
{
    bool uniform = !text->mask || text->mask == MASK_PLAIN;
    size_t n = text->len > 0, at = 0;
    buf_append_str(&out->text, value_str(text));
    for (size_t i = 1; !uniform && i < text->len; i++)
        n += text->mask[i] != text->mask[i - 1];
    out->pieces = mem_alloc_zero(n + 1, sizeof *out->pieces);
    if (out->text.failed || !out->pieces)
        return fail_nomem(err, "a rendered chat");
    for (size_t i = 0; i < text->len; i = at) {
        bool plain = text->mask && (uniform || text->mask[i]);
        for (at = uniform ? text->len : i + 1; !uniform && at < text->len && text->mask[at] == text->mask[i];)
            at++;
        out->pieces[out->n_piece++] = (struct text_piece){str_n(out->text.ptr + i, at - i), plain};
    }
    return ST_OK;
}

/* The built-in form for models without a template. */
static const char builtin_source[] =
    "{% for m in messages %}{{ m.role | capitalize }}: {{ m.content | default('', true) }}\n"
    "{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}";

static enum status chat(const struct template *t, struct chat_prompt *out, const struct chat_options *options,
                        struct error *err)
{
    const struct template_budget budget = {.output_max = chat_output_max, .now_wall_s = options->now_wall_s};
    struct value text;
    struct run r;
    enum status st = run_init(&r, t, &budget, err);
    if (st == ST_OK)
        st = set_chat(&r, options);
    if (st == ST_OK)
        st = render(&r, &text);
    if (st == ST_OK)
        st = make_pieces(out, &text, err);
    arena_free(&r.arena);
    return st;
}

enum status chat_render(const struct template *t, struct chat_prompt *out, const struct chat_options *options,
                        struct error *err)
{
    struct template *builtin = NULL;
    struct error local;
    err = err ? err : &local;
    *out = (struct chat_prompt){0};
    enum status st = t ? ST_OK : template_parse(&builtin, str_of(builtin_source), err);
    t = t ? t : builtin;
    if (st == ST_OK && t)
        st = chat(t, out, options, err);
    template_free(builtin);
    if (st != ST_OK)
        chat_prompt_free(out);
    return st;
}

void chat_prompt_free(struct chat_prompt *p)
{
    buf_free(&p->text);
    mem_free(p->pieces);
    *p = (struct chat_prompt){0};
}
