/* quantize - rows of f32 to any type of weights, with the least squared error found by a search over scales
 *
 *   struct quantize_job job = {.type = DT_Q4_K, .n_row = n_out, .n = n_in, .in = rows, .out = blocks};
 *   TRY(quantize_rows(&job, &sums, pool, err));    then sqrt(sums.error / count) is the root mean square error
 *
 * F16, BF16 and F32 are rounded to nearest even. The bytes depend on nothing but the job: not on threads or processor.
 *
 * Require  n a multiple of the type's block
 * Errors   ST_UNSUPPORTED: no type of weights; ST_INVALID: a number that is not finite, or too large for the type (row
 *          and column named); ST_NOMEM
 * Threads  rows are shared over the pool, which may be NULL
 */
#ifndef TENSOR_QUANTIZE_H
#define TENSOR_QUANTIZE_H

#include "base/pool.h"
#include "tensor/dtype.h"

struct quantize_job {
    enum dtype type;
    int64_t n_row, n;
    const float *in;         /* [n_row, n] */
    const float *importance; /* [n]: what each column's squared error weighs, finite, >= 0; NULL: all alike */
    void *out;
};
struct quantize_sums {
    double error, energy; /* of (x - stored)^2 and of x^2 over all numbers; added to, in row order */
};
bool quantize_offers(enum dtype t);
MUST_USE enum status quantize_rows(const struct quantize_job *job, struct quantize_sums *sums, struct pool *pool,
                                   struct error *err);

#endif
