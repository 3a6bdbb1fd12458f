/* fingerprint - digests of a bundle's files, made on a thread of their own and kept; and the parts they become
 *
 *   none --bundle_fingerprint_begin--> hashing --all files--> known
 *                                          \----a file changed, or cannot be read----> failed
 *
 * 1. A kept digest belongs to a file's identity, which file_settle made sure no later write can have; the file that
 *    holds it repeats the identity, and is readable and writable by its owner alone.
 * 2. What is hashed is the file that was opened: its identity is compared before and after.
 */
#include "model/private.h"

#include "base/checksum.h"
#include "base/log.h"
#include "base/thread.h"

#include <assert.h>
#include <stdio.h>

enum { SLICE = 4 << 20, KEPT_MAX = 256, LOOK_MS = 10 }; /* closing a bundle waits for at most a slice */

struct source {
    char *path;
    struct file_id id;
    bool of_tokenizer;
    uint8_t digest[SHA256_BYTES];
};
enum digests_state { DIGESTS_NONE, DIGESTS_HASHING, DIGESTS_KNOWN, DIGESTS_FAILED };
struct digests {
    struct source *sources;
    size_t n, capacity;
    char *folder; /* where digests are kept; NULL: nowhere */
    pthread_t thread;
    bool has_thread, stopping; /* stopping: atomic */
    pthread_mutex_t lock;      /* of what follows */
    pthread_cond_t changed;
    enum digests_state state;
    struct error why;         /* failed */
    struct fingerprint plain; /* without an adapter, once it was asked for; text empty: not yet */
};

/* ---- kept digests ---- */
static void kept_path(char *path, size_t size, const struct digests *d, const struct file_id *id)
{
    snprintf(path, size, "%s/%016llx%016llx.sha256", d->folder, (unsigned long long)checksum64(id, sizeof *id, 1),
             (unsigned long long)checksum64(id, sizeof *id, 2));
}

/* "inode size modified changed sample digest\n" */
static int kept_line(char *line, size_t size, const struct source *s, uint64_t sample, const char *digest)
{
    return snprintf(line, size, "%llu %llu %lld %lld %016llx %s\n", (unsigned long long)s->id.inode,
                    (unsigned long long)s->id.size, (long long)s->id.modified_ns, (long long)s->id.changed_ns,
                    (unsigned long long)sample, digest);
}

static bool find_kept(const struct digests *d, struct source *s, const struct mapping *map)
{
    char path[4096], line[KEPT_MAX];
    struct mapping kept;
    struct error err;
    if (!d->folder)
        return false;
    kept_path(path, sizeof path, d, &s->id);
    if (file_kind(path) == FILE_ABSENT || file_map_own(&kept, path, &err) != ST_OK)
        return false;
    int n = kept_line(line, sizeof line, s, file_sample(map), "");
    bool good = n > 0 && kept.size == (size_t)n + 2 * SHA256_BYTES && !memcmp(kept.data, line, (size_t)n - 1) &&
                sha256_read(s->digest, str_n((const char *)kept.data + n - 1, 2 * SHA256_BYTES));
    file_unmap(&kept);
    return good;
}

static void keep(const struct digests *d, const struct source *s, const struct mapping *map)
{
    char path[4096], line[KEPT_MAX], text[SHA256_TEXT];
    struct file_writer w;
    struct error err;
    if (!d->folder || file_make_own_folder(d->folder, &err) != ST_OK)
        return;
    kept_path(path, sizeof path, d, &s->id);
    sha256_text(text, s->digest);
    int n = kept_line(line, sizeof line, s, file_sample(map), text);
    enum status st = file_writer_open_own(&w, path, &err);
    if (st == ST_OK) {
        file_writer_write(&w, line, (size_t)n);
        st = file_writer_commit(&w, &err);
    }
    if (st != ST_OK)
        log_infof("fingerprint", "a digest is not kept: %s", err.text);
}

/* ---- hashing ---- */
static bool is_stopping(const struct digests *d)
{
    return __atomic_load_n(&d->stopping, __ATOMIC_RELAXED);
}

static enum status hash_mapping(const struct digests *d, struct source *s, const struct mapping *map, struct error *err)
{
    struct sha256 sha;
    sha256_begin(&sha);
    for (size_t at = 0; at < map->size && !is_stopping(d); at += SLICE)
        sha256_add(&sha, map->data + at, map->size - at < SLICE ? map->size - at : SLICE);
    if (!sha256_end(s->digest, &sha))
        return fail_nomem(err, "fingerprint");
    if (is_stopping(d))
        return fail(err, ST_CANCELED, "fingerprint: the model is being closed");
    return file_check(map, s->path, err);
}

