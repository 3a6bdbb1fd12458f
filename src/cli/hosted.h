/* hosted - which models `ingot serve` has beside the first, from its command line and the file of --models */
#ifndef CLI_HOSTED_H
#define CLI_HOSTED_H

#include "cli/cli.h"
#include "hosting/hosting.h"

struct cli_hosted {
    const struct bundle *bundle; /* the first: loaded already, and always there */
    struct engine *first;
    char *const *more; /* paths */
    int n_more;
    const char *file, *loras; /* NULL: none */
    uint64_t bytes_max;
    int keep_alive_s;
    const struct model_options *model; /* of all */
    const struct engine_options *engine;
};
MUST_USE enum status cli_hosting(struct hosting **out, const struct cli_hosted *c, struct error *err);

#endif
