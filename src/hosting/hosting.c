/* hosting - names, models and leases under one lock; a loader's thread that opens and closes
 *
 * 1. Everything but a hosted's parts while it is loading or closing is touched under the lock; parts are written by the
 *    loader's thread alone, while the state says loading or closing.
 * 2. A hosted is freed by the loader when no name leads to it and nobody holds it.
 * 3. bytes_used counts what is loading (as measured), ready (as it told) and closing.
 */
#include "hosting/hosting.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/thread.h"

#include <stdio.h>

enum { RETRY_S = 5 }; /* a model that failed is not tried again sooner */

struct hosted {
    struct hosted *next;
    struct hosting_model how; /* name and path are ours */
    struct hosted_parts parts;
    enum hosted_state state;
    bool foreign, unload, loaded_once; /* foreign: parts are not ours; unload: asked for */
    int n_lease, n_name;
    uint64_t used_ns, failed_ns, bytes;
    struct hosting_wait *waits;
    struct error why;
};
struct name {
    struct name *next;
    char text[HOSTED_NAME_MAX], parent[HOSTED_NAME_MAX]; /* parent: of an alias or an adapter */
    struct hosted *hosted;                               /* of a model */
    bool is_lora;
    char *path;                           /* of an adapter */
    struct lora *lora;                    /* opened for lora_of */
    const struct hosted *lora_of, *tried; /* tried: for this one, it was, with success or without */
    struct error why;                     /* it could not be */
};
struct hosting {
    struct hosting_options options;
    pthread_mutex_t lock;
    pthread_cond_t work;    /* for the loader */
    pthread_cond_t changed; /* for those who wait here */
    pthread_t thread;
    bool has_thread, stopping;
    struct name *names, **names_end;
    struct hosted *all;
    uint64_t bytes_used;
    struct hosting_model like; /* options of models that are named while running */
    bool moved, quiet, calling;
};
const char *const hosted_state_names[] = {"unloaded", "waiting", "loading", "ready", "unloading", "failed"};

/* ---- names ---- */
static struct name *find_name(const struct hosting *h, struct str text)
{
    for (struct name *n = h->names; n; n = n->next)
        if (str_is(text, n->text))
            return n;
    return NULL;
}

/* The model a name means, by its aliases; *n becomes the adapter's row, or NULL. */
static struct hosted *resolve(const struct hosting *h, struct str text, struct name **lora)
{
    struct name *n = text.ptr ? find_name(h, text) : h->names;
    *lora = NULL;
    for (int depth = 0; n && depth < 8; depth++) { /* an alias of an alias of an adapter ... */
        if (n->is_lora)
            *lora = n;
        if (n->hosted)
            return n->hosted;
        n = find_name(h, str_of(n->parent));
    }
    return NULL;
}

static enum status add_name(struct hosting *h, struct name **out, const char *text, struct error *err)
{
    if (!*text || strlen(text) >= HOSTED_NAME_MAX)
        return fail(err, ST_INVALID, "a model's name has 1 to %d bytes", HOSTED_NAME_MAX - 1);
    if (find_name(h, str_of(text)))
        return fail(err, ST_INVALID, "the name %s is taken", text);
    struct name *n = mem_alloc_zero(1, sizeof *n);
    if (!n)
        return fail_nomem(err, "hosting");
    strcpy(n->text, text);
    *h->names_end = n;
    h->names_end = &n->next;
    *out = n;
    return ST_OK;
}

static void close_lora(struct hosting *h, struct name *n)
{
    if (n->lora)
        h->options.maker->close_lora(h->options.maker->ctx, n->lora);
    n->lora = NULL;
    n->lora_of = NULL;
}

static void remove_name(struct hosting *h, struct name *gone)
{
    struct name **at = &h->names;
    while (*at != gone)
        at = &(*at)->next;
    *at = gone->next;
    if (!gone->next)
        h->names_end = at;
    close_lora(h, gone);
    mem_free(gone->path);
    mem_free(gone);
}

