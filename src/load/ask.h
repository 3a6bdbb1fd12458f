/* ask - one request of the target, waited for: what comes before a run */
#ifndef LOAD_ASK_H
#define LOAD_ASK_H

#include "load/load_private.h"

struct ask_answer {
    int status;
    struct buf body;
    struct arena arena;
    const struct json *doc; /* NULL: not JSON */
};
MUST_USE enum status ask(struct load *l, const char *method, const char *path, struct str body, struct ask_answer *out,
                         struct error *err);
struct str ask_reason(const struct ask_answer *a);
void ask_free(struct ask_answer *a);

#endif
