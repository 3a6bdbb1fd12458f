/* map, compiled for this instruction set */
#include "kernels/x86/map.h"
