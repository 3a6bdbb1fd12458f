/* Adapters of a model by name: a list under its lock; who uses one holds it, so that it may be unloaded meanwhile. */
#include "sdk/sdk.h"

#include "base/mem.h"

#include <stdio.h>

enum { NAME_BYTES = 256 };

struct adapter {
    struct adapter *next;
    char name[NAME_BYTES];
    struct lora *lora;
};

/* Where the list points to it, or its end. Under the lock. */
static struct adapter **find(const struct ingot_model *m, const char *name)
{
    struct adapter **at = (struct adapter **)&m->adapters;
    while (*at && strcmp((*at)->name, name) != 0)
        at = &(*at)->next;
    return at;
}

static enum status unknown(const struct ingot_model *m, const char *name, struct error *err)
{
    return fail(err, ST_NOT_FOUND, "no adapter of %s is loaded under the name \"%.80s\"", m->bundle->id, name);
}

enum status adapter_hold(struct lora **out, const struct ingot_model *m, const char *name, struct error *err)
{
    pthread_mutex_t *lock = (pthread_mutex_t *)&m->lock;
    *out = NULL;
    if (!name)
        return ST_OK;
    pthread_mutex_lock(lock);
    const struct adapter *a = *find(m, name);
    *out = a ? lora_hold(a->lora) : NULL;
    pthread_mutex_unlock(lock);
    return *out ? ST_OK : unknown(m, name, err);
}

/* What is read without the lock is entered with it: the second of two loads under one name fails. */
static enum status load(struct ingot_model *m, const char *name, const char *folder, struct error *err)
{
    struct lora *lora;
    if (model_config(m->bundle->model)->task != TASK_GENERATE)
        return fail(err, ST_UNSUPPORTED, "adapters are for models that generate; %s does not", m->bundle->id);
    if (!name || !*name || strlen(name) >= NAME_BYTES || !folder)
        return fail(err, ST_INVALID, "an adapter needs a folder and a name of 1 to %d bytes", NAME_BYTES - 1);
    TRY(lora_open(&lora, m->bundle->model, folder, NULL, err));
    struct adapter *a = mem_alloc_zero(1, sizeof *a);
    enum status st = a ? ST_OK : fail_nomem(err, "an adapter");
    pthread_mutex_lock(&m->lock);
    struct adapter **at = find(m, name);
    if (st == ST_OK && *at)
        st = fail(err, ST_INVALID, "an adapter \"%s\" is loaded already", name);
    if (st == ST_OK) {
        snprintf(a->name, sizeof a->name, "%s", name);
        a->lora = lora;
        *at = a;
    }
    pthread_mutex_unlock(&m->lock);
    if (st != ST_OK) {
        lora_drop(lora);
        mem_free(a);
    }
    return st;
}

int ingot_adapter_load(ingot_model *model, const char *name, const char *folder, ingot_error *error)
{
    struct error err;
    return load(model, name, folder, &err) == ST_OK ? INGOT_OK : sdk_fail(error, &err);
}

int ingot_adapter_unload(ingot_model *model, const char *name, ingot_error *error)
{
    struct error err;
    pthread_mutex_lock(&model->lock);
    struct adapter **at = find(model, name), *a = *at;
    if (a)
        *at = a->next;
    pthread_mutex_unlock(&model->lock);
    if (!a) {
        unknown(model, name, &err);
        return sdk_fail(error, &err);
    }
    lora_drop(a->lora);
    mem_free(a);
    return INGOT_OK;
}

int ingot_adapter_fingerprint(const ingot_model *model, const char *name, char text[65], ingot_error *error)
{
    struct fingerprint f;
    struct error err;
    struct lora *lora;
    enum status st = adapter_hold(&lora, model, name, &err);
    if (st == ST_OK)
        st = bundle_fingerprint(&f, model->bundle, lora_digest(lora), &err);
    lora_drop(lora);
    if (st != ST_OK)
        return sdk_fail(error, &err);
    memcpy(text, f.text, sizeof f.text);
    return INGOT_OK;
}

void adapters_drop(struct ingot_model *m)
{
    while (m->adapters) {
        struct adapter *a = m->adapters;
        m->adapters = a->next;
        lora_drop(a->lora);
        mem_free(a);
    }
}
