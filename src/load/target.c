/* Who is asked: the URL, the model's name, and how long words are in its tokens. */
#include "load/load_private.h"

#include "base/clock.h"
#include "base/mem.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { TIMEOUT_MS = 600000, PROBE_MS = 120000 };

/* ---- one answer, waited for ---- */

struct ask_answer {
    int status;
    struct buf body;
    struct arena arena;
    const struct json *doc; /* NULL: not JSON */
};

struct waiting {
    struct loop *loop;
    struct ask_answer *out;
    bool ended;
    enum fetch_end end;
};

static void on_body(struct http_fetch *f, struct str bytes)
{
    struct waiting *w = f->user;
    buf_append_str(&w->out->body, bytes);
}

static void on_end(struct http_fetch *f, enum fetch_end end)
{
    struct waiting *w = f->user;
    w->out->status = f->answer ? f->answer->status : 0;
    w->ended = true;
    w->end = end;
    loop_stop(w->loop);
}

static void on_late(void *ctx)
{
    struct waiting *w = ctx;
    loop_stop(w->loop);
}

static enum status wait_for(struct load *l, struct waiting *w, struct str request, struct error *err)
{
    static const char *const ends[] = {"", "no connection could be made", "the connection ended before the answer did",
                                       "the answer is not HTTP/1.1"};
    struct http_client *client;
    struct loop_timer *timer;
    TRY(http_client_open(&client, w->loop, &l->peer, err));
    enum status st = loop_timer_open(&timer, w->loop, on_late, w, err);
    if (st == ST_OK) {
        struct http_fetch f = {.request = request, .on_body = on_body, .on_end = on_end, .user = w};
        loop_timer_at(timer, clock_ns() + (uint64_t)PROBE_MS * 1000000);
        http_fetch_start(client, &f);
        st = loop_run(w->loop, err);
        if (!w->ended)
            http_fetch_cancel(&f);
        loop_timer_close(timer);
    }
    http_client_close(client);
    if (st == ST_OK && !w->ended)
        return fail(err, ST_TIMEOUT, "%s: no answer within %d s", l->target.url, PROBE_MS / 1000);
    if (st == ST_OK && w->end != FETCH_DONE)
        return fail(err, ST_IO, "%s: %s", l->target.url, ends[w->end]);
    return st == ST_OK && w->out->body.failed ? fail_nomem(err, "answer") : st;
}

static void ask_free(struct ask_answer *a)
{
    buf_free(&a->body);
    arena_free(&a->arena);
    *a = (struct ask_answer){0};
}

static enum status ask(struct load *l, const char *method, const char *path, struct str body, struct ask_answer *out,
                       struct error *err)
{
    struct buf request = {0};
    struct waiting w = {.out = out};
    *out = (struct ask_answer){0};
    out->body.limit = 16 << 20;
    TRY(loop_create(&w.loop, err));
    http_request_write(&request, method, path, l->authority, l->headers, body);
    enum status st = request.failed ? fail_nomem(err, "request") : wait_for(l, &w, buf_str(&request), err);
    loop_destroy(w.loop);
    buf_free(&request);
    arena_init(&out->arena, 0);
    if (st == ST_OK && json_parse(&out->doc, &out->arena, buf_str(&out->body), 0, NULL) != ST_OK)
        out->doc = NULL;
    if (st != ST_OK)
        ask_free(out);
    return st;
}

/* What the server says is wrong, in its own words if it has some. */
static struct str ask_reason(const struct ask_answer *a)
{
    const struct json *error = json_get(a->doc, "error");
    struct str s = json_str(json_get(error, "message"));
    if (!s.ptr)
        s = json_str(error);
    return s.ptr ? s : buf_str(&a->body);
}

/* ---- the URL ---- */

static enum status bad_url(const char *url, struct error *err)
{
    return fail(err, ST_INVALID,
                "%s: expected http://HOST:PORT or https://HOST:PORT, with a path such as /v1 or without", url);
}

/* http://host:port/base; [::1] too. */
static enum status parse_url(struct load *l, struct error *err)
{
    const char *url = l->target.url ? l->target.url : "";
    struct str rest = str_of(url), host;
    int64_t port;
    l->tls = str_starts(rest, STR("https://"));
    if (!l->tls && !str_starts(rest, STR("http://")))
        return bad_url(url, err);
    rest = str_from(rest, l->tls ? 8 : 7);
    size_t slash = str_find(rest, STR("/"), 0);
    struct str place = str_n(rest.ptr, slash == SIZE_MAX ? rest.len : slash);
    struct str path = slash == SIZE_MAX ? STR("") : str_from(rest, slash);
    while (path.len && path.ptr[path.len - 1] == '/')
        path.len--;
    size_t close = place.len && place.ptr[0] == '[' ? str_find(place, STR("]"), 0) : 0;
    size_t colon = close == SIZE_MAX ? SIZE_MAX : str_find(place, STR(":"), close);
    l->port = l->tls ? 443 : 80;
    host = str_n(place.ptr, colon == SIZE_MAX ? place.len : colon);
    if (colon != SIZE_MAX && (!str_to_i64(&port, str_from(place, colon + 1)) || port < 1 || port > 65535))
        return bad_url(url, err);
    if (colon != SIZE_MAX)
        l->port = (int)port;
    if (close && close != SIZE_MAX)
        host = str_n(place.ptr + 1, close - 1);
    if (close == SIZE_MAX || !host.len || host.len >= sizeof l->host || place.len >= sizeof l->authority ||
        path.len >= sizeof l->base - 4)
        return bad_url(url, err);
    snprintf(l->host, sizeof l->host, "%.*s", (int)host.len, host.ptr);
    snprintf(l->authority, sizeof l->authority, "%.*s", (int)place.len, place.ptr);
    snprintf(l->base, sizeof l->base, "%.*s", path.len ? (int)path.len : 3, path.len ? path.ptr : "/v1");
    for (const char *c = url; *c; c++)
        if ((unsigned char)*c <= ' ')
            return bad_url(url, err);
    return ST_OK;
}

