/* private - what a loaded model and a run hold: load.c, forward.c, backward.c, write.c
 *
 * 1. A struct model's weights are written only by load, by model_random and by training's owner between steps.
 * 2. A run's memory is one block placed by plan_place for max_rows rows; a batch of fewer rows uses the front of each
 *    value.
 */
#ifndef MODEL_PRIVATE_H
#define MODEL_PRIVATE_H

#include "base/file.h"
#include "base/mem.h"
#include "model/plan.h"
#include "model/quantize.h"
#include "tensor/quantize.h"

struct model {
    struct arch arch;
    struct plan plan;
    struct model_options options;
    struct kv_layout kv;
    struct model_param *params; /* training: the public list */
    struct arena names;
    uint64_t weight_bytes;
    struct mapping cached;           /* the panels, when they lie in the cache; else empty */
    bool packed;                     /* they were packed by this load */
    const struct checkpoint *stream; /* options.stream: where parameters come from while they are held */
};

/* Where a mixture's rows go: written by OP_ROUTE. */
struct routing {
    int32_t *experts; /* [n_row, n_used] ascending */
    int32_t *place;   /* [n_row, n_used]: row of the dispatched rows */
    int32_t *from;    /* [n_row * n_used]: the token row a dispatched row comes from */
    int32_t *start;   /* [n_expert + 1]: an expert's first dispatched row */
};

struct model_run {
    const struct model *m;
    struct pool *pool;
    struct value *values; /* placed */
    real *block;
    real *scratch; /* a gradient that is added: as large as the largest value */
    real *logits;  /* the caller's, during a call */
    const real *dlogits;
    char *kv;
    size_t kv_layer_bytes; /* n_block pages */
    int n_block, max_rows, max_logits;
    int32_t *positions;                                /* [max_rows] */
    int32_t *selected;                                 /* [max_logits] */
    int32_t *types;                                    /* [max_rows] */
    real *inv_freq[ROPE_TABLES], *angles[ROPE_TABLES]; /* [n_half]; [max_rows, n_half, 2] */
    struct routing *routes;                            /* [n_route] */
    struct act act;                                    /* the activations prepared last, and of which value */
    int act_value;
    void *act_storage, *act_spare; /* the latter for what is prepared while products read the former */
    struct act *expert_acts;       /* [n_expert] */
    void *attend_scratch;
    size_t attend_scratch_bytes;
    int64_t n[SPACE_COUNT]; /* rows of this batch */
    struct model_profile *profile;
    /* adapters: lora_run.c */
    real *lora_scratch;
    size_t lora_reals;
    const struct lora **row_loras; /* [max_rows] of this batch, when n_lora is not 0 */
    const struct lora **loras;     /* [n_lora] the batch's, each once */
    int n_lora;
    int32_t *lora_rows; /* [max_rows] */
};

/* lora_run.c */
MUST_USE enum status lora_run_alloc(struct model_run *r, struct error *err);
void lora_run_free(struct model_run *r);
void lora_run_begin(struct model_run *r, const struct model_batch *b);
bool lora_meets(const struct model_run *r, const struct step *s); /* some adapter of the batch has a part for it */
void lora_add(struct model_run *r, const struct step *s);         /* to what the step gave */

static inline real *value_data(const struct model_run *r, int value)
{
    return r->values[value].external ? r->logits : r->block + r->values[value].at;
}
static inline int64_t value_rows(const struct model_run *r, int value)
{
    return r->n[r->values[value].space];
}
static inline int64_t value_count(const struct model_run *r, int value)
{
    return value_rows(r, value) * r->values[value].width;
}
/* The routing's parts of an OP_ROUTE value: chosen weights [n_row, n_used], then probabilities [n_row, n_expert]. */
static inline real *route_probs(const struct model_run *r, int value)
{
    return value_data(r, value) + value_rows(r, value) * r->m->arch.config.n_expert_used;
}

static inline const struct param *param_of(const struct model_run *r, int index)
{
    return index < 0 ? NULL : &r->m->plan.params[index];
}
static inline const real *vector_of(const struct model_run *r, int index)
{
    return index < 0 ? NULL : r->m->plan.params[index].vector;
}
/* The activations of `value` as w meets them, unless they were prepared last. */
void run_prepare(struct model_run *r, int value, const struct weight *w);
void *run_layer(const struct model_run *r, const struct step *s); /* the pages of an attention step's layer */
void run_attend(struct model_run *r, const struct step *s, const struct model_batch *b);
void step_fused(struct model_run *r, const struct step *s, const struct model_batch *b); /* fuse.c */