static enum status new_hosted(struct hosting *h, struct hosted **out, const struct hosting_model *m, struct error *err)
{
    struct hosted *e = mem_alloc_zero(1, sizeof *e);
    *out = NULL;
    if (!e)
        return fail_nomem(err, "hosting");
    e->how = *m;
    e->how.name = mem_strdup(m->name);
    e->how.path = mem_strdup(m->path ? m->path : "");
    if (!e->how.name || !e->how.path) {
        mem_free((char *)(uintptr_t)e->how.name);
        mem_free((char *)(uintptr_t)e->how.path);
        mem_free(e);
        return fail_nomem(err, "hosting");
    }
    e->next = h->all;
    h->all = e;
    *out = e;
    return ST_OK;
}

static void free_hosted(struct hosting *h, struct hosted *gone)
{
    struct hosted **at = &h->all;
    while (*at != gone)
        at = &(*at)->next;
    *at = gone->next;
    mem_free((char *)(uintptr_t)gone->how.name);
    mem_free((char *)(uintptr_t)gone->how.path);
    mem_free(gone);
}

/* ---- the loader: makes room, opens, closes; the lock is held but while the maker works ---- */
static int keep_alive(const struct hosting *h, const struct hosted *e)
{
    return e->how.keep_alive_s ? e->how.keep_alive_s : h->options.keep_alive_s ? h->options.keep_alive_s : -1;
}

static uint64_t expires_ns(const struct hosting *h, const struct hosted *e)
{
    int seconds = keep_alive(h, e);
    bool stays = e->foreign || e->how.pinned || e->n_lease || seconds < 0 || e->state != HOSTED_READY;
    return stays ? 0 : e->used_ns + (uint64_t)seconds * 1000000000;
}

static bool may_go(const struct hosted *e)
{
    return e->state == HOSTED_READY && !e->n_lease && !e->foreign;
}

static void wake(struct hosting *h, struct hosted *e)
{
    struct hosting_wait *w = h->quiet ? NULL : e->waits;
    e->waits = NULL;
    h->calling = true;
    pthread_cond_broadcast(&h->changed);
    pthread_mutex_unlock(&h->lock);
    while (w) {
        struct hosting_wait *next = w->next; /* fn may end w's life */
        w->fn(w->ctx);
        w = next;
    }
    pthread_mutex_lock(&h->lock);
    h->calling = false;
    pthread_cond_broadcast(&h->changed);
}

void hosting_quiet(struct hosting *h)
{
    pthread_mutex_lock(&h->lock);
    h->quiet = true;
    while (h->calling)
        pthread_cond_wait(&h->changed, &h->lock);
    pthread_mutex_unlock(&h->lock);
}

bool hosting_moved(struct hosting *h)
{
    return __atomic_load_n(&h->moved, __ATOMIC_RELAXED);
}

static void close_model(struct hosting *h, struct hosted *e)
{
    e->state = HOSTED_CLOSING;
    e->unload = false;
    for (struct name *n = h->names; n; n = n->next)
        if (n->lora_of == e)
            close_lora(h, n);
    pthread_mutex_unlock(&h->lock);
    log_infof("hosting", "unloading %s", e->how.name);
    h->options.maker->close(h->options.maker->ctx, &e->parts);
    pthread_mutex_lock(&h->lock);
    h->bytes_used -= e->bytes;
    e->bytes = 0;
    e->parts = (struct hosted_parts){0};
    e->state = e->waits ? HOSTED_WANTED : HOSTED_ABSENT; /* somebody asked while it was closed */
    pthread_cond_broadcast(&h->changed);
}

static struct hosted *least_recent(struct hosting *h)
{
    struct hosted *best = NULL;
    for (struct hosted *e = h->all; e; e = e->next)
        if (may_go(e) && !e->how.pinned && (!best || e->used_ns < best->used_ns))
            best = e;
    return best;
}

