/* attend_back, compiled for NEON */
#include "kernels/x86/attend_back.h"
