/* attend, compiled for NEON */
#include "kernels/x86/attend.h"