static double gb(uint64_t bytes)
{
    return (double)bytes * 1e-9;
}

static enum status make_room(struct hosting *h, const struct hosted *e, uint64_t need, struct error *err)
{
    uint64_t max = h->options.bytes_max, kept = 0;
    for (struct hosted *o = h->all; max && o; o = o->next)
        kept += o->foreign || o->how.pinned ? o->bytes : 0;
    if (max && need > max - (kept < max ? kept : max))
        return fail(err, ST_NOMEM,
                    "%s needs %.2f GB of memory; of the budget of %.2f GB, models that stay have %.2f GB", e->how.name,
                    gb(need), gb(max), gb(kept));
    while (max && h->bytes_used + need > max) {
        struct hosted *victim = least_recent(h);
        if (!victim)
            return fail(
                err, ST_LIMIT,
                "%s needs %.2f GB of memory; of the budget of %.2f GB, models that are in use have %.2f GB: try "
                "again",
                e->how.name, gb(need), gb(max), gb(h->bytes_used));
        close_model(h, victim);
    }
    return ST_OK;
}

/* An adapter of e that is not open for it, nor was tried. */
static struct name *next_lora(const struct hosting *h, const struct hosted *e)
{
    struct name *itself;
    for (struct name *n = h->names; n; n = n->next)
        if (n->is_lora && n->lora_of != e && n->tried != e && resolve(h, str_of(n->text), &itself) == e && itself == n)
            return n;
    return NULL;
}

/* gives_way: the lock is given up while an adapter is read, so that nobody waits for that; e is the loader's then. */
static void open_loras(struct hosting *h, struct hosted *e, bool gives_way)
{
    const struct hosting_maker *maker = h->options.maker;
    for (struct name *n = h->names; n; n = n->next)
        n->tried = n->tried == e ? NULL : n->tried;
    for (struct name *n; (n = next_lora(h, e));) {
        char text[HOSTED_NAME_MAX], *path = mem_strdup(n->path);
        struct lora *lora = NULL;
        struct error why = {0};
        strcpy(text, n->text);
        n->tried = e;
        close_lora(h, n);
        if (gives_way)
            pthread_mutex_unlock(&h->lock);
        enum status st =
            path ? maker->open_lora(maker->ctx, &lora, &e->parts, path, &why) : fail_nomem(&why, "hosting");
        if (gives_way)
            pthread_mutex_lock(&h->lock);
        n = find_name(h, str_of(text));
        bool same = n && n->is_lora && n->tried == e && !n->lora && path && !strcmp(n->path, path);
        if (st != ST_OK)
            log_warnf("hosting", "%s", why.text);
        if (same) {
            n->why = why;
            n->lora = lora;
            n->lora_of = st == ST_OK ? e : NULL;
        } else if (lora) { /* its name went away meanwhile, or is another's */
            maker->close_lora(maker->ctx, lora);
        }
        mem_free(path);
    }
}

static enum status open_model(struct hosting *h, struct hosted *e, struct error *err)
{
    const struct hosting_maker *maker = h->options.maker;
    uint64_t need = 0;
    e->state = HOSTED_LOADING;
    pthread_mutex_unlock(&h->lock);
    enum status st = maker->measure(maker->ctx, &need, &e->how, err);
    pthread_mutex_lock(&h->lock);
    if (st == ST_OK)
        st = make_room(h, e, need, err);
    if (st != ST_OK)
        return st;
    e->bytes = need;
    h->bytes_used += need;
    pthread_mutex_unlock(&h->lock);
    log_infof("hosting", "loading %s from %s", e->how.name, e->how.path);
    st = maker->open(maker->ctx, &e->parts, &e->how, err);
    pthread_mutex_lock(&h->lock);
    h->bytes_used -= e->bytes;
    e->bytes = st == ST_OK ? e->parts.bytes : 0;
    h->bytes_used += e->bytes;
    return st;
}

