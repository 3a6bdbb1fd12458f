/* linear_int8 with the matrix unit: whole tiles of 16 rows by AMX, all else
 * with VNNI */
#ifndef AMX_EMULATED
#define ISA(name) name##__amx
#endif
#define LINEAR_AMX
#include "kernels/x86/linear_int8.h"
