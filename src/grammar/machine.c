/* machine - what is open while an answer is written, byte by byte
 *
 * A state is a list of frames, one for each reading of the bytes so far that may still come to a good end. A frame is
 * what is being written innermost; its parent is a set of frames, one of which goes on when it is complete. Sets are
 * immutable and each exists once, so that readings that differ only further out are one frame.
 *
 *   DONE    nothing may follow
 *   RULE    a: automaton, b: its state
 *   TEXT    a: language, b: its state, c: characters that must, d: that may still come, f: open escape; lex
 *   ARRAY   a: array, b: items so far, c: claims met
 *   OBJECT  a: object, b: members so far, c: bit set of the names seen, d: claims met, e: state of the key's automaton
 *           or type of the value, f: open escape; lex
 *
 * Invariants
 * 1. Every frame can come to an end: a step that leads nowhere makes no frame (types without values and labels without
 *    types were removed when the grammar was compiled).
 * 2. A frame of a rule never stands at its start but when the start can be reached again by reading.
 * Sets are kept by machine_sets.c.
 */
#include "grammar/private.h"

enum { CLAIM_BITS = 10, CLAIM_MASK = (1 << CLAIM_BITS) - 1, SPACES_MAX = 64, TABS_MAX = 16 };
enum { OUT_MAX = 1 << 19 }; /* frames of all levels of a walk together */

/* ---- the list being made ---- */

static void emit(struct machine *m, struct frame f)
{
    if (m->status != ST_OK)
        return;
    if (m->out.n == m->out.capacity && !MEM_GROW(m->out.at, m->out.capacity, m->out.n)) {
        machine_failed(m, ST_NOMEM);
        return;
    }
    if (m->out.n == OUT_MAX) {
        machine_failed(m, ST_LIMIT);
        return;
    }
    m->out.at[m->out.n++] = f;
}

static int compare_frames(const void *x, const void *y)
{
    return memcmp(x, y, sizeof(struct frame));
}

static bool same_but_parent(const struct frame *a, const struct frame *b)
{
    return memcmp(a, b, offsetof(struct frame, parent)) == 0;
}

/* Frames at[0 .. n), equal but for their parents: one frame with all their parents. */
static void merge_parents(struct machine *m, struct frame *at, size_t n)
{
    struct frame *all = NULL;
    size_t capacity = 0, count = 0, kept = 0;
    for (size_t i = 0; i < n; i++) {
        const struct frame_set *s = &m->sets[at[i].parent];
        if (!frames_reserve(&all, &capacity, count + s->n)) {
            machine_failed(m, ST_NOMEM);
            mem_free(all);
            return;
        }
        if (s->n)
            memcpy(all + count, m->pool + s->first, s->n * sizeof *all);
        count += s->n;
    }
    if (count)
        qsort(all, count, sizeof *all, compare_frames);
    for (size_t i = 0; i < count; i++)
        if (kept == 0 || compare_frames(&all[kept - 1], &all[i]) != 0)
            all[kept++] = all[i];
    if (kept > FRAMES_MAX)
        machine_failed(m, ST_LIMIT);
    else
        at[0].parent = machine_set(m, all, kept);
    mem_free(all);
}

void machine_tidy(struct machine *m, size_t from)
{
    struct frame *f = m->out.at + from;
    size_t n = m->out.n - from, kept = 0;
    if (n < 2 || m->status != ST_OK)
        return;
    if (n > FRAMES_MAX) {
        machine_failed(m, ST_LIMIT);
        return;
    }
    qsort(f, n, sizeof *f, compare_frames);
    for (size_t i = 0; i < n; i++)
        if (kept == 0 || compare_frames(&f[kept - 1], &f[i]) != 0)
            f[kept++] = f[i];
    n = kept;
    kept = 0;
    for (size_t i = 0, end; i < n; i = end) {
        for (end = i + 1; end < n && same_but_parent(&f[i], &f[end]); end++)
            ;
        if (end > i + 1)
            merge_parents(m, f + i, end - i);
        f[kept++] = f[i];
    }
    m->out.n = from + kept;
}

/* What was inside is complete: all frames of the set go on from here, or by this byte. */
static void emit_parents(struct machine *m, uint32_t set)
{
    for (uint32_t i = 0; i < m->sets[set].n; i++)
        emit(m, m->pool[m->sets[set].first + i]);
}
static void step_parents(struct machine *m, uint32_t set, uint8_t byte)
{
    for (uint32_t i = 0; i < m->sets[set].n; i++)
        machine_step(m, m->pool[m->sets[set].first + i], byte);
}

