#include "gateway/store.h"

#include "base/mem.h"
#include "base/rng.h"

#include <pthread.h>

enum { BUCKETS = 1024, ID_MAX = 64 };

struct entry {
    char id[ID_MAX];
    uint64_t tenant;
    struct buf body, conversation, events;
    struct entry *chain;         /* of the bucket */
    struct entry *newer, *older; /* by use */
};
struct store {
    pthread_mutex_t lock;
    struct entry *buckets[BUCKETS], *newest, *oldest;
    size_t count, bytes, bytes_max;
    uint64_t seed;
};

enum status store_create(struct store **out, size_t bytes_max, struct error *err)
{
    struct store *s = mem_alloc_zero(1, sizeof *s);
    if (!s)
        return fail_nomem(err, "gateway");
    pthread_mutex_init(&s->lock, NULL);
    s->bytes_max = bytes_max;
    s->seed = rng_entropy();
    *out = s;
    return ST_OK;
}

static struct entry **slot_of(struct store *s, uint64_t tenant, struct str id)
{
    struct entry **p = &s->buckets[str_hash(id, s->seed) % BUCKETS];
    while (*p && (!str_is(id, (*p)->id) || (*p)->tenant != tenant))
        p = &(*p)->chain;
    return p;
}

static size_t entry_bytes(const struct entry *e)
{
    return sizeof *e + e->body.capacity + e->conversation.capacity + e->events.capacity;
}

static void unlink_entry(struct store *s, struct entry *e)
{
    *(e->newer ? &e->newer->older : &s->newest) = e->older;
    *(e->older ? &e->older->newer : &s->oldest) = e->newer;
}

static void link_newest(struct store *s, struct entry *e)
{
    e->newer = NULL;
    e->older = s->newest;
    *(s->newest ? &s->newest->newer : &s->oldest) = e;
    s->newest = e;
}

static void remove_entry(struct store *s, struct entry *e)
{
    struct entry **p = slot_of(s, e->tenant, str_of(e->id));
    *p = e->chain;
    unlink_entry(s, e);
    s->bytes -= entry_bytes(e);
    s->count--;
    buf_free(&e->body);
    buf_free(&e->conversation);
    buf_free(&e->events);
    mem_free(e);
}

static bool is_full(const struct store *s)
{
    return s->bytes > s->bytes_max || s->count > STORE_ENTRIES_MAX;
}

static struct entry *of_tenant(struct entry *e, uint64_t tenant) /* e, or the next newer one that is its */
{
    while (e && e->tenant != tenant)
        e = e->newer;
    return e;
}

/* The oldest go; of a tenant who fills more than half of it, its own oldest. */
static void make_room(struct store *s, uint64_t tenant)
{
    size_t bytes = 0, count = 0;
    if (!is_full(s))
        return;
    struct entry *own = of_tenant(s->oldest, tenant);
    for (struct entry *e = own; e; e = of_tenant(e->newer, tenant)) {
        bytes += entry_bytes(e);
        count++;
    }
    while (s->oldest && is_full(s)) {
        bool much = bytes > s->bytes_max / 2 || count > STORE_ENTRIES_MAX / 2;
        struct entry *e = own && much ? own : s->oldest;
        if (e == own) {
            own = of_tenant(e->newer, tenant);
            bytes -= entry_bytes(e);
            count--;
        }
        remove_entry(s, e);
    }
}

void store_put(struct store *s, uint64_t tenant, struct str id, struct buf *body, struct buf *conversation)
{
    struct entry *e = body->failed || conversation->failed || id.len >= ID_MAX ? NULL : mem_alloc_zero(1, sizeof *e);
    if (!e) {
        buf_free(body);
        buf_free(conversation);
        return;
    }
    memcpy(e->id, id.ptr, id.len);
    e->tenant = tenant;
    e->body = *body;
    e->conversation = *conversation;
    pthread_mutex_lock(&s->lock);
    if (*slot_of(s, tenant, id))
        remove_entry(s, *slot_of(s, tenant, id));
    struct entry **p = slot_of(s, tenant, id);
    *p = e;
    link_newest(s, e);
    s->bytes += entry_bytes(e);
    s->count++;
    make_room(s, tenant);
    pthread_mutex_unlock(&s->lock);
}

void store_add_events(struct store *s, uint64_t tenant, struct str id, struct buf *events)
{
    pthread_mutex_lock(&s->lock);
    struct entry *e = events->failed ? NULL : *slot_of(s, tenant, id);
    if (e) {
        s->bytes -= entry_bytes(e);
        buf_free(&e->events);
        e->events = *events;
        *events = (struct buf){0};
        s->bytes += entry_bytes(e);
        make_room(s, tenant);
    }
    pthread_mutex_unlock(&s->lock);
    buf_free(events);
}

/* part: offset of one of the entry's texts. */
static bool copy_out(struct store *s, uint64_t tenant, struct str id, struct buf *out, size_t part)
{
    pthread_mutex_lock(&s->lock);
    struct entry *e = *slot_of(s, tenant, id);
    if (e) {
        buf_append_str(out, buf_str((const struct buf *)(const void *)((const char *)e + part)));
        unlink_entry(s, e);
        link_newest(s, e);
    }
    pthread_mutex_unlock(&s->lock);
    return e && !out->failed;
}

bool store_body(struct store *s, uint64_t tenant, struct str id, struct buf *out)
{
    return copy_out(s, tenant, id, out, offsetof(struct entry, body));
}

bool store_conversation(struct store *s, uint64_t tenant, struct str id, struct buf *out)
{
    return copy_out(s, tenant, id, out, offsetof(struct entry, conversation));
}

bool store_events(struct store *s, uint64_t tenant, struct str id, struct buf *out)
{
    return copy_out(s, tenant, id, out, offsetof(struct entry, events)) && out->len > 0;
}

bool store_has(struct store *s, uint64_t tenant, struct str id)
{
    pthread_mutex_lock(&s->lock);
    bool found = *slot_of(s, tenant, id) != NULL;
    pthread_mutex_unlock(&s->lock);
    return found;
}

bool store_delete(struct store *s, uint64_t tenant, struct str id)
{
    pthread_mutex_lock(&s->lock);
    struct entry *e = *slot_of(s, tenant, id);
    if (e)
        remove_entry(s, e);
    pthread_mutex_unlock(&s->lock);
    return e != NULL;
}

void store_destroy(struct store *s)
{
    if (!s)
        return;
    while (s->oldest)
        remove_entry(s, s->oldest);
    pthread_mutex_destroy(&s->lock);
    mem_free(s);
}
