/* quantize - a model written with a type of its own for each tensor, and what that cost
 *
 *   struct model_quantize how = {.recipe = recipe_find(STR("q4_k_m")), .pool = pool};
 *   TRY(model_quantize_gguf(model, "out.gguf", &how, "tokenizer/", err));
 */
#ifndef MODEL_QUANTIZE_H
#define MODEL_QUANTIZE_H

#include "model/imatrix.h"
#include "model/model.h"

struct recipe;
const struct recipe *recipe_find(struct str name); /* "q4_k_m", "q4_0", "bf16" ...; NULL: no such recipe */
const char *recipe_name(int i);                    /* i = 0 ..; NULL at the end */
int recipe_file_type(const struct recipe *r);      /* general.file_type of a GGUF */

struct quantized { /* one tensor of the report */
    struct str name;
    enum dtype from, type;
    enum dtype wanted; /* differs from type when rows hold no whole blocks */
    int64_t n_out, n_in, n_expert;
    uint64_t bytes;
    bool importance;      /* the imatrix had a row for it */
    double rms, relative; /* of the errors; over the root mean square of the numbers */
};
/* Four bits in int32 words, as checkpoints of AutoAWQ (gemm) and AutoGPTQ hold them: `group` columns share a scale and
 * a zero. AWQ has zeros of its own, GPTQ is written symmetric (zeros of 8), which every engine's kernels take. */
enum model_packing { PACKED_NONE, PACKED_AWQ, PACKED_GPTQ };
struct model_quantize {
    const struct recipe *recipe;   /* GGUF */
    enum model_packing packing;    /* a folder */
    int group;                     /* of packing: 32, 64 or 128 */
    bool pure;                     /* one type for all matrices */
    const struct imatrix *imatrix; /* or NULL */
    struct pool *pool;
    /* After each matrix; a status that is not ST_OK ends the writing. */
    enum status (*done)(void *ctx, const struct quantized *row, struct error *err);
    void *ctx;
};
MUST_USE enum status model_quantize_gguf(const struct model *m, const char *path, const struct model_quantize *how,
                                         const char *tokenizer_from, struct error *err);
/* A Hugging Face folder with the matrices of the layers packed, and f16 for the rest. ST_UNSUPPORTED, with the tensor's
 * name, when a matrix holds no whole groups or its family stores them turned or joined. */
MUST_USE enum status model_quantize_hf(const struct model *m, const char *folder, const struct model_quantize *how,
                                       struct error *err);
int model_matrix_count(const struct model *m); /* how many parameters `done` will see at most: for a progress bar */

#endif
