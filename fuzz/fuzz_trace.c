/* Traces of requests: no crash, and what is read has lengths and rising times. */
#include <stdlib.h>

#include "load/load.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct load_plan p = {0};
    struct error err;
    arena_init(&p.arena, 64 << 20);
    if (load_trace_read(&p, str_n(data, size), &err) == ST_OK)
        for (size_t i = 0; i < p.n; i++)
            if (p.items[i].n_in < 0 || p.items[i].n_out < 0 || (i && p.items[i].at_s < p.items[i - 1].at_s))
                abort();
    load_plan_free(&p);
    return 0;
}