static enum status hash_source(const struct digests *d, struct source *s, struct error *err)
{
    struct mapping map;
    struct file_id after;
    TRY(file_map(&map, s->path, err));
    bool same = file_id_equal(&map.id, &s->id), settled = false;
    enum status st = ST_OK;
    if (same && !find_kept(d, s, &map)) {
        settled = d->folder && file_settle(&after, s->path, NULL) == ST_OK && file_id_equal(&after, &s->id);
        st = hash_mapping(d, s, &map, err);
        same = st != ST_OK || !map.size || (file_identify(&after, s->path) && file_id_equal(&after, &s->id));
        if (st == ST_OK && same && settled)
            keep(d, s, &map);
    }
    file_unmap(&map);
    if (st == ST_OK && !same)
        st = fail(err, ST_INVALID, "%.300s changed after it was opened: this model has no fingerprint; start again",
                  s->path);
    return st;
}

static void *digests_main(void *arg)
{
    struct digests *d = arg;
    struct error err;
    enum status st = ST_OK;
    for (size_t i = 0; i < d->n && st == ST_OK; i++)
        st = hash_source(d, &d->sources[i], &err);
    pthread_mutex_lock(&d->lock);
    d->state = st == ST_OK ? DIGESTS_KNOWN : DIGESTS_FAILED;
    if (st != ST_OK)
        d->why = err;
    pthread_cond_broadcast(&d->changed);
    pthread_mutex_unlock(&d->lock);
    return NULL;
}

/* ---- life ---- */
enum status digests_add(struct digests *d, const char *path, const struct file_id *id, bool of_tokenizer,
                        struct error *err)
{
    if (!MEM_GROW(d->sources, d->capacity, d->n))
        return fail_nomem(err, "fingerprint");
    char *copy = mem_strdup(path);
    if (!copy)
        return fail_nomem(err, "fingerprint");
    d->sources[d->n++] = (struct source){.path = copy, .id = *id, .of_tokenizer = of_tokenizer};
    return ST_OK;
}

enum status digests_create(struct digests **out, const char *cache, struct error *err)
{
    char folder[4096];
    struct digests *d = mem_alloc_zero(1, sizeof *d);
    *out = NULL;
    if (!d)
        return fail_nomem(err, "fingerprint");
    pthread_mutex_init(&d->lock, NULL);
    thread_cond_init(&d->changed);
    if (cache && strlen(cache) + 64 < sizeof folder &&
        !(d->folder = mem_strdup(path_join(folder, sizeof folder, cache, "digests")))) {
        digests_destroy(d);
        return fail_nomem(err, "fingerprint");
    }
    *out = d;
    return ST_OK;
}

void digests_destroy(struct digests *d)
{
    if (!d)
        return;
    __atomic_store_n(&d->stopping, true, __ATOMIC_RELAXED);
    if (d->has_thread)
        pthread_join(d->thread, NULL);
    for (size_t i = 0; i < d->n; i++)
        mem_free(d->sources[i].path);
    mem_free(d->sources);
    mem_free(d->folder);
    pthread_mutex_destroy(&d->lock);
    pthread_cond_destroy(&d->changed);
    mem_free(d);
}

/* ---- the parts ---- */
static const char *const part_names[] = {
    [PART_FINGERPRINT] = "ingot-fingerprint",
    [PART_NUMERICS] = "numerics",
    [PART_DEVICE] = "device",
    [PART_KV] = "kv",
    [PART_EXACT] = "exact",
    [PART_WEIGHTS] = "weights",
    [PART_ADAPTER] = "adapter",
    [PART_TOKENIZER] = "tokenizer",
    [PART_TEMPLATE] = "template",
    [PART_DEFAULTS] = "defaults",
    [PART_POSITIONS] = "positions",
    [PART_TEXTS] = "texts",
};
_Static_assert(sizeof part_names / sizeof *part_names == FINGERPRINT_PARTS, "every part has a name and room");

