#include "tensor/dtype.h"

#include "base/mem.h"

#include "tensor/block.h"

static const struct dtype_row rows[DT_COUNT] = {
    /* clang-format off */
    [DT_F32]  = {"f32", 1, 4, 0, "F32"},    [DT_F16]  = {"f16", 1, 2, 1, "F16"},   [DT_BF16] = {"bf16", 1, 2, 30, "BF16"},
    [DT_F64]  = {"f64", 1, 8, 28, "F64"},
    [DT_I8]   = {"i8", 1, 1, 24, "I8"},     [DT_U8]   = {"u8", 1, 1, -1, "U8"},
    [DT_I16]  = {"i16", 1, 2, 25, "I16"},   [DT_U16]  = {"u16", 1, 2, -1, "U16"},
    [DT_I32]  = {"i32", 1, 4, 26, "I32"},   [DT_U32]  = {"u32", 1, 4, -1, "U32"},
    [DT_I64]  = {"i64", 1, 8, 27, "I64"},   [DT_U64]  = {"u64", 1, 8, -1, "U64"},
    [DT_BOOL] = {"bool", 1, 1, -1, "BOOL"},
    [DT_Q4_0] = {"q4_0", 32, 18, 2, NULL},  [DT_Q4_1] = {"q4_1", 32, 20, 3, NULL},
    [DT_Q5_0] = {"q5_0", 32, 22, 6, NULL},  [DT_Q5_1] = {"q5_1", 32, 24, 7, NULL},
    [DT_Q8_0] = {"q8_0", 32, 34, 8, NULL},
    [DT_Q2_K] = {"q2_k", 256, 84, 10, NULL},  [DT_Q3_K] = {"q3_k", 256, 110, 11, NULL},
    [DT_Q4_K] = {"q4_k", 256, 144, 12, NULL}, [DT_Q5_K] = {"q5_k", 256, 176, 13, NULL},
    [DT_Q6_K] = {"q6_k", 256, 210, 14, NULL},
    [DT_IQ4_NL] = {"iq4_nl", 32, 18, 20, NULL}, [DT_IQ4_XS] = {"iq4_xs", 256, 136, 23, NULL},
    [DT_MXFP4] = {"mxfp4", 32, 17, 39, NULL},
    [DT_Q4_Z] = {"q4_z", 32, 20, -1, NULL},
    /* clang-format on */
};

const struct dtype_row *dtype_row(enum dtype t)
{
    return &rows[t];
}

int dtype_find(struct str name)
{
    for (int t = 0; t < DT_COUNT; t++)
        if (str_is(name, rows[t].name))
            return t;
    return -1;
}

int dtype_from_gguf(uint32_t id)
{
    for (int t = 0; t < DT_COUNT; t++)
        if (rows[t].gguf_id >= 0 && (uint32_t)rows[t].gguf_id == id)
            return t;
    return -1;
}

int dtype_from_safetensors(struct str name)
{
    for (int t = 0; t < DT_COUNT; t++)
        if (rows[t].st_name && str_is(name, rows[t].st_name))
            return t;
    return -1;
}

const char *gguf_type_name(uint32_t id)
{
    static const char *const names[] = {
        "F32",        "F16",        "Q4_0",       "Q4_1",  "Q4_2",     "Q4_3",     "Q5_0",     "Q5_1",    "Q8_0",
        "Q8_1",       "Q2_K",       "Q3_K",       "Q4_K",  "Q5_K",     "Q6_K",     "Q8_K",     "IQ2_XXS", "IQ2_XS",
        "IQ3_XXS",    "IQ1_S",      "IQ4_NL",     "IQ3_S", "IQ2_S",    "IQ4_XS",   "I8",       "I16",     "I32",
        "I64",        "F64",        "IQ1_M",      "BF16",  "Q4_0_4_4", "Q4_0_4_8", "Q4_0_8_8", "TQ1_0",   "TQ2_0",
        "IQ4_NL_4_4", "IQ4_NL_4_8", "IQ4_NL_8_8", "MXFP4", "NVFP4",    "Q1_0",     "Q2_0",
    };
    return id < sizeof names / sizeof *names ? names[id] : "?";
}

bool dtype_bytes(size_t *out, enum dtype t, uint64_t n)
{
    uint64_t block = (uint64_t)rows[t].block;
    return n % block == 0 && n / block <= SIZE_MAX && size_mul(out, (size_t)(n / block), (size_t)rows[t].bytes);
}

float f16_to_f32(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, rest = h & 0x7fff, u;
    if (rest >= 0x7c00) /* infinity and NaN: the payload moves along */
        u = 0x7f800000 | rest << 13;
    else if (rest >= 0x0400)
        u = (rest << 13) + ((127 - 15) << 23);
    else { /* subnormal: rest * 2^-24, exact in f32 */
        float f = (float)rest * 0x1p-24f;
        memcpy(&u, &f, 4);
    }
    u |= sign;
    float f;
    memcpy(&f, &u, 4);
    return f;
}

