/* loss, compiled for NEON */
#include "kernels/simd/loss.h"
