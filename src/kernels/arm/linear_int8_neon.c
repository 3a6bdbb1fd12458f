/* linear_int8, compiled for NEON */
#include "kernels/arm/linear_int8.h"
