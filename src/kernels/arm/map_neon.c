/* map, compiled for NEON */
#include "kernels/simd/map.h"
