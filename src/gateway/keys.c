/* keys - clients by API key, from a file that is read again at SIGHUP
 *
 *   keys:
 *   - {name: alice, key: sk-..., weight: 2, admin: true}
 *   - {name: bob, sha256: 64 hexadecimal digits of the key's hash, priority: -1}
 *
 * A name is a tenant: it has its share of the engines, its own salt in the prefix cache, and its own responses; entries
 * of one name are keys of one tenant, so that a key can be replaced while the old one is still in use. Only one with
 * admin: true changes what is served.
 *
 * Only hashes of the keys are kept. A credential's hash is compared with all of them, to the last byte: the time it
 * takes tells the number of keys and the credential's length, nothing else. Clients live as long as the keys do, for
 * requests hold them.
 */
#include "gateway/private.h"

#include "base/file.h"
#include "base/mem.h"
#include "base/yaml.h"

#include <stdio.h>

enum { FILE_BYTES_MAX = 1 << 20, KEYS_MAX = 4096, CLIENTS_MAX = 65536, PRIORITY_MAX = 1000000 };
static const double weight_max = 1e6;

struct key {
    uint8_t digest[SHA256_BYTES];
    char name[CLIENT_NAME_MAX];
    double weight;
    int priority;
    bool admin;
    struct client *client;
};
struct key_list {
    struct key *rows;
    size_t count;
};
struct gateway_keys {
    pthread_mutex_t lock;
    char *path;
    struct key_list list;
    struct client **clients; /* by id - 1 */
    size_t n_client;
};

/* ---- the file ---- */

static enum status check_member(struct str member, const struct json *v, struct error *err)
{
    static const struct {
        const char *name, *what;
        enum json_type type, also;
    } known[] = {{"name", "a text, quoted", JSON_STRING, JSON_STRING},
                 {"key", "a text, quoted", JSON_STRING, JSON_STRING},
                 {"sha256", "64 hexadecimal digits, quoted", JSON_STRING, JSON_STRING},
                 {"weight", "a number", JSON_REAL, JSON_INT},
                 {"priority", "a whole number", JSON_INT, JSON_INT},
                 {"admin", "true or false", JSON_TRUE, JSON_FALSE}};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (str_is(member, known[i].name)) {
            bool good = json_is(v, known[i].type) || json_is(v, known[i].also);
            return good ? ST_OK : fail(err, ST_INVALID, "%s: expected %s", known[i].name, known[i].what);
        }
    return fail(err, ST_INVALID, "unknown member %.*s; known are name, key, sha256, weight, priority and admin",
                STR_ARG(member));
}

static enum status read_key(struct key *out, const struct json *v, struct error *err)
{
    struct str name = json_str(json_get(v, "name")), key = json_str(json_get(v, "key"));
    struct str digest = json_str(json_get(v, "sha256"));
    *out = (struct key){.weight = json_real(json_get(v, "weight"), 1), .admin = json_bool(json_get(v, "admin"), false)};
    int64_t priority = json_int(json_get(v, "priority"), 0);
    JSON_EACH_MEMBER (member, value, v)
        TRY(check_member(member, value, err));
    if (!name.len || name.len >= CLIENT_NAME_MAX || memchr(name.ptr, 0, name.len))
        return fail(err, ST_INVALID, "name: expected 1 to %d bytes", CLIENT_NAME_MAX - 1);
    memcpy(out->name, name.ptr, name.len);
    if (!key.len == !digest.len)
        return fail(err, ST_INVALID, "expected either key or sha256");
    if (key.len && !sha256_of(out->digest, key))
        return fail_nomem(err, "keys");
    if (digest.len && !sha256_read(out->digest, digest))
        return fail(err, ST_INVALID, "sha256: expected 64 hexadecimal digits");
    if (!(out->weight > 0 && out->weight <= weight_max))
        return fail(err, ST_INVALID, "weight: expected a number above 0, at most %g", weight_max);
    if (priority < -PRIORITY_MAX || priority > PRIORITY_MAX)
        return fail(err, ST_INVALID, "priority: expected %d to %d", -PRIORITY_MAX, PRIORITY_MAX);
    out->priority = (int)priority;
    return ST_OK;
}

static enum status check_others(const struct key *rows, size_t n, struct error *err)
{
    const struct key *k = &rows[n];
    for (size_t i = 0; i < n; i++) {
        if (!memcmp(rows[i].digest, k->digest, sizeof k->digest))
            return fail(err, ST_INVALID, "the key is %s's already", rows[i].name);
        bool same = rows[i].weight == k->weight && rows[i].priority == k->priority && rows[i].admin == k->admin;
        if (!same && !strcmp(rows[i].name, k->name))
            return fail(err, ST_INVALID, "%s has another weight, priority or admin above", k->name);
    }
    return ST_OK;
}

static enum status read_list(struct key_list *out, const struct json *doc, struct error *err)
{
    const struct json *list = json_get(doc, "keys");
    size_t n = json_count(list);
    *out = (struct key_list){0};
    if (!json_is(list, JSON_ARRAY) || n == 0 || n > KEYS_MAX)
        return fail(err, ST_INVALID, "expected a list \"keys\" of 1 to %d", KEYS_MAX);
    if (!(out->rows = mem_alloc_zero(n, sizeof *out->rows)))
        return fail_nomem(err, "keys");
    JSON_EACH (v, list) {
        enum status st = read_key(&out->rows[out->count], v, err);
        if (st == ST_OK)
            st = check_others(out->rows, out->count, err);
        if (st != ST_OK)
            return fail_context(err, "keys[%zu]", out->count);
        out->count++;
    }
    return ST_OK;
}

