/* linear_backward, compiled for NEON */
#include "kernels/x86/linear_backward.h"
