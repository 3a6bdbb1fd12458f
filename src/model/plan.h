/* plan - the program unrolled: steps over values, every value in its place in one block of memory
 *
 * 1. Slots are versioned: each write makes a value; a value is written once.
 * 2. A value lives from its step to its last reader; in training, to the last backward step that reads it.
 * 3. Values that never live together share memory. An operation that may work in place does when its input dies there.
 * 4. Backward runs the steps upward. A value's gradient is born at its last reader and dies at its writer; the first
 *    contribution is written, later ones are added.
 */
#ifndef MODEL_PLAN_H
#define MODEL_PLAN_H

#include "model/program.h"

enum space { ROWS_TOKEN, ROWS_EXPERT, ROWS_LOGIT, SPACE_COUNT }; /* how many rows a value has */

struct value {
    const char *name;
    int layer;     /* -1: none */
    int64_t width; /* reals a row */
    uint8_t space;
    bool external;  /* the logits: the caller's memory */
    int born, last; /* steps; in training backward step of i is 2n-1-i */
    int grad_born, grad_last;
    size_t at, grad_at; /* reals from the start of the block, for max_rows rows */
};

/* A stored parameter: a matrix in panels, or a vector of reals. */
struct param {
    uint8_t role;
    bool bias;
    int layer, expert;
    struct weight weight;       /* of a matrix */
    real *vector;               /* of a vector */
    real *grad;                 /* training: same layout */
    int64_t n_out, n_in, count; /* logical; count: reals stored (training) */
    enum dtype src;             /* type in the file */
};

/* names.c: the tensor that holds it, the first that the checkpoint has of its naming's rows; *row says how it is
 * stored. NULL when there is none; *row is then the first row for the role, or NULL when the naming has none. */
const struct tensor *param_tensor(const struct name_row **row, const struct arch *a, const struct checkpoint *ck,
                                  const struct param *p);

/* What a step does together with those that follow it: the same bits in fewer jobs (fuse.c). */
enum fuse {
    FUSE_NONE,
    FUSE_NORM, /* the norm also prepares the activations of the product behind it */
    FUSE_SET,  /* products of one value: Q, K, V */
    FUSE_GLU,  /* gate, up and the activation */
    FUSE_ADD,  /* a product and the residual */
    FUSE_ROPE, /* rotation of Q and K, writing of pages; then attention */
    FUSE_COUNT
};
struct step {
    enum op op;
    enum fuse fuse;
    int n_fused; /* steps done together, this one the first; those behind it say 0. Alone: 1 */
    int layer;
    int in[4], out;     /* values; -1 */
    bool first[4];      /* training: this step's gradient of in[i] is the first written */
    int param, n_param; /* index of the first matrix or vector; experts follow; -1 */
    int bias;           /* -1 */
    int route;          /* number of the mixture this step belongs to */
    int kv;             /* number of the attention layer */
    const struct attr *attr;
};

struct plan {
    struct step *steps;
    struct value *values;
    struct param *params;
    void *block; /* every parameter's memory, but not the gradients' */
    int n_step, n_value, n_param, n_route, n_kv;
    bool train, keep;
};

/* Steps, values and parameters (their shapes and types) for this checkpoint; ck NULL: every parameter of the
 * configuration in `type`. Freed by plan_free; also after a failure. */
struct plan_want {
    const struct arch *arch;
    const struct checkpoint *ck;
    enum dtype type;
    bool train, keep, exact;
};
MUST_USE enum status plan_build(struct plan *out, const struct plan_want *want, struct error *err);
void plan_fuse(struct plan *p); /* not of training, nor where values are kept: those run step by step */
void plan_free(struct plan *p);
struct plan_rows {
    int64_t n[SPACE_COUNT];
};
/* Places values[p->n_value] (a copy of p's) and their gradients for this many rows; *reals is what they need together.
 * false: out of memory, or more than an address space. */
MUST_USE bool plan_place(size_t *reals, struct value *values, const struct plan *p, const struct plan_rows *rows);

#endif
