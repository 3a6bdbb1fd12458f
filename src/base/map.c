#include "base/map.h"

#include "base/mem.h"
#include "base/rng.h"

static uint64_t process_seed(void)
{
    static uint64_t seed; /* one draw a process is enough: the seed only has to be unknown to whoever chose the keys */
    uint64_t s = __atomic_load_n(&seed, __ATOMIC_RELAXED);
    if (s == 0) {
        s = rng_entropy() | 1;
        __atomic_store_n(&seed, s, __ATOMIC_RELAXED);
    }
    return s;
}

static uint32_t hash_of(const struct map *m, struct str key)
{
    uint64_t h = str_hash(key, m->seed);
    return (uint32_t)(h ^ (h >> 32));
}

bool map_init(struct map *m, size_t expected)
{
    size_t slots = 16, need;
    *m = (struct map){.seed = process_seed()};
    if (!size_add(&need, expected, expected / 3 + 1))
        return false;
    while (slots < need)
        if (!size_mul(&slots, slots, 2))
            return false;
    m->slots = mem_alloc_zero(slots, sizeof *m->slots);
    m->mask = m->slots ? slots - 1 : 0;
    return m->slots != NULL;
}

void map_free(struct map *m)
{
    mem_free(m->slots);
    *m = (struct map){0};
}

/* The slot that holds key, or the empty one where it belongs. */
static struct map_slot *slot_of(const struct map *m, struct str key, uint32_t hash)
{
    for (size_t i = hash & m->mask;; i = (i + 1) & m->mask) {
        struct map_slot *s = &m->slots[i];
        if (!s->key || (s->hash == hash && s->len == key.len && memcmp(s->key, key.ptr, key.len) == 0))
            return s;
    }
}

static bool grow(struct map *m)
{
    size_t slots;
    struct map bigger = {.count = m->count, .seed = m->seed};
    if (!size_mul(&slots, m->mask + 1, 2) || !(bigger.slots = mem_alloc_zero(slots, sizeof *bigger.slots)))
        return false;
    bigger.mask = slots - 1;
    for (size_t i = 0; i <= m->mask; i++) {
        struct map_slot *s = &m->slots[i];
        if (!s->key)
            continue;
        size_t at = s->hash & bigger.mask;
        while (bigger.slots[at].key)
            at = (at + 1) & bigger.mask;
        bigger.slots[at] = *s;
    }
    mem_free(m->slots);
    *m = bigger;
    return true;
}

bool map_put(struct map *m, struct str key, uint64_t value)
{
    if (!m->slots || key.len > UINT32_MAX)
        return false;
    if (!key.ptr)
        key.ptr = "";
    uint32_t hash = hash_of(m, key);
    struct map_slot *s = slot_of(m, key, hash);
    if (s->key) {
        s->value = value;
        return true;
    }
    if (m->count + 1 > (m->mask + 1) / 4 * 3) {
        if (!grow(m))
            return false;
        s = slot_of(m, key, hash);
    }
    *s = (struct map_slot){key.ptr, (uint32_t)key.len, hash, value};
    m->count++;
    return true;
}

const uint64_t *map_find(const struct map *m, struct str key)
{
    if (!m->slots || key.len > UINT32_MAX)
        return NULL;
    if (!key.ptr)
        key.ptr = "";
    struct map_slot *s = slot_of(m, key, hash_of(m, key));
    return s->key ? &s->value : NULL;
}
