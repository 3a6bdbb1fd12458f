/* linear_backward on AVX-512 */
#include "kernels/simd/linear_backward.h"