/* ---- white space: none, one blank, or a line end and an indent ---- */
enum { SPACE_NONE, SPACE_ONE, SPACE_CR, SPACE_LINE, SPACE_TABS = SPACE_LINE + SPACES_MAX + 1 };

static bool step_space(const struct machine *m, struct frame *f, uint8_t byte)
{
    int next = -1;
    if (m->g->compact)
        return false;
    if (f->space == SPACE_NONE)
        next = byte == ' ' ? SPACE_ONE : byte == '\r' ? SPACE_CR : byte == '\n' ? SPACE_LINE : -1;
    else if (f->space == SPACE_CR)
        next = byte == '\n' ? SPACE_LINE : -1;
    else if (f->space == SPACE_LINE && byte == '\t')
        next = SPACE_TABS;
    else if (f->space >= SPACE_LINE && f->space < SPACE_LINE + SPACES_MAX && byte == ' ')
        next = f->space + 1;
    else if (f->space >= SPACE_TABS && f->space < SPACE_TABS + TABS_MAX - 1 && byte == '\t')
        next = f->space + 1;
    if (next < 0)
        return false;
    f->space = (uint8_t)next;
    return true;
}

/* True when the byte was white space, which is then dealt with; also when it cannot come because a \n must. */
static bool took_space(struct machine *m, struct frame f, uint8_t byte)
{
    if (step_space(m, &f, byte)) {
        emit(m, f);
        return true;
    }
    return f.space == SPACE_CR;
}

/* ---- claims ---- */

static uint32_t claim_count(uint32_t claims, int k)
{
    return claims >> k * CLAIM_BITS & CLAIM_MASK;
}

/* Adds those of `made`; false when one becomes too many. Beyond what is asked for, nothing is counted. */
static bool add_claims(uint32_t *claims, const struct claim *all, uint32_t n, uint32_t made)
{
    for (uint32_t k = 0; k < n; k++) {
        uint32_t count = claim_count(*claims, (int)k) + (made >> k & 1);
        if (all[k].max != REPEAT_NO_MAX && count > all[k].max)
            return false;
        if (all[k].max == REPEAT_NO_MAX && count > all[k].min)
            count = all[k].min;
        *claims = (*claims & ~((uint32_t)CLAIM_MASK << k * CLAIM_BITS)) | count << k * CLAIM_BITS;
    }
    return true;
}

static bool claims_met(uint32_t claims, const struct claim *all, uint32_t n)
{
    for (uint32_t k = 0; k < n; k++)
        if (claim_count(claims, (int)k) < all[k].min)
            return false;
    return true;
}

/* ---- values ---- */

static void step_type(struct machine *m, uint32_t type, uint32_t parent, uint8_t byte)
{
    const struct type *t = &m->g->types[type];
    if (!bit_has(t->first, byte))
        return;
    if (byte == '"') {
        for (uint32_t i = 0; i < t->n_lang; i++) {
            const struct lang *l = &m->g->langs[t->langs[i]];
            emit(m,
                 (struct frame){
                     .kind = FRAME_TEXT, .a = t->langs[i], .b = DFA_START, .c = l->min, .d = l->max, .parent = parent});
        }
    } else if (byte == '[') {
        for (uint32_t i = 0; i < t->n_array; i++)
            emit(m, (struct frame){.kind = FRAME_ARRAY, .phase = AT_FIRST, .a = t->arrays[i], .parent = parent});
    } else if (byte == '{') {
        for (uint32_t i = 0; i < t->n_object; i++)
            emit(m, (struct frame){.kind = FRAME_OBJECT, .phase = AT_FIRST, .a = t->objects[i], .parent = parent});
    } else {
        uint32_t next = dfa_next(m->g->dfas[t->scalar], DFA_START, byte);
        emit(m, (struct frame){.kind = FRAME_RULE, .a = t->scalar, .b = next, .parent = parent});
    }
}

/* ---- rules ---- */

static void step_calls(struct machine *m, const struct frame *f, uint8_t byte);

/* The start of a rule that has just been called: it is not complete yet, whatever its automaton says. */
static void step_start(struct machine *m, uint32_t rule, uint32_t parent, uint8_t byte)
{
    struct frame f = {.kind = FRAME_RULE, .a = rule, .b = DFA_START, .parent = parent};
    const struct dfa *d = m->g->dfas[rule];
    uint32_t next = dfa_next(d, DFA_START, byte);
    if (next) {
        f.b = next;
        emit(m, f);
        f.b = DFA_START;
    }
    if (d->call_at) {
        if (++m->depth > STEP_DEPTH_MAX)
            machine_failed(m, ST_LIMIT);
        else
            step_calls(m, &f, byte);
        m->depth--;
    }
}

