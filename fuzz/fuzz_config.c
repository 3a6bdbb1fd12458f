/* fuzz_config - any bytes as config.json: an error, or a program whose sizes are bounded */
#include "base/mem.h"
#include "model/plan.h"

#include <assert.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arena arena;
    const struct json *doc;
    struct arch arch;
    struct plan plan;
    arena_init(&arena, 16 << 20);
    if (json_parse(&doc, &arena, str_n((const char *)data, size), 0, NULL) == ST_OK) {
        if (arch_from_json(&arch, doc, &(struct model_options){0}, NULL) == ST_OK && arch.config.n_layer <= 64) {
            struct plan_want want = {.arch = &arch, .type = DT_Q8_0, .train = size % 2};
            if (plan_build(&plan, &want, NULL) == ST_OK)
                for (int i = 0; i < plan.n_param; i++)
                    assert(plan.params[i].n_out > 0 && plan.params[i].n_out * plan.params[i].n_in <= (int64_t)1 << 44);
            plan_free(&plan);
        }
        arch_free(&arch);
    }
    arena_free(&arena);
    return 0;
}
