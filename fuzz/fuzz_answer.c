/* Saved answers: any bytes are read or refused, and what was read is within its bounds. */
#include "replay/replay.h"

static volatile int64_t seen; /* what was read, so that reading is not left out */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arena arena;
    struct answer a;
    struct error err;
    int64_t sum = 0;
    arena_init(&arena, 64 << 20);
    if (answer_read(&a, &arena, str_n(data, size), &err) == ST_OK)
        for (int i = 0; i < a.n_choice; i++) {
            sum += (int64_t)a.prompts[a.choices[i].prompt].count;
            for (int k = 0; k < a.choices[i].n_id; k++)
                sum += a.choices[i].ids[k];
        }
    seen = sum;
    arena_free(&arena);
    return 0;
}
