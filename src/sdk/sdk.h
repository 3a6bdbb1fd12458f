/* sdk - libingot (include/ingot.h): a thin room over engine and model; the command line uses those rooms themselves
 *
 *   ingot_generate > ingot_model_open > ingot_stream_start > engine_submit      (a session's turn is one stream, too)
 */
#ifndef SDK_SDK_H
#define SDK_SDK_H

#include "engine/engine.h"

#include <ingot.h>

struct ingot_model {
    struct bundle *bundle;
    struct pool *pool;
    struct engine *engine;
    int users; /* handles that need it: the model's own, sessions, streams; atomic */
};
void model_hold(struct ingot_model *m);
void model_drop(struct ingot_model *m); /* frees it with the last */

/* Copies a caller's struct of whatever size over ours, which keeps its defaults beyond; false: it has fields that are
 * set and that we do not know, or no size. */
bool sized_read(void *own, size_t own_size, const void *given);
void sized_write(void *given, const void *own, size_t own_size); /* the caller's size decides; given may be NULL */
#define SIZED_READ(own, given) sized_read(&(own), sizeof(own), given)

/* Fills ours from the caller's; *err and *out are the same thing in two houses. */
int sdk_fail(ingot_error *out, const struct error *err);
int sdk_refuse(ingot_error *out, enum status st, const char *text);

#endif
