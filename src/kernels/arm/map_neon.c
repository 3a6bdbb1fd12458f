/* map, compiled for NEON */
#include "kernels/x86/map.h"
