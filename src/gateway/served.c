/* served - what the gateway keeps of every loaded model: its counters' last state, its stall, its vocabulary and its
 * compiled grammars; from the first look at it until it is closed
 *
 * A record is found by its engine, which nobody else has while the model is loaded. Who holds a lease, or is called by
 * served_each, may use it without a lock, but for the grammars, which have their own.
 */
#include "gateway/private.h"

#include "base/mem.h"

struct served *served_of(struct gateway *g, const struct engine *engine)
{
    pthread_mutex_lock(&g->served_lock);
    struct served *s = g->served;
    while (s && s->engine != engine)
        s = s->next;
    if (!s && (s = mem_alloc_zero(1, sizeof *s))) {
        s->engine = engine;
        s->next = g->served;
        pthread_mutex_init(&s->lock, NULL);
        g->served = s;
    }
    pthread_mutex_unlock(&g->served_lock);
    return s;
}

static void served_free(struct served *s)
{
    grammar_cache_destroy(s->grammars);
    grammar_vocab_destroy(s->vocab);
    pthread_mutex_destroy(&s->lock);
    mem_free(s);
}

/* Nobody uses the model, nor its grammars: what it has counted is all it ever will. */
static void on_close(void *ctx, const struct hosting_row *row)
{
    struct gateway *g = ctx;
    struct served *s = served_of(g, row->engine);
    if (!s)
        return;
    telemetry_close(g, s, row);
    pthread_mutex_lock(&g->served_lock);
    struct served **at = &g->served;
    while (*at != s)
        at = &(*at)->next;
    *at = s->next;
    pthread_mutex_unlock(&g->served_lock);
    served_free(s);
}

void served_begin(struct gateway *g)
{
    pthread_mutex_init(&g->served_lock, NULL);
    if (g->hosting)
        hosting_on_close(g->hosting, on_close, g);
}

void served_end(struct gateway *g)
{
    if (g->hosting)
        hosting_on_close(g->hosting, NULL, NULL);
    while (g->served) {
        struct served *s = g->served;
        g->served = s->next;
        served_free(s);
    }
    pthread_mutex_destroy(&g->served_lock);
}

static struct hosting_row own_row(const struct gateway *g)
{
    return (struct hosting_row){.name = g->bundle->id, .state = HOSTED_READY, .bundle = g->bundle, .engine = g->engine};
}

struct walk {
    struct gateway *g;
    served_fn *fn;
    void *ctx;
};

static void visit(void *ctx, const struct hosting_row *row)
{
    const struct walk *w = ctx;
    struct served *s = served_of(w->g, row->engine);
    if (s)
        w->fn(w->ctx, s, row);
}

void served_each(struct gateway *g, served_fn *fn, void *ctx)
{
    struct walk w = {g, fn, ctx};
    struct hosting_row own = own_row(g);
    if (g->hosting)
        hosting_each_loaded(g->hosting, visit, &w);
    else
        visit(&w, &own);
}

void served_names(const struct gateway *g, void (*fn)(void *ctx, const struct hosting_row *row), void *ctx)
{
    struct hosting_row own = own_row(g);
    if (g->hosting)
        hosting_each(g->hosting, fn, ctx);
    else
        fn(ctx, &own);
}
