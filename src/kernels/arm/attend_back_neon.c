/* attend_back, compiled for NEON */
#include "kernels/simd/attend_back.h"
