/* From texts to vectors or scores: tokenized on a worker, computed by the engine, written on a worker again, because a
 * thousand vectors as text would hold up the loop.
 *
 *   JOB_CONTENT --embed_start--> JOB_GENERATE --finished, embed_pump--> JOB_WRITE --embed_write--> JOB_DONE
 *
 * The engine thread writes `end` and `finished` under g->mail_lock, wakes the loop under it too, and then never touches
 * the job again.
 */
#include "gateway/private.h"

#include "base/clock.h"
#include "base/mem.h"

#include <stdio.h>
#include <stdlib.h>

struct embed_work {
    struct embed_request request;
    real *rows; /* [n_prompt, n_out] */
    size_t row_bytes;
    struct str *documents;    /* rerank with return_documents: copies */
    struct finish_event end;  /* under mail_lock */
    char end_message[160];    /* likewise */
    bool submitted, finished; /* finished: likewise */
};

/* ---- worker: texts to ids ---- */
static bool too_long(struct job *j, int i, size_t n)
{
    const char *name = j->kind == ASK_EMBED ? "input" : "documents";
    char param[ASK_PARAM_MAX];
    snprintf(param, sizeof param, "%s[%d]", name, i);
    return refuse(&j->why, 400, "context_length_exceeded", param,
                  "%s has %zu tokens, this model takes %d: shorten it, or let truncate_prompt_tokens cut it", param, n,
                  model_config(j->bundle->model)->n_ctx);
}

/* Ids of another vocabulary would give vectors that mean nothing. */
static bool take_ids(struct job *j, int i, const struct ask_prompt *p, struct ids *out)
{
    if (!tokenizer_frames(j->bundle->tokenizer, p->ids, p->n_id))
        return refuse(
            &j->why, 400, "invalid_value", "input",
            "input[%d]: these ids do not begin and end as this model's tokenizer does: were they made by "
            "another one? Send text (LangChain: check_embedding_ctx_length=False), or the ids of /v1/tokenize",
            i);
    for (size_t k = 0; k < p->n_id; k++)
        if (!ids_push(out, p->ids[k]))
            return refuse(&j->why, 503, NULL, NULL, "out of memory");
    return true;
}

static bool encode_input(struct job *j, int i, struct str before, size_t most, struct ids *out)
{
    const struct ask_prompt *p = &j->ask.prompts[i];
    struct error err;
    if (!p->ids)
        return bundle_text_ids(out, j->bundle, before, p->text, j->ask.embed.truncate ? most : SIZE_MAX, &err) ==
                   ST_OK ||
               refuse_status(&j->why, &err, "input");
    if (!take_ids(j, i, p, out))
        return false;
    if (j->ask.embed.truncate)
        tokenizer_shorten(j->bundle->tokenizer, out, most);
    return true;
}

static bool encode_document(struct job *j, int i, size_t most, struct ids *out, size_t *first)
{
    struct error err;
    enum status st = bundle_pair_ids(out, first, j->bundle, j->ask.embed.query, j->ask.prompts[i].text,
                                     j->ask.embed.truncate ? most : SIZE_MAX, &err);
    return st == ST_OK ||
           refuse_status(&j->why, &err, st == ST_INVALID && j->ask.embed.truncate ? "query" : "documents");
}

static bool make_ids(struct job *j, struct embed_text *texts)
{
    const struct model_config *c = model_config(j->bundle->model);
    size_t most = j->ask.embed.truncate > 0 ? (size_t)j->ask.embed.truncate : (size_t)c->n_ctx;
    struct str before = model_prompt(j->bundle->model, j->ask.embed.prompt_name);
    for (int i = 0; i < j->n_prompt; i++) {
        struct ids *ids = &j->prompts[i];
        size_t first = 0;
        if (j->kind == ASK_EMBED ? !encode_input(j, i, before, most, ids) : !encode_document(j, i, most, ids, &first))
            return false;
        if (ids->count > (size_t)c->n_ctx)
            return too_long(j, i, ids->count);
        if (ids->count == 0)
            return refuse(&j->why, 400, "invalid_value", "input", "input[%d] has no tokens", i);
        texts[i] = (struct embed_text){ids->ids, (int)ids->count, (int)first};
    }
    return true;
}

/* What is shown again stays. */
static bool keep_documents(struct job *j, struct embed_work *w)
{
    if (!j->ask.embed.return_documents)
        return true;
    w->documents = arena_alloc_zero(&j->arena, (size_t)j->n_prompt, sizeof *w->documents);
    bool good = w->documents != NULL;
    for (int i = 0; i < j->n_prompt && good; i++) {
        struct str text = j->ask.prompts[i].text;
        char *copy = arena_copy(&j->arena, text);
        good = copy != NULL;
        w->documents[i] = str_n(copy, text.len);
    }
    return good || refuse(&j->why, 503, NULL, NULL, "out of memory");
}

