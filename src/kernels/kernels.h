/* kernels - every operation's arithmetic, forward and backward, behind one table chosen once at start
 *
 * The functions here are the door: they split work over the pool by rows, heads or panels (never inside a reduction)
 * and call the chosen instruction set's kernel (kernels.def, dispatch.c). Bits are defined by docs/numerics.md and are
 * equal for every batch, chunk, thread count and instruction set.
 *
 * Shapes   matrices are row-major, rows are tokens: x [n_row, n]; `real` is float, in the gradient-check build double
 * Require  a pool may be NULL (inline); outputs may not overlap inputs unless a function says "in place"
 * Errors   none: callers validate shapes at load; asserts describe our mistakes
 * Threads  a struct pool has one caller at a time; everything else is pure
 */
#ifndef KERNELS_KERNELS_H
#define KERNELS_KERNELS_H

#include "base/pool.h"
#include "tensor/tensor.h"

#ifdef INGOT_REAL_DOUBLE
typedef double real;
#else
typedef float real;
#endif

enum { NUMERICS_VERSION = 4 };
/* 2: K-quants meet int8; sampling orders by logits. 3: scales of 32 k are f32. 4: probabilities count as multiples of
 * 2^-52; pages of keys lie in the order in which scores add them (blocks kept on disk are not read by others). */

/* ---- instruction set ---- */
/* `name`: NULL reads INGOT_ISA or picks the best. ref | avx2 | avx512 | avx512-vnni (vnni) | avx512-vnni-bf16 |
 * avx512-amx | neon.
 * ST_UNSUPPORTED names what this processor lacks. Called once, before any kernel; later calls re-choose (tests). */
MUST_USE enum status kernels_init(const char *name, struct error *err);
const char *kernels_isa(void); /* the chosen set */
bool kernels_isa_available(const char *name);
const char *kernels_isa_list(int i); /* all names this build knows, i = 0..; NULL at the end */
const char *kernels_cpu_name(void);  /* the processor's own name */

/* ---- this machine's limits, measured now (about a second): what every speed is held against ---- */
struct machine_limits {
    double read_gb_s;   /* DRAM, all threads of the pool */
    double f32_gflop_s; /* widest FMA */
    double int8_gop_s;  /* best 8-bit sequence: dpbusd, else maddubs + madd + add */
    double bf16_gop_s;  /* dpbf16ps, else the f32 figure */
};
void machine_limits(struct machine_limits *out, struct pool *pool);
double machine_read_gb_s(struct pool *pool); /* that one alone: the host's bandwidth may change within seconds */

/* ---- weights: panels of 16 output rows, outputs in lanes, k in order ---- */
struct weight {
    enum dtype type; /* of the panels: F32 (real) or another row of panels.def; the rest is widened to F32 at packing */
    int64_t n_out, n_in;
    void *panels; /* [ceil(n_out / 16)] panels; rows beyond n_out are zero; 64-byte aligned */
    size_t panel_bytes, bytes;
    bool exact; /* --exact: quantized and bf16 weights meet f32 activations */
};
/* How `src` [n_out, n_in] is stored once packed: the type kept, or F32 when this build has no panels for it. */
enum dtype weight_type(enum dtype src);
size_t weight_bytes(enum dtype packed, int64_t n_out, int64_t n_in);
/* Packs row-major rows into w->panels (w's type, n_out, n_in, panels, bytes set by the caller; type == weight_type(src)
 * or F32). Q4_Z, what AWQ and GPTQ become: blocks of 32 k in 20 bytes, f16 scale, u16 zero, nibbles as in Q4_0; a group
 * of 64 or 128 k repeats its scale and zero. row_of[i] (or NULL for i) is the source row that becomes output row i:
 * GGUF's permuted Q/K, fused QKV. */
