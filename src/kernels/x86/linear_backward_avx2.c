/* linear_backward on AVX2 */
#include "kernels/x86/linear_backward.h"
