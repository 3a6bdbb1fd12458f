/* machine_sets - what a machine keeps: its sets of frames and of names, each once
 *
 * Sets are only ever added at the end; machine_return drops the newest, and their hash slots with them.
 */
#include "grammar/private.h"

enum { SET_STEPS = 8 }; /* a new set is worth so many steps: their number bounds the memory, too */

/* ---- life ---- */

bool machine_init(struct machine *m, const struct grammar *g)
{
    *m = (struct machine){.g = g, .set_mask = 63, .steps_left = SET_STEPS};
    m->set_slots = mem_alloc_zero(m->set_mask + 1, sizeof *m->set_slots);
    if (!m->set_slots || !MEM_GROW(m->sets, m->set_capacity, 0) || !MEM_GROW(m->bits, m->bits_capacity, 0)) {
        machine_free(m);
        return false;
    }
    m->sets[m->n_set++] = (struct frame_set){0}; /* number 0 is no set */
    m->bits[m->n_bits++] = (struct bit_set){0};  /* number 0: nothing is set */
    struct frame done = {.kind = FRAME_DONE};
    if (machine_set(m, &done, 1) != 1) {
        machine_free(m);
        return false;
    }
    return true;
}

void machine_free(struct machine *m)
{
    mem_free(m->pool);
    mem_free(m->sets);
    mem_free(m->set_slots);
    mem_free(m->words);
    mem_free(m->bits);
    mem_free(m->out.at);
    *m = (struct machine){0};
}

struct frame machine_start(struct machine *m)
{
    return (struct frame){.kind = FRAME_RULE, .a = m->g->root, .b = DFA_START, .parent = 1};
}

void machine_failed(struct machine *m, enum status st)
{
    if (m->status == ST_OK)
        m->status = st;
}

bool machine_spend(struct machine *m, uint64_t steps)
{
    if (m->status == ST_OK && m->steps_left >= steps) {
        m->steps_left -= steps;
        return true;
    }
    machine_failed(m, ST_LIMIT);
    return false;
}

/* ---- sets ---- */

static uint64_t mix(uint64_t h, uint64_t v)
{
    h = (h ^ (v + 0x9E3779B97F4A7C15u)) * 0xBF58476D1CE4E5B9u; /* no small number becomes 0 */
    h = (h ^ h >> 31) * 0x94D049BB133111EBu;
    return h ^ h >> 29;
}

/* By content, not by numbers: the same place has the same hash in every sequence. */
static uint64_t hash_frame(const struct machine *m, const struct frame *f)
{
    uint32_t place = (uint32_t)f->kind << 24 | (uint32_t)f->phase << 16 | (uint32_t)f->lex << 8 | f->space;
    uint64_t h = mix(3, (uint64_t)place << 32 | f->a);
    uint32_t c = f->c, d = f->d;
    if (f->kind == FRAME_TEXT && !m->g->langs[f->a].shortest && !m->g->langs[f->a].longest) {
        uint32_t far = (uint32_t)m->g->vocab->chars_max + 1; /* beyond any token: it makes no difference how far */
        c = c < far ? c : far;
        d = d < far ? d : far;
    }
    h = mix(h, (uint64_t)f->b << 32 | d);
    h = mix(h, f->kind == FRAME_OBJECT ? m->bits[f->c].hash : c);
    h = mix(h, (uint64_t)f->e << 32 | f->f);
    return mix(h, m->sets[f->parent].hash);
}

uint64_t machine_hash(const struct machine *m, const struct frame *f, size_t n)
{
    uint64_t h = n;
    for (size_t i = 0; i < n; i++)
        h += mix(hash_frame(m, &f[i]), 1); /* in any order */
    return mix(h, 2);
}

static bool grow_slots(struct machine *m)
{
    size_t mask = m->set_mask * 2 + 1;
    uint32_t *slots = mem_alloc_zero(mask + 1, sizeof *slots);
    if (!slots)
        return false;
    for (uint32_t i = 1; i < m->n_set; i++) { /* in order, so that the newest can be taken out again */
        size_t h = m->sets[i].hash & mask;
        while (slots[h])
            h = (h + 1) & mask;
        slots[h] = i;
    }
    mem_free(m->set_slots);
    m->set_slots = slots;
    m->set_mask = mask;
    return true;
}

