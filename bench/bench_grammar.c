/* How long does a mask take, and a compile? bench_grammar TOKENIZER FOLDER [FILES] [--verbose]
 *
 * FOLDER holds JSONSchemaBench cases ({schema, tests: [{valid, data}]}; tar of suites/jsonschemabench-*). Each schema
 * is compiled; each instance is written with ", " and ": " between its parts, tokenized, and followed token by token: a
 * mask, then accept ("first": the mask before the first token). The clock counts the thread's own time:
 * grammar_compile; grammar_mask alone. Opening the vocabulary is told apart. What is refused is listed by keyword; a
 * valid instance that is forbidden, or an invalid one that passes, by file.
 */
#include "base/clock.h"
#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "grammar/grammar.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>

struct times {
    uint64_t *ns;
    size_t n, capacity;
};
static void times_add(struct times *t, uint64_t ns)
{
    if (MEM_GROW(t->ns, t->capacity, t->n))
        t->ns[t->n++] = ns;
}
static int ascending(const void *x, const void *y)
{
    uint64_t a = *(const uint64_t *)x, b = *(const uint64_t *)y;
    return a < b ? -1 : a > b;
}
static void times_print(struct times *t, const char *what)
{
    double sum = 0;
    if (!t->n)
        return;
    qsort(t->ns, t->n, sizeof *t->ns, ascending);
    for (size_t i = 0; i < t->n; i++)
        sum += (double)t->ns[i];
    printf("%-8s n %zu  mean %.1f us  p50 %.1f  p90 %.1f  p99 %.1f  p99.9 %.1f  max %.1f us\n", what, t->n,
           sum / (double)t->n / 1e3, (double)t->ns[t->n / 2] / 1e3, (double)t->ns[t->n * 9 / 10] / 1e3,
           (double)t->ns[t->n * 99 / 100] / 1e3, (double)t->ns[t->n * 999 / 1000] / 1e3, (double)t->ns[t->n - 1] / 1e3);
}

struct reason {
    char keyword[64], first[600];
    int n;
};
static struct reason reasons[200];
static int n_reason;

/* The last part of the pointer, or the beginning of the sentence. */
static void count_reason(const char *text, const char *file)
{
    char keyword[64];
    const char *pointer = strstr(text, "#/"), *end = pointer ? strstr(pointer, ": ") : NULL, *at = end;
    while (at && at > pointer && *at != '/')
        at--;
    if (at)
        snprintf(keyword, sizeof keyword, "%.*s", (int)(end - at - 1), at + 1);
    else
        snprintf(keyword, sizeof keyword, "%.60s", text);
    for (int i = 0; i < n_reason; i++)
        if (!strcmp(reasons[i].keyword, keyword)) {
            reasons[i].n++;
            return;
        }
    if (n_reason < 200) {
        struct reason *r = &reasons[n_reason++];
        snprintf(r->keyword, sizeof r->keyword, "%s", keyword);
        snprintf(r->first, sizeof r->first, "%s: %s", file, text);
        r->n = 1;
    }
}

struct run {
    const struct tokenizer *tok;
    struct grammar_vocab *vocab;
    uint64_t *bits;
    bool verbose;
    int files, compiled, valid, invalid, forbidden, passed, clean;
    struct times compile, first, mask;
};

static void write_value(struct buf *out, const struct json *v)
{
    struct json_writer w;
    bool first = true;
    if (v->type == JSON_ARRAY || v->type == JSON_OBJECT) {
        buf_append_char(out, v->type == JSON_ARRAY ? '[' : '{');
        JSON_EACH (item, v) {
            buf_append_str(out, first ? STR("") : STR(", "));
            first = false;
            write_value(out, item);
        }
        JSON_EACH_MEMBER (key, item, v) {
            buf_append_str(out, first ? STR("") : STR(", "));
            first = false;
            json_writer_init(&w, out);
            json_write_str(&w, key);
            buf_append_str(out, STR(": "));
            write_value(out, item);
        }
        buf_append_char(out, v->type == JSON_ARRAY ? ']' : '}');
    } else if (v->type == JSON_REAL && v->real > -9e15 && v->real < 9e15 && v->real == (double)(int64_t)v->real) {
        buf_printf(out, "%lld", (long long)v->real);
    } else {
        json_writer_init(&w, out);
        json_write_value(&w, v);
    }
}

