/* model - a model is a list of rows: planned once, walked down by model_forward and up by model_backward
 *
 *   checkpoint -> config + family table -> program (rows, roles) -> plan (slots, memory) -> weights packed -> model
 *
 * Memory   weights: one aligned block each, sized by the plan; a model_run holds every activation, allocated once
 * Threads  a struct model is immutable after load (training writes its parameters between steps, one owner);
 *          a struct model_run has one owner
 */
#ifndef MODEL_MODEL_H
#define MODEL_MODEL_H

#include "chat/chat.h"
#include "kernels/kernels.h"

struct model;
struct model_run;
struct lora; /* model/lora.h */

enum model_task {
    TASK_GENERATE, /* a row of logits for every token asked for */
    TASK_EMBED,    /* a vector for every sequence */
    TASK_SCORE     /* likewise, its labels' logits: a classifier, or a reranker of pairs with one label */
};

struct model_config { /* every family's numbers; what a family lacks is 0 */
    char family[24];  /* "llama", "qwen3_moe", "gpt2" ... */
    int n_layer, n_embd, n_head, n_kv_head, d_head, n_ff, n_vocab;
    int n_ctx_train, n_ctx; /* the file's; the one in force (--ctx) */
    int n_expert, n_expert_used, n_ff_expert, n_ff_shared;
    double norm_eps, rope_theta, rope_partial;
    char rope_scaling[16]; /* "none", "linear", "llama3", "yarn", "longrope", "dynamic" */
    int window;
    bool tied, qkv_bias, qk_norm, parallel_residual;
    int32_t bos;
    int32_t eos[8];
    int n_eos;
    enum model_task task;
    unsigned pooling;    /* ways of enum pooling, side by side */
    bool encoder;        /* tokens see later ones too */
    int n_type, n_label; /* token types (segments); labels */
    int n_out;           /* numbers in a row that model_forward gives: n_vocab, n_label, or those of a vector */
    enum dtype type;     /* of most weights */
    int64_t n_param;
};

struct model_options {
    int n_ctx;         /* 0 = the model's own, at most 32768 unless asked for */
    bool exact;        /* activations in f32 whatever the weights; whoever asks sets kv to KV_F32 too */
    enum kv_type kv;   /* as given: 0 is KV_F32, serving passes KV_F16; training and TASK_EMBED always have KV_F32 */
    bool any_task;     /* embedding models and classifiers too; else they are refused: most callers can only generate */
    unsigned pooling;  /* 0: as the model says; else a generating model becomes an embedding one */
    bool train;        /* F32 parameters, gradients and saved activations */
    bool keep;         /* no value's memory is reused: all can be read by model_run_value after a forward */
    bool stream;       /* only to be written: parameters are packed one by one, and the checkpoint must stay open */
    struct pool *pool; /* used for packing; may be NULL */
    /* Folder for packed panels, made when it is missing; NULL: none. Not used in training. */
    const char *cache;
    uint64_t cache_bytes_min, cache_bytes_max; /* of a model worth caching, of all together; 0: 64 MiB, 32 GiB */
    void (*progress)(void *ctx, const char *phase, double done);
    void *ctx;
};

/* ck may be closed after load (without `stream`): weights are packed copies, or mapped from the cache. */
MUST_USE enum status model_load(struct model **out, const struct checkpoint *ck, const struct model_options *options,
                                struct error *err);
/* Random weights from a configuration (config.json's object): benches, tests, and the start of pretraining.
 * type: what linear weights are quantized to. Initialised as transformers does: normal(0, initializer_range), norms 1.
 */
MUST_USE enum status model_random(struct model **out, const struct json *config, enum dtype type, uint64_t seed,
                                  const struct model_options *options, struct error *err);
void model_free(struct model *m);
const struct model_config *model_config(const struct model *m);
/* TASK_EMBED: the words to put before a text, of prompt `name` (ptr NULL: of the default one, or none); ptr NULL when
 * the model has no such prompt. */
struct str model_prompt(const struct model *m, struct str name);
bool model_by_words(const struct model *m); /* scores a chat by the words yes and no */

/* "mean", "cls", "last", "max", "sqrt" (the sum by the root of the length), "weighted" (by position), or several joined
 * by +; 0: unknown. */
unsigned pooling_parse(struct str names);

/* What it will take, before it is taken. */
struct model_plan {
    uint64_t weight_bytes, kv_bytes_per_token, run_bytes; /* run: for max_rows rows */
    uint64_t body_flops,
        head_flops;      /* 2 x weights that one row meets, attention excluded; the head: rows with logits */
    uint64_t step_bytes; /* weights that one row reads, its experts alone, no row of an embedding */
    struct model_config config;
};
MUST_USE enum status model_plan(struct model_plan *out, const struct checkpoint *ck,
                                const struct model_options *options, int max_rows, struct error *err);
void model_plan_of(struct model_plan *out, const struct model *m, int max_rows);

/* ---- forward ---- */
extern const char *const model_kv_names[]; /* by enum kv_type, as options and reports say it */
enum kv_type model_kv_type(const struct model *m);
size_t model_kv_block_bytes(const struct model *m); /* one block (KV_BLOCK tokens) over all layers */
/* kv: n_block * model_kv_block_bytes bytes, 64-byte aligned, owned by the caller; layer l's pages lie together. */
MUST_USE enum status model_run_create(struct model_run **out, const struct model *m, int max_rows, int max_logits,
                                      void *kv, int n_block, struct pool *pool, struct error *err);
void model_run_free(struct model_run *r);
/* KV blocks, every layer's page: within the cache; to and from model_kv_block_bytes of memory. */
void model_run_copy_block(struct model_run *r, int32_t to, int32_t from);
void model_run_save_block(const struct model_run *r, void *to, int32_t from);
void model_run_load_block(struct model_run *r, int32_t to, const void *from);

