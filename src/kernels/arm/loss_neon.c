/* loss, compiled for NEON */
#include "kernels/x86/loss.h"