static bool add_part(struct fingerprint *f, enum fingerprint_name name, const char *value)
{
    struct fingerprint_part *p = &f->parts[name];
    assert((int)name == f->n_part); /* the order is a part of the sum */
    f->n_part++;
    p->name = part_names[name];
    snprintf(p->value, sizeof p->value, "%s", value);
    return true;
}

static bool add_hashed(struct fingerprint *f, enum fingerprint_name name, struct str text)
{
    uint8_t digest[SHA256_BYTES];
    char value[SHA256_TEXT] = "none";
    if (text.ptr) {
        if (!sha256_of(digest, text))
            return false;
        sha256_text(value, digest);
    }
    return add_part(f, name, value);
}

/* One file's digest stands for itself (sha256sum shows the same); of several, the digest of their digests. */
static bool add_files(struct fingerprint *f, enum fingerprint_name name, const struct digests *d, bool of_tokenizer)
{
    struct buf all = {0};
    char value[SHA256_TEXT];
    for (size_t i = 0; i < d->n; i++)
        if (d->sources[i].of_tokenizer == of_tokenizer)
            buf_append(&all, d->sources[i].digest, SHA256_BYTES);
    bool good = !all.failed;
    if (good && all.len == SHA256_BYTES) {
        sha256_text(value, (const uint8_t *)all.ptr);
        add_part(f, name, value);
    } else if (good) {
        good = add_hashed(f, name, all.len ? buf_str(&all) : (struct str){NULL, 0});
    }
    buf_free(&all);
    return good;
}

/* What a request that does not say gets, and where its answer ends: part of what two servers must share. */
static bool add_defaults(struct fingerprint *f, const struct bundle *b)
{
    char text[512];
    const struct model_config *c = &b->model->arch.config;
    int n = snprintf(text, sizeof text, "temperature %a top_p %a repetition_penalty %a top_k %d eos",
                     b->temperature == b->temperature ? b->temperature : -1, b->top_p == b->top_p ? b->top_p : -1,
                     b->repetition_penalty == b->repetition_penalty ? b->repetition_penalty : -1, b->top_k);
    for (int i = 0; i < c->n_eos && n > 0 && (size_t)n < sizeof text; i++)
        n += snprintf(text + n, sizeof text - (size_t)n, " %d", c->eos[i]);
    return add_hashed(f, PART_DEFAULTS, str_of(text));
}

/* Some kinds of scaling depend on --ctx: the angles' own numbers say what is in force. */
static bool add_positions(struct fingerprint *f, const struct rope_table *r)
{
    struct buf all = {0};
    buf_append(&all, &r->scale, sizeof r->scale);
    buf_append(&all, r->inv_freq, (size_t)r->n_half * sizeof *r->inv_freq);
    bool good = !all.failed && add_hashed(f, PART_POSITIONS, r->n_half ? buf_str(&all) : (struct str){NULL, 0});
    buf_free(&all);
    return good;
}

/* Of models that embed or score: how rows become a vector, where texts are cut, and the words put before them. */
static bool add_texts(struct fingerprint *f, const struct arch *a)
{
    const struct model_config *c = &a->config;
    const struct sentence *s = &a->sentence;
    struct buf all = {0};
    if (c->task == TASK_GENERATE)
        return true;
    buf_printf(&all, "task %d pooling %d ctx %d default %d", (int)c->task, (int)c->pooling, c->n_ctx,
               s->default_prompt);
    if (s->words.found)
        buf_printf(&all, " words %d %d", s->words.yes, s->words.no);
    for (int i = 0; i < s->n_prompt; i++) {
        const struct sentence_prompt *p = &s->prompts[i];
        buf_printf(&all, " %zu:%.*s %zu:%.*s", p->name.len, STR_ARG(p->name), p->text.len, STR_ARG(p->text));
    }
    for (int i = 0; i < s->n_dense; i++)
        buf_printf(&all, " dense %d %d %d", (int)s->dense[i].n_in, (int)s->dense[i].n_out, (int)s->dense[i].tanh);
    bool good = !all.failed && add_hashed(f, PART_TEXTS, buf_str(&all));
    buf_free(&all);
    return good;
}

static bool add_sum(struct fingerprint *f)
{
    struct sha256 sha;
    uint8_t digest[SHA256_BYTES];
    sha256_begin(&sha);
    for (int i = 0; i < f->n_part; i++) {
        const struct fingerprint_part *p = &f->parts[i];
        sha256_add(&sha, p->name, strlen(p->name));
        sha256_add(&sha, " ", 1);
        sha256_add(&sha, p->value, strlen(p->value));
        sha256_add(&sha, "\n", 1);
    }
    if (!sha256_end(digest, &sha))
        return false;
    sha256_text(f->text, digest);
    return true;
}