uint16_t f32_to_f16(float f)
{
    uint32_t u;
    memcpy(&u, &f, 4);
    uint32_t sign = u >> 16 & 0x8000, rest = u & 0x7fffffff, h;
    if (rest > 0x7f800000) /* NaN: quiet, so that a payload in the lost bits does not become infinity */
        h = 0x7e00 | (rest >> 13 & 0x1ff);
    else if (rest >= 0x477ff000) /* 65520 and beyond round to infinity */
        h = 0x7c00;
    else if (rest >= 0x38800000) { /* normal: a carry out of the mantissa correctly raises the exponent */
        uint32_t even = rest >> 13 & 1;
        h = (rest - ((127 - 15) << 23) + 0xfff + even) >> 13;
    } else if (rest <= 0x33000000) /* up to 2^-25 inclusive: a tie with zero, which is even */
        h = 0;
    else { /* subnormal: shift the 24-bit mantissa to units of 2^-24 */
        uint32_t shift = 126 - (rest >> 23), mantissa = (rest & 0x7fffff) | 0x800000;
        uint32_t lost = mantissa & ((1u << shift) - 1), half = 1u << (shift - 1);
        h = mantissa >> shift;
        h += lost > half || (lost == half && (h & 1));
    }
    return (uint16_t)(sign | h);
}

uint16_t f32_to_bf16(float f)
{
    uint32_t u;
    memcpy(&u, &f, 4);
    if ((u & 0x7fffffff) > 0x7f800000)
        return (uint16_t)(u >> 16 | 0x40);
    return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

#define PLAIN(name, type, convert)                                                                                     \
    static void name##_read(float *out, const uint8_t *in, size_t n)                                                   \
    {                                                                                                                  \
        for (size_t i = 0; i < n; i++) {                                                                               \
            type v;                                                                                                    \
            memcpy(&v, in + i * sizeof v, sizeof v);                                                                   \
            out[i] = convert(v);                                                                                       \
        }                                                                                                              \
    }
#define CAST(v)  ((float)(v))
#define TRUTH(v) ((v) ? 1.0f : 0.0f)
PLAIN(f16, uint16_t, f16_to_f32)
PLAIN(bf16, uint16_t, bf16_to_f32)
PLAIN(f64, double, CAST)
PLAIN(i8, int8_t, CAST)
PLAIN(u8, uint8_t, CAST)
PLAIN(i16, int16_t, CAST)
PLAIN(u16, uint16_t, CAST)
PLAIN(i32, int32_t, CAST)
PLAIN(u32, uint32_t, CAST)
PLAIN(i64, int64_t, CAST)
PLAIN(u64, uint64_t, CAST)
PLAIN(bool, uint8_t, TRUTH)

static void f32_read(float *out, const uint8_t *in, size_t n)
{
    if (n)
        memcpy(out, in, n * sizeof *out);
}

void dtype_to_f32(float *out, enum dtype t, const void *in, size_t n)
{
    static void (*const plain[])(float *, const uint8_t *, size_t) = {
        [DT_F32] = f32_read, [DT_F16] = f16_read, [DT_BF16] = bf16_read, [DT_F64] = f64_read, [DT_I8] = i8_read,
        [DT_U8] = u8_read,   [DT_I16] = i16_read, [DT_U16] = u16_read,   [DT_I32] = i32_read, [DT_U32] = u32_read,
        [DT_I64] = i64_read, [DT_U64] = u64_read, [DT_BOOL] = bool_read,
    };
    if (!dtype_is_block(t)) {
        plain[t](out, in, n);
        return;
    }
    size_t block = (size_t)rows[t].block, bytes = (size_t)rows[t].bytes;
    const uint8_t *p = in;
    for (size_t i = 0; i < n; i += block, p += bytes)
        block_read(out + i, t, p);
}

enum status dtype_from_f32(void *out, enum dtype t, const float *in, size_t n, struct error *err)
{
    uint8_t *p = out;
    for (size_t i = 0; i < n; i += (size_t)rows[t].block, p += rows[t].bytes) {
        uint16_t h;
        double d;
        switch (t) {
        case DT_F32:
            memcpy(p, in + i, 4);
            break;
        case DT_F16:
            h = f32_to_f16(in[i]);
            memcpy(p, &h, 2);
            break;
        case DT_BF16:
            h = f32_to_bf16(in[i]);
            memcpy(p, &h, 2);
            break;
        case DT_F64:
            d = in[i];
            memcpy(p, &d, 8);
            break;
        default:
            if (!block_write(p, t, in + i))
                return fail(err, ST_UNSUPPORTED,
                            "Ingot cannot write numbers as %s; use f32, f16, bf16, f64, q8_0, q4_0, "
                            "q4_1, q5_0 or q5_1",
                            rows[t].name);
        }
    }
    return ST_OK;
}
