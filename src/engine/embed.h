/* embed - the engine of a model that embeds or scores (the rest of engine.h): many texts in one forward
 *
 *   TRY(engine_create(&e, bundle, &options, err));        // of a bundle whose task is not to generate
 *   TRY(engine_embed(e, &request, err));                  // on_finish comes on the engine's thread
 *   engine_cancel(e, request.id);                         // takes effect within one step
 *
 * Texts stand row after row in a batch, whole and without padding; requests take turns, one text each, so that a
 * request of thousands holds up none of one, and tenants go by their shares (engine_options.weight) before that, so
 * that thousands of requests hold up no other tenant's one. What a text becomes does not depend on its company: same
 * bits alone. engine_submit on such an engine, and engine_embed on one that generates, are ST_UNSUPPORTED.
 */
#ifndef ENGINE_EMBED_H
#define ENGINE_EMBED_H

#include "engine/engine.h"

enum { EMBED_TEXTS_MAX = 65536 };

struct embed_text {
    const int32_t *ids;
    int n_id;
    int first; /* ids from here on have token type 1; 0 = all have type 0 */
};
struct embed_request { /* filled by the caller; texts, ids and out must live until on_finish returned */
    const struct embed_text *texts;
    int n_text;
    real *out;                     /* [n_text, n_out] as the model gives them: not normalized, labels as logits */
    uint64_t tenant;               /* whose share it takes, when engine_options.weight is set */
    const volatile int *interrupt; /* NULL, or: not 0 = cancel, within one step */
    void *ctx;
    /* Exactly once. FINISH_STOP: out is whole. n_prompt: tokens in all; prefill_s: from the first batch to the last. */
    void (*on_finish)(void *ctx, const struct finish_event *end);
    uint64_t id; /* set by engine_embed */
};
/* ST_INVALID names a text that is empty, too long for the context or has unknown ids; ST_LIMIT: the queue is full. */
MUST_USE enum status engine_embed(struct engine *e, struct embed_request *r, struct error *err);
/* Waited for on the caller's thread; r->on_finish may be NULL. Anything but FINISH_STOP and FINISH_CANCELED becomes the
 * returned status. */
MUST_USE enum status engine_embed_wait(struct engine *e, struct embed_request *r, struct finish_event *end,
                                       struct error *err);

/* Divides the first n numbers of v by their length (all zeros stay); n below n_out is the Matryoshka shortening. */
void embed_unit(real *v, int n);
real embed_sigmoid(real logit); /* a reranker's logit as a relevance of 0 to 1 */

#endif