static bool compose(struct fingerprint *f, const struct bundle *b, const char *adapter)
{
    const struct model *m = b->model;
    char number[16];
    *f = (struct fingerprint){0};
    snprintf(number, sizeof number, "%d", FINGERPRINT_VERSION);
    add_part(f, PART_FINGERPRINT, number);
    snprintf(number, sizeof number, "%d", NUMERICS_VERSION);
    add_part(f, PART_NUMERICS, number);
    add_part(f, PART_DEVICE, "cpu");
    add_part(f, PART_KV, model_kv_names[m->kv.type]);
    add_part(f, PART_EXACT, m->options.exact ? "yes" : "no");
    return add_files(f, PART_WEIGHTS, b->digests, false) && add_part(f, PART_ADAPTER, adapter ? adapter : "none") &&
           add_files(f, PART_TOKENIZER, b->digests, true) && add_hashed(f, PART_TEMPLATE, b->template_source) &&
           add_defaults(f, b) && add_positions(f, &m->arch.rope[0]) && add_texts(f, &m->arch) && add_sum(f);
}

/* Under the lock: every request asks, so the usual answer is made once. */
static bool settled(struct fingerprint *out, const struct bundle *b, const char *adapter)
{
    struct digests *d = b->digests;
    if (adapter)
        return compose(out, b, adapter);
    if (!d->plain.text[0] && !compose(&d->plain, b, NULL)) {
        d->plain.text[0] = 0;
        return false;
    }
    *out = d->plain;
    return true;
}

/* ---- the door ---- */
bool fingerprint_brief(char brief[FINGERPRINT_BRIEF], const char *text)
{
    return snprintf(brief, FINGERPRINT_BRIEF, "fp_%.10s", text) == FINGERPRINT_BRIEF - 1;
}

void bundle_fingerprint_begin(const struct bundle *b)
{
    struct digests *d = b->digests;
    if (!d)
        return;
    pthread_mutex_lock(&d->lock);
    if (d->state == DIGESTS_NONE) {
        d->state = DIGESTS_HASHING;
        d->has_thread = thread_start(&d->thread, digests_main, d) == 0;
        if (!d->has_thread) {
            fail(&d->why, ST_LIMIT, "fingerprint: cannot start a thread");
            d->state = DIGESTS_FAILED;
        }
    }
    pthread_mutex_unlock(&d->lock);
}

enum status bundle_fingerprint(struct fingerprint *out, const struct bundle *b, const char *adapter, struct error *err)
{
    return bundle_fingerprint_unless(out, b, adapter, NULL, err);
}

enum status bundle_fingerprint_unless(struct fingerprint *out, const struct bundle *b, const char *adapter,
                                      const bool *stop, struct error *err)
{
    struct digests *d = b->digests;
    if (!d)
        return fail(err, ST_UNSUPPORTED, "%s was made from no files: it has no fingerprint", b->id);
    bundle_fingerprint_begin(b);
    pthread_mutex_lock(&d->lock);
    while (d->state == DIGESTS_HASHING && !(stop && __atomic_load_n(stop, __ATOMIC_RELAXED)))
        stop ? thread_wait_ms(&d->changed, &d->lock, LOOK_MS) /* nobody tells that *stop was set */
             : (void)pthread_cond_wait(&d->changed, &d->lock);
    enum status st = d->state == DIGESTS_KNOWN ? ST_OK
                     : d->state == DIGESTS_HASHING
                         ? fail(err, ST_CANCELED, "%s: its fingerprint was not waited for", b->id)
                         : fail(err, d->why.status, "%s", d->why.text);
    if (st == ST_OK && !settled(out, b, adapter))
        st = fail_nomem(err, "fingerprint");
    pthread_mutex_unlock(&d->lock);
    return st;
}

bool bundle_fingerprint_known(struct fingerprint *out, const struct bundle *b, const char *adapter)
{
    struct digests *d = b->digests;
    if (!d)
        return false;
    pthread_mutex_lock(&d->lock);
    bool known = d->state == DIGESTS_KNOWN && settled(out, b, adapter);
    pthread_mutex_unlock(&d->lock);
    return known;
}
