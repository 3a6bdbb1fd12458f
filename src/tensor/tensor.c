#include "tensor/tensor.h"

#include <inttypes.h>
#include <stdio.h>

char *tensor_shape_text(char *text, size_t size, const struct tensor *t)
{
    size_t at = 0;
    int n = snprintf(text, size, "[");
    for (int i = 0; i < t->n_dim && n > 0; i++) {
        at += (size_t)n < size - at ? (size_t)n : size - at - 1;
        n = snprintf(text + at, size - at, "%s%" PRId64, i ? ", " : "", t->shape[i]);
    }
    at += n > 0 && (size_t)n < size - at ? (size_t)n : size - at - 1;
    snprintf(text + at, size - at, "]");
    return text;
}
