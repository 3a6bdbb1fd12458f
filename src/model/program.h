/* program - a model as data: rows, what they read and write, and which weights they meet
 *
 * A family (families/ *.c) is a few short tables of rows and one table of names. A layer's program is its attention
 * rows followed by its feed-forward rows (dense or sparse); the whole program is begin, the layers, end. Slots are
 * names, not buffers: every write makes a new version (plan.h). A row whose weight the model lacks (Q/K norm) drops
 * out. docs/model.md shows how models that are not here yet would look.
 */
#ifndef MODEL_PROGRAM_H
#define MODEL_PROGRAM_H

#include "model/model.h"

enum op {
    OP_END,
    OP_EMBED,     /* ids -> rows of the embedding */
    OP_POSITION,  /* in + the learned row of the token's position */
    OP_TYPE,      /* in + the learned row of the token's type (its segment) */
    OP_NORM,      /* RMS or layer norm, as the family says */
    OP_NORM_HEAD, /* the same over each head of d_head */
    OP_LINEAR,    /* W in + bias; on dispatched rows, each row meets its own expert's W */
    OP_ROPE,      /* rotates the heads by the token's position; the attr says with which table */
    OP_ATTEND,    /* Q, K, V: K and V are rounded and stored in the cache, then attended to */
    OP_FN,        /* the family's activation */
    OP_GLU,       /* activation(in) * in2 */
    OP_ADD,
    OP_SELECT,   /* keeps the rows whose logits are wanted */
    OP_ROUTE,    /* router logits -> chosen experts, their weights, probabilities */
    OP_DISPATCH, /* rows copied once a chosen expert, ordered by expert (in2: the routing) */
    OP_COMBINE,  /* weighted sum of a row's experts, ascending expert id (in2: the routing) */
    OP_GATE,     /* in * sigmoid(in2), in2 one number a row */
    OP_POOL,     /* one row a sequence, in the configuration's ways side by side */
    OP_TANH,
    OP_COUNT
};

/* Symbolic places. Every write makes a new version, so a name may be used again as soon as its value is dead. */
enum slot { NONE, X, H, H2, Q, K, V, A, G, U, R, P, D, S, LOGITS, SLOT_COUNT };

/* What a weight is for. A role names a matrix or a vector, and optionally its bias. */
enum role {
    W_NONE,
    W_EMBED,
    W_POSITION,
    W_TYPE,
    W_EMBED_NORM,
    W_ATTN_NORM,
    W_Q,
    W_K,
    W_V,
    W_Q_NORM,
    W_K_NORM,
    W_O,
    W_ATTN_POST_NORM,
    W_MLP_NORM,
    W_GATE,
    W_UP,
    W_DOWN,
    W_MLP_POST_NORM,
    W_ROUTER,
    W_EXPERT_GATE,
    W_EXPERT_UP,
    W_EXPERT_DOWN,
    W_SHARED_ROUTER,
    W_SHARED_GATE,
    W_SHARED_UP,
    W_SHARED_DOWN,
    W_OUT_NORM,
    W_HEAD,
    W_POOLER, /* of a classifier: meets the pooled row first */
    W_SCORE,  /* of a classifier: one row a label */
    W_DENSE,  /* behind the pooling; DENSE_MAX of them */
    W_DENSE_2,
    W_COUNT
};

struct row {
    enum op op;
    uint8_t in[4]; /* slots */
    uint8_t out;
    uint8_t role;
    uint8_t attr;     /* index into the layer's table of attributes */
    const char *name; /* of the value, where no role names it */
};

/* A layer's attributes: layers of one model may differ, and rows of one layer too. */
enum { ATTR_MAX = 2 };
struct attr {
    int window;     /* 0 = all positions */
    real scale;     /* of attention scores */
    real soft_cap;  /* 0 = none */
    bool both_ways; /* attention: later tokens are seen too */
    int rope;       /* which table of angles */
};

/* The sizes shapes are made of, so that a wrong shape can be explained by the configuration's own keys. */
enum dim {
    DIM_1,
    DIM_EMBD,
    DIM_VOCAB,
    DIM_POSITION,
    DIM_TYPE,
    DIM_LABEL,
    DIM_Q,
    DIM_KV,
    DIM_HEAD,
    DIM_FF,
    DIM_EXPERT,
    DIM_FF_EXPERT,
    DIM_FF_SHARED,
    DIM_ONE_ROW,
    DIM_POOLED,
    DIM_DENSE,
    DIM_DENSE_2
};