bool frames_reserve(struct frame **at, size_t *capacity, size_t n)
{
    while (*capacity < n)
        if (!mem_grow((void **)at, capacity, *capacity, sizeof **at))
            return false;
    return true;
}

uint32_t machine_set(struct machine *m, const struct frame *f, size_t n)
{
    uint64_t hash = machine_hash(m, f, n);
    if (m->n_set * 2 > m->set_mask && !grow_slots(m)) {
        machine_failed(m, ST_NOMEM);
        return 0;
    }
    size_t h = hash & m->set_mask;
    for (; m->set_slots[h]; h = (h + 1) & m->set_mask) {
        const struct frame_set *s = &m->sets[m->set_slots[h]];
        if (s->hash == hash && s->n == n && memcmp(m->pool + s->first, f, n * sizeof *f) == 0)
            return m->set_slots[h];
    }
    if (!machine_spend(m, SET_STEPS))
        return 0;
    if (!frames_reserve(&m->pool, &m->pool_capacity, m->n_pool + n) || m->n_set >= UINT32_MAX - 1 ||
        !MEM_GROW(m->sets, m->set_capacity, m->n_set)) {
        machine_failed(m, ST_NOMEM);
        return 0;
    }
    memcpy(m->pool + m->n_pool, f, n * sizeof *f);
    m->sets[m->n_set] = (struct frame_set){(uint32_t)m->n_pool, (uint32_t)n, hash, machine_may_end(m, f, n)};
    m->n_pool += n;
    m->set_slots[h] = (uint32_t)m->n_set;
    return (uint32_t)m->n_set++;
}

struct machine_mark machine_mark(const struct machine *m)
{
    return (struct machine_mark){m->n_pool, m->n_set, m->n_words, m->n_bits};
}

void machine_return(struct machine *m, const struct machine_mark *mark)
{
    while (m->n_set > mark->n_set) { /* the newest is the last of its chain */
        uint32_t newest = (uint32_t)--m->n_set;
        size_t h = m->sets[newest].hash & m->set_mask;
        while (m->set_slots[h] != newest)
            h = (h + 1) & m->set_mask;
        m->set_slots[h] = 0;
    }
    m->n_pool = mark->n_pool;
    m->n_words = mark->n_words;
    m->n_bits = mark->n_bits;
}

/* The names seen, with `name` (and, in order, all before it). UINT32_MAX: out of memory. Few exist at a time. */
uint32_t machine_add_name(struct machine *m, const struct object *o, uint32_t seen, uint32_t name)
{
    uint64_t words[NAMES_MAX / 64] = {0}, hash = 7;
    const struct bit_set *old = &m->bits[seen];
    for (uint32_t w = 0; w < o->n_word; w++)
        words[w] = old->n_word ? m->words[old->first + w] : 0;
    for (uint32_t i = o->ordered ? 0 : name; i <= name; i++)
        bit_set(words, i);
    for (uint32_t w = 0; w < o->n_word; w++)
        hash = mix(hash, words[w]);
    for (size_t i = m->n_bits; i-- > 1;)
        if (m->bits[i].hash == hash && m->bits[i].n_word == o->n_word &&
            memcmp(m->words + m->bits[i].first, words, o->n_word * sizeof *words) == 0)
            return (uint32_t)i;
    while (m->words_capacity < m->n_words + o->n_word)
        if (!mem_grow((void **)&m->words, &m->words_capacity, m->words_capacity, sizeof *m->words)) {
            machine_failed(m, ST_NOMEM);
            return UINT32_MAX;
        }
    if (!MEM_GROW(m->bits, m->bits_capacity, m->n_bits)) {
        machine_failed(m, ST_NOMEM);
        return UINT32_MAX;
    }
    memcpy(m->words + m->n_words, words, o->n_word * sizeof *words);
    m->bits[m->n_bits] = (struct bit_set){(uint32_t)m->n_words, o->n_word, hash};
    m->n_words += o->n_word;
    return (uint32_t)m->n_bits++;
}
