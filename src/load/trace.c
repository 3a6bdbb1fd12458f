/* Traces: who asked for how much, and when. Times may go back a little (several machines wrote them): sorted here. */
#include "load/load.h"

#include "base/mem.h"

#include <math.h>
#include <stdlib.h>
#include <time.h>

enum { MOONCAKE_BLOCK = 512 };

static struct load_item *add_item(struct load_plan *p)
{
    if (!MEM_GROW(p->items, p->capacity, p->n))
        return NULL;
    p->items[p->n] = (struct load_item){0};
    return &p->items[p->n++];
}

static bool set_lengths(struct load_item *item, double in, double out)
{
    if (!(in >= 0 && in <= 1e8 && out >= 0 && out <= 1e8))
        return false;
    item->n_in = (int)in;
    item->n_out = (int)out;
    return true;
}

/* ---- CSV ---- */

static struct str next_field(struct str *line)
{
    const char *comma = line->len ? memchr(line->ptr, ',', line->len) : NULL;
    struct str field = comma ? str_n(line->ptr, (size_t)(comma - line->ptr)) : *line;
    *line = str_from(*line, field.len + 1);
    return str_trim(field);
}

static bool digits(int *out, struct str s, size_t at, size_t n)
{
    int64_t v;
    if (at + n > s.len || !str_to_i64(&v, str_n(s.ptr + at, n)) || v < 0)
        return false;
    *out = (int)v;
    return true;
}

/* "2023-11-16 18:17:03.9799600", or a number of seconds. */
static bool parse_time(double *out, struct str s)
{
    struct tm tm = {0};
    double seconds;
    if (str_to_f64(out, s))
        return isfinite(*out);
    bool good = s.len >= 19 && digits(&tm.tm_year, s, 0, 4) && digits(&tm.tm_mon, s, 5, 2) &&
                digits(&tm.tm_mday, s, 8, 2) && digits(&tm.tm_hour, s, 11, 2) && digits(&tm.tm_min, s, 14, 2);
    if (!good || tm.tm_year < 1900 || !str_to_f64(&seconds, str_from(s, 17)) || !(seconds >= 0 && seconds < 62))
        return false;
    tm.tm_year -= 1900;
    tm.tm_mon -= 1;
    *out = (double)timegm(&tm) + seconds;
    return true;
}

static enum status read_csv(struct load_plan *p, struct str text, struct error *err)
{
    size_t number = 0;
    while (text.ptr) {
        struct str line = str_next_line(&text), rest = line;
        double at, in, out;
        number++;
        if (!line.len || (number == 1 && (line.ptr[0] < '0' || line.ptr[0] > '9')))
            continue; /* the header */
        struct str when = next_field(&rest), n_in = next_field(&rest), n_out = next_field(&rest);
        struct load_item *item = add_item(p);
        if (!item)
            return fail_nomem(err, "trace");
        if (!parse_time(&at, when) || !str_to_f64(&in, n_in) || !str_to_f64(&out, n_out) || !set_lengths(item, in, out))
            return fail(err, ST_CORRUPT, "line %zu: expected TIMESTAMP,ContextTokens,GeneratedTokens, found %.*s",
                        number, STR_ARG(line));
        item->at_s = at;
    }
    return ST_OK;
}

/* ---- JSON lines ---- */

static bool read_blocks(struct load_plan *p, struct load_item *item, const struct json *ids)
{
    size_t n = json_count(ids), i = 0;
    uint32_t *blocks = arena_alloc_zero(&p->arena, n + 1, sizeof *blocks);
    if (!blocks)
        return false;
    JSON_EACH (id, ids)
        blocks[i++] = (uint32_t)json_int(id, 0);
    item->blocks = blocks;
    item->n_block = (int)n;
    item->block_tokens = MOONCAKE_BLOCK;
    return true;
}

/* {"timestamp": ms, "requests": [{"Prompt Length":, "Output Length":, "prompt":}]} */
static bool read_batch(struct load_plan *p, const struct json *line, double at)
{
    JSON_EACH (r, json_get(line, "requests")) {
        struct load_item *item = add_item(p);
        struct str text = json_str(json_get(r, "prompt"));
        double out = json_real(json_get(r, "Output Length"), 0);
        if (!item || !set_lengths(item, json_real(json_get(r, "Prompt Length"), 0), out > 0 ? out : 1))
            return false;
        item->at_s = at;
        if (text.ptr) {
            item->text = str_n(arena_copy(&p->arena, text), text.len);
            if (!item->text.ptr)
                return false;
        }
    }
    return true;
}

static enum status read_json_line(struct load_plan *p, const struct json *line, struct error *err)
{
    const struct json *ids = json_get(line, "hash_ids"), *requests = json_get(line, "requests");
    double at = json_real(json_get(line, "timestamp"), NAN) / 1000;
    if (!isfinite(at))
        return fail(err, ST_CORRUPT, "expected an object with a \"timestamp\" in milliseconds");
    if (json_is(requests, JSON_ARRAY))
        return read_batch(p, line, at) ? ST_OK : fail(err, ST_CORRUPT, "a request's lengths are no lengths");
    double in = json_real(json_get(line, "input_length"), NAN), out = json_real(json_get(line, "output_length"), NAN);
    struct load_item *item = add_item(p);
    if (!item || (json_is(ids, JSON_ARRAY) && !read_blocks(p, item, ids)))
        return fail_nomem(err, "trace");
    item->at_s = at;
    return set_lengths(item, in, out) ? ST_OK
                                      : fail(err, ST_CORRUPT, "expected \"input_length\" and \"output_length\"");
}

static enum status read_json_lines(struct load_plan *p, struct str text, struct error *err)
{
    struct arena arena;
    enum status st = ST_OK;
    size_t number = 0;
    arena_init(&arena, 0);
    while (text.ptr && st == ST_OK) {
        struct str line = str_next_line(&text);
        const struct json *doc;
        number++;
        if (!line.len)
            continue;
        st = json_parse(&doc, &arena, line, 0, err);
        if (st == ST_OK)
            st = read_json_line(p, doc, err);
        if (st != ST_OK)
            fail_context(err, "line %zu", number);
        arena_reset(&arena);
    }
    arena_free(&arena);
    return st;
}

/* ---- both ---- */

static int by_time(const void *a, const void *b)
{
    double x = ((const struct load_item *)a)->at_s, y = ((const struct load_item *)b)->at_s;
    return (x > y) - (x < y);
}

enum status load_trace_read(struct load_plan *p, struct str text, struct error *err)
{
    struct str head = str_trim(text);
    if (head.len >= 6 && memcmp(head.ptr,
                                "\xfd"
                                "7zXZ",
                                6) == 0)
        return fail(err, ST_UNSUPPORTED, "this is compressed: xz -dc FILE | ingot bench serve ... --trace -");
    TRY(head.len && head.ptr[0] == '{' ? read_json_lines(p, text, err) : read_csv(p, text, err));
    if (!p->n)
        return fail(err, ST_CORRUPT, "no requests: expected CSV lines or JSON lines");
    qsort(p->items, p->n, sizeof *p->items, by_time);
    double first = p->items[0].at_s;
    for (size_t i = 0; i < p->n; i++)
        p->items[i].at_s -= first;
    return ST_OK;
}
