/* linear_float, compiled for NEON */
#include "kernels/x86/linear_float_rows.h"
