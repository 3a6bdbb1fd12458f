/* linear_float on AVX2: tiles of 6 rows x 1 panel in 12 of 16 registers */
#include "kernels/simd/linear_float_rows.h"