struct role_row {
    const char *gguf; /* its name in GGUF files, and of its value in model_run_value */
    enum dim out, in; /* a vector has in == DIM_1 */
    bool expert;      /* one for each expert */
    bool global;      /* not in a layer */
};
extern const struct role_row role_rows[W_COUNT];

/* ---- names: where a role lies in a container ---- */
enum {
    NAME_BIAS = 1,       /* a bias must be there too */
    NAME_BIAS_MAYBE = 2, /* it is used when it is there */
    NAME_TRANSPOSED = 8, /* stored [n_in, n_out], as GPT-2's Conv1D */
    NAME_STACKED = 16,   /* all experts in one tensor, the expert outermost */
    NAME_HEADS = 32,     /* parts alternate by head ([n_head][part][d_head]), not one after the other */
    NAME_NO_SUFFIX = 64, /* the pattern is the whole name: no ".weight" */
    NAME_GAMMA = 128,    /* ".gamma" and ".beta" for ".weight" and ".bias" */
};
struct name_row {
    uint8_t role;
    const char *pattern; /* without ".weight"; {l} is the layer, {e} the expert */
    unsigned flags;
    uint8_t part, n_part; /* rows of part `part` of `n_part` equal ones (fused QKV) */
};

struct family {
    const char *name;         /* "qwen3" */
    const char *model_type;   /* config.json's; NULL: recognised by `sign` */
    const char *architecture; /* config.json's "architectures", when written */
    const char *gguf;         /* general.architecture; NULL when GGUF has none */
    const char *sign;         /* a tensor that shows this naming, for files without a model_type */
    const struct row *begin, *attention, *mlp, *moe, *end; /* each ended by OP_END */
    const struct row *attention_alt, *mlp_alt;             /* parallel residual, or norms after the sum; NULL */
    const struct name_row *names;                          /* ended by role W_NONE */
    bool layer_norm;                                       /* else RMS */
    bool encoder;                     /* tokens see later ones too; the end is a pooled row, never a vocabulary */
    bool position_after_pad;          /* the first position is row pad_token_id + 1, but not in GGUF (RoBERTa) */
    bool gguf_pairs;                  /* GGUF stores Q and K for rotation of neighbours (2i, 2i+1) */
    bool gguf_fused;                  /* GGUF stores Q, K and V as one tensor */
    bool window_switch;               /* the window counts only with use_sliding_window */
    bool window_from_layer;           /* and from max_window_layers on, or as layer_types says */
    bool window_even;                 /* and, without layer_types, on even layers below max_window_layers (Qwen2-MoE) */
    bool norm_top_k, norm_top_k_gguf; /* the chosen experts' weights sum to 1 when the file does not say */
    double rope_theta, rope_partial, norm_eps;    /* when the file gives none; theta 0: no rotation */
    int n_kv_head, d_head, window, n_expert_used; /* likewise; 0: n_head, n_embd / n_head, none */
    bool tied, bias;                              /* likewise: attention biases */
    const char *act;                              /* likewise: "silu", "gelu_new" ... */
};
extern const struct family *const families[]; /* ended by NULL */
extern const struct row common_begin[], common_end[], common_attention[], common_mlp[], common_moe[], pooled_end[],
    score_end[];
extern const struct family family_llama, family_mistral, family_qwen2, family_qwen3, family_gpt2, family_gpt_blocks,
    family_gpt_chars, family_gpt_neox, family_mixtral, family_qwen2_moe, family_qwen3_moe, family_bert, family_roberta,
    family_xlm_roberta, family_camembert, family_distilbert, family_nomic_bert;

