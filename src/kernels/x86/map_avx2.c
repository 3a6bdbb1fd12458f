/* map, compiled for this instruction set */
#include "kernels/simd/map.h"
