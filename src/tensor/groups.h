/* groups - rows as 4-bit groups with a scale and a whole-numbered zero: what AWQ and GPTQ checkpoints hold
 *
 *   value = scale * (level - zero), level 0 .. 15; the scale is an f16, one a group of `group` columns
 *
 * A search over ranges and zeros, the scale by least squares. The results depend on nothing but the job: not on
 * threads or processor.
 *
 * Require  n a multiple of group, group a multiple of 4
 * Errors   ST_INVALID: a number that is not finite, or too large for an f16 scale (row and column named); ST_NOMEM
 */
#ifndef TENSOR_GROUPS_H
#define TENSOR_GROUPS_H

#include "tensor/quantize.h"

struct groups_job {
    int64_t n_row, n, group;
    bool symmetric;          /* every zero is 8; else 0 .. 15 */
    const float *in;         /* [n_row, n] */
    const float *importance; /* [n] as in struct quantize_job; or NULL */
    uint8_t *levels;         /* [n_row, n] */
    uint8_t *zeros;          /* [n_row, n / group] */
    uint16_t *scales;        /* [n_row, n / group] */
};
MUST_USE enum status quantize_groups(const struct groups_job *job, struct quantize_sums *sums, struct pool *pool,
                                     struct error *err);

#endif