void weight_pack(struct weight *w, const void *rows, enum dtype src, const int32_t *row_of, struct pool *pool);
/* Row r (0 .. n_out-1) widened to real: embeddings gather from panels. */
void weight_get_row(real *out, const struct weight *w, int64_t r);

/* ---- linear ---- */
enum act_type { ACT_REAL, ACT_BF16, ACT_INT8 }; /* what a weight type meets: docs/numerics.md section 1 */
enum act_type weight_act(const struct weight *w);
size_t act_bytes(enum act_type type, int64_t n_row, int64_t n_in);
struct act { /* activations prepared once, used by several products (Q, K, V) */
    enum act_type type;
    int64_t n_row, n_in;
    const real *x; /* ACT_REAL: the rows themselves, borrowed */
    void *storage; /* else act_bytes() of prepared data, layout private */
};
void act_begin(struct act *a, enum act_type type, void *storage, const real *x, int64_t n_row, int64_t n_in);
/* act_begin, and the rows of x into the storage */
void act_prepare(struct act *a, enum act_type type, void *storage, const real *x, int64_t n_row, int64_t n_in,
                 struct pool *pool);
/* out [n_row, n_out] = x W^T + bias (bias may be NULL; added after the sum, one rounding) */
void linear_forward(real *out, const struct act *x, const struct weight *w, const real *bias, struct pool *pool);
/* Several products of the same activations, and what follows them, in one job: the bits of the single functions. */
enum { LINEAR_SET_MAX = 3 };
struct linear_set {
    int n; /* products */
    struct linear_part {
        real *out;
        const struct weight *w;
        const real *bias; /* or NULL */
    } parts[LINEAR_SET_MAX];
    enum { SET_APART, SET_GLU, SET_SUM } then; /* not apart: no `out` is written */
    real *result; /* of two products: fn(first) * second; of one: add + product, may be add; SET_GLU: or NULL */
    int fn;       /* enum act_fn */
    const real *add;
    struct act *act; /* SET_GLU: and its result prepared, as act_begin left it; or NULL */
};
void linear_forward_set(const struct linear_set *set, const struct act *x, struct pool *pool);
/* dx [n_row, n_in] (+)= dy W, F32 panels; dy [n_row, n_out] */
void linear_backward_input(real *dx, const real *dy, const struct weight *w, int64_t n_row, bool accumulate,
                           struct pool *pool);
/* dw (F32 panels of [n_out, n_in]) += dy^T x, tokens ascending into one accumulator */
void linear_backward_weight(real *dw_panels, const real *dy, const real *x, int64_t n_row, int64_t n_out, int64_t n_in,
                            struct pool *pool);
void linear_backward_bias(real *db, const real *dy, int64_t n_row, int64_t n_out, struct pool *pool); /* += */

/* ---- embedding ---- */
void embed_forward(real *out, const struct weight *w, const int32_t *ids, int64_t n_row, struct pool *pool);
void embed_backward(real *dw_panels, const real *dy, const int32_t *ids, int64_t n_row, int64_t n_vocab, int64_t n,
                    struct pool *pool); /* += , tokens ascending */

/* ---- norms: per row of n. Per-head Q/K norm is the same with n_row * n_head rows of d_head ---- */
void norm_rms_forward(real *out, const real *x, const real *weight, real eps, int64_t n_row, int64_t n,
                      struct pool *pool); /* in place allowed */
void norm_layer_forward(real *out, const real *x, const real *weight, const real *bias, real eps, int64_t n_row,
                        int64_t n, struct pool *pool); /* weight, bias may be NULL; in place allowed */
/* norm_layer_forward (layer) or norm_rms_forward, and act_prepare of what it gives, in one job */
void norm_act_forward(struct act *a, enum act_type type, void *storage, bool layer, real *out, const real *x,
                      const real *weight, const real *bias, real eps, int64_t n_row, int64_t n, struct pool *pool);
