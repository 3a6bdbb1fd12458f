/* linear_kquant on AVX-512 without VNNI: tiles of 8 rows */
#include "kernels/x86/linear_kquant.h"
