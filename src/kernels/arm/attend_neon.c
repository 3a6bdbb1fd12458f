/* attend, compiled for NEON */
#include "kernels/simd/attend.h"
