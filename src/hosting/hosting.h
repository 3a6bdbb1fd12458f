/* hosting - several models in one process under one memory budget: loaded when asked for, counted while used
 *
 *   TRY(hosting_create(&h, &options, err));
 *   TRY(hosting_add(h, &(struct hosting_model){.name = "a", .path = "a.gguf"}, err));
 *   switch (hosting_acquire(h, name, &lease, &wait, err)) ...     // any thread, never waits
 *   hosting_release(h, &lease);
 *
 *   absent --acquire--> wanted --room--> loading --> ready --evicted, idle, unloaded----------------> closing
 *     ^                   ^ ^                 |        \--its room is wanted--> yields --last lease--^    |
 *     |                   | \-a while later- failed                                                       |
 *     \-------------------+--somebody asked meanwhile-----------------------------------------------------/
 *
 * A lease holds its model: nothing that is in use is unloaded. When the budget is short, the ready models that nobody
 * uses go, the least recently used first; pinned ones stay, and so does for patience_ms one that was loaded just now
 * and used within a tenth of that. Where it is not enough, models in use take turns: one that has waited for
 * patience_ms has those yield that were ready for as long, the least recently used first. Who asks for one that yields
 * waits, as for one that is not loaded; it goes with its last lease, the other is loaded, and then it is wanted again
 * itself. Models are loaded in the order in which they were wanted, nobody overtakes. So every request has its turn,
 * if leases end: who holds one asks for no other before he gave it back.
 *
 * A new model under a name that is in use is loaded beside the old one; then the name is the new one's, and the old
 * one goes with its last lease. A model that was loaded for somebody is leased to him before anything else can happen
 * to it. A model that cannot be loaded harms no other.
 *
 * Threads  any, for every function; waits are called back on the loader's thread, without locks held
 * Errors   ST_NOT_FOUND, ST_NOMEM (it can never fit): sizes in the text; what loading says
 */
#ifndef HOSTING_HOSTING_H
#define HOSTING_HOSTING_H

#include "engine/engine.h"

enum { HOSTED_NAME_MAX = 128 };

struct hosting_model {
    const char *name, *path;
    bool pinned;      /* loaded at once, never evicted */
    int keep_alive_s; /* unloaded after so long without a request; 0 = hosting_options', -1 = never */
    struct model_options model;
    struct engine_options engine;
    int n_thread;
};
struct hosted_parts { /* a loaded model, and how many bytes it takes */
    struct bundle *bundle;
    struct engine *engine;
    struct pool *pool;
    uint64_t bytes;
};
/* How models come to be: hosting_real, or a test's stand-in. Called on the loader's thread, one at a time, without
 * locks; hold_lora, close_lora and lora_digest on any. */
struct hosting_maker {
    void *ctx;
    enum status (*measure)(void *ctx, uint64_t *bytes, const struct hosting_model *m, struct error *err);
    enum status (*open)(void *ctx, struct hosted_parts *out, const struct hosting_model *m, struct error *err);
    void (*close)(void *ctx, struct hosted_parts *parts);
    enum status (*open_lora)(void *ctx, struct lora **out, const struct hosted_parts *base, const char *path,
                             struct error *err);
    void (*hold_lora)(void *ctx, struct lora *l); /* one more close_lora will come */
    void (*close_lora)(void *ctx, struct lora *l);
    const char *(*lora_digest)(void *ctx, const struct lora *l); /* 64 digits */
};
extern const struct hosting_maker hosting_real;

struct hosting_options {
    uint64_t bytes_max; /* of all loaded models together; 0 = no bound */
    int keep_alive_s;   /* 0 = for ever */
    const struct hosting_maker *maker;
    struct hosting_model like; /* options of models that are loaded by name and path while running */
    int patience_ms; /* how long models in use wait for each other's room, and have it; 0 = 5,000, -1 = none */
};
struct hosting;
MUST_USE enum status hosting_create(struct hosting **out, const struct hosting_options *options, struct error *err);
/* No lease is held and nothing waits any more. */
void hosting_destroy(struct hosting *h);

/* Strings are copied, all but the options' (cache folders ...), which outlive the hosting. The first one is the
 * default. ST_INVALID when the name is taken. */
MUST_USE enum status hosting_add(struct hosting *h, const struct hosting_model *m, struct error *err);
/* One that is loaded already and never goes: not closed by hosting_destroy either. */
MUST_USE enum status hosting_add_ready(struct hosting *h, const char *name, const struct hosted_parts *parts,
                                       struct error *err);
MUST_USE enum status hosting_alias(struct hosting *h, const char *alias, const char *name, struct error *err);
MUST_USE enum status hosting_unalias(struct hosting *h, const char *alias, struct error *err);

