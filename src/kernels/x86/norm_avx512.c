/* norm, compiled for this instruction set */
#include "kernels/x86/norm.h"
