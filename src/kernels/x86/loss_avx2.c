/* loss, compiled for this instruction set */
#include "kernels/x86/loss.h"