static void step_calls(struct machine *m, const struct frame *f, uint8_t byte)
{
    const struct dfa *d = m->g->dfas[f->a];
    for (uint32_t i = d->call_at[f->b]; i < d->call_at[f->b + 1] && m->status == ST_OK; i++) {
        uint32_t callee = d->calls[i].callee, parent = f->parent;
        const uint64_t *first = callee & CALL_TYPE ? m->g->types[callee & ~CALL_TYPE].first : m->g->rule_first[callee];
        if (!bit_has(first, byte) || !machine_spend(m, 1))
            continue;
        if (!d->final[d->calls[i].to]) { /* else nothing of this rule is left: its parents go on */
            struct frame rest = *f;
            rest.b = d->calls[i].to;
            parent = machine_set(m, &rest, 1);
        }
        if (callee & CALL_TYPE)
            step_type(m, callee & ~CALL_TYPE, parent, byte);
        else
            step_start(m, callee, parent, byte);
    }
}

static void step_rule(struct machine *m, struct frame f, uint8_t byte)
{
    const struct dfa *d = m->g->dfas[f.a];
    uint32_t at = f.b, next = dfa_next(d, at, byte);
    machine_leave(m, &f, byte);
    if (next) {
        f.b = next;
        emit(m, f);
    }
}

void machine_leave(struct machine *m, const struct frame *f, uint8_t byte)
{
    const struct dfa *d = m->g->dfas[f->a];
    if (d->call_at && d->call_at[f->b] < d->call_at[f->b + 1])
        step_calls(m, f, byte);
    if (d->accept[f->b])
        step_parents(m, f->parent, byte);
}

/* ---- strings ---- */

bool lang_ok(const void *room, uint32_t q)
{
    const struct lang_room *r = room;
    uint32_t shortest = r->l->shortest ? r->l->shortest[q] : 0, longest = r->l->longest ? r->l->longest[q] : UINT32_MAX;
    return shortest <= r->left && longest >= r->need;
}

static void step_text(struct machine *m, struct frame f, uint8_t byte)
{
    const struct lang *l = &m->g->langs[f.a];
    struct text_at at = {f.b, f.f, f.lex};
    struct lang_room after = {l, f.c ? f.c - 1 : 0, f.d == REPEAT_NO_MAX ? f.d : f.d - 1};
    if (!l->counted) {
        enum text_result r = text_step(l->dfa, &at, byte, NULL, NULL);
        if (r == TEXT_CLOSE && l->dfa->accept[f.b])
            emit_parents(m, f.parent);
        if (r == TEXT_DEAD || r == TEXT_CLOSE)
            return;
    } else {
        bool within = f.lex == LEX_PLAIN && byte >= 0x80 && byte < 0xC0; /* of a character that is counted already */
        struct lang_room same = {l, f.c, f.d};
        if (!within && f.d == 0 && byte != '"')
            return;
        enum text_result r = text_step(l->dfa, &at, byte, lang_ok, within ? &same : &after);
        if (r == TEXT_CLOSE && l->dfa->accept[f.b] && f.c == 0)
            emit_parents(m, f.parent);
        if (r == TEXT_DEAD || r == TEXT_CLOSE)
            return;
        if (r == TEXT_CHAR) {
            f.c = after.need;
            f.d = after.left;
        }
    }
    f.b = at.q;
    f.f = at.part;
    f.lex = at.lex;
    emit(m, f);
}

/* ---- arrays ---- */

static uint32_t item_type(const struct machine *m, const struct array *a, uint32_t index, uint32_t claimed)
{
    uint32_t place = index < a->n_prefix ? index : a->n_prefix, t = a->types[(place << a->n_claim) + claimed];
    return t == UINT32_MAX || m->g->types[t].empty ? UINT32_MAX : t;
}

