/* linear_float, compiled for NEON */
#include "kernels/simd/linear_float_rows.h"