static void load(struct hosting *h, struct hosted *e)
{
    struct error err;
    if (open_model(h, e, &err) == ST_OK) {
        open_loras(h, e, true);
        e->state = HOSTED_READY;
        e->loaded_once = true;
    } else {
        e->state = HOSTED_FAILED;
        e->why = err;
        e->failed_ns = clock_ns();
        log_errorf("hosting", "%s cannot be loaded: %s", e->how.name, err.text);
    }
    e->used_ns = clock_ns();
    wake(h, e);
}

/* One thing to do; false: nothing. *until_ns: when there will be, at the latest; 0 = never. */
static bool work(struct hosting *h, uint64_t *until_ns)
{
    uint64_t now = clock_ns();
    *until_ns = 0;
    for (struct hosted *e = h->all; e; e = e->next) {
        uint64_t expires = expires_ns(h, e);
        bool idle = expires && expires <= now, orphan = !e->n_name && !e->n_lease;
        if (may_go(e) && (idle || e->unload || orphan)) {
            close_model(h, e);
            return true;
        }
        if (orphan && !e->waits && (e->state == HOSTED_ABSENT || e->state == HOSTED_FAILED)) {
            free_hosted(h, e);
            return true;
        }
        if (expires && (!*until_ns || expires < *until_ns))
            *until_ns = expires;
    }
    struct hosted *first = NULL; /* who waits longest */
    for (struct hosted *e = h->all; e; e = e->next)
        if (e->state == HOSTED_WANTED && (!first || e->used_ns < first->used_ns))
            first = e;
    if (first)
        load(h, first);
    return first != NULL;
}

static void *loader_main(void *arg)
{
    struct hosting *h = arg;
    uint64_t until_ns;
    pthread_mutex_lock(&h->lock);
    while (!h->stopping) {
        if (work(h, &until_ns))
            continue;
        if (until_ns) {
            uint64_t now = clock_ns(), wait = until_ns > now ? until_ns - now : 0, wall = clock_wall_ns() + wait;
            struct timespec at = {(time_t)(wall / 1000000000), (long)(wall % 1000000000)};
            pthread_cond_timedwait(&h->work, &h->lock, &at);
        } else {
            pthread_cond_wait(&h->work, &h->lock);
        }
    }
    pthread_mutex_unlock(&h->lock);
    return NULL;
}

/* ---- life ---- */
enum status hosting_create(struct hosting **out, const struct hosting_options *options, struct error *err)
{
    struct hosting *h = mem_alloc_zero(1, sizeof *h);
    *out = NULL;
    if (!h)
        return fail_nomem(err, "hosting");
    h->options = *options;
    h->like = options->like;
    h->names_end = &h->names;
    pthread_mutex_init(&h->lock, NULL);
    pthread_cond_init(&h->work, NULL);
    pthread_cond_init(&h->changed, NULL);
    if (thread_start(&h->thread, loader_main, h) != 0) {
        hosting_destroy(h);
        return fail(err, ST_LIMIT, "cannot start the thread that loads models");
    }
    h->has_thread = true;
    *out = h;
    return ST_OK;
}

void hosting_destroy(struct hosting *h)
{
    if (!h)
        return;
    pthread_mutex_lock(&h->lock);
    h->stopping = true;
    pthread_cond_signal(&h->work);
    pthread_mutex_unlock(&h->lock);
    if (h->has_thread)
        pthread_join(h->thread, NULL);
    while (h->names)
        remove_name(h, h->names);
    while (h->all) {
        if (h->all->state == HOSTED_READY && !h->all->foreign)
            h->options.maker->close(h->options.maker->ctx, &h->all->parts);
        free_hosted(h, h->all);
    }
    pthread_mutex_destroy(&h->lock);
    pthread_cond_destroy(&h->work);
    pthread_cond_destroy(&h->changed);
    mem_free(h);
}

static void want(struct hosting *h, struct hosted *e)
{
    e->state = HOSTED_WANTED;
    e->used_ns = clock_ns();
    pthread_cond_signal(&h->work);
}

