/* mask - the tokens that may come next
 *
 * The plain way walks the trie and steps the frames by every byte. Three things make it rarely necessary:
 * 1. A place has been seen before: its mask is kept with the grammar, under the hash of its frames.
 * 2. A string of any characters: the vocabulary knows (vocab.c); only what may follow the closing quote is walked.
 *    Where a key may also be one of the declared names, the walk goes along those names alone and corrects.
 * 3. An automaton: what stays within it is the same wherever it is called from, and kept; what leaves it is walked.
 */
#include "grammar/private.h"

enum { SPARSE_MAX = 1024, MASK_STEPS_MAX = 4000000 /* a tenth of a second */, ANY_BYTES_MIN = 64 };

struct walker {
    struct machine *m;
    const struct grammar_vocab *v;
    struct grammar *g;
    uint64_t *bits;
};

static void set_tokens(struct walker *w, uint32_t node)
{
    const struct trie *t = &w->v->tokens;
    for (uint32_t i = t->first[node]; i < t->first[node + 1]; i++)
        bit_set(w->bits, t->order[i]);
}

static void clear_subtree(struct walker *w, uint32_t node)
{
    const struct trie *t = &w->v->tokens;
    for (uint32_t i = t->first[node]; i < t->first[t->skip[node]]; i++)
        bit_clear(w->bits, t->order[i]);
}

/* ---- the plain walk ---- */

struct exit_room { /* how many characters a string that ends may have had */
    uint32_t need, left;
};

static void set_exits(struct walker *w, uint32_t group, const struct exit_room *room)
{
    for (uint32_t i = w->v->exit_at[group]; i < w->v->exit_at[group + 1]; i++) {
        const struct exit *e = &w->v->exits[i];
        if (e->chars >= room->need && e->chars <= room->left)
            bit_set(w->bits, e->token);
    }
}

/* Nodes [begin, end) of the trie, from the frames out[first ..]. room: the trie is the one of suffixes. */
static void walk(struct walker *w, const struct trie *t, uint32_t begin, uint32_t end, size_t first,
                 const struct exit_room *room)
{
    struct machine *m = w->m;
    size_t at[TOKEN_BYTES_MAX + 2];
    unsigned base = begin < end ? t->depth[begin] - 1u : 0;
    at[0] = first;
    at[1] = m->out.n;
    for (uint32_t i = begin; i < end && m->status == ST_OK;) {
        unsigned d = t->depth[i] - base;
        uint8_t byte = t->byte[i];
        m->out.n = at[d];
        for (size_t k = at[d - 1]; k < at[d]; k++)
            machine_step(m, m->out.at[k], byte);
        if (m->out.n == at[d]) {
            i = t->skip[i];
            continue;
        }
        machine_tidy(m, at[d]);
        at[d + 1] = m->out.n;
        if (!room)
            set_tokens(w, i);
        else
            for (uint32_t k = t->first[i]; k < t->first[i + 1]; k++)
                set_exits(w, t->order[k], room);
        i++;
    }
    m->out.n = first;
}

/* ---- strings ---- */

struct view { /* a string or a key, as far as its characters go */
    const struct frame *f;
    const struct dfa *dfa;
    const bool *any;
    uint32_t any_state, q, need, left;
    bool counted, any_allowed;
    const struct lang *lang;
    struct key_room room;
};

static bool view_of(struct view *v, const struct machine *m, const struct frame *f)
{
    v->f = f;
    if (f->lex != LEX_PLAIN)
        return false;
    if (f->kind == FRAME_TEXT) {
        v->lang = &m->g->langs[f->a];
        v->dfa = v->lang->dfa;
        v->any = v->lang->any;
        v->any_state = v->lang->any_state;
        v->q = f->b;
        v->need = f->c;
        v->left = f->d;
        v->counted = v->lang->counted;
        v->any_allowed = true;
        return true;
    }
    if (f->kind != FRAME_OBJECT || f->phase != AT_KEY)
        return false;
    const struct object *o = &m->g->objects[f->a];
    object_room(&v->room, m, f);
    v->lang = NULL;
    v->dfa = o->keys;
    v->any = o->any;
    v->any_state = o->any_state;
    v->q = f->e;
    v->need = 0;
    v->left = REPEAT_NO_MAX;
    v->counted = false;
    v->any_allowed = v->room.other;
    return true;
}

