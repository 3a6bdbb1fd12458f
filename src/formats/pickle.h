/* pickle - reads the pickles PyTorch writes (protocol 2) as data: a list of allowed opcodes and names, nothing is
 * called
 *
 * Allowed names: collections.OrderedDict, torch._utils._rebuild_tensor_v2 and _rebuild_parameter, torch.Size and the
 * storage classes. Anything else is ST_UNSUPPORTED naming the opcode or global.
 *
 * Memory   the loading's arena and budget; strings point into the pickle
 * A memo can make values shared or cyclic: walkers need limits of depth and of steps
 */
#ifndef FORMATS_PICKLE_H
#define FORMATS_PICKLE_H

#include "formats/loading.h"

enum pickle_type {
    PICKLE_NONE,
    PICKLE_BOOL,
    PICKLE_INT,
    PICKLE_REAL,
    PICKLE_STRING,
    PICKLE_TUPLE,
    PICKLE_LIST,
    PICKLE_DICT,
    PICKLE_GLOBAL,
    PICKLE_STORAGE,
    PICKLE_TENSOR
};

struct pickle_item {
    const struct pickle *value;
    struct pickle_item *next;
};
struct pickle_tensor {
    struct str key;                 /* of the storage: the entry data/KEY */
    uint64_t storage_count, offset; /* in elements */
    struct tensor shape;            /* type, n_dim and shape only */
    bool contiguous;
};
struct pickle {
    enum pickle_type type;
    union {
        int64_t integer; /* PICKLE_BOOL, PICKLE_INT, PICKLE_GLOBAL (a row of the allow-list) */
        double real;
        struct str text;
        struct {
            struct pickle_item *first, *last; /* PICKLE_DICT: key, value, key, value ... */
        } items;
        const struct pickle_tensor *tensor; /* PICKLE_STORAGE (no shape yet), PICKLE_TENSOR */
    };
};

MUST_USE enum status pickle_read(const struct pickle **out, struct loading *l, struct str bytes, struct error *err);

#endif
