/* loss, compiled for this instruction set */
#include "kernels/simd/loss.h"
