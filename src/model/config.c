/* config - every container's configuration into one struct arch, every number bounded: what they share, and llama2.c's
 *
 * config.json is read in config_json.c, GGUF's metadata in config_gguf.c.
 */
#include "model/config_private.h"

#include <math.h>
#include <stdio.h>

/* ---- numbers that every container has, by all their names ---- */
const struct int_key config_ints[CONFIG_INTS] = {
    {{"num_hidden_layers", "n_layer", "n_layers"}, "block_count", FIELD(n_layer), LAYER_MAX, true},
    {{"hidden_size", "n_embd", "dim"}, "embedding_length", FIELD(n_embd), 1 << 20, true},
    {{"num_attention_heads", "n_head", "n_heads"}, "attention.head_count", FIELD(n_head), 1 << 14, true},
    {{"num_key_value_heads"}, "attention.head_count_kv", FIELD(n_kv_head), 1 << 14, false},
    {{"head_dim"}, "attention.key_length", FIELD(d_head), 1 << 12, false},
    {{"intermediate_size", "n_inner", "d_ff", "hidden_dim"}, "feed_forward_length", FIELD(n_ff), 1 << 22, false},
    {{"vocab_size"}, "vocab_size", FIELD(n_vocab), DIM_MAX, true},
    {{"max_trained_positions", "max_position_embeddings", "n_positions", "block_size"},
     "context_length",
     FIELD(n_ctx_train),
     1 << 28,
     false},
    {{"num_local_experts", "num_experts"}, "expert_count", FIELD(n_expert), EXPERT_MAX, false},
    {{"num_experts_per_tok"}, "expert_used_count", FIELD(n_expert_used), EXPERT_MAX, false},
    {{"moe_intermediate_size"}, "expert_feed_forward_length", FIELD(n_ff_expert), 1 << 22, false},
    {{"type_vocab_size"}, "token_type_count", FIELD(n_type), 1 << 10, false},
    {{"shared_expert_intermediate_size"}, "expert_shared_feed_forward_length", FIELD(n_ff_shared), 1 << 22, false},
};

static const struct {
    const char *name;
    enum act_fn fn;
} act_names[] = {{"silu", FN_SILU},           {"swish", FN_SILU},         {"gelu", FN_GELU},
                 {"gelu_python", FN_GELU},    {"gelu_new", FN_GELU_TANH}, {"gelu_pytorch_tanh", FN_GELU_TANH},
                 {"gelu_fast", FN_GELU_TANH}, {"relu", FN_RELU},          {"swiglu", FN_SILU}};
enum status config_set_act(struct arch *a, struct str name, struct error *err)
{
    for (size_t i = 0; i < sizeof act_names / sizeof *act_names; i++)
        if (str_is(name, act_names[i].name)) {
            a->act = act_names[i].fn;
            return ST_OK;
        }
    return fail(err, ST_UNSUPPORTED,
                "config: activation \"%.*s\" is not known; known are silu, gelu, gelu_new and relu", STR_ARG(name));
}

enum status config_set_int(struct arch *a, const struct int_key *k, const char *key, int64_t value, struct error *err)
{
    if (value < 0 || value > k->max || (k->need && value == 0))
        return fail(err, ST_CORRUPT, "config: %s is %lld, expected %d to %d", key, (long long)value, k->need, k->max);
    *(int *)((char *)&a->config + k->offset) = (int)value;
    return ST_OK;
}

/* ---- what follows from the numbers, for every container ---- */
static bool rows_named(const struct family *f, enum role role)
{
    for (const struct name_row *n = f->names; n->role; n++)
        if (n->role == role)
            return true;
    return false;
}

static enum status alloc_layers(struct arch *a, struct error *err)
{
    size_t n = (size_t)a->config.n_layer;
    a->attrs = arena_alloc_zero(&a->arena, n, sizeof *a->attrs);
    a->sparse = arena_alloc_zero(&a->arena, n, sizeof *a->sparse);
    if (!a->attrs || !a->sparse)
        return fail_nomem(err, "config");
    for (size_t l = 0; l < n; l++)
        for (int i = 0; i < ATTR_MAX; i++) {
            a->attrs[l][i].window = a->config.window;
            a->attrs[l][i].both_ways = a->config.encoder;
            a->attrs[l][i].scale = (real)(1 / sqrt(a->config.d_head));
        }
    for (size_t l = 0; l < n; l++)
        a->sparse[l] = a->family->moe && a->config.n_expert > 0;
    return ST_OK;
}

