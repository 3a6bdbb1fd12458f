/* config_private - what config.c, config_json.c and config_gguf.c share */
#ifndef MODEL_CONFIG_PRIVATE_H
#define MODEL_CONFIG_PRIVATE_H

#include "model/program.h"

#include <stddef.h>

/* A number that every container has, by all its names. */
struct int_key {
    const char *json[4];
    const char *gguf; /* after the architecture's name and a dot */
    size_t offset;    /* of an int in struct model_config */
    int max;
    bool need;
};
#define FIELD(name) offsetof(struct model_config, name)
enum { CONFIG_INTS = 13 };
extern const struct int_key config_ints[CONFIG_INTS];
MUST_USE enum status config_set_int(struct arch *a, const struct int_key *k, const char *key, int64_t value,
                                    struct error *err);
MUST_USE enum status config_set_act(struct arch *a, struct str name, struct error *err);
MUST_USE enum status config_set_task(struct arch *a, enum model_task task, unsigned pooling, struct error *err);
/* Before config_set_task, when the wish or the files ask for it: a score by two words. */
static inline bool config_words(struct arch *a, unsigned wished)
{
    struct words *w = &a->sentence.words;
    w->found &= !wished || wished == POOLING_RANK;
    a->config.n_label = w->found ? 1 : a->config.n_label;
    return w->found;
}
/* Once the plain numbers are read: derived sizes, limits and the per-layer table. */
MUST_USE enum status config_prepare(struct arch *a, int n_ctx, struct error *err);
/* Once everything is read: angles, and the count that bounds every later product. */
MUST_USE enum status config_finish(struct arch *a, struct error *err);

/* config_json.c, config_gguf.c: into an arch that was begun */
MUST_USE enum status config_from_json(struct arch *a, const struct json *config, const struct model_options *options,
                                      struct error *err);
MUST_USE enum status config_from_signs(struct arch *a, const struct checkpoint *ck, const struct model_options *options,
                                       struct error *err);
MUST_USE enum status config_from_gguf(struct arch *a, const struct checkpoint *ck, const struct model_options *options,
                                      struct error *err);

#endif
