/* tensor - a named view of stored numbers: borrowed bytes with a type and a shape, checked when made */
#ifndef TENSOR_TENSOR_H
#define TENSOR_TENSOR_H

#include "tensor/dtype.h"

enum { TENSOR_DIMS = 6 };

struct tensor {
    struct str name;
    enum dtype type;
    int n_dim;
    int64_t shape[TENSOR_DIMS]; /* outermost first, as in PyTorch: [n_out, n_in]; GGUF's order is turned around */
    const void *data;           /* not aligned */
    size_t bytes;               /* == dtype_bytes(type, count) */
};

static inline int64_t tensor_count(const struct tensor *t)
{
    int64_t n = 1;
    for (int i = 0; i < t->n_dim; i++)
        n *= t->shape[i]; /* checked by the loader */
    return n;
}
/* "[32000, 64]" into text (>= 96 bytes); returns text. */
char *tensor_shape_text(char *text, size_t size, const struct tensor *t);

#endif