/* profile.c */
void profile_step(struct model_run *r, const struct step *s, uint64_t start_ns); /* s NULL: what precedes the steps */

struct moe_attr model_moe_attr(const struct model *m);
/* The parameters' block: its size; and pointing every parameter into one. */
bool model_block_bytes(size_t *out, const struct model *m);
void model_block_use(struct model *m, const void *block);
static inline bool param_is_vector(const struct param *p)
{
    return p->bias || role_rows[p->role].in == DIM_1;
}
/* Between the two the parameter's numbers are there; of a model that streams at no other time. */
MUST_USE enum status param_hold(const struct model *m, struct param *p, struct error *err);
void param_release(const struct model *m, struct param *p);
/* Source rows of the parameter's rows; NULL: as they stand. Freed by the caller. */
enum status param_row_map(int32_t **out, const struct arch *a, const struct name_row *row, const struct param *p,
                          struct error *err);
enum status model_publish_params(struct model *m, struct error *err); /* training: m->params */
/* The row of the stored tensor (of an expert's part of it) that is row i of the parameter; pairs: GGUF's and llama2.c's
 * order of rotated rows. */
int32_t param_stored_row(const struct arch *a, const struct name_row *row, const struct param *p, bool pairs,
                         int32_t i);

/* ---- cache.c: packed panels of earlier starts. Nothing here fails a load: without a cache the model is packed ---- */
struct cache {
    bool hit, wanted; /* wanted: a miss that should be saved */
    struct buf key;   /* every fact the panels depend on */
    char path[4096];
    size_t block_bytes;
};
/* After it, on a hit, the parameters point into m->cached. */
void cache_begin(struct cache *c, struct model *m, const struct checkpoint *ck);
/* After it, where panels could be kept, the parameters point into m->cached, too, and the private ones are gone. */
void cache_save(struct cache *c, struct model *m, const struct checkpoint *ck);
void cache_end(struct cache *c);

/* ---- fingerprint.c ---- */
/* Files whose content will be hashed, as they are now: first the model's, then the tokenizer's. */
enum status digests_create(struct digests **out, const char *cache, struct error *err);
enum status digests_add(struct digests *d, const char *path, const struct file_id *id, bool of_tokenizer,
                        struct error *err);
void digests_destroy(struct digests *d); /* NULL is nothing */

/* ---- write.c: tensors of a naming, made from the packed parameters when the writer asks ---- */
struct tensor_source {
    struct str name;
    const struct model *m;
    const struct name_row *row; /* of the first part */
    int first[3];               /* parameters of the parts */
    int n_part, n_expert;       /* n_expert > 1: stacked */
    bool pairs;
    enum dtype type, wanted;
    const struct model_quantize *how; /* NULL: plain rounding */
};
struct tensor_list {
    struct tensor_out *tensors;
    size_t n, capacity;
    struct arena arena; /* names */
};
struct write_want {
    const struct name_row *names;
    enum dtype matrix, vector;
    bool pairs;
    bool fused; /* Q, K and V in one tensor, where the naming has both ways */
    const struct model_quantize *how;
};
MUST_USE enum status tensor_list_make(struct tensor_list *out, const struct model *m, const struct write_want *want,
                                      struct error *err);
void tensor_list_free(struct tensor_list *l);
/* quantize.c: fill of a tensor whose source has `how`. */
enum status quantize_tensor(void *ctx, void *out, struct error *err);
enum status quantize_report(struct quantized *q, const struct quantize_sums *sums, const struct model_quantize *how,
                            struct error *err);
/* The rows of one expert's matrix as f32, in the file's order: slabs of a multiple of 16 rows, but for the last. */
typedef enum status (*rows_fn)(void *ctx, const float *rows, int64_t row0, int64_t n, struct error *err);
enum status source_rows(const struct tensor_source *s, int expert, rows_fn each, void *ctx, struct error *err);

/* write_packed.c: matrices as AWQ and GPTQ hold them */
bool packed_wanted(const struct model_quantize *how, const struct param *p);
enum status packed_check(const struct model *m, const struct family *f, const struct model_quantize *how,
                         struct error *err);
enum status packed_add(struct tensor_list *l, const struct tensor_source *s, int expert, struct error *err);
void packed_put_config(struct json_writer *w, const struct model *m, const struct model_quantize *how);

#endif
