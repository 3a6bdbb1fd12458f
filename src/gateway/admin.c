/* admin - what is hosted, changed by request: each call on a thread of its own, since loading takes its time; the
 * answer is written on the loop. Only where the operator allowed it: a path is a path of the server's.
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
    admin_fn *fn;
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
    a->status = a->fn(a->g->hosting, a->body, &a->said, &a->err);
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

static void on_done(void *ctx)
{
    struct admin *a = ctx;
    struct refusal why;
    pthread_join(a->thread, NULL);
    if (a->x && a->status == ST_OK) {
        http_respond(a->x, 200, "text/plain; charset=utf-8", buf_str(&a->said));
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

static bool allowed(struct gateway *g, struct refusal *why)
{
    if (g->hosting && g->options.runtime_loading)
        return true;
    return refuse(why, 403, "forbidden", NULL,
                  "models and adapters are not loaded by request here: --allow-runtime-loading lets clients");
}

void admin_start(struct gateway *g, struct http_exchange *x, admin_fn *fn)
{
    struct refusal why;
    struct error err;
    struct admin *a = NULL;
    if (allowed(g, &why) && !(a = mem_alloc_zero(1, sizeof *a)))
        refuse(&why, 503, NULL, NULL, "out of memory");
    if (!a) {
        answer_refusal(g, x, &why);
        return;
    }
    *a = (struct admin){.g = g, .x = x, .fn = fn, .next = g->admins, .text = http_take_body(x)};
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
static bool text_of(char out[TEXT_MAX], const struct json *body, const char *key)
{
    struct str s = json_str(json_get(body, key));
    bool good = s.len && s.len < TEXT_MAX && !memchr(s.ptr, 0, s.len);
    snprintf(out, TEXT_MAX, "%.*s", good ? (int)s.len : 0, good ? s.ptr : "");
    return good;
}

/* As vLLM has them: {"lora_name", "lora_path"}, and which base when there are several. */
enum status admin_load_lora(struct hosting *h, const struct json *body, struct buf *said, struct error *err)
{
    char name[TEXT_MAX], path[TEXT_MAX], base[TEXT_MAX];
    if (!text_of(name, body, "lora_name") || !text_of(path, body, "lora_path"))
        return fail(err, ST_INVALID, "Both 'lora_name' and 'lora_path' must be provided.");
    bool has_base = text_of(base, body, "base_model_name");
    if (hosting_knows(h, str_of(name)))
        return fail(err, ST_INVALID, "The lora adapter '%.100s' has already been loaded.", name);
    TRY(hosting_lora_load(h, name, has_base ? base : NULL, path, err));
    buf_printf(said, "Success: LoRA adapter '%s' added successfully.", name);
    return ST_OK;
}

enum status admin_unload_lora(struct hosting *h, const struct json *body, struct buf *said, struct error *err)
{
    char name[TEXT_MAX];
    if (!text_of(name, body, "lora_name"))
        return fail(err, ST_INVALID, "'lora_name' must be provided.");
    if (hosting_lora_unload(h, name, err) != ST_OK)
        return fail(err, ST_NOT_FOUND, "The lora adapter '%.100s' cannot be found.", name);
    buf_printf(said, "Success: LoRA adapter '%s' removed successfully.", name);
    return ST_OK;
}

/* {"model": name}: a configured one; with "path": another file under that name, which it takes over once it is loaded;
 * "alias": one more name for it. */
enum status admin_load_model(struct hosting *h, const struct json *body, struct buf *said, struct error *err)
{
    char name[TEXT_MAX], path[TEXT_MAX], alias[TEXT_MAX];
    if (!text_of(name, body, "model"))
        return fail(err, ST_INVALID, "\"model\" is missing");
    bool has_path = text_of(path, body, "path");
    TRY(hosting_load_like(h, name, has_path ? path : NULL, err));
    if (text_of(alias, body, "alias"))
        TRY(hosting_alias(h, alias, name, err));
    buf_printf(said, "Success: model '%s' is loaded.", name);
    return ST_OK;
}

enum status admin_unload_model(struct hosting *h, const struct json *body, struct buf *said, struct error *err)
{
    char name[TEXT_MAX];
    if (!text_of(name, body, "model"))
        return fail(err, ST_INVALID, "\"model\" is missing");
    TRY(hosting_unload(h, name, err));
    buf_printf(said, "Success: model '%s' goes as soon as nobody uses it.", name);
    return ST_OK;
}