/* True when the masks let the whole text pass. */
static bool follow(struct run *r, struct grammar *g, struct str text)
{
    struct grammar_state *s;
    struct error err;
    struct ids ids = {0};
    bool ok = grammar_state_create(&s, g, &err) == ST_OK && tokenizer_encode(r->tok, &ids, text, 0, &err) == ST_OK;
    for (size_t i = 0; ok && i <= ids.count; i++) {
        uint64_t begin = clock_thread_cpu_ns();
        ok = grammar_mask(s, r->bits, &err) == ST_OK;
        times_add(i ? &r->mask : &r->first, clock_thread_cpu_ns() - begin);
        if (i == ids.count) {
            ok = ok && grammar_may_end(s);
        } else {
            int32_t id = ids.ids[i];
            ok = ok && r->bits[id / 64] >> id % 64 & 1 && grammar_accept(s, id, &err) == ST_OK;
        }
    }
    ids_free(&ids);
    grammar_state_destroy(s);
    return ok;
}

static void run_tests(struct run *r, struct grammar *g, const struct json *tests, const char *file)
{
    bool clean = true;
    JSON_EACH (test, tests) {
        struct buf text = {0};
        bool valid = json_bool(json_get(test, "valid"), false);
        write_value(&text, json_get(test, "data"));
        bool passes = follow(r, g, buf_str(&text));
        r->valid += valid;
        r->invalid += !valid;
        r->forbidden += valid && !passes;
        r->passed += !valid && passes;
        clean &= valid == passes;
        if (valid != passes && r->verbose)
            printf("%s: %s: %.300s\n", file, valid ? "forbidden" : "passes", text.ptr);
        buf_free(&text);
    }
    r->clean += clean;
}

static void run_file(struct run *r, const char *folder, const char *name)
{
    char path[1000];
    struct buf text = {0}, source = {0};
    struct arena arena;
    struct error err;
    struct json_writer w;
    const struct json *doc;
    struct grammar *g;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    arena_init(&arena, 0);
    if (file_read_all(&text, path, 64 << 20, &err) != ST_OK || json_parse(&doc, &arena, buf_str(&text), 0, &err)) {
        printf("%s: %s\n", name, err.text);
        return;
    }
    json_writer_init(&w, &source);
    json_write_value(&w, json_get(doc, "schema"));
    struct grammar_part part = {.kind = GRAMMAR_SCHEMA, .text = buf_str(&source)};
    uint64_t begin = clock_thread_cpu_ns();
    enum status st = grammar_compile(&g, r->vocab, &part, &err);
    times_add(&r->compile, clock_thread_cpu_ns() - begin);
    r->files++;
    r->compiled += st == ST_OK;
    if (st == ST_OK)
        run_tests(r, g, json_get(doc, "tests"), name);
    else
        count_reason(err.text, name);
    grammar_release(g);
    buf_free(&source);
    buf_free(&text);
    arena_free(&arena);
}

int main(int argc, char **argv)
{
    struct run r = {0};
    struct tokenizer *tok;
    struct error err;
    struct dirent **names;
    if (argc < 3 || tokenizer_open(&tok, argv[1], &err) != ST_OK) {
        printf("usage: bench_grammar TOKENIZER FOLDER [FILES] [--verbose]\n");
        return 2;
    }
    int n_vocab = tokenizer_vocab_size(tok), n = scandir(argv[2], &names, NULL, alphasort), most = 0;
    int32_t eos = tokenizer_eos(tok);
    for (int i = 3; i < argc; i++)
        if (!strcmp(argv[i], "--verbose"))
            r.verbose = true;
        else
            most = atoi(argv[i]);
    struct grammar_vocab_of of = {.n_vocab = n_vocab, .eos = &eos, .n_eos = eos >= 0};
    uint64_t begin = clock_thread_cpu_ns();
    if (n < 0 || grammar_vocab_create(&r.vocab, tok, &of, &err) != ST_OK)
        return 1;
    printf("vocabulary of %d tokens: %.1f ms\n", n_vocab, (double)(clock_thread_cpu_ns() - begin) / 1e6);
    r.tok = tok;
    r.bits = mem_alloc_zero((size_t)grammar_vocab_words(r.vocab), sizeof *r.bits);
    int step = most > 0 && n > most ? n / most : 1; /* evenly over all sets */
    for (int i = 0; i < n; i++) {
        size_t len = strlen(names[i]->d_name);
        if (i % step == 0 && len > 5 && !strcmp(names[i]->d_name + len - 5, ".json"))
            run_file(&r, argv[2], names[i]->d_name);
    }
    printf("%d schemas, %d compile, %d of them without a fault\n", r.files, r.compiled, r.clean);
    printf("%d valid instances, %d forbidden; %d invalid ones, %d pass\n", r.valid, r.forbidden, r.invalid, r.passed);
    times_print(&r.compile, "compile");
    times_print(&r.first, "first");
    times_print(&r.mask, "mask");
    for (int i = 0; i < n_reason; i++)
        printf("%4d  %s   e.g. %s\n", reasons[i].n, reasons[i].keyword, reasons[i].first);
    return 0;
}