static enum status add_locked(struct hosting *h, struct hosted **out, const struct hosting_model *m, struct error *err)
{
    struct name *n;
    TRY(add_name(h, &n, m->name, err));
    enum status st = new_hosted(h, &n->hosted, m, err);
    if (st != ST_OK) {
        remove_name(h, n);
        return st;
    }
    n->hosted->n_name = 1;
    *out = n->hosted;
    return ST_OK;
}

enum status hosting_add(struct hosting *h, const struct hosting_model *m, struct error *err)
{
    struct hosted *e;
    pthread_mutex_lock(&h->lock);
    enum status st = add_locked(h, &e, m, err);
    if (st == ST_OK && m->pinned)
        want(h, e);
    pthread_mutex_unlock(&h->lock);
    return st;
}

enum status hosting_add_ready(struct hosting *h, const char *name, const struct hosted_parts *parts, struct error *err)
{
    struct hosted *e;
    pthread_mutex_lock(&h->lock);
    enum status st = add_locked(h, &e, &(struct hosting_model){.name = name, .pinned = true}, err);
    if (st == ST_OK) {
        e->parts = *parts;
        e->bytes = parts->bytes;
        h->bytes_used += parts->bytes;
        e->foreign = e->loaded_once = true;
        e->state = HOSTED_READY;
        e->used_ns = clock_ns();
    }
    pthread_mutex_unlock(&h->lock);
    return st;
}

enum status hosting_alias(struct hosting *h, const char *alias, const char *name, struct error *err)
{
    struct name *n, *lora;
    pthread_mutex_lock(&h->lock);
    enum status st = resolve(h, str_of(name), &lora) ? ST_OK : fail(err, ST_NOT_FOUND, "there is no model %s", name);
    n = find_name(h, str_of(alias));
    if (st == ST_OK && n && (n->hosted || n->is_lora || !strcmp(alias, name)))
        st = fail(err, ST_INVALID, "%s is a model's own name, not an alias", alias);
    else if (st == ST_OK && !n)
        st = add_name(h, &n, alias, err);
    if (st == ST_OK)
        snprintf(n->parent, sizeof n->parent, "%s", name);
    pthread_mutex_unlock(&h->lock);
    return st;
}

/* ---- using ---- */
static enum status lease(struct hosting *h, struct hosted *e, struct name *lora, struct str name,
                         struct hosting_lease *out, struct error *err)
{
    const struct hosting_maker *maker = h->options.maker;
    if (lora && lora->lora_of != e)
        return fail(err, lora->why.status ? lora->why.status : ST_NOT_FOUND, "%s",
                    lora->why.status ? lora->why.text : "the adapter is being changed: try again");
    *out = (struct hosting_lease){.hosted = e, .bundle = e->parts.bundle, .engine = e->parts.engine};
    if (lora) {
        out->lora = lora->lora;
        maker->hold_lora(maker->ctx, lora->lora);
        snprintf(out->adapter, sizeof out->adapter, "%s", maker->lora_digest(maker->ctx, lora->lora));
    }
    name = name.ptr ? name : str_of(e->how.name);
    snprintf(out->name, sizeof out->name, "%.*s", (int)name.len, name.ptr);
    e->n_lease++;
    e->unload = false;
    return ST_OK;
}

static enum status acquire_locked(struct hosting *h, struct str name, struct hosting_lease *out,
                                  struct hosting_wait *wait, struct error *err)
{
    struct name *lora;
    struct hosted *e = resolve(h, name, &lora);
    if (!e)
        return fail(err, ST_NOT_FOUND, "there is no model %.*s", STR_ARG(name.ptr ? name : STR("at all")));
    if (e->state == HOSTED_READY)
        return lease(h, e, lora, name, out, err);
    if (e->state == HOSTED_FAILED && clock_ns() < e->failed_ns + (uint64_t)RETRY_S * 1000000000)
        return fail(err, e->why.status, "%s", e->why.text);
    if (e->state == HOSTED_ABSENT || e->state == HOSTED_FAILED)
        want(h, e);
    if (wait) {
        wait->next = e->waits;
        e->waits = wait;
    }
    return fail(err, ST_CANCELED, "%s is being loaded", e->how.name);
}

