/* fuzz_model - any container as a whole model: an error, or a model that walks two rows within its own memory. What a
 * plan may ask for is bounded here, since a file may rightly claim a long context. */
#include "base/mem.h"
#include "formats/loading.h"
#include "model/model.h"

#include <math.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void walk(const struct model *m)
{
    const struct model_config *c = model_config(m);
    const int32_t ids[2] = {0, c->n_vocab - 1}, block = 0;
    struct attend_span span = {0, 2, 0, &block};
    struct model_batch batch = {.n_row = 2, .ids = ids, .spans = &span, .n_span = 1};
    struct model_run *run;
    struct error err;
    void *kv = mem_alloc_aligned(model_kv_block_bytes(m));
    real *logits = mem_alloc_zero(2 * (size_t)c->n_out, sizeof *logits);
    if (kv && logits && c->n_ctx >= 2 && model_run_create(&run, m, 2, 2, kv, 1, NULL, &err) == ST_OK) {
        model_forward(run, &batch, logits);
        model_run_free(run);
    }
    mem_free(logits);
    mem_free(kv);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct model_options options = {
        .n_ctx = 8, .any_task = true, .exact = size % 2, .kv = size % 2 ? KV_F32 : KV_F16};
    struct checkpoint *ck;
    struct model *m;
    struct model_plan plan;
    struct error err;
    if (checkpoint_open_memory(&ck, data, size, &err) != ST_OK)
        return -1;
    if (model_plan(&plan, ck, &options, 2, &err) == ST_OK && plan.weight_bytes < 1 << 24 && plan.run_bytes < 1 << 24 &&
        plan.kv_bytes_per_token < 1 << 20 && model_load(&m, ck, &options, &err) == ST_OK) {
        walk(m);
        model_free(m);
    }
    checkpoint_close(ck);
    return 0;
}