struct model_batch {
    int n_row;
    const int32_t *ids;              /* [n_row] */
    const struct attend_span *spans; /* rows of one sequence together; positions give the rows' */
    int n_span;
    const int32_t *logit_rows; /* rows whose logits are wanted, ascending; NULL = all */
    int n_logit;
    const int32_t *types;            /* [n_row] 0 .. n_type-1; NULL: all 0 */
    const struct lora *const *loras; /* [n_span], each may be NULL; NULL: none at all */
};
/* logits [n_logit, n_vocab]. Ids are checked by the caller (0 .. n_vocab-1).
 * TASK_EMBED and TASK_SCORE: spans are whole sequences (pos0 0), logits [n_span, n_out], logit_rows is not read, and
 * the pages of one layer serve all: they hold nothing afterwards. Vectors are not normalized. */
void model_forward(struct model_run *r, const struct model_batch *b, real *logits);

/* Where the time of model_forward goes: a row for each kind of operation and weight, added up over layers and calls
 * from the moment a profile is attached; NULL detaches it. The profile is the caller's. */
struct model_profile {
    struct model_profile_row {
        const char *op, *name; /* "linear", "ffn_down"; name NULL where the operation needs none */
        bool product;          /* a product of weights and rows */
        uint64_t ns, calls;
        uint64_t bytes; /* of weights met; embedding rows and KV are not counted */
    } rows[48];
    int n_row;
    uint64_t forwards;
};
void model_run_profile(struct model_run *r, struct model_profile *profile);

/* ---- training: the same rows, walked up. Model loaded with options.train ---- */
struct model_param {
    const char *name;      /* Hugging Face name: model.layers.0.self_attn.q_proj.weight */
    struct weight *weight; /* a matrix in F32 panels, or NULL */
    real *data,
        *grad;     /* weight->panels or the vector; gradients in the same layout, `count` reals (padding included) */
    int64_t count; /* reals stored */
    int64_t n_out, n_in; /* logical; a vector has n_out = 1 */
    bool decay;          /* matrices and embeddings decay; norms and biases do not */
};
int model_params(const struct model *m, const struct model_param **out);
void model_grads_zero(struct model *m, struct pool *pool);
/* After model_forward of the same batch on the same run: adds to every parameter's grad. dlogits [n_logit, n_vocab]. */
void model_backward(struct model_run *r, const struct model_batch *b, const real *dlogits);

/* Any named intermediate of the last forward ("blk.0.attn_norm" ...), for tests; NULL when recycled. */
const real *model_run_value(const struct model_run *r, const char *name, int64_t *n_row, int64_t *n);

/* Writing: a Hugging Face folder (config.json, model.safetensors) in `type`, or one GGUF with the tokenizer inside:
 * of the files in a folder, or copied from another GGUF; NULL = none. */
MUST_USE enum status model_write_hf(const struct model *m, const char *folder, enum dtype type, struct error *err);
MUST_USE enum status model_write_gguf(const struct model *m, const char *path, enum dtype type,
                                      const char *tokenizer_from, struct error *err);

/* ---- bundle: everything a user means by MODEL ---- */
struct bundle {
    char id[128]; /* folder's or file's name without extension */
    struct model *model;
    struct tokenizer *tokenizer; /* NULL when the model has none */
    struct template *template;   /* NULL when it has none, or one that cannot be used: */
    struct error template_error; /* why; status ST_OK when there is nothing wrong */
    struct str template_source;
    /* generation_config.json's defaults; NaN or -1 = not given */
    double temperature, top_p, repetition_penalty;
    int top_k;
    struct digests *digests; /* of its files: model/fingerprint.h */
};
MUST_USE enum status bundle_open(struct bundle **out, const char *path, const struct model_options *options,
                                 struct error *err);
/* The same without weights: model is NULL, and *config what it would be. */
MUST_USE enum status bundle_peek(struct bundle **out, struct model_config *config, const char *path, struct error *err);
void bundle_close(struct bundle *b);
bool bundle_is_eos(const struct bundle *b, int32_t id);
/* A chat as token ids: rendered by the model's template, else by the built-in form. The options' bos_token and
 * eos_token are filled in. ST_UNSUPPORTED or ST_CORRUPT, saying what the template needs, when it cannot be used. */
MUST_USE enum status bundle_chat_ids(struct ids *out, const struct bundle *b, struct chat_options *options,
                                     struct error *err);
/* A conversation, as JSON text [{"role": ..., "content": ...}, ...], through the template. */
MUST_USE enum status bundle_messages_ids(struct ids *out, const struct bundle *b, struct str messages,
                                         struct error *err);
/* Text: as it stands (raw, or when there is no template), or as one user message through the template. */
MUST_USE enum status bundle_prompt_ids(struct ids *out, const struct bundle *b, struct str prompt, bool raw,
                                       struct error *err);

/* To an empty *out, at most `max` ids (SIZE_MAX: all). A text to be embedded, behind the words of model_prompt: */
MUST_USE enum status bundle_text_ids(struct ids *out, const struct bundle *b, struct str before, struct str text,
                                     size_t max, struct error *err);
/* and a query and a text to be scored; ids from *first on have token type 1, 0 = all have type 0. */
MUST_USE enum status bundle_pair_ids(struct ids *out, size_t *first, const struct bundle *b, struct str query,
                                     struct str text, size_t max, struct error *err);

#include "model/fingerprint.h" /* what decides the bits of an answer */
#include "model/lora.h"        /* adapters */
#include "model/quantize.h"    /* the rest of this door: imatrix, recipes, a model with fewer bits */

#endif
