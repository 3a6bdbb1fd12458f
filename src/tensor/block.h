/* block - one block of a GGUF block type to f32 and back
 *
 * Numbers  products before sums, each rounded once (no fused operations), as ggml's scalar code is written
 * Source   layouts: docs/formats.md, from ggml's block definitions
 */
#ifndef TENSOR_BLOCK_H
#define TENSOR_BLOCK_H

#include "tensor/fit.h"

/* The sixteen values of IQ4_NL and IQ4_XS, and those of MXFP4 (E2M1 doubled, so that all are whole). */
extern const int8_t iq4_values[16], fp4_values[16];
/* An E8M0 exponent byte's power of two, halved: fp4_values are doubled. */
float e8m0_half(uint8_t e);

void block_read(float *out, enum dtype t, const uint8_t *in);
bool block_write(uint8_t *out, enum dtype t, const float *in); /* false: no quantizer for this type */

void block_pack(uint8_t *out, enum dtype t, const struct fit *f); /* every block type */

#endif
