/* admin - what is hosted, changed by request: each call on a thread of its own, since loading takes its time; the
 * answer is written on the loop. Only where the operator allowed it, and those whom he did: a path is a path of the
 * server's.
 */
#include "gateway/private.h"

#include "base/mem.h"
#include "base/thread.h"

#include <stdio.h>

enum { BODY_MAX = 65536, TEXT_MAX = 4096 };

struct admin {
    struct gateway *g;
    struct http_exchange *x; /* NULL once the client is gone; loop thread only */
    struct admin *next;
    const struct admin_call *call;
    struct arena arena;
    struct buf text, said;
    const struct json *body;
    enum status status;
    struct error err;
    struct loop_task task;
    pthread_t thread;
};

static void admin_free(struct admin *a)
{
    struct admin **at = &a->g->admins;
    while (*at != a)
        at = &(*at)->next;
    *at = a->next;
    loop_forget(a->g->loop, &a->task);
    arena_free(&a->arena);
    buf_free(&a->text);
    buf_free(&a->said);
    mem_free(a);
}

static void *work(void *arg)
{
    struct admin *a = arg;
    struct loop *loop = a->g->loop;
    a->status = a->call->fn(a->g, a->body, &a->said, &a->err);
    loop_wake(loop, &a->task);
    return NULL;
}

static int http_of(enum status st)
{
    return st == ST_NOMEM                             ? 507
           : st == ST_LIMIT                           ? 503
           : st == ST_CORRUPT || st == ST_UNSUPPORTED ? 400
                                                      : status_row(st)->http;
}

/* Progress that ends in an error is 200 all the same, as it would be had it been told while it went on. */
static void answer_lines(struct admin *a)
{
    struct refusal why;
    if (a->status != ST_OK) {
        refuse(&why, 500, NULL, NULL, "%s", a->err.text);
        ollama_write_refusal(&a->said, &why, STR(""));
        buf_append_char(&a->said, '\n');
    }
    answer_body(a->g, a->x, 200, "application/x-ndjson", &a->said);
}

static void on_done(void *ctx)
{
    struct admin *a = ctx;
    struct refusal why;
    bool lines = a->call->lines && json_bool(json_get(a->body, "stream"), true);
    pthread_join(a->thread, NULL);
    if (a->x && lines) {
        answer_lines(a);
    } else if (a->x && a->status == ST_OK) {
        struct str said = buf_str(&a->said), last = said;
        while (a->call->lines && said.len) /* the last line alone */
            last = str_next_line(&said);
        http_respond(a->x, a->said.failed ? 503 : 200, a->call->type, last);
    } else if (a->x) {
        refuse(&why, http_of(a->status), NULL, NULL, "%s", a->err.text);
        answer_refusal(a->g, a->x, &why);
    }
    admin_free(a);
}

static void on_gone(void *user)
{
    ((struct admin *)user)->x = NULL;
}

static bool allowed(const struct gateway *g, const struct client *client, struct refusal *why)
{
    if (g->hosting && g->options.runtime_loading)
        return access_admin(g, client, why);
    return refuse(why, 403, "forbidden", NULL,
                  "models, adapters and their names are not changed by request here: --allow-runtime-loading lets "
                  "clients");
}

void admin_start(struct gateway *g, struct http_exchange *x, const struct admin_call *call)
{
    struct refusal why;
    struct error err;
    struct admin *a = NULL;
    if ((call->free || allowed(g, x->client, &why)) && !(a = mem_alloc_zero(1, sizeof *a)))
        refuse(&why, 503, NULL, NULL, "out of memory");
    if (!a) {
        answer_refusal(g, x, &why);
        return;
    }
    *a = (struct admin){.g = g, .x = x, .call = call, .next = g->admins, .text = http_take_body(x)};
    a->task = (struct loop_task){.fn = on_done, .ctx = a};
    arena_init(&a->arena, 1 << 20);
    g->admins = a;
    bool good = a->text.len <= BODY_MAX &&
                json_parse(&a->body, &a->arena, buf_str(&a->text), JSON_UNIQUE, &err) == ST_OK &&
                json_is(a->body, JSON_OBJECT);
    if (!good)
        refuse(&why, 400, "invalid_json", NULL, "expected a JSON object of at most %d bytes", BODY_MAX);
    else if (thread_start(&a->thread, work, a) != 0)
        good = refuse(&why, 503, NULL, NULL, "no thread can be started: try again");
    if (!good) {
        admin_free(a);
        answer_refusal(g, x, &why);
        return;
    }
    x->user = a;
    x->on_gone = on_gone;
}

