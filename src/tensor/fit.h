/* fit - the best block of a type for given numbers: scales, minima and levels of least weighted squared error
 *
 *   error = sum over j of w[j] * (x[j] - value[j])^2, where value[j] is what block_read will say
 *
 * Source   Lloyd 1982 (levels and scale improved in turn); the weighted least-squares scale of given levels is the
 *          quotient of two sums. Differs: many scales are tried side by side before the turns begin, the integer
 *          scales of a block of 256 are chosen by the error they leave, and d is rounded before, not after
 */
#ifndef TENSOR_FIT_H
#define TENSOR_FIT_H

#include "tensor/dtype.h"

enum { FIT_GROUPS = 16, FIT_COUNT = 256 };

/* How a block type represents numbers: groups of `size`, each value(level) * scale - min. */
struct fit_scheme {
    int groups, size;
    int low, high;             /* levels, when `values` is NULL */
    int scale_low, scale_high; /* a group's whole-numbered scale; 0, 0: there is only the block's d */
    int min_high;              /* a group's whole-numbered minimum, 0 .. min_high; 0: none */
    bool offset;               /* one group with a real minimum of its own (Q4_1, Q5_1) */
    bool power;                /* d is a power of two (MXFP4) */
    const int8_t *values;      /* levels are places in this ascending table of n_value */
    int n_value;
};
const struct fit_scheme *fit_scheme(enum dtype t); /* NULL: no block type */

struct fit {
    float d, dmin; /* dmin: what a minimum of 1 subtracts; the minimum itself, added, when `offset` */
    int scale[FIT_GROUPS], min[FIT_GROUPS];
    int level[FIT_COUNT]; /* low .. high, or the place in `values` */
};
/* x, w [groups * size], finite, w >= 0 (all zero counts as all one). */
void fit_block(struct fit *out, enum dtype t, const float *x, const float *w);

#endif
