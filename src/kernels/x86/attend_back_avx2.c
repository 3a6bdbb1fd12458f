/* attend_back, compiled for this instruction set */
#include "kernels/x86/attend_back.h"