enum status hosting_acquire(struct hosting *h, struct str name, struct hosting_lease *out, struct hosting_wait *wait,
                            struct error *err)
{
    *out = (struct hosting_lease){0};
    pthread_mutex_lock(&h->lock);
    enum status st = acquire_locked(h, name, out, wait, err);
    pthread_mutex_unlock(&h->lock);
    return st;
}

bool hosting_forget(struct hosting *h, struct hosting_wait *wait)
{
    bool found = false;
    pthread_mutex_lock(&h->lock);
    for (struct hosted *e = h->all; e; e = e->next)
        for (struct hosting_wait **at = &e->waits; *at; at = &(*at)->next)
            if (*at == wait) {
                *at = wait->next;
                found = true;
                break;
            }
    pthread_mutex_unlock(&h->lock);
    return found;
}

static enum status acquire_wait_locked(struct hosting *h, struct str name, struct hosting_lease *out, struct error *err)
{
    enum status st;
    while ((st = acquire_locked(h, name, out, NULL, err)) == ST_CANCELED && !h->stopping)
        pthread_cond_wait(&h->changed, &h->lock);
    return st;
}

enum status hosting_acquire_wait(struct hosting *h, struct str name, struct hosting_lease *out, struct error *err)
{
    *out = (struct hosting_lease){0};
    pthread_mutex_lock(&h->lock);
    enum status st = acquire_wait_locked(h, name, out, err);
    pthread_mutex_unlock(&h->lock);
    return st;
}

static void release_locked(struct hosting *h, struct hosting_lease *l)
{
    l->hosted->n_lease--;
    l->hosted->used_ns = clock_ns();
    if (!l->hosted->n_lease)
        pthread_cond_signal(&h->work);
}

void hosting_release(struct hosting *h, struct hosting_lease *l)
{
    if (!l->hosted)
        return;
    if (l->lora)
        h->options.maker->close_lora(h->options.maker->ctx, l->lora);
    pthread_mutex_lock(&h->lock);
    release_locked(h, l);
    pthread_mutex_unlock(&h->lock);
    *l = (struct hosting_lease){0};
}

/* ---- while running ---- */

/* Another model under a name that exists: loaded beside, and the name is its own once it is ready. */
static enum status swap(struct hosting *h, struct name *n, const struct hosting_model *m, struct error *err)
{
    struct hosted *e, *old;
    TRY(new_hosted(h, &e, m, err));
    e->n_name = e->n_lease = 1; /* ours, until the name is: it must not go before */
    want(h, e);
    while (e->state != HOSTED_READY && e->state != HOSTED_FAILED && !h->stopping)
        pthread_cond_wait(&h->changed, &h->lock);
    enum status st = e->state == HOSTED_READY ? ST_OK : fail(err, e->why.status, "%s", e->why.text);
    n = st == ST_OK ? find_name(h, str_of(m->name)) : NULL;
    if (st == ST_OK && (!n || !n->hosted))
        st = fail(err, ST_INVALID, "the name %s went away meanwhile", m->name);
    if (st == ST_OK) {
        old = n->hosted;
        n->hosted = e;
        old->n_name--;
        __atomic_store_n(&h->moved, h->moved || old->foreign, __ATOMIC_RELAXED);
        open_loras(h, e, false); /* at once with the name: no request falls between */
    } else {
        e->n_name--;
    }
    e->n_lease--;
    e->used_ns = clock_ns();
    pthread_cond_signal(&h->work);
    return st;
}

