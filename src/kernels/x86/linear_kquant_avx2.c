/* linear_kquant on AVX2: tiles of 4 rows, the panel as two halves */
#include "kernels/x86/linear_kquant.h"