/* Appends the frames behind the quote that closes the string in state q. */
static void close_view(struct walker *w, const struct view *v, uint32_t q)
{
    struct frame f = *v->f;
    *(f.kind == FRAME_TEXT ? &f.b : &f.e) = q;
    if (f.kind == FRAME_TEXT)
        f.c = 0; /* who asks has counted */
    machine_step(w->m, f, '"');
}

/* All tokens, as if the string stood where everything is allowed. */
static void fill_any(struct walker *w, const struct view *v)
{
    const struct grammar_vocab *vocab = w->v;
    uint32_t left = v->left;
    const uint64_t *stay = left >= (uint32_t)vocab->chars_max ? vocab->stay
                           : left < CHARS_SMALL               ? vocab->stay_small[left]
                                                              : vocab->stay_small[CHARS_SMALL - 1];
    for (int i = 0; i < vocab->n_word; i++)
        w->bits[i] |= stay[i];
    if (left >= CHARS_SMALL && left < (uint32_t)vocab->chars_max)
        for (uint32_t i = vocab->chars_at[CHARS_SMALL]; i < vocab->chars_at[left + 1]; i++)
            bit_set(w->bits, vocab->by_chars[i]);
    size_t first = w->m->out.n;
    struct exit_room room = {v->need, left};
    close_view(w, v, v->any_state);
    if (w->m->out.n == first)
        return;
    machine_tidy(w->m, first);
    for (uint32_t i = 0; i < vocab->suffixes.root_first; i++)
        set_exits(w, vocab->suffixes.order[i], &room);
    walk(w, &vocab->suffixes, 0, vocab->suffixes.n_node, first, &room);
}

struct text_level {
    struct text_at at;
    uint32_t need, left;
};

static enum text_result step_level(const struct view *v, struct text_level *l, uint8_t byte)
{
    if (!v->counted) {
        bool key = v->f->kind == FRAME_OBJECT;
        return text_step(v->dfa, &l->at, byte, key ? object_key_ok : NULL, key ? &v->room : NULL);
    }
    bool within = l->at.lex == LEX_PLAIN && byte >= 0x80 && byte < 0xC0;
    struct lang_room same = {v->lang, l->need, l->left},
                     after = {v->lang, l->need ? l->need - 1 : 0, l->left == REPEAT_NO_MAX ? l->left : l->left - 1};
    if (!within && l->left == 0 && byte != '"')
        return TEXT_DEAD;
    enum text_result r = text_step(v->dfa, &l->at, byte, lang_ok, within ? &same : &after);
    if (r == TEXT_CHAR) {
        l->need = after.need;
        l->left = after.left;
    }
    return r;
}

/* The token ends the string with this byte: what follows is walked from there. */
static void walk_exit(struct walker *w, const struct view *v, const struct text_level *l, uint32_t node)
{
    const struct trie *t = &w->v->tokens;
    size_t first = w->m->out.n;
    if (l->need || !v->dfa->accept[l->at.q])
        return;
    close_view(w, v, l->at.q);
    if (w->m->out.n == first)
        return;
    machine_tidy(w->m, first);
    set_tokens(w, node);
    walk(w, t, node + 1, t->skip[node], first, NULL);
    w->m->out.n = first;
}

/* From a state where not everything is allowed. `any`: what would be, already in bits when `corrects`. */
static void walk_text(struct walker *w, const struct view *v, const uint64_t *any, bool corrects)
{
    const struct trie *t = &w->v->tokens;
    struct text_level levels[TOKEN_BYTES_MAX + 1];
    levels[0] = (struct text_level){{.q = v->q}, v->need, v->left};
    bool whole = true; /* the token begins with a character, as those in `any` do */
    for (uint32_t i = 0; i < t->n_node && w->m->status == ST_OK;) {
        unsigned d = t->depth[i];
        if (w->m->steps_left-- == 0) {
            w->m->steps_left = 0;
            w->m->status = ST_LIMIT;
            return;
        }
        struct text_level l = levels[d - 1];
        enum text_result r = step_level(v, &l, t->byte[i]);
        if (d == 1)
            whole = t->byte[i] < 0x80 || t->byte[i] >= 0xC0;
        if ((r == TEXT_CHAR || r == TEXT_INSIDE) && v->any[l.at.q] && l.at.lex == LEX_PLAIN && whole && any) {
            for (uint32_t k = t->first[i]; !corrects && k < t->first[t->skip[i]]; k++)
                if (bit_has(any, t->order[k]))
                    bit_set(w->bits, t->order[k]);
            i = t->skip[i];
        } else if (r == TEXT_DEAD || r == TEXT_CLOSE) {
            if (corrects)
                clear_subtree(w, i);
            if (r == TEXT_CLOSE)
                walk_exit(w, v, &l, i);
            i = t->skip[i];
        } else {
            set_tokens(w, i);
            levels[d] = l;
            i++;
        }
    }
}