static enum status load_locked(struct hosting *h, const struct hosting_model *m, struct error *err)
{
    struct name *n = find_name(h, str_of(m->name)), *lora;
    struct hosting_lease l;
    struct hosted *e;
    if (!n && !m->path)
        return fail(err, ST_NOT_FOUND, "there is no model %s, and no path to load it from", m->name);
    if (n && m->path && n->hosted)
        return swap(h, n, m, err);
    if (n && m->path)
        return fail(err, ST_INVALID, "%s is the name of an adapter or an alias", m->name);
    bool is_new = !n;
    if (is_new)
        TRY(add_locked(h, &e, m, err));
    e = resolve(h, str_of(m->name), &lora);
    if (e && e->state == HOSTED_FAILED) /* whoever asks for it by name need not wait to try again */
        want(h, e);
    enum status st = acquire_wait_locked(h, str_of(m->name), &l, err);
    if (st == ST_OK) {
        release_locked(h, &l);
    } else if (is_new && (n = find_name(h, str_of(m->name)))) { /* a name that never worked does not stay */
        n->hosted->n_name--;
        remove_name(h, n);
        pthread_cond_signal(&h->work);
    }
    return st;
}

enum status hosting_load(struct hosting *h, const struct hosting_model *m, struct error *err)
{
    pthread_mutex_lock(&h->lock);
    enum status st = load_locked(h, m, err);
    pthread_mutex_unlock(&h->lock);
    return st;
}

enum status hosting_load_like(struct hosting *h, const char *name, const char *path, struct error *err)
{
    struct hosting_model m = h->like;
    m.name = name;
    m.path = path;
    return hosting_load(h, &m, err);
}

enum status hosting_unload(struct hosting *h, const char *name, struct error *err)
{
    struct name *lora;
    pthread_mutex_lock(&h->lock);
    struct hosted *e = resolve(h, str_of(name), &lora);
    enum status st = !e || lora   ? fail(err, ST_NOT_FOUND, "there is no model %s", name)
                     : e->foreign ? fail(err, ST_INVALID, "%s cannot be unloaded", name)
                                  : ST_OK;
    if (st == ST_OK && e->state == HOSTED_READY) {
        e->unload = true;
        pthread_cond_signal(&h->work);
    }
    pthread_mutex_unlock(&h->lock);
    return st;
}

static enum status lora_add_locked(struct hosting *h, struct name **out, const char *name, const char *base,
                                   const char *path, struct error *err)
{
    struct name *lora, *n;
    struct hosted *e = resolve(h, base ? str_of(base) : (struct str){NULL, 0}, &lora);
    if (!e || lora)
        return fail(err, ST_NOT_FOUND, "there is no model %s for the adapter %s", base ? base : "at all", name);
    TRY(add_name(h, &n, name, err));
    n->is_lora = true;
    snprintf(n->parent, sizeof n->parent, "%s", base ? base : h->names->text);
    if (!(n->path = mem_strdup(path))) {
        remove_name(h, n);
        return fail_nomem(err, "hosting");
    }
    *out = n;
    return ST_OK;
}

enum status hosting_lora_add(struct hosting *h, const char *name, const char *base, const char *path, struct error *err)
{
    struct name *n, *lora;
    pthread_mutex_lock(&h->lock);
    enum status st = lora_add_locked(h, &n, name, base, path, err);
    struct hosted *e = st == ST_OK ? resolve(h, str_of(n->parent), &lora) : NULL;
    if (e && e->state == HOSTED_READY) {
        open_loras(h, e, false);
        if (n->lora_of != e) {
            st = fail(err, n->why.status, "%s", n->why.text);
            remove_name(h, n);
        }
    }
    pthread_mutex_unlock(&h->lock);
    return st;
}

