/* sdk - libingot (include/ingot.h): a thin room over engine and model; the command line uses those rooms themselves
 *
 *   ingot_generate > ingot_model_open > ingot_stream_start > engine_submit      (a session's turn is one stream, too)
 *   ingot_embed > engine_embed_wait
 */
#ifndef SDK_SDK_H
#define SDK_SDK_H

#include "engine/engine.h"

#include <ingot.h>
#include <pthread.h>

struct ingot_model {
    struct bundle *bundle;
    struct pool *pool;
    struct engine *engine;
    int users;            /* handles that need it: the model's own, sessions, streams; atomic */
    pthread_mutex_t lock; /* of what follows */
    struct adapter *adapters;
};
/* adapter.c: one that is loaded, held for the caller; name NULL: *out is NULL */
enum status adapter_hold(struct lora **out, const struct ingot_model *m, const char *name, struct error *err);
void adapters_drop(struct ingot_model *m);
void model_hold(struct ingot_model *m);
void model_drop(struct ingot_model *m); /* frees it with the last */
int stream_start(ingot_stream **out, struct ingot_model *m, const ingot_request *request, struct lora *lora,
                 ingot_error *error); /* lora: held by the caller during the call, instead of the request's; or NULL */

/* Copies a caller's struct of whatever size over ours, which keeps its defaults beyond; false: it has fields that are
 * set and that we do not know, or no size. */
bool sized_read(void *own, size_t own_size, const void *given);
void sized_write(void *given, const void *own, size_t own_size); /* the caller's size decides; given may be NULL */
#define SIZED_READ(own, given) sized_read(&(own), sizeof(own), given)

/* Fills ours from the caller's; *err and *out are the same thing in two houses. */
int sdk_fail(ingot_error *out, const struct error *err);
int sdk_refuse(ingot_error *out, enum status st, const char *text);

#endif
