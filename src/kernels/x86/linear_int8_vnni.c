/* linear_int8 with VNNI: tiles of 16 rows, sums and weights all in registers */
#define ISA(name) name##__vnni
#include "kernels/x86/linear_int8.h"