/* ---- the configuration, all families' in one ---- */
enum {
    LAYER_MAX = 1024,
    EXPERT_MAX = 1024,
    EXPERTS_MAX = 1 << 16,
    DIM_MAX = 1 << 24,
    ROPE_TABLES = 1,
    LABEL_MAX = 1 << 16
};
struct rope_config { /* config.json's rope_parameters or rope_scaling, or GGUF's keys; 0 = not given */
    char type[16];   /* "none", "linear", "llama3", "yarn", "longrope", "dynamic" */
    double theta, partial, factor, original, low, high, beta_fast, beta_slow, mscale, mscale_all_dim, attention_factor;
    bool no_truncate;
    const float *long_factor, *short_factor; /* longrope: [n_factor] divisors, one an angle */
    const float *divide;                     /* GGUF's rope_freqs: [n_factor] divisors */
    int n_factor;
};
struct rope_table {
    int n_half;      /* angles a head: half the rotated dimensions; 0 = no rotation */
    float *inv_freq; /* [n_half] */
    float scale;     /* of cos and sin: YaRN's and longrope's attention factor */
};
/* What the files of sentence-transformers beside a model say (sentence.c). */
enum { PROMPTS_MAX = 32, DENSE_MAX = 2 };
struct sentence {
    bool found, normalized; /* modules.json is there; it ends with Normalize */
    unsigned pooling;
    struct sentence_dense {
        int n_in, n_out;
        bool bias, tanh;
    } dense[DENSE_MAX];
    int n_dense;
    struct words { /* a model that generates scores a pair by the logit of `yes`, less that of `no` */
        bool found;
        int32_t yes, no; /* tokens, or rows of GGUF's classifier; no: -1 = none */
    } words;
    int n_ctx; /* texts are cut after so many tokens; 0 = the model's own */
    struct sentence_prompt {
        struct str name, text;
    } prompts[PROMPTS_MAX];
    int n_prompt, default_prompt; /* -1: none */
};
enum { POOLING_RANK = 1 << 28 }; /* wished: scores by the words "yes" and "no" */
/* The tokens "yes" and "no" of a checkpoint's own tokenizer. */
MUST_USE enum status words_find(struct words *out, const struct checkpoint *ck, struct error *err);
MUST_USE enum status sentence_read(struct sentence *out, struct arena *arena, const char *folder, struct error *err);

struct arch {
    struct model_config config;
    const struct family *family;
    struct arena arena;             /* everything below */
    struct attr (*attrs)[ATTR_MAX]; /* [n_layer] */
    bool *sparse;                   /* [n_layer]: a mixture of experts */
    struct rope_config rope_config;
    struct rope_table rope[ROPE_TABLES];
    enum act_fn act;
    bool alt;                      /* the family's other tables */
    bool need_bias, need_mlp_bias; /* the configuration asks for them: a missing one is an error */
    bool norm_top_k;
    double init_range;
    int n_position; /* learned positions; 0 = none */
    int position0;  /* the row of the first one */
    const struct row *end;
    struct sentence sentence;
    const struct name_row *names;
    bool gguf;  /* names are GGUF's */
    bool pairs; /* stored Q and K rotate neighbours: rows are put in order when packed */
};
/* *out is filled; arch_free also after a failure. */
MUST_USE enum status arch_from_checkpoint(struct arch *out, const struct checkpoint *ck,
                                          const struct model_options *options, struct error *err);
MUST_USE enum status arch_from_json(struct arch *out, const struct json *config, const struct model_options *options,
                                    struct error *err);
void arch_free(struct arch *a);
void config_add_eos(struct model_config *c, int64_t id); /* once, and only when it is a token */
int64_t arch_dim(const struct arch *a, enum dim d);
const char *arch_dim_text(enum dim d);               /* the configuration keys that give it */
bool arch_has(const struct arch *a, enum role role); /* some row of the program names it */
bool arch_layer_has(const struct arch *a, enum role role, int layer);
const struct row *arch_rows(const struct arch *a, int layer, bool feed_forward); /* layer -1: begin; n_layer: end */
/* A classifier's row that no tensor has: load.c makes it of two words'. */
static inline bool arch_makes_score(const struct arch *a, enum role role)
{
    return role == W_SCORE && a->sentence.words.found;
}

/* ---- names.c ---- */
/* Where the role's name is looked up: the container's names, or those of the family. */
const struct name_row *arch_names(const struct arch *a, enum role role, bool of_family);
extern const struct name_row gguf_names[], llama2c_names[];
const struct tensor *tensor_by_name(const struct checkpoint *ck, const char *name);
/* "model.layers.3.mlp.up_proj" + ".weight" or ".bias" into text; returns text. */
char *name_format(char *text, size_t size, const struct name_row *row, int layer, int expert, bool bias);

MUST_USE enum status rope_build(struct rope_table *out, struct arena *arena, const struct rope_config *r,
                                const struct model_config *c, struct error *err);

#endif