/* Can what is still claimed be found in the items from `index` on? */
static bool claims_possible(const struct machine *m, const struct array *a, uint32_t index, uint32_t claims)
{
    for (uint32_t k = 0; k < a->n_claim; k++) {
        uint32_t count = claim_count(claims, (int)k), need = a->claims[k].min > count ? a->claims[k].min - count : 0;
        for (uint32_t i = index; need && i < a->max; i++) {
            bool possible = false;
            for (uint32_t made = 0; made < 1u << a->n_claim && !possible; made++)
                possible = made >> k & 1 && item_type(m, a, i, made) != UINT32_MAX;
            if (i >= a->n_prefix) { /* all the others are alike */
                need = possible && (a->max == REPEAT_NO_MAX || a->max - i >= need) ? 0 : need;
                break;
            }
            need -= possible;
        }
        if (need)
            return false;
    }
    return true;
}

static void step_item(struct machine *m, const struct frame *f, const struct array *a, uint8_t byte)
{
    if (f->b >= a->max)
        return;
    for (uint32_t made = 0; made < 1u << a->n_claim; made++) {
        struct frame after = *f;
        uint32_t type = item_type(m, a, f->b, made), most = a->min > a->n_prefix ? a->min : a->n_prefix;
        after.b++;
        if (type == UINT32_MAX || !bit_has(m->g->types[type].first, byte) ||
            !add_claims(&after.c, a->claims, a->n_claim, made) || !claims_possible(m, a, after.b, after.c))
            continue;
        if (a->max == REPEAT_NO_MAX && after.b > most)
            after.b = most;
        after.phase = AT_AFTER;
        after.space = SPACE_NONE;
        uint32_t parent = machine_set(m, &after, 1);
        if (parent)
            step_type(m, type, parent, byte);
    }
}

static void step_array(struct machine *m, struct frame f, uint8_t byte)
{
    const struct array *a = &m->g->arrays[f.a];
    if (took_space(m, f, byte))
        return;
    if (byte == ']' && f.phase != AT_NEXT) {
        if (f.b >= a->min && claims_met(f.c, a->claims, a->n_claim))
            emit_parents(m, f.parent);
    } else if (f.phase != AT_AFTER) {
        step_item(m, &f, a, byte);
    } else if (byte == ',' && f.b < a->max) {
        bool possible = false;
        for (uint32_t made = 0; made < 1u << a->n_claim && !possible; made++) {
            uint32_t claims = f.c;
            possible = item_type(m, a, f.b, made) != UINT32_MAX && add_claims(&claims, a->claims, a->n_claim, made) &&
                       claims_possible(m, a, f.b + 1, claims);
        }
        f.phase = AT_NEXT;
        f.space = SPACE_NONE;
        if (possible)
            emit(m, f);
    }
}

/* ---- objects ---- */

void object_room(struct key_room *room, const struct machine *m, const struct frame *f)
{
    const struct object *o = &m->g->objects[f->a];
    const struct bit_set *seen = &m->bits[f->c];
    uint32_t missing = 0, last = UINT32_MAX, left = o->max == REPEAT_NO_MAX ? o->max : o->max - f->b;
    room->o = o;
    for (uint32_t w = 0; w < o->n_word; w++) {
        uint64_t unseen = ~(seen->n_word ? m->words[seen->first + w] : 0), needed = unseen & o->required[w];
        if (needed && last == UINT32_MAX)
            last = w * 64 + (uint32_t)__builtin_ctzll(needed);
        missing += (uint32_t)__builtin_popcountll(needed);
        room->allowed[w] = unseen;
    }
    room->other = left > missing && !(o->ordered && missing);
    for (uint32_t w = 0; w < o->n_word; w++) {
        if (left <= missing)
            room->allowed[w] &= o->required[w];
        if (left == 0)
            room->allowed[w] = 0;
        if (o->ordered && last != UINT32_MAX) /* what is required cannot be skipped */
            room->allowed[w] &= w < last / 64 ? ~(uint64_t)0 : w > last / 64 ? 0 : ~(uint64_t)0 >> (63 - last % 64);
    }
}

bool object_key_ok(const void *room, uint32_t q)
{
    const struct key_room *r = room;
    const struct object *o = r->o;
    if (r->other && o->reach_other[q])
        return true;
    for (uint32_t w = 0; w < o->n_word; w++)
        if (o->reach[(size_t)q * o->n_word + w] & r->allowed[w])
            return true;
    return false;
}

static bool object_complete(const struct machine *m, const struct frame *f)
{
    const struct object *o = &m->g->objects[f->a];
    const struct bit_set *seen = &m->bits[f->c];
    for (uint32_t w = 0; w < o->n_word; w++)
        if (o->required[w] & ~(seen->n_word ? m->words[seen->first + w] : 0))
            return false;
    return f->b >= o->min && claims_met(f->d, o->claims, o->n_claim);
}

