/* lora - low-rank adapters over a base that stays as it is; part of model's door
 *
 *   TRY(lora_open(&l, model, "adapter/", pool, err));   PEFT's folder: adapter_config.json, adapter_model.safetensors
 *   batch.loras = loras;                                a span's rows meet loras[span], or none
 *
 * Many adapters share a batch: the base product is done once for all rows, then each adapter's for its own. What a row
 * becomes does not depend on the others (docs/numerics.md section 1).
 *
 * Errors   ST_UNSUPPORTED names what in the adapter is not offered; ST_CORRUPT; ST_INVALID: made for another model
 * Memory   f32 panels in one block
 * Threads  immutable after open; counted: hold and drop from any thread
 */
#ifndef MODEL_LORA_H
#define MODEL_LORA_H

#include "base/sha256.h"
#include "model/model.h"

enum { LORA_RANK_MAX = 512 };
struct lora;
MUST_USE enum status lora_open(struct lora **out, const struct model *m, const char *folder, struct pool *pool,
                               struct error *err);
struct lora *lora_hold(struct lora *l);        /* NULL stays NULL */
void lora_drop(struct lora *l);                /* frees it with the last; NULL is nothing */
const char *lora_digest(const struct lora *l); /* 64 digits over both files; NULL for NULL: part of a fingerprint */
uint64_t lora_key(const struct lora *l);       /* the same as a number for the prefix cache; 0 for NULL */

#endif
