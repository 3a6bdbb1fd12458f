/* dtype - element and block types of stored tensors, one table; exact reading of every type to f32
 *
 * Numbers  dtype_to_f32 is the definition of each block type's values (GGUF layouts: docs/formats.md)
 */
#ifndef TENSOR_DTYPE_H
#define TENSOR_DTYPE_H

#include "base/status.h"
#include "base/str.h"

enum dtype {
    DT_F32,
    DT_F16,
    DT_BF16,
    DT_F64,
    DT_I8,
    DT_U8,
    DT_I16,
    DT_U16,
    DT_I32,
    DT_U32,
    DT_I64,
    DT_U64,
    DT_BOOL,
    DT_Q4_0,
    DT_Q4_1,
    DT_Q5_0,
    DT_Q5_1,
    DT_Q8_0,
    DT_Q2_K,
    DT_Q3_K,
    DT_Q4_K,
    DT_Q5_K,
    DT_Q6_K,
    DT_IQ4_NL,
    DT_IQ4_XS,
    DT_MXFP4,
    DT_Q4_Z, /* AWQ and GPTQ as they are read: whole-numbered zeros; in no file */
    DT_COUNT
};

struct dtype_row {
    const char *name;    /* "q4_0": what --type takes and inspect prints */
    int block, bytes;    /* elements and bytes of one block */
    int gguf_id;         /* -1 when GGUF has none */
    const char *st_name; /* safetensors name, or NULL */
};
const struct dtype_row *dtype_row(enum dtype t);
int dtype_find(struct str name);  /* by name; -1 */
int dtype_from_gguf(uint32_t id); /* -1 when unknown */
int dtype_from_safetensors(struct str name);
const char *gguf_type_name(uint32_t id); /* for messages, also of types Ingot does not read; "?" when unknown */
static inline bool dtype_is_block(enum dtype t)
{
    return t >= DT_Q4_0;
}
static inline bool dtype_is_float(enum dtype t)
{
    return t <= DT_F64;
}
/* Bytes of n elements; false when n is no multiple of the block or the product overflows. */
bool dtype_bytes(size_t *out, enum dtype t, uint64_t n);

/* n elements (a multiple of the block) to f32; any of the types above (integers and f64 are rounded). */
void dtype_to_f32(float *out, enum dtype t, const void *in, size_t n);
/* The other way, round to nearest even, for F32, F16, BF16, F64 and for Q8_0, Q4_0, Q4_1, Q5_0, Q5_1 as ggml's
 * reference quantizer does; ST_UNSUPPORTED for others. n a multiple of the block. */
MUST_USE enum status dtype_from_f32(void *out, enum dtype t, const float *in, size_t n, struct error *err);

float f16_to_f32(uint16_t h);
uint16_t f32_to_f16(float f); /* nearest even */
static inline float bf16_to_f32(uint16_t h)
{
    uint32_t u = (uint32_t)h << 16;
    float f;
    memcpy(&f, &u, 4);
    return f;
}
uint16_t f32_to_bf16(float f); /* nearest even; NaN stays NaN */

#endif