/* The key is whole: its name is seen, and the type of its value known. */
static void close_key(struct machine *m, struct frame f, const struct key_room *room)
{
    const struct object *o = room->o;
    uint32_t accept = o->keys->accept[f.e];
    const struct label *l = accept ? &o->labels[accept - 1] : NULL;
    if (!l || !l->possible || (l->name == UINT32_MAX ? !room->other : !bit_has(room->allowed, l->name)))
        return;
    if (l->name != UINT32_MAX)
        f.c = machine_add_name(m, o, f.c, l->name);
    else if (o->ordered && o->n_name)
        f.c = machine_add_name(m, o, f.c, o->n_name - 1);
    if (m->status != ST_OK)
        return;
    if (o->counts && (o->max != REPEAT_NO_MAX || f.b < o->min))
        f.b++;
    f.phase = AT_COLON;
    f.lex = LEX_PLAIN;
    f.f = 0;
    uint32_t claims = f.d;
    for (uint32_t made = 0; made < 1u << o->n_claim; made++) {
        f.d = claims;
        f.e = l->types[made];
        if (f.e != UINT32_MAX && !m->g->types[f.e].empty && add_claims(&f.d, o->claims, o->n_claim, made))
            emit(m, f);
    }
}

static void step_key(struct machine *m, struct frame f, uint8_t byte)
{
    struct key_room room;
    struct text_at at = {f.e, f.f, f.lex};
    object_room(&room, m, &f);
    enum text_result r = text_step(room.o->keys, &at, byte, object_key_ok, &room);
    if (r == TEXT_CLOSE)
        close_key(m, f, &room);
    if (r == TEXT_CLOSE || r == TEXT_DEAD)
        return;
    f.e = at.q;
    f.f = at.part;
    f.lex = at.lex;
    emit(m, f);
}

static bool has_next_key(const struct machine *m, const struct frame *f)
{
    struct key_room room;
    object_room(&room, m, f);
    return !dfa_empty(room.o->keys) && object_key_ok(&room, DFA_START);
}

static void step_object(struct machine *m, struct frame f, uint8_t byte)
{
    if (f.phase == AT_KEY) {
        step_key(m, f, byte);
        return;
    }
    if (took_space(m, f, byte))
        return;
    f.space = SPACE_NONE;
    if (f.phase == AT_COLON) {
        f.phase = AT_VALUE;
        if (byte == ':')
            emit(m, f);
    } else if (f.phase == AT_VALUE) {
        uint32_t type = f.e;
        f.phase = AT_AFTER;
        f.e = 0;
        uint32_t parent = bit_has(m->g->types[type].first, byte) ? machine_set(m, &f, 1) : 0;
        if (parent)
            step_type(m, type, parent, byte);
    } else if (byte == '}' && f.phase != AT_NEXT) {
        if (object_complete(m, &f))
            emit_parents(m, f.parent);
    } else if (byte == '"' && f.phase != AT_AFTER) {
        f.phase = AT_KEY;
        f.e = DFA_START;
        if (has_next_key(m, &f))
            emit(m, f);
    } else if (byte == ',' && f.phase == AT_AFTER) {
        f.phase = AT_NEXT;
        if (has_next_key(m, &f))
            emit(m, f);
    }
}

/* ---- all ---- */

void machine_step(struct machine *m, struct frame f, uint8_t byte)
{
    if (m->status != ST_OK)
        return;
    if (m->depth >= STEP_DEPTH_MAX)
        machine_failed(m, ST_LIMIT);
    if (!machine_spend(m, 1))
        return;
    m->depth++;
    switch ((enum frame_kind)f.kind) {
    case FRAME_DONE:
        break;
    case FRAME_RULE:
        step_rule(m, f, byte);
        break;
    case FRAME_TEXT:
        step_text(m, f, byte);
        break;
    case FRAME_ARRAY:
        step_array(m, f, byte);
        break;
    case FRAME_OBJECT:
        step_object(m, f, byte);
        break;
    }
    m->depth--;
}

/* Parents know it since they were made: their parents may be many, in more ways than could be tried. */
static bool may_end(const struct machine *m, const struct frame *f)
{
    return f->kind == FRAME_DONE ||
           (f->kind == FRAME_RULE && m->g->dfas[f->a]->accept[f->b] && m->sets[f->parent].ends);
}

bool machine_may_end(const struct machine *m, const struct frame *f, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (may_end(m, &f[i]))
            return true;
    return false;
}
