/* first_run - where the first-run chat model lies when tools/get-model could fetch it; NULL when it is not here */
#ifndef TESTS_MODEL_FIRST_RUN_H
#define TESTS_MODEL_FIRST_RUN_H

#include "test.h"

static inline const char *first_run_model(void)
{
    static char path[4096];
    const char *cache = getenv("INGOT_CACHE"), *xdg = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    if (cache && *cache)
        snprintf(path, sizeof path, "%s", cache);
    else if (xdg && *xdg)
        snprintf(path, sizeof path, "%s/ingot", xdg);
    else
        snprintf(path, sizeof path, "%s/.cache/ingot", home ? home : "");
    strncat(path, "/models/SmolLM2-135M-Instruct.Q4_1.gguf", sizeof path - strlen(path) - 1);
    return access(path, R_OK) == 0 ? path : NULL;
}
#define NEED_FIRST_RUN_MODEL()                                                                                         \
    do {                                                                                                               \
        if (!first_run_model()) {                                                                                      \
            print_message("skipped: SmolLM2 is not here (tools/get-model fetches it)\n");                              \
            skip();                                                                                                    \
        }                                                                                                              \
    } while (0)

#endif