static void on_finish(void *ctx, const struct finish_event *end);

bool embed_content(struct job *j)
{
    size_t n = (size_t)j->ask.n_prompt, n_out = (size_t)model_config(j->bundle->model)->n_out;
    struct embed_work *w = arena_alloc_zero(&j->arena, 1, sizeof *w);
    struct embed_text *texts = arena_alloc_zero(&j->arena, n, sizeof *texts);
    j->prompts = arena_alloc_zero(&j->arena, n, sizeof *j->prompts);
    if (!w || !texts || !j->prompts || !size_mul(&w->row_bytes, n * sizeof *w->rows, n_out) ||
        !budget_hold(&j->g->memory, &j->held, j->held + w->row_bytes, j->g->intake_max) ||
        !(w->rows = mem_alloc(w->row_bytes)))
        return refuse(&j->why, 503, "server_is_overloaded", NULL,
                      "the memory for requests is full: try again, or send fewer texts");
    j->embed = w;
    j->n_prompt = (int)n;
    w->request = (struct embed_request){.texts = texts,
                                        .n_text = (int)n,
                                        .out = w->rows,
                                        .tenant = client_id(j->client),
                                        .ctx = j,
                                        .on_finish = on_finish};
    bool good = make_ids(j, texts) && keep_documents(j, w);
    j->ask.embed.prompt_name = j->ask.embed.query = (struct str){NULL, 0}; /* the parsed request goes */
    return good;
}

/* A model that embeds or scores is never asked to write. */
bool embed_leaves(struct job *j)
{
    enum model_task task = model_config(j->bundle->model)->task;
    if (task == TASK_GENERATE || !(j->kind & (ASK_CHAT | ASK_COMPLETION)) || j->ask.immediate)
        return true;
    return refuse(&j->why, 400, "unsupported_value", "model", "this model gives %s and generates no text: ask it at %s",
                  task == TASK_EMBED ? "embeddings" : "scores", task == TASK_EMBED ? "/v1/embeddings" : "/v1/rerank");
}

size_t embed_bytes(const struct job *j)
{
    return j->embed && j->embed->rows ? j->embed->row_bytes : 0;
}

void embed_free(struct job *j)
{
    if (j->embed)
        mem_free(j->embed->rows);
}

/* ---- engine thread ---- */
static void on_finish(void *ctx, const struct finish_event *end)
{
    struct job *j = ctx;
    struct gateway *g = j->g;
    struct embed_work *w = j->embed;
    pthread_mutex_lock(&g->mail_lock);
    w->end = *end;
    snprintf(w->end_message, sizeof w->end_message, "%s", end->message ? end->message : "the engine stopped");
    w->finished = true;
    loop_wake(g->loop, &j->task);
    pthread_mutex_unlock(&g->mail_lock);
}

/* ---- loop thread ---- */
static bool is_finished(const struct job *j)
{
    pthread_mutex_lock(&j->g->mail_lock);
    bool finished = j->embed->finished;
    pthread_mutex_unlock(&j->g->mail_lock);
    return finished;
}

bool embed_over(const struct job *j)
{
    return !j->embed->submitted || is_finished(j);
}

void embed_cancel(struct job *j)
{
    if (!embed_over(j))
        engine_cancel(j->engine, j->embed->request.id);
}

void embed_start(struct job *j)
{
    struct error err;
    j->phase = JOB_GENERATE;
    enum status st = engine_embed(j->engine, &j->embed->request, &err);
    j->embed->submitted = st == ST_OK;
    if (st == ST_OK)
        return;
    if (st == ST_LIMIT || st == ST_CANCELED)
        refuse(&j->why, 503, "server_is_overloaded", NULL, "%s", err.text);
    else
        refuse_status(&j->why, &err, NULL);
    job_fail(j, &j->why);
}

void embed_pump(struct job *j)
{
    struct embed_work *w = j->embed;
    if (!w->submitted || !is_finished(j))
        return;
    if (w->end.finish == FINISH_CANCELED)
        refuse(&j->why, 503, "server_is_overloaded", NULL, "the server is stopping");
    else if (w->end.finish == FINISH_ERROR)
        refuse(&j->why, status_row(w->end.status)->http >= 400 ? status_row(w->end.status)->http : 500, NULL, NULL,
               "%s", w->end_message);
    if (!j->why.http) {
        j->phase = JOB_WRITE; /* before a worker has it */
        if (!workers_put(j->g->workers, j))
            refuse(&j->why, 503, "server_is_overloaded", NULL, "too many requests wait: try again");
    }
    if (j->why.http)
        job_fail(j, &j->why);
}

/* ---- worker: rows to an answer ---- */
void embed_write(struct job *j)
{
    j->protocol->answer(j, &j->answer);
    if (j->answer.failed)
        refuse(&j->why, 503, NULL, NULL, "out of memory");
    mem_free(j->embed->rows);
    j->embed->rows = NULL;
    if (!job_hold(j, j->g->memory.max) && !j->why.http)
        refuse(&j->why, 503, "server_is_overloaded", NULL,
               "the memory for requests is full: try again, or send fewer texts");
}

