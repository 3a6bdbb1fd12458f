/* norm, compiled for NEON */
#include "kernels/x86/norm.h"