static enum status read_file(struct key_list *out, const char *path, struct error *err)
{
    struct buf text = {0};
    struct arena arena;
    const struct json *doc;
    *out = (struct key_list){0};
    arena_init(&arena, 16 << 20);
    enum status st = file_read_all(&text, path, FILE_BYTES_MAX, err);
    if (st == ST_OK) {
        st = yaml_parse(&doc, &arena, buf_str(&text), err);
        if (st == ST_OK)
            st = read_list(out, doc, err);
        if (st != ST_OK)
            fail_context(err, "%s", path);
    }
    arena_free(&arena);
    buf_free(&text);
    if (st != ST_OK) {
        mem_free(out->rows);
        *out = (struct key_list){0};
    }
    return st;
}

/* ---- clients ---- */

static struct client *find_client(const struct gateway_keys *k, const char *name)
{
    for (size_t i = 0; i < k->n_client; i++)
        if (!strcmp(k->clients[i]->name, name))
            return k->clients[i];
    return NULL;
}

static enum status add_client(struct gateway_keys *k, struct client **out, const char *name, struct error *err)
{
    struct client *c = k->n_client < CLIENTS_MAX ? mem_alloc_zero(1, sizeof *c) : NULL;
    if (!c)
        return fail_nomem(err, "keys");
    struct client **more = mem_realloc(k->clients, k->n_client + 1, sizeof *more);
    if (!more) {
        mem_free(c);
        return fail_nomem(err, "keys");
    }
    k->clients = more;
    k->clients[k->n_client++] = c;
    c->id = k->n_client;
    snprintf(c->name, sizeof c->name, "%s", name);
    *out = c;
    return ST_OK;
}

/* Under the lock. Clients that are new stay, also when this fails; nobody has a key of theirs then. */
static enum status take_list(struct gateway_keys *k, struct key_list *list, struct error *err)
{
    for (size_t i = 0; i < list->count; i++) {
        struct key *row = &list->rows[i];
        row->client = find_client(k, row->name);
        if (!row->client)
            TRY(add_client(k, &row->client, row->name, err));
    }
    for (size_t i = 0; i < list->count; i++) {
        list->rows[i].client->weight = list->rows[i].weight;
        __atomic_store_n(&list->rows[i].client->priority, list->rows[i].priority, __ATOMIC_RELAXED);
        __atomic_store_n(&list->rows[i].client->admin, list->rows[i].admin, __ATOMIC_RELAXED);
    }
    struct key_list old = k->list;
    k->list = *list;
    *list = old;
    return ST_OK;
}

enum status keys_reload(struct gateway_keys *k, size_t *n, struct error *err)
{
    struct key_list list;
    TRY(read_file(&list, k->path, err));
    pthread_mutex_lock(&k->lock);
    enum status st = take_list(k, &list, err);
    *n = k->list.count;
    pthread_mutex_unlock(&k->lock);
    mem_free(list.rows);
    return st;
}

enum status gateway_keys_open(struct gateway_keys **out, const char *path, struct error *err)
{
    struct gateway_keys *k = mem_alloc_zero(1, sizeof *k);
    size_t n;
    *out = NULL;
    if (!k)
        return fail_nomem(err, "keys");
    pthread_mutex_init(&k->lock, NULL);
    k->path = mem_strdup(path);
    enum status st = k->path ? keys_reload(k, &n, err) : fail_nomem(err, "keys");
    if (st != ST_OK) {
        gateway_keys_close(k);
        return st;
    }
    *out = k;
    return ST_OK;
}

void gateway_keys_close(struct gateway_keys *k)
{
    if (!k)
        return;
    for (size_t i = 0; i < k->n_client; i++)
        mem_free(k->clients[i]);
    mem_free(k->clients);
    mem_free(k->list.rows);
    mem_free(k->path);
    pthread_mutex_destroy(&k->lock);
    mem_free(k);
}

double gateway_keys_weight(void *ctx, uint64_t tenant)
{
    struct gateway_keys *k = ctx;
    pthread_mutex_lock(&k->lock);
    double weight = tenant > 0 && tenant <= k->n_client ? k->clients[tenant - 1]->weight : 1;
    pthread_mutex_unlock(&k->lock);
    return weight;
}

/* ---- who asks ---- */

bool digest_equal(const uint8_t a[SHA256_BYTES], const uint8_t b[SHA256_BYTES])
{
    unsigned differ = 0;
    for (int i = 0; i < SHA256_BYTES; i++)
        differ |= (unsigned)(a[i] ^ b[i]);
    __asm__ volatile("" : "+r"(differ)); /* the compiler must not stop at the first difference */
    return differ == 0;
}

bool keys_hold(struct gateway_keys *k, const struct client *c)
{
    bool held = false;
    pthread_mutex_lock(&k->lock);
    for (size_t i = 0; i < k->list.count && !held; i++)
        held = k->list.rows[i].client == c;
    pthread_mutex_unlock(&k->lock);
    return held;
}

const struct client *keys_find(struct gateway_keys *k, const uint8_t digest[SHA256_BYTES])
{
    const struct client *found = NULL;
    pthread_mutex_lock(&k->lock);
    for (size_t i = 0; i < k->list.count; i++)
        if (digest_equal(k->list.rows[i].digest, digest))
            found = k->list.rows[i].client;
    pthread_mutex_unlock(&k->lock);
    return found;
}