static enum status check_heads(const struct model_config *c, struct error *err)
{
    if (c->n_kv_head == 0 || c->n_head % c->n_kv_head)
        return fail(err, ST_CORRUPT, "config: num_attention_heads (%d) is no multiple of num_key_value_heads (%d)",
                    c->n_head, c->n_kv_head);
    if (c->d_head > ATTEND_D_MAX)
        return fail(err, ST_UNSUPPORTED, "config: head_dim is %d; attention takes at most %d", c->d_head, ATTEND_D_MAX);
    if ((int64_t)c->n_head * c->d_head > DIM_MAX || c->d_head <= 0)
        return fail(err, ST_CORRUPT, "config: %d heads of head_dim %d are too many or none", c->n_head, c->d_head);
    return ST_OK;
}

static enum status check_experts(const struct arch *a, struct error *err)
{
    const struct model_config *c = &a->config;
    if (c->n_expert == 0)
        return a->family->moe ? fail(err, ST_CORRUPT, "config: %s needs a number of experts", c->family) : ST_OK;
    if (!a->family->moe)
        return fail(err, ST_UNSUPPORTED, "config: family %s has no mixture of experts, yet %d experts are configured",
                    c->family, c->n_expert);
    if (c->n_expert_used < 1 || c->n_expert_used > c->n_expert)
        return fail(err, ST_CORRUPT, "config: num_experts_per_tok is %d, expected 1 to %d", c->n_expert_used,
                    c->n_expert);
    if (c->n_expert * c->n_layer > EXPERTS_MAX)
        return fail(err, ST_LIMIT, "config: %d layers of %d experts are more than %d experts in all", c->n_layer,
                    c->n_expert, EXPERTS_MAX);
    if (c->n_ff_expert == 0)
        return fail(err, ST_CORRUPT, "config: the experts' feed-forward size (moe_intermediate_size) is missing");
    return ST_OK;
}

static void fill_sizes(struct arch *a)
{
    struct model_config *c = &a->config;
    const struct family *f = a->family;
    snprintf(c->family, sizeof c->family, "%s", f->name);
    if (c->n_kv_head == 0)
        c->n_kv_head = c->n_head;
    if (c->d_head == 0)
        c->d_head = f->d_head ? f->d_head : c->n_embd / c->n_head;
    if (c->n_ff == 0)
        c->n_ff = 4 * c->n_embd; /* GPT-2's n_inner: null */
    if (c->n_expert && c->n_ff_expert == 0)
        c->n_ff_expert = c->n_ff; /* Mixtral */
    if (c->n_ctx_train == 0)
        c->n_ctx_train = 2048;
    if (c->norm_eps == 0)
        c->norm_eps = f->norm_eps;
    c->parallel_residual = a->alt && f->attention_alt && f->rope_theta > 0;
    for (const struct name_row *n = f->names; n->role; n++) {
        c->qkv_bias |= n->role == W_Q && n->flags & NAME_BIAS;
        c->qk_norm |= n->role == W_Q_NORM;
    }
    c->qkv_bias |= a->need_bias;
}

static enum status fill_context(struct arch *a, int n_ctx, struct error *err)
{
    struct model_config *c = &a->config;
    enum { N_CTX_DEFAULT_MAX = 32768, N_CTX_TEXT_MAX = 8192 }; /* texts are computed at once: rows cost memory */
    bool learned = a->family->rope_theta == 0;
    a->n_position = learned ? c->n_ctx_train : 0;
    if (a->position0 >= c->n_ctx_train)
        return fail(err, ST_CORRUPT, "config: max_position_embeddings is %d, but the first position is row %d",
                    c->n_ctx_train, a->position0);
    c->n_ctx_train -= a->position0;
    int most = c->task == TASK_GENERATE ? N_CTX_DEFAULT_MAX : a->sentence.n_ctx ? a->sentence.n_ctx : N_CTX_TEXT_MAX;
    c->n_ctx = n_ctx ? n_ctx : c->n_ctx_train < most ? c->n_ctx_train : most;
    if (c->n_ctx < 1 || c->n_ctx > 1 << 28)
        return fail(err, ST_INVALID, "ctx: %d tokens, expected 1 to %d", n_ctx, 1 << 28);
    if (learned && c->n_ctx > c->n_ctx_train)
        return fail(err, ST_INVALID, "ctx: %d tokens, but this model has learned positions for %d only", c->n_ctx,
                    c->n_ctx_train);
    return ST_OK;
}

