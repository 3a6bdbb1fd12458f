/* What /health and /readyz tell: all models together, and each. */
#include "gateway/private.h"

#include "base/clock.h"

struct health { /* of all models, and each */
    struct gateway *g;
    struct engine_stats sum;
    struct json_writer models;
    bool stalled;
};

static void put_load(struct json_writer *w, const struct engine_stats *s)
{
    json_put_int(w, "running", s->running);
    json_put_int(w, "waiting", s->waiting);
    json_put_int(w, "kv_blocks_total", s->blocks_total);
    json_put_int(w, "kv_blocks_free", s->blocks_free);
}

static void look_at(void *ctx, struct served *served, const struct hosting_row *row)
{
    struct health *h = ctx;
    struct engine_stats s;
    (void)served;
    uint64_t now = clock_ns();
    bool stalled = engine_stalled(h->g, row->engine, now, &s);
    h->stalled |= stalled;
    h->sum.running += s.running;
    h->sum.waiting += s.waiting;
    h->sum.blocks_total += s.blocks_total;
    h->sum.blocks_free += s.blocks_free;
    json_begin_object(&h->models);
    json_put_str(&h->models, "model", str_of(row->name));
    json_put_str(&h->models, "status", stalled ? STR("stalled") : STR("ok"));
    put_load(&h->models, &s);
    json_put_int(&h->models, "last_step_ms", now > s.last_step_ns ? (int64_t)((now - s.last_step_ns) / 1000000) : 0);
    json_end_object(&h->models);
}

void health_answer(struct gateway *g, struct http_exchange *x, const char *state)
{
    struct buf body = {0}, models = {0};
    struct json_writer w;
    struct health h = {.g = g};
    json_writer_init(&h.models, &models);
    json_begin_array(&h.models);
    served_each(g, look_at, &h);
    json_end_array(&h.models);
    bool good = state ? !g->draining : !h.stalled;
    json_writer_init(&w, &body);
    json_begin_object(&w);
    json_put_str(&w, "status", str_of(state ? state : good ? "ok" : "stalled"));
    json_put_str(&w, "model", str_of(g->bundle->id));
    put_load(&w, &h.sum);
    json_key(&w, "models");
    json_write_raw(&w, buf_str(&models));
    json_end_object(&w);
    body.failed |= models.failed;
    buf_free(&models);
    answer_json(g, x, good ? 200 : 503, &body);
}