static void mask_text(struct walker *w, const struct view *v)
{
    if (v->any_state && v->any[v->q] && v->any_allowed) {
        fill_any(w, v);
        return;
    }
    int n_any = 0;
    for (int i = 0; i < 256; i++)
        n_any += v->any[dfa_next(v->dfa, v->q, (uint8_t)i)];
    if (!v->any_state || !v->any_allowed) {
        walk_text(w, v, NULL, false);
        return;
    }
    uint64_t *all = w->bits, *own = mem_alloc_zero((size_t)w->v->n_word, sizeof *own);
    if (!own) {
        w->m->status = ST_NOMEM;
        return;
    }
    w->bits = own;
    fill_any(w, v);
    if (n_any >= ANY_BYTES_MIN) {
        walk_text(w, v, own, true);
        for (int i = 0; i < w->v->n_word; i++)
            all[i] |= own[i];
        w->bits = all;
    } else {
        w->bits = all;
        walk_text(w, v, own, false);
    }
    mem_free(own);
}

/* ---- entries: masks by hash, and automata's own ---- */

struct leaving_at {
    uint32_t node, state; /* from here another frame may go on with the children */
};
struct mask_entry {
    uint64_t hash;
    uint32_t n; /* ids in `list`; UINT32_MAX: `bits` */
    uint32_t n_leaving;
    struct leaving_at *leaving;
    union {
        uint64_t *bits;
        uint32_t *list;
    };
};

static void entry_free(struct mask_entry *e)
{
    if (e) {
        mem_free(e->list);
        mem_free(e->leaving);
        mem_free(e);
    }
}

static struct mask_entry *entry_make(uint64_t hash, const uint64_t *bits, int n_word)
{
    struct mask_entry *e = mem_alloc_zero(1, sizeof *e);
    uint32_t n = 0;
    for (int i = 0; i < n_word; i++)
        n += (uint32_t)__builtin_popcountll(bits[i]);
    bool sparse = n <= SPARSE_MAX;
    void *items = mem_alloc_zero((size_t)(sparse ? (int)n : n_word) + 1, sparse ? sizeof *e->list : sizeof *e->bits);
    if (!e || !items) {
        mem_free(items);
        mem_free(e);
        return NULL;
    }
    e->hash = hash;
    e->n = sparse ? n : UINT32_MAX;
    e->list = items;
    if (!sparse)
        memcpy(items, bits, (size_t)n_word * sizeof *bits);
    n = 0;
    for (int i = 0; sparse && i < n_word; i++)
        for (uint64_t word = bits[i]; word; word &= word - 1)
            e->list[n++] = (uint32_t)i * 64 + (uint32_t)__builtin_ctzll(word);
    return e;
}

static void entry_add(const struct mask_entry *e, uint64_t *bits, int n_word)
{
    if (e->n == UINT32_MAX)
        for (int i = 0; i < n_word; i++)
            bits[i] |= e->bits[i];
    else
        for (uint32_t i = 0; i < e->n; i++)
            bit_set(bits, e->list[i]);
}

static size_t entry_bytes(const struct mask_entry *e, int n_word)
{
    return sizeof *e + e->n_leaving * sizeof *e->leaving +
           (e->n == UINT32_MAX ? (size_t)n_word * sizeof *e->bits : e->n * sizeof *e->list);
}

static struct mask_entry *table_find(struct mask_entry *const *slots, size_t mask, uint64_t hash)
{
    for (size_t h = hash & mask; slots && slots[h]; h = (h + 1) & mask)
        if (slots[h]->hash == hash)
            return slots[h];
    return NULL;
}