/* The number of parameters, so that no later product of sizes can overflow. */
static enum status count_params(struct arch *a, struct error *err)
{
    a->config.n_param = 0;
    for (int role = 1; role < W_COUNT; role++) {
        const struct role_row *r = &role_rows[role];
        if (!arch_has(a, role))
            continue;
        int64_t one = arch_dim(a, r->out) * arch_dim(a, r->in), n = 0;
        if (one == 0)
            return fail(err, ST_CORRUPT, "config: %s is missing; %s needs it",
                        arch_dim_text(arch_dim(a, r->out) ? r->in : r->out), r->gguf);
        for (int l = 0; l < (r->global ? 1 : a->config.n_layer); l++)
            n += r->global || arch_layer_has(a, role, l) ? (r->expert ? a->config.n_expert : 1) : 0;
        if (one > (int64_t)1 << 42 || __builtin_mul_overflow(one, n, &one) ||
            __builtin_add_overflow(a->config.n_param, one, &a->config.n_param) || a->config.n_param > (int64_t)1 << 44)
            return fail(err, ST_LIMIT, "config: the sizes given make more than 2^44 parameters");
    }
    return ST_OK;
}

/* The last rows of an embedding model with dense modules: theirs behind the pooling, the last of them into the logits.
 */
static enum status dense_end(struct arch *a, struct error *err)
{
    int n = 0, width = (int)arch_dim(a, DIM_POOLED);
    struct row *rows = arena_alloc_zero(&a->arena, 3 + 2 * DENSE_MAX, sizeof *rows);
    if (!rows)
        return fail_nomem(err, "config");
    while (pooled_end[n].op != OP_POOL) {
        rows[n] = pooled_end[n];
        n++;
    }
    rows[n] = pooled_end[n];
    rows[n++].out = H;
    for (int i = 0; i < a->sentence.n_dense; i++) {
        const struct sentence_dense *d = &a->sentence.dense[i];
        if (d->n_in != width)
            return fail(err, ST_CORRUPT, "config: dense module %d takes %d numbers, but %d come to it", i + 1, d->n_in,
                        width);
        width = d->n_out;
        rows[n++] = (struct row){OP_LINEAR, {H}, H, (uint8_t)(W_DENSE + i)};
        if (d->tanh)
            rows[n++] = (struct row){OP_TANH, {H}, H, (uint8_t)(W_DENSE + i)};
    }
    rows[n - 1].out = LOGITS;
    rows[n].op = OP_END;
    a->end = rows;
    return ST_OK;
}

/* What the model is for, known from its architecture's name, its heads, the files beside it, or the caller's wish. */
enum status config_set_task(struct arch *a, enum model_task task, unsigned pooling, struct error *err)
{
    struct model_config *c = &a->config;
    const struct family *f = a->family;
    if (pooling == POOLING_RANK || (a->sentence.words.found && f->encoder))
        return fail(err, ST_UNSUPPORTED,
                    "pooling rank is for models that generate, with a tokenizer; "
                    "not for this %s",
                    f->name);
    c->encoder = f->encoder;
    c->task = task;
    c->pooling = task == TASK_GENERATE ? POOL_NONE : pooling ? pooling : f->encoder ? POOL_FIRST : POOL_LAST;
    a->end = task == TASK_EMBED ? pooled_end : task == TASK_SCORE ? score_end : f->end;
    if (pooling != a->sentence.pooling || task != TASK_EMBED)
        a->sentence.n_dense = 0; /* another pooling was wished: its rows are the vectors */
    if (a->sentence.n_dense)
        TRY(dense_end(a, err));
    if (task == TASK_SCORE && c->n_label < 1)
        return fail(err, ST_CORRUPT, "config: a classifier without labels");
    if (task == TASK_SCORE && !a->sentence.words.found && !rows_named(f, W_SCORE))
        return fail(err, ST_UNSUPPORTED, "config: classifiers of family %s are not offered", f->name);
    return ST_OK;
}

/* After the plain numbers are read: derived sizes, limits and the per-layer table. */
enum status config_prepare(struct arch *a, int n_ctx, struct error *err)
{
    struct model_config *c = &a->config;
    bool d_head_given = c->d_head > 0 || a->family->d_head > 0;
    fill_sizes(a);
    if (!d_head_given && c->n_embd % c->n_head)
        return fail(err, ST_CORRUPT,
                    "config: hidden_size (%d) is no multiple of num_attention_heads (%d), and head_dim is not given",
                    c->n_embd, c->n_head);
    TRY(check_heads(c, err));
    TRY(check_experts(a, err));
    TRY(fill_context(a, n_ctx, err));
    return alloc_layers(a, err);
}