int embed_tokens(const struct job *j)
{
    return j->embed->end.n_prompt;
}

int embed_row(const real **out, const struct job *j, int i)
{
    int n_out = model_config(j->bundle->model)->n_out, n = j->ask.embed.dimensions ? j->ask.embed.dimensions : n_out;
    real *row = j->embed->rows + (size_t)i * (size_t)n_out;
    if (j->ask.embed.normalize)
        embed_unit(row, n);
    *out = row;
    return n;
}

static void put_base64(struct json_writer *w, const real *row, int n)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    struct buf *out = w->out;
    size_t left = (size_t)n * sizeof(float);
    json_write_raw(w, STR("\""));
    for (size_t at = 0; left > 0; at += 3) {
        unsigned char b[3] = {0};
        size_t take = left < 3 ? left : 3;
        for (size_t k = 0; k < take; k++) { /* little-endian, whatever this machine is */
            float value = (float)row[(at + k) / 4];
            uint32_t bits;
            memcpy(&bits, &value, sizeof bits);
            b[k] = (unsigned char)(bits >> (8 * ((at + k) % 4)));
        }
        char four[4] = {digits[b[0] >> 2], digits[(b[0] & 3) << 4 | b[1] >> 4],
                        take > 1 ? digits[(b[1] & 15) << 2 | b[2] >> 6] : '=', take > 2 ? digits[b[2] & 63] : '='};
        buf_append(out, four, sizeof four);
        left -= take;
    }
    buf_append_char(out, '"');
}

static void put_floats(struct json_writer *w, const real *row, int n)
{
    json_begin_array(w);
    for (int i = 0; i < n; i++)
        json_write_float(w, (float)row[i]);
    json_end_array(w);
}

static void put_usage(struct json_writer *w, const struct job *j)
{
    json_key(w, "usage");
    json_begin_object(w);
    json_put_int(w, "prompt_tokens", embed_tokens(j));
    json_put_int(w, "total_tokens", embed_tokens(j));
    json_end_object(w);
}

void openai_answer_embeddings(struct job *j, struct buf *out)
{
    struct json_writer w;
    json_writer_init(&w, out);
    json_begin_object(&w);
    json_put_str(&w, "object", STR("list"));
    json_key(&w, "data");
    json_begin_array(&w);
    for (int i = 0; i < j->n_prompt; i++) {
        const real *row;
        int n = embed_row(&row, j, i);
        json_begin_object(&w);
        json_put_str(&w, "object", STR("embedding"));
        json_put_int(&w, "index", i);
        json_key(&w, "embedding");
        if (j->ask.embed.base64)
            put_base64(&w, row, n);
        else
            put_floats(&w, row, n);
        json_end_object(&w);
    }
    json_end_array(&w);
    json_put_str(&w, "model", str_of(j->name));
    put_usage(&w, j);
    json_end_object(&w);
}

struct ranked {
    real score;
    int index;
};
static int by_score(const void *x, const void *y) /* equals in the order they came */
{
    const struct ranked *a = x, *b = y;
    return a->score != b->score ? (a->score < b->score) - (a->score > b->score)
                                : (a->index > b->index) - (a->index < b->index);
}

void openai_answer_rerank(struct job *j, struct buf *out)
{
    struct json_writer w;
    int n = j->ask.embed.top_n && j->ask.embed.top_n < j->n_prompt ? j->ask.embed.top_n : j->n_prompt;
    struct ranked *ranked = mem_alloc_zero((size_t)j->n_prompt, sizeof *ranked);
    if (!ranked) {
        out->failed = true;
        return;
    }
    for (int i = 0; i < j->n_prompt; i++)
        ranked[i] = (struct ranked){j->embed->rows[i], i};
    qsort(ranked, (size_t)j->n_prompt, sizeof *ranked, by_score);
    json_writer_init(&w, out);
    json_begin_object(&w);
    json_put_str(&w, "id", str_of(j->id));
    json_put_str(&w, "model", str_of(j->name));
    json_key(&w, "results");
    json_begin_array(&w);
    for (int i = 0; i < n; i++) {
        real score = j->ask.embed.raw_scores ? ranked[i].score : embed_sigmoid(ranked[i].score);
        json_begin_object(&w);
        json_put_int(&w, "index", ranked[i].index);
        json_key(&w, "relevance_score");
        json_write_float(&w, (float)score);
        if (j->embed->documents) {
            json_key(&w, "document");
            json_begin_object(&w);
            json_put_str(&w, "text", j->embed->documents[ranked[i].index]);
            json_end_object(&w);
        }
        json_end_object(&w);
    }
    json_end_array(&w);
    put_usage(&w, j);
    json_end_object(&w);
    mem_free(ranked);
}
