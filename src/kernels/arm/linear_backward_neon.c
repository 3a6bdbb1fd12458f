/* linear_backward, compiled for NEON */
#include "kernels/simd/linear_backward.h"