/* dx written (not accumulated); dw, db accumulated, rows ascending; any of dw, db may be NULL */
void norm_rms_backward(real *dx, real *dw, const real *dy, const real *x, const real *weight, real eps, int64_t n_row,
                       int64_t n, struct pool *pool);
void norm_layer_backward(real *dx, real *dw, real *db, const real *dy, const real *x, const real *weight, real eps,
                         int64_t n_row, int64_t n, struct pool *pool);

/* ---- rotary positions ---- */
/* cs [n_row, n_half, 2] = cos, sin of pos[r] * inv_freq[i], each times `scale` (YaRN's attention factor). */
void rope_angles(real *cs, const real *inv_freq, real scale, const int32_t *pos, int64_t n_row, int64_t n_half,
                 struct pool *pool);
enum rope_style { ROPE_HALF, ROPE_PAIR }; /* (x[i], x[i+n_half]) as Hugging Face; (x[2i], x[2i+1]) as llama2.c */
/* In place on x [n_row, n_head, d_head], its first 2*n_half dimensions. sign +1 forward, -1 backward (the transpose).
 */
void rope_apply(real *x, const real *cs, enum rope_style style, int64_t n_row, int64_t n_head, int64_t d_head,
                int64_t n_half, int sign, struct pool *pool);

/* ---- activations ---- */
enum act_fn { FN_SILU, FN_GELU, FN_GELU_TANH, FN_RELU };                                     /* GELU: by erf */
void fn_forward(real *out, const real *x, enum act_fn fn, int64_t count, struct pool *pool); /* in place allowed */
void fn_backward(real *dx, const real *dy, const real *x, enum act_fn fn, int64_t count, struct pool *pool);
void glu_forward(real *out, const real *gate, const real *up, enum act_fn fn, int64_t count,
                 struct pool *pool); /* fn(gate)*up; in place on either */
void glu_backward(real *dgate, real *dup, const real *dy, const real *gate, const real *up, enum act_fn fn,
                  int64_t count, struct pool *pool);

void tanh_forward(real *out, const real *x, int64_t count, struct pool *pool); /* in place allowed */

/* ---- element by element ---- */
void add_forward(real *out, const real *a, const real *b, int64_t count, struct pool *pool); /* in place allowed */

/* ---- attention over a paged KV cache: docs/numerics.md section 3 ---- */
enum kv_type { KV_F32, KV_F16, KV_INT8 }; /* KV_F32 holds real */
enum { KV_BLOCK = 64, KV_SEGMENT = 256 }; /* tokens */
enum { ATTEND_D_MAX = 256 };              /* the largest d_head; checked at load */
struct kv_layout {
    enum kv_type type;
    int n_kv_head, d_head;
};
size_t kv_page_bytes(const struct kv_layout *l); /* K and V of KV_BLOCK tokens in one layer; a multiple of 64 */
/* Rows row0 .. row0+n_row-1 of the batch are positions pos0 .. of one sequence; block b of it is pages[blocks[b]].
 * Spans of one batch stand in ascending rows. */
struct attend_span {
    int32_t row0, n_row, pos0;
    const int32_t *blocks; /* [(pos0 + n_row + 63) / 64] */
};
/* Rounds k, v [n_row, n_kv_head, d_head] to the page type and stores them. `layer` is page 0 of this layer. */
void kv_write(void *layer, const struct kv_layout *l, const real *k, const real *v, const struct attend_span *spans,
              int n_span, struct pool *pool);
/* rope_apply (ROPE_HALF) of q [n_row, n_head, d_head] and of k, then kv_write, in one job */
struct rope_kv {
    real *q, *k;
    const real *v, *cs;
    int n_head, n_half;
};
void rope_kv_write(void *layer, const struct kv_layout *l, const struct rope_kv *x, const struct attend_span *spans,
                   int n_span, struct pool *pool);
