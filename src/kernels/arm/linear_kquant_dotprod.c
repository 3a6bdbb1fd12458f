/* linear_kquant with the dot product instructions of ARMv8.2 */
#define ISA(name) name##__dotprod
#include "kernels/arm/linear_kquant.h"