static bool table_put(struct mask_entry ***slots, size_t *mask, size_t *n, struct mask_entry *e)
{
    if (!*slots || *n * 2 >= *mask) {
        size_t bigger = *slots ? *mask * 2 + 1 : 63;
        struct mask_entry **more = mem_alloc_zero(bigger + 1, sizeof(struct mask_entry *));
        if (!more)
            return false;
        for (size_t i = 0; *slots && i <= *mask; i++) {
            size_t h = (*slots)[i] ? (*slots)[i]->hash & bigger : 0;
            while ((*slots)[i] && more[h])
                h = (h + 1) & bigger;
            if ((*slots)[i])
                more[h] = (*slots)[i];
        }
        mem_free(*slots);
        *slots = more;
        *mask = bigger;
    }
    size_t h = e->hash & *mask;
    while ((*slots)[h])
        h = (h + 1) & *mask;
    (*slots)[h] = e;
    ++*n;
    return true;
}

static void table_clear(struct mask_entry **slots, size_t mask)
{
    for (size_t i = 0; slots && i <= mask; i++) {
        entry_free(slots[i]);
        slots[i] = NULL;
    }
}

void masks_free(struct grammar *g)
{
    table_clear(g->masks, g->mask_mask);
    table_clear(g->locals, g->local_mask);
    mem_free(g->masks);
    mem_free(g->locals);
}

static void keep_mask(struct grammar *g, uint64_t hash, const uint64_t *bits)
{
    struct mask_entry *e = entry_make(hash, bits, g->vocab->n_word);
    size_t bytes = e ? entry_bytes(e, g->vocab->n_word) : 0;
    if (!e)
        return;
    pthread_mutex_lock(&g->lock);
    if (g->masks_bytes + bytes > GRAMMAR_MASKS_MAX / 2) { /* who comes back will be computed again */
        table_clear(g->masks, g->mask_mask);
        g->n_mask = g->masks_bytes = 0;
    }
    if (table_find(g->masks, g->mask_mask, hash) || !table_put(&g->masks, &g->mask_mask, &g->n_mask, e))
        entry_free(e);
    else
        g->masks_bytes += bytes;
    pthread_mutex_unlock(&g->lock);
}

static bool find_mask(struct grammar *g, uint64_t hash, uint64_t *bits)
{
    pthread_mutex_lock(&g->lock);
    const struct mask_entry *e = table_find(g->masks, g->mask_mask, hash);
    if (e)
        entry_add(e, bits, g->vocab->n_word);
    pthread_mutex_unlock(&g->lock);
    return e != NULL;
}

/* ---- rules ---- */

static bool leaves(const struct dfa *d, uint32_t state)
{
    return d->accept[state] || (d->call_at && d->call_at[state] < d->call_at[state + 1]);
}

/* Where the automaton alone goes, from one of its states, over the whole trie. */
static struct mask_entry *make_local(struct walker *w, const struct dfa *d, uint32_t state, uint64_t hash)
{
    const struct trie *t = &w->v->tokens;
    uint32_t states[TOKEN_BYTES_MAX + 1];
    uint64_t *own = mem_alloc_zero((size_t)w->v->n_word, sizeof *own), *bits = w->bits;
    struct leaving_at *leaving = NULL;
    size_t n = 0, capacity = 0;
    bool ok = own != NULL;
    w->bits = own;
    states[0] = state;
    for (uint32_t i = 0; ok && i < t->n_node;) {
        uint32_t next = dfa_next(d, states[t->depth[i] - 1], t->byte[i]);
        if (!next) {
            i = t->skip[i];
            continue;
        }
        set_tokens(w, i);
        states[t->depth[i]] = next;
        if (leaves(d, next) && t->skip[i] > i + 1) {
            ok = MEM_GROW(leaving, capacity, n);
            if (ok)
                leaving[n++] = (struct leaving_at){i, next};
        }
        i++;
    }
    w->bits = bits;
    struct mask_entry *e = ok ? entry_make(hash, own, w->v->n_word) : NULL;
    mem_free(own);
    if (!e) {
        mem_free(leaving);
        w->m->status = ST_NOMEM;
        return NULL;
    }
    e->leaving = leaving;
    e->n_leaving = (uint32_t)n;
    return e;
}

