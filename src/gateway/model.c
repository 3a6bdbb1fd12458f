/* model - which model a request is for: found by its name before anything else is read of it; one that is not loaded
 * yet is waited for off every thread of ours.
 *
 *   worker: model_find --PARKED--> the loader's thread: put_back, with the lease or why not --> worker: model_find
 */
#include "gateway/private.h"

static void put_back(void *ctx)
{
    struct job *j = ctx;
    j->parked = true;
    workers_put_back(j->g->workers, j);
}

/* The name in the body, without the tag that Ollama's clients add; ptr NULL: the gateway's own. A body that is no JSON
 * is refused where bodies are read. */
static struct str name_of(const struct job *j, struct arena *parsed)
{
    const struct json *doc;
    struct error err;
    struct str name = {NULL, 0};
    if (json_parse(&doc, parsed, buf_str(&j->body), JSON_UNIQUE, &err) == ST_OK)
        name = json_str(json_get(doc, "model"));
    if ((!name.len || is_model_name(j->g->bundle, name)) && !hosting_moved(j->g->hosting))
        return (struct str){NULL, 0};
    if (!name.len)
        return str_of(hosting_default(j->g->hosting)); /* which is another model than the gateway's own by now */
    return hosting_knows(j->g->hosting, name) ? name : without_tag(name);
}

static enum found refuse_model(struct job *j, const struct error *err)
{
    if (err->status == ST_LIMIT)
        refuse(&j->why, 503, "server_is_overloaded", "model", "%s", err->text);
    else if (err->status == ST_NOMEM)
        refuse(&j->why, 507, "insufficient_memory", "model", "%s", err->text);
    else
        refuse(&j->why, 503, "model_not_available", "model", "the model cannot be loaded: %s", err->text);
    return REFUSED;
}

static bool make_voice(struct job *j)
{
    struct voice *v = arena_alloc_zero(&j->arena, 1, sizeof *v);
    if (!v)
        return refuse(&j->why, 503, NULL, NULL, "out of memory");
    if (j->lease.bundle == j->g->bundle)
        *v = j->g->voice;
    else if (!voice_make(v, j->lease.bundle, j->g->options.tool_format))
        return refuse(&j->why, 503, NULL, "model", "the model's tool format is not known");
    v->name = j->lease.name;
    j->voice = v;
    return true;
}

enum found model_find(struct job *j, struct arena *parsed)
{
    struct gateway *g = j->g;
    struct error err;
    struct str name;
    enum status st = j->wait.status;
    if (!j->parked) {
        if (!g->hosting || !(name = name_of(j, parsed)).ptr || !hosting_knows(g->hosting, name))
            return FOUND; /* a name nobody has is refused by who reads the fields */
        j->wait = (struct hosting_wait){.fn = put_back, .ctx = j};
        st = hosting_acquire(g->hosting, name, &j->lease, &j->wait, &err);
        if (st == ST_CANCELED)
            return PARKED; /* and perhaps another thread's already */
    }
    if (st != ST_OK)
        return refuse_model(j, j->parked ? &j->wait.why : &err);
    j->bundle = j->lease.bundle;
    j->engine = j->lease.engine;
    j->name = j->lease.name;
    return make_voice(j) ? FOUND : REFUSED;
}

/* A pinned model stays: who asks for nothing but its unloading is told. So does the model the server was started with;
 * clients that unload by themselves (Open WebUI) expect a plain yes of it. How long others stay is not for every key to
 * say. */
bool model_keep(struct job *j)
{
    const struct ask *a = &j->ask;
    bool unloads = a->immediate && a->keep_alive_s == 0;
    bool asked = a->has_keep_alive && j->lease.hosted && j->lease.bundle != j->g->bundle;
    struct refusal why;
    if (asked && !access_admin(j->g, j->client, &why)) {
        if (unloads)
            j->why = why;
        return !unloads;
    }
    bool kept = !asked || hosting_keep(j->g->hosting, &j->lease, a->keep_alive_s);
    return kept || !unloads ||
           refuse(&j->why, 400, "invalid_value", "keep_alive", "keep_alive: %s is pinned: it is not unloaded", j->name);
}

void model_leave(struct job *j)
{
    if (j->g->hosting)
        hosting_release(j->g->hosting, &j->lease);
}

bool model_forget(struct job *j)
{
    return j->g->hosting && hosting_forget(j->g->hosting, &j->wait);
}
