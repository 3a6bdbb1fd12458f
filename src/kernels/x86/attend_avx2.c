/* attend, compiled for this instruction set */
#include "kernels/x86/attend.h"
