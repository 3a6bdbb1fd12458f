/* hosting/private - models, names and the one lock over them
 *
 * 1. Everything but a hosted's parts while it is loading or closing is touched under the lock; parts are written by the
 *    loader's thread alone, while the state says loading or closing.
 * 2. A hosted is freed by the loader when no name leads to it and nobody holds it.
 * 3. bytes_used counts what is loading (as measured), ready (as it told) and closing.
 * 4. Those that yield do so for the model that is wanted longest; when it loads or fails, none does.
 *
 * hosted_... and hosting_loader are called under the lock.
 */
#ifndef HOSTING_PRIVATE_H
#define HOSTING_PRIVATE_H

#include "base/thread.h"
#include "hosting/hosting.h"

struct hosted {
    struct hosted *next;
    struct hosting_model how; /* name and path are ours */
    struct hosted_parts parts;
    enum hosted_state state;
    bool foreign, unload; /* foreign: parts are not ours; unload: asked for */
    bool yields;          /* ready, and nobody gets it any more: another one waits for its room */
    int asked_s;          /* hosting_keep; 0 = nothing was asked */
    int n_lease, n_name;
    uint64_t used_ns;     /* last leased or given back */
    uint64_t since_ns;    /* it is wanted, ready or failed */
    uint64_t bytes, need; /* need: while it is wanted, as measured; 0 = not yet */
    struct hosting_wait *waits;
    struct error why;
};
struct hosted_name {
    struct hosted_name *next;
    char text[HOSTED_NAME_MAX], parent[HOSTED_NAME_MAX]; /* parent: of an alias or an adapter */
    struct hosted *hosted;                               /* of a model */
    bool is_lora;
    uint64_t id;                /* no other name ever has it */
    char *path;                 /* of an adapter */
    const struct hosted *tried; /* the adapter was opened for this one: lora, or why there is none */
    struct lora *lora;
    struct error why;
};
struct hosting {
    struct hosting_options options;
    pthread_mutex_t lock;
    pthread_cond_t work;    /* for the loader */
    pthread_cond_t changed; /* for those who wait here */
    pthread_t thread;
    bool has_thread, stopping;
    struct hosted_name *names, **names_end;
    struct hosted *all;
    uint64_t bytes_used, n_id;
    bool moved, quiet, calling;
    void (*on_close)(void *ctx, const struct hosting_row *row);
    void *on_close_ctx;
};

/* names.c */
struct hosted_name *hosted_name_find(const struct hosting *h, struct str text);
/* The model a name means (ptr NULL: the default), by its aliases; *lora becomes the adapter's row, or NULL. */
struct hosted *hosted_resolve(const struct hosting *h, struct str text, struct hosted_name **lora);
enum status hosted_name_add(struct hosting *h, struct hosted_name **out, const char *text, struct error *err);
void hosted_name_remove(struct hosting *h, struct hosted_name *gone);
enum status hosted_create(struct hosting *h, struct hosted **out, const struct hosting_model *m, struct error *err);
enum status hosted_add(struct hosting *h, struct hosted **out, const struct hosting_model *m, struct error *err);
void hosted_free(struct hosting *h, struct hosted *gone);
/* adapters.c */
void hosted_close_lora(struct hosting *h, struct hosted_name *n);
/* An adapter of e, which is ready, that was not tried to open for it; NULL: none. */
struct hosted_name *hosted_next_lora(const struct hosting *h, const struct hosted *e);
void hosted_open_lora(struct hosting *h, struct hosted *e, struct hosted_name *n); /* the loader; gives up the lock */
/* loader.c */
void *hosting_loader(void *arg); /* the thread; takes the lock itself */
void hosted_want(struct hosting *h, struct hosted *e);
uint64_t hosted_expires_ns(const struct hosting *h, const struct hosted *e); /* 0 = never */
/* hosting.c */
struct hosting_row hosted_row(const struct hosting *h, const struct hosted *e); /* of one that is loaded, by its name */
/* leases.c */
/* Gives those who wait for e what they wait for; returns those whose fn is to be called. Some may wait again. */
struct hosting_wait *hosted_settle(struct hosting *h, struct hosted *e);
enum status hosted_acquire_wait(struct hosting *h, struct str name, struct hosting_lease *out, struct error *err);
void hosted_release(struct hosting *h, struct hosting_lease *l);

#endif
