/* attend_back, compiled for this instruction set */
#include "kernels/simd/attend_back.h"
