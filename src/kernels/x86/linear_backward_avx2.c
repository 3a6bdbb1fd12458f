/* linear_backward on AVX2 */
#include "kernels/simd/linear_backward.h"
