/* cache - compiled grammars by what they were made of: the parts, written out, are the key
 *
 * Two threads that ask for the same new grammar both compile it; the first one's stays.
 */
#include "grammar/private.h"

#include "base/rng.h"

enum { KEY_MAX = 4 << 20 }; /* what is longer is not kept: parts may name one long schema over and over */
struct cached {
    struct buf key;
    uint64_t hash, used;
    struct grammar *g;
};
struct grammar_cache {
    struct grammar_vocab *vocab;
    pthread_mutex_t lock;
    uint64_t seed, clock;
    int n, n_max;
    struct cached *items;
};

enum status grammar_cache_create(struct grammar_cache **out, struct grammar_vocab *vocab, int n_max, struct error *err)
{
    struct grammar_cache *c = mem_alloc_zero(1, sizeof *c);
    *out = NULL;
    if (c)
        c->items = mem_alloc_zero((size_t)n_max + 1, sizeof *c->items);
    if (!c || !c->items) {
        mem_free(c);
        return fail_nomem(err, "grammar cache");
    }
    c->vocab = vocab;
    c->n_max = n_max;
    c->seed = rng_entropy();
    pthread_mutex_init(&c->lock, NULL);
    *out = c;
    return ST_OK;
}

static void drop(struct cached *item)
{
    buf_free(&item->key);
    grammar_release(item->g);
}

void grammar_cache_destroy(struct grammar_cache *c)
{
    if (!c)
        return;
    for (int i = 0; i < c->n; i++)
        drop(&c->items[i]);
    pthread_mutex_destroy(&c->lock);
    mem_free(c->items);
    mem_free(c);
}

static void write_key(struct buf *key, const struct grammar_part *p, int depth)
{
    buf_printf(key, "%d %u %d %d %zu %zu %zu %zu:", (int)p->kind, p->flags, p->min, p->max, p->text.len,
               p->property.len, p->trigger.len, p->n_part);
    buf_append_str(key, p->text);
    buf_append_str(key, p->property);
    buf_append_str(key, p->trigger);
    /* deeper ones are refused when compiled */
    for (size_t i = 0; i < p->n_part && depth < 40 && key->len <= KEY_MAX; i++)
        write_key(key, &p->parts[i], depth + 1);
}

/* Under the lock. */
static struct grammar *find(struct grammar_cache *c, struct str key, uint64_t hash)
{
    for (int i = 0; i < c->n; i++)
        if (c->items[i].hash == hash && str_eq(buf_str(&c->items[i].key), key)) {
            c->items[i].used = ++c->clock;
            return grammar_acquire(c->items[i].g);
        }
    return NULL;
}

static void put(struct grammar_cache *c, struct buf *key, uint64_t hash, struct grammar *g)
{
    int at = c->n;
    if (c->n_max == 0)
        return;
    if (c->n == c->n_max) {
        at = 0;
        for (int i = 1; i < c->n; i++)
            if (c->items[i].used < c->items[at].used)
                at = i;
        drop(&c->items[at]);
    } else {
        c->n++;
    }
    c->items[at] = (struct cached){*key, hash, ++c->clock, grammar_acquire(g)};
    *key = (struct buf){0};
}

enum status grammar_cache_get(struct grammar_cache *c, struct grammar **out, const struct grammar_part *part,
                              struct error *err)
{
    struct buf key = {0};
    *out = NULL;
    write_key(&key, part, 0);
    if (key.failed) {
        buf_free(&key);
        return fail_nomem(err, "grammar cache");
    }
    if (key.len > KEY_MAX) {
        buf_free(&key);
        return grammar_compile(out, c->vocab, part, err);
    }
    uint64_t hash = str_hash(buf_str(&key), c->seed);
    pthread_mutex_lock(&c->lock);
    *out = find(c, buf_str(&key), hash);
    pthread_mutex_unlock(&c->lock);
    enum status st = *out ? ST_OK : grammar_compile(out, c->vocab, part, err);
    if (st == ST_OK) {
        pthread_mutex_lock(&c->lock);
        struct grammar *other = find(c, buf_str(&key), hash);
        if (!other)
            put(c, &key, hash, *out);
        pthread_mutex_unlock(&c->lock);
        grammar_release(other);
    }
    buf_free(&key);
    return st;
}
