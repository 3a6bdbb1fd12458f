/* linear_backward on AVX-512 */
#include "kernels/x86/linear_backward.h"