/* ---- using ---- */
struct hosted;
struct hosting_lease {
    struct hosted *hosted; /* NULL: none */
    const struct bundle *bundle;
    struct engine *engine;
    struct lora *lora;          /* held; NULL = the base alone */
    char adapter[SHA256_TEXT];  /* its digest, for fingerprints; empty */
    char name[HOSTED_NAME_MAX]; /* what it was asked for by */
};
struct hosting_wait { /* the caller's, like *out, until fn was called or hosting_forget said true */
    void (*fn)(void *ctx);
    void *ctx;
    enum status status; /* when fn is called: ST_OK: *out is the lease */
    struct error why;   /* else */
    /* the hosting's */
    struct hosting_wait *next;
    struct hosting_lease *out;
    bool done;
    char name[HOSTED_NAME_MAX]; /* empty: the default */
};
/* Never waits for a model. ST_OK: leased. ST_CANCELED: it is not loaded yet; wait->fn will be called with the lease, or
 * with why there is none (wait NULL: nobody is told). name ptr NULL: the default model. */
enum status hosting_acquire(struct hosting *h, struct str name, struct hosting_lease *out, struct hosting_wait *wait,
                            struct error *err);
/* false: it was, or is just being, called, and may have a lease. */
bool hosting_forget(struct hosting *h, struct hosting_wait *wait);
void hosting_release(struct hosting *h, struct hosting_lease *lease); /* an empty one is nothing */
/* How long the leased model stays after its last lease, if nobody asks for it again: seconds; 0: it goes then, -1:
 * until its room is needed. Holds until the next lease. False: it stays whatever is asked. */
bool hosting_keep(struct hosting *h, const struct hosting_lease *lease, int seconds);
/* The same, waited for. */
MUST_USE enum status hosting_acquire_wait(struct hosting *h, struct str name, struct hosting_lease *out,
                                          struct error *err);

/* ---- while running ---- */
/* Loads a configured model, or (m->path) another one under its name, beside the one that has it; returns when that is
 * done. */
MUST_USE enum status hosting_load(struct hosting *h, const struct hosting_model *m, struct error *err);
/* The same with the options of the first model that is configured; path NULL: of one that is. */
MUST_USE enum status hosting_load_like(struct hosting *h, const char *name, const char *path, struct error *err);
/* Whether a name once added as ready is another model's now. */
bool hosting_moved(struct hosting *h);
/* From here on no wait is called back, and none is being called; calls that wait for a model end with ST_CANCELED. */
void hosting_quiet(struct hosting *h);
/* Unloads it as soon as nobody uses it; the name stays, and the next request loads it again. */
MUST_USE enum status hosting_unload(struct hosting *h, const char *name, struct error *err);
/* An adapter of `base` under a name of its own. ST_INVALID when the name is taken. */
MUST_USE enum status hosting_lora_add(struct hosting *h, const char *name, const char *base, const char *path,
                                      struct error *err); /* opened with its base; now, when that is loaded */
MUST_USE enum status hosting_lora_load(struct hosting *h, const char *name, const char *base, const char *path,
                                       struct error *err); /* loads its base first */
MUST_USE enum status hosting_lora_unload(struct hosting *h, const char *name, struct error *err);

/* ---- looking ---- */
enum hosted_state { HOSTED_ABSENT, HOSTED_WANTED, HOSTED_LOADING, HOSTED_READY, HOSTED_CLOSING, HOSTED_FAILED };
extern const char *const hosted_state_names[];
struct hosting_row { /* valid during the call */
    const char *name, *path;
    const char *parent; /* of an adapter its base, of an alias its model; NULL */
    bool is_lora, pinned;
    enum hosted_state state;
    const struct bundle *bundle; /* ready: of this model; else NULL */
    const struct engine *engine;
    const struct lora *lora;
    const char *adapter; /* its digest */
    uint64_t bytes;      /* ready */
    int n_lease;
    uint64_t expires_ns; /* clock_ns() at which it will go if nobody asks; 0 = never */
    const char *failure; /* failed: why */
};
/* In the order they were added. fn is called under the hosting's lock: it may look, not call. */
void hosting_each(struct hosting *h, void (*fn)(void *ctx, const struct hosting_row *row), void *ctx);
/* What is loaded, once each, under its own name: one that others took the name of, too, while it is still in use. */
void hosting_each_loaded(struct hosting *h, void (*fn)(void *ctx, const struct hosting_row *row), void *ctx);
/* From here on fn is called when a loaded model that nobody uses, and that no other call shows any more, is about to be
 * closed: on the loader's thread, without the lock. fn NULL: not any more, and it is not being called. */
void hosting_on_close(struct hosting *h, void (*fn)(void *ctx, const struct hosting_row *row), void *ctx);
bool hosting_knows(struct hosting *h, struct str name);
const char *hosting_default(struct hosting *h); /* its name */
uint64_t hosting_bytes(struct hosting *h, uint64_t *bytes_max);

#endif
