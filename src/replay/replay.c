#include "replay/replay.h"

const char *answer_part(const struct answer *a, const char *name)
{
    for (int i = 0; i < a->fingerprint.n_part; i++)
        if (!strcmp(a->fingerprint.parts[i].name, name))
            return a->fingerprint.parts[i].value;
    return NULL;
}

enum status answer_check(const struct answer *a, const struct fingerprint *now, struct error *err)
{
    if (!strcmp(a->fingerprint.text, now->text))
        return ST_OK;
    for (int i = 0; i < now->n_part; i++) {
        const struct fingerprint_part *p = &now->parts[i];
        const char *saved = answer_part(a, p->name);
        if (!saved || strcmp(saved, p->value) != 0)
            return fail(err, ST_INVALID, "this is not what gave the answer: %s differs, then %s, now %s", p->name,
                        saved ? saved : "unknown", p->value);
    }
    return fail(err, ST_INVALID, "this is not what gave the answer: the fingerprint was %s and is %s",
                a->fingerprint.text, now->text);
}

/* ---- running again ---- */
struct again {
    struct ids ids;
    struct buf text;
    bool no_memory;
};

static void on_token(void *ctx, const struct token_event *event)
{
    struct again *g = ctx;
    if (event->id >= 0 && !event->is_prompt && !ids_push(&g->ids, event->id))
        g->no_memory = true;
    buf_append_str(&g->text, event->text);
}

#define DIFFERS "the answer does not come out again: output %d"
static enum status compare(const struct answer_choice *c, int choice, const struct again *g,
                           const struct finish_event *end, struct error *err)
{
    int n = (int)g->ids.count;
    for (int i = 0; i < n && i < c->n_id; i++)
        if (g->ids.ids[i] != c->ids[i])
            return fail(err, ST_CORRUPT, DIFFERS ", token %d: id %d then, %d now", choice, i, c->ids[i], g->ids.ids[i]);
    if (n != c->n_id)
        return fail(err, ST_CORRUPT, DIFFERS ", after token %d: %d tokens then, %d now", choice,
                    n < c->n_id ? n : c->n_id, c->n_id, n);
    if (end->finish != c->finish)
        return fail(err, ST_CORRUPT, DIFFERS ", after token %d: it %s then, and now it does not", choice, n,
                    c->finish == FINISH_STOP ? "ended by itself" : "was cut by its length");
    size_t same = 0, most = g->text.len < c->text.len ? g->text.len : c->text.len;
    while (same < most && g->text.ptr[same] == c->text.ptr[same])
        same++;
    if (same != c->text.len || same != g->text.len)
        return fail(err, ST_CORRUPT, DIFFERS ": the same tokens, but another text from byte %zu on", choice, same);
    return ST_OK;
}

static enum status replay_choice(const struct answer *a, int choice, struct engine *e, const struct lora *lora,
                                 const volatile int *interrupt, struct error *err)
{
    const struct answer_choice *c = &a->choices[choice];
    const struct ids *prompt = &a->prompts[c->prompt];
    struct again g = {0};
    struct finish_event end = {0};
    struct request r = {.prompt = prompt->ids,
                        .n_prompt = (int)prompt->count,
                        .sampling = a->sampling,
                        .n_stop = a->n_stop,
                        .choice = c->index,
                        .shown = a->shown.ids,
                        .n_shown = (int)a->shown.count,
                        .lora = lora,
                        .interrupt = interrupt,
                        .ctx = &g,
                        .on_token = on_token};
    memcpy(r.stops, a->stops, sizeof r.stops);
    r.sampling.seed = c->seed;
    r.sampling.has_seed = true;
    if (c->finish == FINISH_LENGTH) { /* by whatever limit was met first: a context may have another size now */
        if (!c->n_id)
            return ST_OK;
        r.sampling.max_tokens = c->n_id;
    }
    enum status st = engine_generate(e, &r, &end, err);
    if (st == ST_OK && (g.no_memory || g.text.failed))
        st = fail_nomem(err, "replay");
    if (st == ST_OK && end.finish == FINISH_CANCELED)
        st = fail(err, ST_CANCELED, "interrupted");
    if (st == ST_OK)
        st = compare(c, choice, &g, &end, err);
    ids_free(&g.ids);
    buf_free(&g.text);
    return st;
}

enum status answer_replay(const struct answer *a, struct engine *e, const struct lora *lora,
                          const volatile int *interrupt, struct error *err)
{
    for (int i = 0; i < a->n_choice; i++)
        TRY(replay_choice(a, i, e, lora, interrupt, err));
    return ST_OK;
}