void admin_end_all(struct gateway *g)
{
    while (g->admins) {
        pthread_join(g->admins->thread, NULL);
        admin_free(g->admins);
    }
}

/* ---- the calls ---- */
bool admin_text(char *out, size_t size, const struct json *body, const char *key)
{
    struct str s = json_str(json_get(body, key));
    bool good = s.len && s.len < size && !memchr(s.ptr, 0, s.len);
    snprintf(out, size, "%.*s", good ? (int)s.len : 0, good ? s.ptr : "");
    return good;
}

/* As vLLM has them: {"lora_name", "lora_path"}, and which base when there are several. */
static enum status load_lora(struct gateway *g, const struct json *body, struct buf *said, struct error *err)
{
    char name[TEXT_MAX], path[TEXT_MAX], base[TEXT_MAX];
    if (!admin_text(name, sizeof name, body, "lora_name") || !admin_text(path, sizeof path, body, "lora_path"))
        return fail(err, ST_INVALID, "Both 'lora_name' and 'lora_path' must be provided.");
    bool has_base = admin_text(base, sizeof base, body, "base_model_name");
    if (hosting_knows(g->hosting, str_of(name)))
        return fail(err, ST_INVALID, "The lora adapter '%.100s' has already been loaded.", name);
    TRY(hosting_lora_load(g->hosting, name, has_base ? base : NULL, path, err));
    buf_printf(said, "Success: LoRA adapter '%s' added successfully.", name);
    return ST_OK;
}

static enum status unload_lora(struct gateway *g, const struct json *body, struct buf *said, struct error *err)
{
    char name[TEXT_MAX];
    if (!admin_text(name, sizeof name, body, "lora_name"))
        return fail(err, ST_INVALID, "'lora_name' must be provided.");
    if (hosting_lora_unload(g->hosting, name, err) != ST_OK)
        return fail(err, ST_NOT_FOUND, "The lora adapter '%.100s' cannot be found.", name);
    buf_printf(said, "Success: LoRA adapter '%s' removed successfully.", name);
    return ST_OK;
}

/* {"model": name}: a configured one; with "path": another file under that name, which it takes over once it is loaded;
 * "alias": one more name for it. */
static enum status load_model(struct gateway *g, const struct json *body, struct buf *said, struct error *err)
{
    char name[TEXT_MAX], path[TEXT_MAX], alias[TEXT_MAX];
    if (!admin_text(name, sizeof name, body, "model"))
        return fail(err, ST_INVALID, "\"model\" is missing");
    bool has_path = admin_text(path, sizeof path, body, "path");
    TRY(hosting_load_like(g->hosting, name, has_path ? path : NULL, err));
    if (admin_text(alias, sizeof alias, body, "alias"))
        TRY(hosting_alias(g->hosting, alias, name, err));
    buf_printf(said, "Success: model '%s' is loaded.", name);
    return ST_OK;
}

static enum status unload_model(struct gateway *g, const struct json *body, struct buf *said, struct error *err)
{
    char name[TEXT_MAX];
    if (!admin_text(name, sizeof name, body, "model"))
        return fail(err, ST_INVALID, "\"model\" is missing");
    TRY(hosting_unload(g->hosting, name, err));
    buf_printf(said, "Success: model '%s' goes as soon as nobody uses it.", name);
    return ST_OK;
}

#define SAYS .type = "text/plain; charset=utf-8"
const struct admin_call admin_load_lora = {load_lora, SAYS}, admin_unload_lora = {unload_lora, SAYS},
                        admin_load_model = {load_model, SAYS}, admin_unload_model = {unload_model, SAYS};