enum status hosting_lora_load(struct hosting *h, const char *name, const char *base, const char *path,
                              struct error *err)
{
    const struct hosting_maker *maker = h->options.maker;
    struct hosting_lease l;
    struct lora *lora = NULL;
    struct name *n = NULL;
    TRY(hosting_acquire_wait(h, base ? str_of(base) : (struct str){NULL, 0}, &l, err));
    enum status st = l.lora ? fail(err, ST_INVALID, "%s is an adapter itself", base) : ST_OK;
    if (st == ST_OK && hosting_knows(h, str_of(name))) /* before the work; what counts is asked under the lock */
        st = fail(err, ST_INVALID, "the name %s is taken", name);
    if (st == ST_OK) /* nobody waits for this: the lease keeps the base */
        st = maker->open_lora(maker->ctx, &lora, &l.hosted->parts, path, err);
    pthread_mutex_lock(&h->lock);
    if (st == ST_OK)
        st = lora_add_locked(h, &n, name, base, path, err);
    if (st == ST_OK) {
        n->lora = lora;
        n->lora_of = l.hosted;
    }
    pthread_mutex_unlock(&h->lock);
    if (st != ST_OK && lora)
        maker->close_lora(maker->ctx, lora);
    hosting_release(h, &l);
    return st;
}

enum status hosting_lora_unload(struct hosting *h, const char *name, struct error *err)
{
    pthread_mutex_lock(&h->lock);
    struct name *n = find_name(h, str_of(name));
    bool found = n && n->is_lora;
    if (found)
        remove_name(h, n); /* leases hold what they need of it */
    pthread_mutex_unlock(&h->lock);
    return found ? ST_OK : fail(err, ST_NOT_FOUND, "there is no adapter %s", name);
}

/* ---- looking ---- */
void hosting_each(struct hosting *h, void (*fn)(void *ctx, const struct hosting_row *row), void *ctx)
{
    const struct hosting_maker *maker = h->options.maker;
    pthread_mutex_lock(&h->lock);
    for (struct name *n = h->names; n; n = n->next) {
        struct name *lora;
        const struct hosted *e = resolve(h, str_of(n->text), &lora);
        bool ready = e && e->state == HOSTED_READY && (!n->is_lora || n->lora_of == e);
        bool failed = e && (e->state == HOSTED_FAILED || (n->is_lora && e->state == HOSTED_READY && !ready));
        struct hosting_row row = {.name = n->text,
                                  .path = n->is_lora ? n->path
                                          : e        ? e->how.path
                                                     : "",
                                  .parent = *n->parent ? n->parent : NULL,
                                  .is_lora = n->is_lora,
                                  .pinned = e && e->how.pinned,
                                  .state = failed ? HOSTED_FAILED
                                           : e    ? e->state
                                                  : HOSTED_ABSENT,
                                  .bundle = ready ? e->parts.bundle : NULL,
                                  .engine = ready ? e->parts.engine : NULL,
                                  .lora = ready && lora ? lora->lora : NULL,
                                  .adapter = ready && lora ? maker->lora_digest(maker->ctx, lora->lora) : NULL,
                                  .bytes = ready ? e->bytes : 0,
                                  .n_lease = e ? e->n_lease : 0,
                                  .expires_ns = e ? expires_ns(h, e) : 0,
                                  .failure = !failed                     ? NULL
                                             : e->state == HOSTED_FAILED ? e->why.text
                                                                         : n->why.text};
        fn(ctx, &row);
    }
    pthread_mutex_unlock(&h->lock);
}

bool hosting_knows(struct hosting *h, struct str name)
{
    struct name *lora;
    pthread_mutex_lock(&h->lock);
    bool known = resolve(h, name, &lora) != NULL;
    pthread_mutex_unlock(&h->lock);
    return known;
}

const char *hosting_default(struct hosting *h)
{
    return h->names ? h->names->text : "";
}

uint64_t hosting_bytes(struct hosting *h, uint64_t *bytes_max)
{
    pthread_mutex_lock(&h->lock);
    uint64_t used = h->bytes_used;
    *bytes_max = h->options.bytes_max;
    pthread_mutex_unlock(&h->lock);
    return used;
}
