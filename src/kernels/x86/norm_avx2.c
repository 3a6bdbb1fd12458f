/* norm, compiled for this instruction set */
#include "kernels/simd/norm.h"
