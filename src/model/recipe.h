/* recipe - which type each tensor gets when a model is quantized: a table of exceptions to one type
 *
 * The mixes are llama.cpp's: values and the down projection of some layers, and the output matrix, keep more bits.
 * Rows that hold no whole blocks of a type fall back to the next type of 32, else to f16.
 */
#ifndef MODEL_RECIPE_H
#define MODEL_RECIPE_H

#include "model/program.h"
#include "model/quantize.h"

struct recipe_ask {
    enum role role;
    int layer;
    bool vector, fused_qkv;
    int64_t n_in;
    const struct model_config *config;
    bool pure;    /* no exceptions */
    bool imatrix; /* an importance matrix is at hand */
};
struct recipe_answer {
    enum dtype type, wanted; /* they differ when rows hold no whole blocks of what was wanted */
};
struct recipe_answer recipe_type(const struct recipe *r, const struct recipe_ask *ask);

#endif