struct attend_attr {
    int n_head;
    real scale;     /* usually 1/sqrt(d_head) */
    int window;     /* 0 = none; else a query sees keys at most window-1 positions back (Mistral's sliding window) */
    real soft_cap;  /* 0 = none */
    bool both_ways; /* encoders: a query sees all keys of its span too, later ones as well; window 0 */
};
/* out, q [n_row, n_head, d_head]: causal attention of every span's rows over its positions 0 .. pos; or, both_ways, 0
 * .. the span's last. */
void attend_forward(real *out, const real *q, const void *layer, const struct kv_layout *l,
                    const struct attend_attr *attr, const struct attend_span *spans, int n_span, struct pool *pool);
/* The same bits, the segments of a row shared out too when there are fewer rows and KV heads than threads could use.
 * scratch: attend_scratch_bytes(), or NULL. */
enum { ATTEND_SPLIT_ROWS = 4 }; /* at most */
size_t attend_scratch_bytes(const struct kv_layout *l, int n_head, int n_ctx);
void attend_forward_split(real *out, const real *q, const void *layer, const struct kv_layout *l,
                          const struct attend_attr *attr, const struct attend_span *spans, int n_span, void *scratch,
                          size_t scratch_bytes, struct pool *pool);
/* Training: whole sequences (pos0 == 0). k, v: the rows, [n_row, n_kv_head, d_head]. dq, dk, dv written. */
void attend_backward(real *dq, real *dk, real *dv, const real *dout, const real *q, const real *k, const real *v,
                     const struct kv_layout *l, const struct attend_attr *attr, const struct attend_span *spans,
                     int n_span, struct pool *pool);

/* ---- mixture of experts ---- */
struct moe_attr {
    int n_expert, n_used;
    bool normalize; /* norm_topk_prob: the used weights are divided by their sum */
    real scale;     /* 1 */
};
/* softmax over all experts, then the n_used largest (ties to the lower id), given in ascending expert id:
 * experts, weights [n_row, n_used]; probs [n_row, n_expert] kept for backward. */
void moe_route(int32_t *experts, real *weights, real *probs, const real *logits, const struct moe_attr *attr,
               int64_t n_row, struct pool *pool);
void moe_route_backward(real *dlogits, const real *dweights, const int32_t *experts, const real *probs,
                        const struct moe_attr *attr, int64_t n_row, struct pool *pool);

/* Rows copied by index: out[i] = x[index[i]], i < n_row; and back: out[index[i]] = x[i]. */
void rows_gather(real *out, const real *x, const int32_t *index, int64_t n_row, int64_t n, struct pool *pool);
/* How a sequence's rows become one. Several ways lie side by side: POOL_BITS bits each, the first lowest. */
enum pooling { POOL_NONE, POOL_MEAN, POOL_FIRST, POOL_LAST, POOL_MAX, POOL_MEAN_SQRT, POOL_WEIGHTED, POOL_COUNT };
enum { POOL_BITS = 4, POOL_WAYS_MAX = 6 };
static inline enum pooling pooling_first(unsigned ways)
{
    return (enum pooling)(ways & ((1u << POOL_BITS) - 1));
}
static inline int pooling_count(unsigned ways)
{
    int n = 0;
    for (; ways; ways >>= POOL_BITS)
        n++;
    return n;
}
/* out [n_span, pooling_count(ways) * n] */
void rows_pool(real *out, const real *x, unsigned ways, const struct attend_span *spans, int n_span, int64_t n,
               struct pool *pool);
void rows_scatter(real *out, const real *x, const int32_t *index, int64_t n_row, int64_t n, struct pool *pool);
/* out[r] = sum over a row's used experts, ascending, of weights[r, j] * x[place[r, j]] (weights NULL: 1).
 * n_row tokens; x [n_row * n_used, n] lies ordered by expert. */
void moe_combine(real *out, const real *x, const real *weights, const int32_t *place, int n_used, int64_t n_row,
                 int64_t n, struct pool *pool);