/* After everything is read: angles, and the count that bounds every later product. */
enum status config_finish(struct arch *a, struct error *err)
{
    struct model_config *c = &a->config;
    struct rope_config *r = &a->rope_config;
    if (r->theta == 0)
        r->theta = a->family->rope_theta;
    if (r->partial == 0)
        r->partial = a->family->rope_partial ? a->family->rope_partial : 1;
    snprintf(c->rope_scaling, sizeof c->rope_scaling, "%s", r->type[0] ? r->type : "none");
    c->rope_theta = r->theta;
    c->rope_partial = r->partial;
    c->n_out = c->task == TASK_SCORE   ? c->n_label
               : c->task != TASK_EMBED ? c->n_vocab
               : a->sentence.n_dense   ? a->sentence.dense[a->sentence.n_dense - 1].n_out
                                       : (int)arch_dim(a, DIM_POOLED);
    if (a->family->rope_theta > 0)
        TRY(rope_build(&a->rope[0], &a->arena, r, c, err));
    return count_params(a, err);
}

void config_add_eos(struct model_config *c, int64_t id)
{
    enum { EOS_MAX = sizeof c->eos / sizeof *c->eos };
    for (int i = 0; i < c->n_eos; i++)
        if (c->eos[i] == id)
            return;
    if (id >= 0 && id < c->n_vocab && c->n_eos < EOS_MAX)
        c->eos[c->n_eos++] = (int32_t)id;
}

/* ---- llama2.c ---- */
static enum status from_llama2c(struct arch *a, const struct checkpoint *ck, const struct model_options *options,
                                struct error *err)
{
    const struct llama2c_header *h = &ck->llama2c;
    a->family = &family_llama;
    a->names = llama2c_names;
    a->pairs = true;
    a->act = FN_SILU;
    a->init_range = 0.02;
    struct model_config *c = &a->config;
    const int given[] = {h->n_layer, h->dim, h->n_head, h->n_kv_head, 0, h->hidden_dim, h->vocab, h->seq_len};
    for (size_t i = 0; i < sizeof given / sizeof *given; i++)
        TRY(config_set_int(a, &config_ints[i], config_ints[i].json[0], given[i], err));
    c->norm_eps = 1e-5;
    c->tied = h->shared_output;
    c->bos = c->n_vocab > 1 ? 1 : -1;
    config_add_eos(c, 2);
    TRY(config_set_task(a, options->pooling ? TASK_EMBED : TASK_GENERATE, options->pooling, err));
    TRY(config_prepare(a, options->n_ctx, err));
    return config_finish(a, err);
}

/* ---- all of them ---- */
static void arch_init(struct arch *a)
{
    enum { ARCH_BYTES_MAX = 64 << 20 };
    *a = (struct arch){.config.bos = -1, .sentence.default_prompt = -1};
    arena_init(&a->arena, ARCH_BYTES_MAX);
}

enum status arch_from_json(struct arch *a, const struct json *config, const struct model_options *options,
                           struct error *err)
{
    arch_init(a);
    return config_from_json(a, config, options, err);
}

static enum status from_checkpoint(struct arch *a, const struct checkpoint *ck, const struct model_options *options,
                                   struct error *err)
{
    switch (ck->kind) {
    case CHECKPOINT_GGUF:
        if (options->pooling == POOLING_RANK && !checkpoint_find(ck, STR("cls.output.weight"))) /* no classifier */
            TRY(words_find(&a->sentence.words, ck, err));
        return config_from_gguf(a, ck, options, err);
    case CHECKPOINT_LLAMA2C:
        return from_llama2c(a, ck, options, err);
    default:
        if (!ck->config)
            return fail(err, ST_NOT_FOUND, "%s: there is no config.json beside the weights; give a folder that has one",
                        ck->path);
        TRY(sentence_read(&a->sentence, &a->arena, ck->folder, err));
        if (options->pooling == POOLING_RANK && !a->sentence.words.found &&
            !str_ends(json_str(json_at(json_get(ck->config, "architectures"), 0)), STR("ForSequenceClassification")))
            TRY(words_find(&a->sentence.words, ck, err));
        return json_get(ck->config, "model_type") || json_get(ck->config, "architectures")
                   ? config_from_json(a, ck->config, options, err)
                   : config_from_signs(a, ck, options, err);
    }
}

enum status arch_from_checkpoint(struct arch *a, const struct checkpoint *ck, const struct model_options *options,
                                 struct error *err)
{
    arch_init(a);
    return from_checkpoint(a, ck, options, err);
}

void arch_free(struct arch *a)
{
    arena_free(&a->arena);
}