static enum status make_headers(struct load *l, struct error *err)
{
    const char *key = l->target.api_key;
    l->headers[0] = 0;
    if (!key || !*key)
        return ST_OK;
    for (const char *c = key; *c; c++)
        if ((unsigned char)*c <= ' ' || (unsigned char)*c >= 0x7f)
            return fail(err, ST_INVALID, "the API key has characters that no header can carry");
    int n = snprintf(l->headers, sizeof l->headers, "authorization: Bearer %s\r\n", key);
    return n > 0 && (size_t)n < sizeof l->headers ? ST_OK : fail(err, ST_INVALID, "the API key is too long");
}

static enum status read_extra(struct load *l, struct error *err)
{
    struct str text = str_trim(str_of(l->target.extra));
    struct arena arena;
    const struct json *doc;
    if (!l->target.extra)
        return ST_OK;
    arena_init(&arena, 0);
    enum status st = json_parse(&doc, &arena, text, JSON_UNIQUE, err);
    if (st == ST_OK && !json_is(doc, JSON_OBJECT))
        st = fail(err, ST_INVALID, "expected an object of request fields such as {\"top_p\": 0.9}");
    struct buf out = {0};
    if (st == ST_OK && json_count(doc))
        buf_printf(&out, ",%.*s", (int)text.len - 2, text.ptr + 1); /* without its braces */
    l->extra = out.len ? mem_strdup(out.ptr) : NULL;
    if (st == ST_OK && json_count(doc) && !l->extra)
        st = fail_nomem(err, "extra fields");
    buf_free(&out);
    arena_free(&arena);
    return st == ST_OK ? st : fail_context(err, "--extra");
}

/* ---- the model ---- */

static enum status find_model(struct load *l, struct error *err)
{
    struct ask_answer a;
    char path[300];
    if (l->target.model) {
        l->model = mem_strdup(l->target.model);
        return l->model ? ST_OK : fail_nomem(err, "model");
    }
    snprintf(path, sizeof path, "%s/models", l->base);
    TRY(ask(l, "GET", path, STR(""), &a, err));
    struct str id = json_str(json_get(json_at(json_get(a.doc, "data"), 0), "id"));
    enum status st = ST_OK;
    if (a.status != 200)
        st = fail(err, ST_IO, "%s%s answers %d: %.*s", l->target.url, path, a.status, STR_ARG(ask_reason(&a)));
    else if (!id.ptr)
        st = fail(err, ST_CORRUPT, "%s%s names no model: name it by --model", l->target.url, path);
    else if (!(l->model = arena_copy(&a.arena, id)) || !(l->model = mem_strdup(l->model)))
        st = fail_nomem(err, "model");
    ask_free(&a);
    return st;
}

void load_body_write(const struct load *l, struct buf *out, struct str prompt, int n_out, bool stream)
{
    struct json_writer w;
    bool chat = l->target.api == LOAD_CHAT;
    json_writer_init(&w, out);
    json_begin_object(&w);
    json_put_str(&w, "model", str_of(l->model));
    if (chat) {
        json_key(&w, "messages");
        json_begin_array(&w);
        json_begin_object(&w);
        json_put_str(&w, "role", STR("user"));
        json_put_str(&w, "content", prompt);
        json_end_object(&w);
        json_end_array(&w);
    } else {
        json_put_str(&w, "prompt", prompt);
    }
    json_put_int(&w, "max_tokens", n_out);
    json_put_real(&w, "temperature", l->target.temperature);
    if (!l->target.honor_eos)
        json_put_bool(&w, "ignore_eos", true);
    json_put_bool(&w, "stream", stream);
    if (stream) {
        json_key(&w, "stream_options");
        json_write_raw(&w, STR("{\"include_usage\":true}"));
    }
    json_end_object(&w);
    if (l->extra && !out->failed) {
        out->len--; /* the closing brace */
        buf_append_str(out, str_of(l->extra));
        buf_append_char(out, '}');
    }
}

/* ---- how many tokens a word is ---- */