/* The bytes by which a rule in this state can be left. */
static void find_leaving_bytes(struct walker *w, const struct frame *f, uint64_t bytes[4])
{
    size_t first = w->m->out.n;
    memset(bytes, 0, 4 * sizeof *bytes);
    for (unsigned b = 0; b < 256; b++) {
        machine_leave(w->m, f, (uint8_t)b);
        if (w->m->out.n > first)
            bit_set(bytes, b);
        w->m->out.n = first;
    }
}

static void walk_leaving(struct walker *w, const struct frame *f, uint32_t begin, uint32_t end, const uint64_t *bytes)
{
    const struct trie *t = &w->v->tokens;
    size_t first = w->m->out.n;
    for (uint32_t i = begin; i < end && w->m->status == ST_OK; i = t->skip[i]) {
        if (!bit_has(bytes, t->byte[i]))
            continue;
        machine_leave(w->m, f, t->byte[i]);
        if (w->m->out.n > first) {
            machine_tidy(w->m, first);
            set_tokens(w, i);
            walk(w, t, i + 1, t->skip[i], first, NULL);
        }
        w->m->out.n = first;
    }
}

static void mask_rule(struct walker *w, const struct frame *f)
{
    const struct dfa *d = w->g->dfas[f->a];
    uint64_t hash = ((uint64_t)f->a << 32 | f->b) * 0x9E3779B97F4A7C15u;
    pthread_mutex_lock(&w->g->lock);
    struct mask_entry *e = table_find(w->g->locals, w->g->local_mask, hash), *own = NULL;
    pthread_mutex_unlock(&w->g->lock);
    if (!e) {
        e = own = make_local(w, d, f->b, hash);
        if (!e)
            return;
        size_t bytes = entry_bytes(e, w->v->n_word);
        pthread_mutex_lock(&w->g->lock);
        if (w->g->locals_bytes + bytes <= GRAMMAR_MASKS_MAX / 2 && !table_find(w->g->locals, w->g->local_mask, hash) &&
            table_put(&w->g->locals, &w->g->local_mask, &w->g->n_local, e)) {
            w->g->locals_bytes += bytes; /* never freed before the grammar is */
            own = NULL;
        }
        pthread_mutex_unlock(&w->g->lock);
    }
    entry_add(e, w->bits, w->v->n_word);
    uint64_t bytes[4];
    uint32_t known = 0; /* the state whose leaving bytes are known */
    if (leaves(d, f->b)) {
        find_leaving_bytes(w, f, bytes);
        walk_leaving(w, f, 0, w->v->tokens.n_node, bytes);
        known = f->b;
    }
    for (uint32_t i = 0; i < e->n_leaving && w->m->status == ST_OK; i++) {
        struct frame at = *f;
        uint32_t node = e->leaving[i].node;
        at.b = e->leaving[i].state;
        if (at.b != known)
            find_leaving_bytes(w, &at, bytes);
        known = at.b;
        walk_leaving(w, &at, node + 1, w->v->tokens.skip[node], bytes);
    }
    entry_free(own);
}

/* ---- all ---- */

void mask_make(struct grammar_state *s, const struct frame *frames, size_t n, uint64_t *bits)
{
    struct machine *m = &s->m;
    struct walker w = {m, s->g->vocab, s->g, bits};
    uint64_t hash = machine_hash(m, frames, n);
    memset(bits, 0, (size_t)w.v->n_word * sizeof *bits);
    if (find_mask(s->g, hash, bits))
        return;
    struct machine_mark mark = machine_mark(m);
    m->status = ST_OK;
    m->steps_left = MASK_STEPS_MAX;
    for (size_t i = 0; i < n && m->status == ST_OK; i++) {
        struct frame f = frames[i];
        struct view v;
        m->out.n = 0;
        if (view_of(&v, m, &f)) {
            mask_text(&w, &v);
        } else if (f.kind == FRAME_RULE) {
            mask_rule(&w, &f);
        } else {
            if (!MEM_GROW(m->out.at, m->out.capacity, m->out.n)) {
                m->status = ST_NOMEM;
                break;
            }
            m->out.at[m->out.n++] = f;
            walk(&w, &w.v->tokens, 0, w.v->tokens.n_node, 0, NULL);
        }
    }
    m->out.n = 0;
    if (machine_may_end(m, frames, n))
        for (int i = 0; i < w.v->n_eos; i++)
            bit_set(bits, (uint32_t)w.v->eos[i]);
    machine_return(m, &mark);
    if (m->status == ST_OK)
        keep_mask(s->g, hash, bits);
}
