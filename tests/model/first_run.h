/* first_run - where the first-run chat model lies when tools/get-model could fetch it; NULL when it is not here */
#ifndef TESTS_MODEL_FIRST_RUN_H
#define TESTS_MODEL_FIRST_RUN_H

#include "test.h"

/* A file below the cache's folder of models; NULL when it is not there. */
static inline const char *fetched_model(char *path, size_t size, const char *name)
{
    const char *cache = getenv("INGOT_CACHE"), *xdg = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    if (cache && *cache)
        snprintf(path, size, "%s", cache);
    else if (xdg && *xdg)
        snprintf(path, size, "%s/ingot", xdg);
    else
        snprintf(path, size, "%s/.cache/ingot", home ? home : "");
    strncat(path, "/models/", size - strlen(path) - 1);
    strncat(path, name, size - strlen(path) - 1);
    return access(path, R_OK) == 0 ? path : NULL;
}
static inline const char *first_run_model(void)
{
    static char path[4096];
    return fetched_model(path, sizeof path, "SmolLM2-135M-Instruct.Q4_1.gguf");
}
#define NEED_FIRST_RUN_MODEL()                                                                                         \
    do {                                                                                                               \
        if (!first_run_model()) {                                                                                      \
            print_message("skipped: SmolLM2 is not here (tools/get-model fetches it)\n");                              \
            skip();                                                                                                    \
        }                                                                                                              \
    } while (0)

#endif