/* dx[place[r, j]] = weights[r, j] * dy[r]; dweights[r, j] = dy[r] . x[place[r, j]] */
void moe_combine_backward(real *dx, real *dweights, const real *dy, const real *x, const real *weights,
                          const int32_t *place, int n_used, int64_t n_row, int64_t n, struct pool *pool);
/* out[r] = x[r] * sigmoid(gate[r]), one gate a row; in place allowed. dx, dgate written. */
void gate_forward(real *out, const real *x, const real *gate, int64_t n_row, int64_t n, struct pool *pool);
void gate_backward(real *dx, real *dgate, const real *dy, const real *x, const real *gate, int64_t n_row, int64_t n,
                   struct pool *pool);

/* ---- loss, log-probabilities ---- */
/* lse[r] = log sum exp of x [n_row, n]: chunks of 4096, online merge ascending. One operation for loss, server,
 * sampler. */
void lse_forward(real *lse, const real *x, int64_t n_row, int64_t n, struct pool *pool);
real lse_divided(const real *x, real divisor, int64_t n); /* of one row, x / divisor */
/* loss[r] = lse - x[target] (0 where target < 0); dx = (softmax - onehot) * scale, may be NULL, in place on x allowed
 */
void cross_entropy(real *loss, real *dx, const real *x, const int32_t *targets, real scale, int64_t n_row, int64_t n,
                   struct pool *pool);

/* ---- optimizer ---- */
struct adamw {
    real lr, beta1, beta2, eps, weight_decay;
    int64_t step;    /* 1-based, for bias correction */
    real grad_scale; /* multiplies every gradient first (clipping) */
};
void adamw_step(real *param, real *m, real *v, const real *grad, const struct adamw *how, int64_t count,
                struct pool *pool);
double sum_squares(const real *x, int64_t count, struct pool *pool); /* f64 over fixed chunks: gradient norm */

/* ---- sampling arithmetic: the policy (order, Philox) is the engine's ---- */
struct candidate {
    int32_t id;
    float logit;
};
/* The k largest of x[n], by logit descending then id ascending; returns how many (min(k, n)). NaN sorts last. */
int top_k_select(struct candidate *out, const float *x, int64_t n, int k);
int32_t argmax(const float *x, int64_t n); /* ties to the lower id; -1 when all are NaN */
/* The same, sooner, given the maxima of the row's blocks; the row holds no NaN. */
enum { ROW_BLOCK = 256 };
static inline int64_t row_blocks(int64_t n)
{
    return (n + ROW_BLOCK - 1) / ROW_BLOCK;
}
bool row_maxima(float *maxima, const float *x, int64_t n); /* [row_blocks(n)]; false: NaN, or above 3e38 */
int row_top_k(struct candidate *out, const float *x, const float *maxima, int64_t n, int k);
int32_t row_argmax(const float *x, const float *maxima, int64_t n);
/* All with low <= x < high, in order of id; out has room for n, and what is behind them there may be overwritten. */
int64_t row_collect(struct candidate *out, const float *x, const float *maxima, int64_t n, float low, float high);
/* The sum of their probabilities e^(x / divisor - zero). Each counts as mass_of() says, a multiple of 2^-52, so that
 * no sum below 2 is rounded and none depends on an order. */
struct row_mass {
    float low, high;
    real divisor, zero;
};
double row_mass(const float *x, const float *maxima, int64_t n, const struct row_mass *m);
static inline double mass_of(real p)
{
    return ((double)p + 1) - 1;
}

/* ---- functions: one definition for scalar and vector (docs/numerics.md section 4) ---- */
void exp_forward(real *out, const real *x, int64_t count); /* in place allowed */
float fn_exp(float x);
float fn_log(float x);
float fn_log1p(float x);
float fn_tanh(float x);
float fn_erf(float x);
double fn_sin(double x), fn_cos(double x), fn_pow(double x, double y), fn_exp64(double x), fn_log64(double x);

#endif
