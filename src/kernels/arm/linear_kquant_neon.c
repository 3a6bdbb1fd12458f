/* linear_kquant, compiled for NEON */
#include "kernels/arm/linear_kquant.h"
