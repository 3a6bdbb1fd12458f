/* norm, compiled for NEON */
#include "kernels/simd/norm.h"
