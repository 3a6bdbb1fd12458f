/* linear_float on AVX-512: tiles of 12 rows x 2 panels in 24 of 32 registers */
#include "kernels/simd/linear_float_rows.h"