/* One token of answer to a prompt; *n_in = -1 when the server does not count. */
static enum status probe(struct load *l, struct str prompt, int *n_in, struct error *err)
{
    struct buf body = {0};
    struct ask_answer a;
    char path[300];
    snprintf(path, sizeof path, "%s/%s", l->base, l->target.api == LOAD_CHAT ? "chat/completions" : "completions");
    load_body_write(l, &body, prompt, 1, false);
    enum status st = body.failed ? fail_nomem(err, "request") : ask(l, "POST", path, buf_str(&body), &a, err);
    buf_free(&body);
    if (st != ST_OK)
        return st;
    if (a.status != 200)
        st = fail(err, a.status == 401 || a.status == 403 ? ST_DENIED : ST_IO, "%s%s answers %d: %.*s%s", l->target.url,
                  path, a.status, STR_ARG(ask_reason(&a)),
                  a.status == 400 && !l->target.honor_eos ? " (a server without ignore_eos wants --honor-eos)" : "");
    else if (!a.doc)
        st = fail(err, ST_CORRUPT, "%s%s does not answer in JSON", l->target.url, path);
    else
        *n_in = (int)json_int(json_get(json_get(a.doc, "usage"), "prompt_tokens"), -1);
    ask_free(&a);
    return st;
}

/* vLLM's form (also ours), then llama.cpp's. -1: the server has neither. */
static int tokenize(struct load *l, struct str text, int form)
{
    struct buf body = {0};
    struct json_writer w;
    struct ask_answer a;
    int n = -1;
    json_writer_init(&w, &body);
    json_begin_object(&w);
    if (form == 0) {
        json_put_str(&w, "model", str_of(l->model));
        json_put_str(&w, "prompt", text);
        json_put_bool(&w, "add_special_tokens", false);
    } else {
        json_put_str(&w, "content", text);
    }
    json_end_object(&w);
    if (!body.failed && ask(l, "POST", "/tokenize", buf_str(&body), &a, NULL) == ST_OK) {
        const struct json *tokens = json_get(a.doc, "tokens");
        if (a.status == 200 && json_is(tokens, JSON_ARRAY))
            n = (int)json_count(tokens);
        ask_free(&a);
    }
    buf_free(&body);
    return n;
}

static bool measure_words(struct load *l, int form)
{
    enum { TIMES = 8 }; /* a begin-of-text or a leading blank of its own is lost in the division */
    for (int i = 0; i < words_count(); i++) {
        struct buf text = {0};
        for (int k = 0; k < TIMES; k++)
            buf_printf(&text, " %s", words_at(i));
        int n = text.failed ? -1 : tokenize(l, buf_str(&text), form);
        buf_free(&text);
        if (n < TIMES)
            return false;
        l->words.cost[i] = n / TIMES;
    }
    return true;
}

static enum status learn_words(struct load *l, struct error *err)
{
    struct words *w = &l->words;
    struct buf text = {0};
    int n_one, n_all;
    w->exact = measure_words(l, 0) || measure_words(l, 1);
    TRY(probe(l, str_of(words_at(0)), &n_one, err));
    for (int i = 0; i < words_count(); i++)
        buf_printf(&text, " %s", words_at(i));
    enum status st = text.failed ? fail_nomem(err, "prompt") : probe(l, buf_str(&text), &n_all, err);
    buf_free(&text);
    if (st != ST_OK)
        return st;
    double sum = 0, mean = n_one > 0 && n_all > n_one ? (double)(n_all - n_one) / (words_count() - 1) : 1.3;
    for (int i = 0; i < words_count(); i++) {
        if (!w->exact)
            w->cost[i] = mean;
        sum += w->cost[i];
    }
    w->overhead = n_all > 0 ? fmax(0, n_all - sum) : 0;
    return ST_OK;
}

/* ---- life ---- */

enum status load_open(struct load **out, const struct load_target *target, struct error *err)
{
    struct load *l = mem_alloc_zero(1, sizeof *l);
    if (!l)
        return fail_nomem(err, "load");
    l->target = *target;
    if (!l->target.timeout_ms)
        l->target.timeout_ms = TIMEOUT_MS;
    enum status st = parse_url(l, err);
    if (st == ST_OK)
        st = make_headers(l, err);
    if (st == ST_OK)
        st = read_extra(l, err);
    if (st == ST_OK)
        st = peer_resolve(&l->peer, l->host, l->port, err);
    if (st == ST_OK && l->tls)
        st = tls_open_client(&l->peer.tls, target->authorities, target->unchecked, err);
    if (st == ST_OK)
        st = find_model(l, err);
    if (st == ST_OK)
        st = learn_words(l, err);
    if (st != ST_OK) {
        load_close(l);
        return st;
    }
    *out = l;
    return ST_OK;
}

void load_close(struct load *l)
{
    if (!l)
        return;
    tls_close(l->peer.tls);
    mem_free(l->model);
    mem_free(l->extra);
    mem_free(l);
}

const char *load_model(const struct load *l)
{
    return l->model;
}
