/* block - one block of a GGUF block type to f32 and back
 *
 * Numbers  products before sums, each rounded once (no fused operations), as ggml's scalar code is written
 * Source   layouts: docs/formats.md, from ggml's block definitions
 */
#ifndef TENSOR_BLOCK_H
#define TENSOR_BLOCK_H

#include "tensor/dtype.h"

void block_read(float *out, enum dtype t, const uint8_t *in);
bool block_write(uint8_t *out, enum dtype t, const float *in); /* false: no quantizer for this type */

#endif
