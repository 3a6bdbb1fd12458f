/* attend, compiled for this instruction set */
#include "kernels/simd/attend.h"
