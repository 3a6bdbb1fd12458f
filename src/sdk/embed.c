/* Texts as vectors or scores: tokens made on the caller's thread, one engine request, waited for. */
#include "sdk/sdk.h"

#include "base/mem.h"

struct embedding {
    ingot_embedding given;
    const struct bundle *bundle;
    const struct model_config *config;
    int n;           /* numbers a text the caller gets */
    struct ids *ids; /* [n_text] made of the texts */
    struct embed_text *texts;
    real *rows; /* [n_text, n_out] */
};

static enum status check(struct embedding *e, const struct ingot_model *m, struct error *err)
{
    const ingot_embedding *g = &e->given;
    const struct model_config *c = e->config = model_config(m->bundle->model);
    e->bundle = m->bundle;
    e->n = g->dimensions ? g->dimensions : c->n_out;
    if (c->task == TASK_GENERATE)
        return fail(err, ST_UNSUPPORTED, "%s generates text; opened with a pooling it embeds", m->bundle->id);
    if (g->n_text < 1 || g->n_text > EMBED_TEXTS_MAX)
        return fail(err, ST_INVALID, "embedding: %zu texts, expected 1 to %d", g->n_text, EMBED_TEXTS_MAX);
    if ((g->texts != NULL) == (g->ids != NULL) || (g->ids && !g->n_ids))
        return fail(err, ST_INVALID, "embedding: expected one of texts and ids (with n_ids)");
    if (g->texts && (g->query != NULL) != (c->task == TASK_SCORE))
        return fail(err, ST_INVALID, "embedding: %s",
                    g->query ? "a query, but this model gives vectors" : "this model scores texts: a query is missing");
    if (g->dimensions < 0 || e->n > c->n_out || (g->dimensions && c->task == TASK_SCORE))
        return fail(err, ST_INVALID, "embedding: dimensions %d, expected 0 to %d, for vectors", g->dimensions,
                    c->n_out);
    if (g->flags & ~(INGOT_EMBED_RAW | INGOT_EMBED_CUT))
        return fail(err, ST_INVALID, "embedding: flags %d, expected INGOT_EMBED_RAW, INGOT_EMBED_CUT, or both",
                    g->flags);
    if (!g->out || g->room / (size_t)e->n < g->n_text)
        return fail(err, ST_LIMIT, "embedding: room for %zu numbers, %zu are needed", g->out ? g->room : 0,
                    g->n_text * (size_t)e->n);
    return ST_OK;
}

static enum status alloc(struct embedding *e, struct error *err)
{
    size_t n = e->given.n_text;
    e->ids = mem_alloc_zero(n, sizeof *e->ids);
    e->texts = mem_alloc_zero(n, sizeof *e->texts);
    e->rows = mem_alloc_zero(n * sizeof *e->rows, (size_t)e->config->n_out);
    return e->ids && e->texts && e->rows ? ST_OK : fail_nomem(err, "embeddings");
}

static enum status take_text(struct embedding *e, size_t i, struct str before, struct error *err)
{
    const ingot_embedding *g = &e->given;
    struct ids *made = &e->ids[i];
    size_t first = 0, max = g->flags & INGOT_EMBED_CUT ? (size_t)e->config->n_ctx : SIZE_MAX;
    if (g->texts && g->query)
        TRY(bundle_pair_ids(made, &first, e->bundle, str_of(g->query), str_of(g->texts[i]), max, err));
    else if (g->texts)
        TRY(bundle_text_ids(made, e->bundle, before, str_of(g->texts[i]), max, err));
    const int32_t *ids = g->ids ? g->ids[i] : made->ids; /* the caller's outlive the request, which is waited for */
    size_t n = !g->ids ? made->count : g->n_ids[i] < max ? g->n_ids[i] : max;
    e->texts[i] = (struct embed_text){ids, n > INT32_MAX ? INT32_MAX : (int)n, (int)first};
    return ST_OK;
}

static enum status take_texts(struct embedding *e, struct error *err)
{
    const char *name = e->given.prompt;
    struct str before = model_prompt(e->bundle->model, name ? str_of(name) : (struct str){0});
    if (!before.ptr)
        return fail(err, ST_INVALID, "embedding: the model has no prompt \"%.80s\"", name);
    for (size_t i = 0; i < e->given.n_text; i++)
        if (take_text(e, i, before, err) != ST_OK)
            return fail_context(err, "text %zu", i);
    return ST_OK;
}

static void give(struct embedding *e)
{
    const ingot_embedding *g = &e->given;
    bool raw = g->flags & INGOT_EMBED_RAW, score = e->config->task == TASK_SCORE;
    for (size_t i = 0; i < g->n_text; i++) {
        real *row = e->rows + i * (size_t)e->config->n_out;
        if (!score && !raw)
            embed_unit(row, e->n);
        for (int k = 0; k < e->n; k++)
            g->out[i * (size_t)e->n + (size_t)k] = (float)(score && !raw ? embed_sigmoid(row[k]) : row[k]);
        if (g->n_token)
            g->n_token[i] = e->texts[i].n_id;
    }
}

static enum status embed(struct embedding *e, struct ingot_model *m, const ingot_embedding *given, ingot_result *result,
                         struct error *err)
{
    struct finish_event end;
    if (!given || !SIZED_READ(e->given, given))
        return fail(err, ST_INVALID, "embedding: made for a newer library, or its size is not set (INGOT_INIT)");
    TRY(check(e, m, err));
    TRY(alloc(e, err));
    TRY(take_texts(e, err));
    struct embed_request r = {
        .texts = e->texts, .n_text = (int)e->given.n_text, .out = e->rows, .interrupt = e->given.interrupt};
    TRY(engine_embed_wait(m->engine, &r, &end, err));
    const ingot_result told = {.size = sizeof told,
                               .finish = (int32_t)end.finish,
                               .prompt_tokens = end.n_prompt,
                               .queue_s = end.queue_s,
                               .prefill_s = end.prefill_s};
    sized_write(result, &told, sizeof told);
    if (end.finish == FINISH_CANCELED)
        return fail(err, ST_CANCELED, "embedding: interrupted");
    give(e);
    return ST_OK;
}

int ingot_embed(ingot_model *model, const ingot_embedding *request, ingot_result *result, ingot_error *error)
{
    struct embedding e = {0};
    struct error err;
    enum status st = embed(&e, model, request, result, &err);
    for (size_t i = 0; e.ids && i < e.given.n_text; i++)
        ids_free(&e.ids[i]);
    mem_free(e.ids);
    mem_free(e.texts);
    mem_free(e.rows);
    return st == ST_OK ? INGOT_OK : sdk_fail(error, &err);
}
