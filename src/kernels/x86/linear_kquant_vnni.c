/* linear_kquant with VNNI: tiles of 16 rows */
#define ISA(name) name##__vnni
#include "kernels/x86/linear_kquant.h"
