/* config - config.json, GGUF metadata and llama2.c headers into one struct arch, every number bounded */
#include "model/program.h"

#include "base/mem.h"

#include <math.h>
#include <stddef.h>
#include <stdio.h>

/* ---- numbers that every container has, by all their names ---- */
struct int_key {
    const char *json[4];
    const char *gguf; /* after the architecture's name and a dot */
    size_t offset;    /* of an int in struct model_config */
    int max;
    bool need;
};
#define FIELD(name) offsetof(struct model_config, name)
static const struct int_key int_keys[] = {
    {{"num_hidden_layers", "n_layer", "n_layers"}, "block_count", FIELD(n_layer), LAYER_MAX, true},
    {{"hidden_size", "n_embd", "dim"}, "embedding_length", FIELD(n_embd), 1 << 20, true},
    {{"num_attention_heads", "n_head", "n_heads"}, "attention.head_count", FIELD(n_head), 1 << 14, true},
    {{"num_key_value_heads"}, "attention.head_count_kv", FIELD(n_kv_head), 1 << 14, false},
    {{"head_dim"}, "attention.key_length", FIELD(d_head), 1 << 12, false},
    {{"intermediate_size", "n_inner", "d_ff", "hidden_dim"}, "feed_forward_length", FIELD(n_ff), 1 << 22, false},
    {{"vocab_size"}, "vocab_size", FIELD(n_vocab), DIM_MAX, true},
    {{"max_position_embeddings", "n_positions", "block_size"}, "context_length", FIELD(n_ctx_train), 1 << 28, false},
    {{"num_local_experts", "num_experts"}, "expert_count", FIELD(n_expert), EXPERT_MAX, false},
    {{"num_experts_per_tok"}, "expert_used_count", FIELD(n_expert_used), EXPERT_MAX, false},
    {{"moe_intermediate_size"}, "expert_feed_forward_length", FIELD(n_ff_expert), 1 << 22, false},
    {{"type_vocab_size"}, "token_type_count", FIELD(n_type), 1 << 10, false},
    {{"shared_expert_intermediate_size"}, "expert_shared_feed_forward_length", FIELD(n_ff_shared), 1 << 22, false},
};
enum { INT_KEYS = sizeof int_keys / sizeof *int_keys };

static const struct {
    const char *name;
    enum act_fn fn;
} act_names[] = {{"silu", FN_SILU},           {"swish", FN_SILU},         {"gelu", FN_GELU},
                 {"gelu_python", FN_GELU},    {"gelu_new", FN_GELU_TANH}, {"gelu_pytorch_tanh", FN_GELU_TANH},
                 {"gelu_fast", FN_GELU_TANH}, {"relu", FN_RELU}};

static const struct json *get_any(const struct json *object, const char *const keys[], int n)
{
    for (int i = 0; i < n && keys[i]; i++) {
        const struct json *v = json_get(object, keys[i]);
        if (v && v->type != JSON_NULL)
            return v;
    }
    return NULL;
}

static enum status set_act(struct arch *a, struct str name, struct error *err)
{
    for (size_t i = 0; i < sizeof act_names / sizeof *act_names; i++)
        if (str_is(name, act_names[i].name)) {
            a->act = act_names[i].fn;
            return ST_OK;
        }
    return fail(err, ST_UNSUPPORTED,
                "config: activation \"%.*s\" is not known; known are silu, gelu, gelu_new and relu", STR_ARG(name));
}

static enum status set_int(struct arch *a, const struct int_key *k, const char *key, int64_t value, struct error *err)
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

/* What the model is for, known from its architecture's name, its heads, the files beside it, or the caller's wish. */
static enum status set_task(struct arch *a, enum model_task task, enum pooling pooling, struct error *err)
{
    struct model_config *c = &a->config;
    const struct family *f = a->family;
    c->encoder = f->encoder;
    c->task = task;
    c->pooling = task == TASK_GENERATE ? POOL_NONE : pooling ? pooling : f->encoder ? POOL_FIRST : POOL_LAST;
    a->end = task == TASK_EMBED ? pooled_end : task == TASK_SCORE ? score_end : f->end;
    if (task == TASK_SCORE && c->n_label < 1)
        return fail(err, ST_CORRUPT, "config: a classifier without labels");
    if (task == TASK_SCORE && !rows_named(f, W_SCORE))
        return fail(err, ST_UNSUPPORTED, "config: classifiers of family %s are not offered", f->name);
    return ST_OK;
}

/* After the plain numbers are read: derived sizes, limits and the per-layer table. */
static enum status arch_prepare(struct arch *a, int n_ctx, struct error *err)
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
static enum status arch_finish(struct arch *a, struct error *err)
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
    c->n_out = c->task == TASK_EMBED ? c->n_embd : c->task == TASK_SCORE ? c->n_label : c->n_vocab;
    if (a->family->rope_theta > 0)
        TRY(rope_build(&a->rope[0], &a->arena, r, c, err));
    return count_params(a, err);
}

/* ---- config.json ---- */
static const struct family *family_from_json(const struct json *config)
{
    struct str type = json_str(json_get(config, "model_type"));
    struct str arch = json_str(json_at(json_get(config, "architectures"), 0));
    for (int i = 0; families[i]; i++) {
        const struct family *f = families[i];
        if (f->model_type && type.ptr ? str_is(type, f->model_type) : f->architecture && str_is(arch, f->architecture))
            return f;
    }
    return NULL;
}

static enum status json_ints(struct arch *a, const struct json *config, struct error *err)
{
    for (int i = 0; i < INT_KEYS; i++) {
        const struct int_key *k = &int_keys[i];
        const struct json *v = get_any(config, k->json, 4);
        if (v && v->type != JSON_INT)
            return fail(err, ST_CORRUPT, "config: %s must be an integer", k->json[0]);
        if (!v && k->need)
            return fail(err, ST_CORRUPT, "config: %s is missing", k->json[0]);
        if (v)
            TRY(set_int(a, k, k->json[0], v->integer, err));
    }
    return ST_OK;
}

static const float *json_floats(struct arch *a, const struct json *list, int *n)
{
    *n = (int)json_count(list);
    float *out = arena_alloc_zero(&a->arena, (size_t)*n + 1, sizeof *out);
    int i = 0;
    if (out)
        JSON_EACH (v, list)
            out[i++] = (float)json_real(v, 1);
    return out;
}

static enum status json_rope(struct arch *a, const struct json *config, struct error *err)
{
    static const char *const spellings[] = {"rope_parameters", "rope_scaling"};
    struct rope_config *r = &a->rope_config;
    const struct json *s = get_any(config, spellings, 2);
    if (s && s->type != JSON_OBJECT)
        return fail(err, ST_CORRUPT, "config: rope_parameters must be an object");
    static const char *const type_keys[] = {"rope_type", "type"};
    struct str type = json_str(get_any(s, type_keys, 2));
    if (type.len >= sizeof r->type)
        return fail(err, ST_UNSUPPORTED, "config: rope_type \"%.*s\" is not known", STR_ARG(type));
    if (type.ptr && !str_is(type, "default"))
        memcpy(r->type, type.ptr, type.len);
    static const struct {
        const char *key;
        size_t offset;
        bool outside; /* older files have it beside rope_scaling */
    } reals[] = {
        {"rope_theta", offsetof(struct rope_config, theta), true},
        {"rotary_emb_base", offsetof(struct rope_config, theta), true},
        {"partial_rotary_factor", offsetof(struct rope_config, partial), true},
        {"rotary_pct", offsetof(struct rope_config, partial), true},
        {"original_max_position_embeddings", offsetof(struct rope_config, original), true},
        {"factor", offsetof(struct rope_config, factor), false},
        {"low_freq_factor", offsetof(struct rope_config, low), false},
        {"high_freq_factor", offsetof(struct rope_config, high), false},
        {"beta_fast", offsetof(struct rope_config, beta_fast), false},
        {"beta_slow", offsetof(struct rope_config, beta_slow), false},
        {"mscale", offsetof(struct rope_config, mscale), false},
        {"mscale_all_dim", offsetof(struct rope_config, mscale_all_dim), false},
        {"attention_factor", offsetof(struct rope_config, attention_factor), false},
    };
    for (size_t i = 0; i < sizeof reals / sizeof *reals; i++) {
        double *out = (double *)((char *)r + reals[i].offset);
        if (reals[i].outside)
            *out = json_real(json_get(config, reals[i].key), *out);
        *out = json_real(json_get(s, reals[i].key), *out);
    }
    r->no_truncate = !json_bool(json_get(s, "truncate"), true);
    int n_short = 0;
    if (json_get(s, "long_factor")) {
        r->long_factor = json_floats(a, json_get(s, "long_factor"), &r->n_factor);
        r->short_factor = json_floats(a, json_get(s, "short_factor"), &n_short);
        if (!r->long_factor || !r->short_factor)
            return fail_nomem(err, "config");
        if (n_short != r->n_factor)
            return fail(err, ST_CORRUPT, "config: long_factor has %d numbers and short_factor %d", r->n_factor,
                        n_short);
    }
    return ST_OK;
}

/* Which layers look back through a window, and which have experts. */
static void json_layers(struct arch *a, const struct json *config)
{
    const struct model_config *c = &a->config;
    const struct json *types = json_get(config, "layer_types"), *dense = json_get(config, "mlp_only_layers");
    int64_t first = a->family->window_from_layer ? json_int(json_get(config, "max_window_layers"), 28) : 0;
    for (int l = 0; l < c->n_layer; l++) {
        bool windowed = l >= first;
        if (json_count(types) == (size_t)c->n_layer && a->family->window_from_layer)
            windowed = str_is(json_str(json_at(types, (size_t)l)), "sliding_attention");
        else if (a->family->window_even)
            windowed = l % 2 == 0 && l < first;
        if (!windowed)
            for (int i = 0; i < ATTR_MAX; i++)
                a->attrs[l][i].window = 0;
    }
    int64_t step = json_int(json_get(config, "decoder_sparse_step"), 1);
    for (int l = 0; l < c->n_layer; l++)
        if (step < 1 || (l + 1) % step)
            a->sparse[l] = false;
    JSON_EACH (v, dense)
        if (json_int(v, -1) >= 0 && json_int(v, -1) < c->n_layer)
            a->sparse[v->integer] = false;
    if (json_bool(json_get(config, "scale_attn_by_inverse_layer_idx"), false))
        for (int l = 0; l < c->n_layer; l++)
            a->attrs[l][0].scale /= (real)(l + 1);
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

static void json_tokens(struct model_config *c, const struct json *config)
{
    int64_t bos = json_int(json_get(config, "bos_token_id"), -1);
    c->bos = bos >= 0 && bos < c->n_vocab ? (int32_t)bos : -1;
    const struct json *eos = json_get(config, "eos_token_id");
    config_add_eos(c, json_int(eos, -1));
    JSON_EACH (v, eos) {
        config_add_eos(c, json_int(v, -1));
    }
}

/* Keys that change the arithmetic in ways no row expresses: better refused than computed wrongly. */
static enum status json_refuse(const struct json *config, struct error *err)
{
    static const char *const scaled[] = {"embedding_multiplier", "attn_logit_softcapping", "final_logit_softcapping",
                                         "logits_scaling", "residual_multiplier"};
    for (size_t i = 0; i < sizeof scaled / sizeof *scaled; i++) {
        const struct json *v = json_get(config, scaled[i]);
        if (v && v->type != JSON_NULL)
            return fail(err, ST_UNSUPPORTED, "config: %s is not supported by this family", scaled[i]);
    }
    return ST_OK;
}

/* Labels: num_labels as transformers writes it, by names, else 2. */
static int json_labels(const struct json *config)
{
    size_t named = json_count(json_get(config, "id2label"));
    int64_t n = json_int(json_get(config, "num_labels"), named ? (int64_t)named : 2);
    return n > 0 && n <= LABEL_MAX ? (int)n : 0;
}

static enum status json_encoder(struct arch *a, const struct json *config, struct error *err)
{
    struct str positions = json_str(json_get(config, "position_embedding_type"));
    if (json_bool(json_get(config, "is_decoder"), false))
        return fail(err, ST_UNSUPPORTED, "config: is_decoder: %s is offered as an encoder only", a->family->name);
    if (positions.ptr && !str_is(positions, "absolute"))
        return fail(err, ST_UNSUPPORTED, "config: position_embedding_type \"%.*s\" is not offered, only absolute",
                    STR_ARG(positions));
    int64_t pad = json_int(json_get(config, "pad_token_id"), 1);
    if (a->family->position_after_pad && (pad < 0 || pad > 1 << 20))
        return fail(err, ST_CORRUPT, "config: pad_token_id is %lld", (long long)pad);
    a->position0 = a->family->position_after_pad ? (int)pad + 1 : 0;
    return ST_OK;
}

static enum status json_task(struct arch *a, const struct json *config, enum pooling wished, struct error *err)
{
    struct str arch = json_str(json_at(json_get(config, "architectures"), 0));
    bool encoder = a->family->encoder;
    if (encoder)
        TRY(json_encoder(a, config, err));
    if (str_ends(arch, STR("ForSequenceClassification"))) {
        a->config.n_label = json_labels(config);
        return set_task(a, TASK_SCORE, POOL_NONE, err);
    }
    if (encoder && arch.ptr && !str_ends(arch, STR("Model")) && !str_ends(arch, STR("ForMaskedLM")) &&
        !str_ends(arch, STR("ForPreTraining")))
        return fail(err, ST_UNSUPPORTED,
                    "config: architecture \"%.*s\" is not offered; an encoder gives embeddings or, as "
                    "...ForSequenceClassification, scores",
                    STR_ARG(arch));
    if (!wished && a->sentence.found)
        wished = a->sentence.pooling;
    return set_task(a, wished || encoder ? TASK_EMBED : TASK_GENERATE, encoder && !wished ? POOL_MEAN : wished, err);
}

static enum status json_read(struct arch *a, const struct json *config, const struct model_options *options,
                             struct error *err)
{
    struct model_config *c = &a->config;
    const struct family *f = a->family;
    c->n_kv_head = f->n_kv_head;
    c->n_expert_used = f->n_expert_used;
    TRY(json_refuse(config, err));
    TRY(json_ints(a, config, err));
    static const char *const eps[] = {"rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon"};
    static const char *const act[] = {"hidden_act", "activation_function", "activation"};
    const struct json *v = get_any(config, eps, 3);
    c->norm_eps = json_real(v, f->norm_eps);
    v = get_any(config, act, 3);
    TRY(set_act(a, v ? json_str(v) : str_of(f->act), err));
    c->tied = json_bool(json_get(config, "tie_word_embeddings"), f->tied);
    static const char *const bias[] = {"attention_bias", "qkv_bias"};
    a->need_bias = json_bool(get_any(config, bias, 2), f->bias);
    a->need_mlp_bias = json_bool(json_get(config, "mlp_bias"), false);
    a->norm_top_k = f->norm_top_k || json_bool(json_get(config, "norm_topk_prob"), false);
    a->init_range = json_real(json_get(config, "initializer_range"), 0.02);
    a->alt = f->attention_alt && (str_is(json_str(json_get(config, "norm")), "post") ||
                                  !json_bool(json_get(config, "use_parallel_residual"), true));
    v = json_get(config, "sliding_window");
    c->window = v ? (int)json_int(v, 0) : f->window;
    if (f->window_switch && !json_bool(json_get(config, "use_sliding_window"), false))
        c->window = 0;
    if (c->window < 0 || (v && json_int(v, 0) > INT32_MAX))
        return fail(err, ST_CORRUPT, "config: sliding_window is %lld", (long long)json_int(v, 0));
    json_tokens(c, config);
    TRY(json_rope(a, config, err));
    TRY(json_task(a, config, options->pooling, err));
    TRY(arch_prepare(a, options->n_ctx, err));
    json_layers(a, config);
    return arch_finish(a, err);
}

static void arch_init(struct arch *a)
{
    enum { ARCH_BYTES_MAX = 64 << 20 };
    *a = (struct arch){.config.bos = -1, .sentence.default_prompt = -1};
    arena_init(&a->arena, ARCH_BYTES_MAX);
}

static enum status from_json(struct arch *a, const struct json *config, const struct model_options *options,
                             struct error *err)
{
    a->family = family_from_json(config);
    if (!a->family) {
        struct str type = json_str(json_get(config, "model_type"));
        return fail(
            err, ST_UNSUPPORTED,
            "config: model_type \"%.*s\" is not offered; known are llama, mistral, qwen2, qwen3, gpt2, gpt_neox, "
            "mixtral, qwen2_moe, qwen3_moe, bert, roberta, xlm-roberta, camembert and distilbert",
            STR_ARG(type));
    }
    a->names = a->family->names;
    return json_read(a, config, options, err);
}

enum status arch_from_json(struct arch *a, const struct json *config, const struct model_options *options,
                           struct error *err)
{
    arch_init(a);
    return from_json(a, config, options, err);
}

/* A training script's checkpoint says no model_type: its tensors' names do. */
static enum status from_signs(struct arch *a, const struct checkpoint *ck, const struct model_options *options,
                              struct error *err)
{
    const struct json *config =
        json_is(json_get(ck->config, "config"), JSON_OBJECT) ? json_get(ck->config, "config") : ck->config;
    for (int i = 0; families[i]; i++) {
        if (!families[i]->sign || !tensor_by_name(ck, families[i]->sign))
            continue;
        a->family = families[i];
        a->names = a->family->names;
        return json_read(a, config, options, err);
    }
    return fail(err, ST_UNSUPPORTED,
                "%s: config.json has no model_type, and the tensors' names are those of no family "
                "offered; give config.json a model_type",
                ck->path);
}

/* ---- GGUF ---- */
struct gguf_source {
    const struct gguf *gguf;
    char arch[32];
    char key[128];
};
static const char *gguf_key(struct gguf_source *g, const char *name)
{
    snprintf(g->key, sizeof g->key, "%s.%s", g->arch, name);
    return g->key;
}

static const struct family *family_from_gguf(const struct gguf_source *g, bool experts)
{
    for (int i = 0; families[i]; i++)
        if (families[i]->gguf && strcmp(families[i]->gguf, g->arch) == 0 && (families[i]->moe != NULL) == experts)
            return families[i];
    return NULL;
}

static enum status gguf_ints(struct arch *a, struct gguf_source *g, const struct checkpoint *ck, struct error *err)
{
    for (int i = 0; i < INT_KEYS; i++) {
        const struct int_key *k = &int_keys[i];
        const struct gguf_value *v = gguf_find(g->gguf, gguf_key(g, k->gguf));
        int64_t value = 0;
        if (v && v->type == GGUF_ARRAY) { /* head counts a layer: only equal ones */
            value = v->count ? gguf_int_at(v, 0, 0) : 0;
            for (uint64_t j = 1; j < v->count; j++)
                if (gguf_int_at(v, j, -1) != value)
                    return fail(err, ST_UNSUPPORTED, "gguf: %s differs between layers, which is not offered", g->key);
        } else if (v) {
            value = gguf_int(g->gguf, g->key, -1);
        } else if (k->offset == FIELD(n_vocab)) {
            const struct tensor *t = checkpoint_find(ck, STR("token_embd.weight"));
            value = t && t->n_dim == 2 ? t->shape[0] : 0;
        } else if (k->offset == FIELD(n_type)) {
            const struct tensor *t = checkpoint_find(ck, STR("token_types.weight"));
            value = t && t->n_dim == 2 ? t->shape[0] : 0;
        } else if (k->offset == FIELD(n_ff_shared)) {
            const struct tensor *t = checkpoint_find(ck, STR("blk.0.ffn_up_shexp.weight"));
            value = t && t->n_dim == 2 ? t->shape[0] : 0;
        }
        TRY(set_int(a, k, g->key, value, err));
    }
    return ST_OK;
}

static enum status gguf_divisors(const float **out, int *n, struct arch *a, const struct checkpoint *ck,
                                 const char *name, struct error *err)
{
    const struct tensor *t = tensor_by_name(ck, name);
    if (!t)
        return ST_OK;
    if (t->type != DT_F32 || t->n_dim != 1 || t->shape[0] > 1 << 12)
        return fail(err, ST_CORRUPT, "gguf: %s must be a vector of f32", name);
    float *copy = arena_alloc(&a->arena, t->bytes);
    if (!copy)
        return fail_nomem(err, "config");
    memcpy(copy, t->data, t->bytes);
    *out = copy;
    *n = (int)t->shape[0];
    return ST_OK;
}

static enum status gguf_rope(struct arch *a, struct gguf_source *g, const struct checkpoint *ck, struct error *err)
{
    struct rope_config *r = &a->rope_config;
    r->theta = gguf_real(g->gguf, gguf_key(g, "rope.freq_base"), 10000);
    int64_t rotated = gguf_int(g->gguf, gguf_key(g, "rope.dimension_count"), 0);
    if (rotated > 0 && a->config.d_head > 0)
        r->partial = (double)rotated / a->config.d_head;
    struct str type = gguf_string(g->gguf, gguf_key(g, "rope.scaling.type"));
    r->factor =
        gguf_real(g->gguf, gguf_key(g, "rope.scaling.factor"), gguf_real(g->gguf, gguf_key(g, "rope.scale_linear"), 0));
    if (type.ptr && !str_is(type, "none") && type.len < sizeof r->type)
        memcpy(r->type, type.ptr, type.len);
    else if (!type.ptr && r->factor > 0)
        memcpy(r->type, "linear", 7);
    r->original = gguf_real(g->gguf, gguf_key(g, "rope.scaling.original_context_length"), 0);
    r->beta_fast = gguf_real(g->gguf, gguf_key(g, "rope.scaling.yarn_beta_fast"), 0);
    r->beta_slow = gguf_real(g->gguf, gguf_key(g, "rope.scaling.yarn_beta_slow"), 0);
    if (type.ptr && str_is(type, "longrope"))
        r->attention_factor = gguf_real(g->gguf, gguf_key(g, "rope.scaling.attn_factor"), 0);
    int n_short = 0, n_divide = 0;
    TRY(gguf_divisors(&r->long_factor, &r->n_factor, a, ck, "rope_factors_long.weight", err));
    TRY(gguf_divisors(&r->short_factor, &n_short, a, ck, "rope_factors_short.weight", err));
    if (n_short != r->n_factor)
        return fail(err, ST_CORRUPT, "gguf: rope_factors_long has %d numbers and rope_factors_short %d", r->n_factor,
                    n_short);
    TRY(gguf_divisors(&r->divide, &n_divide, a, ck, "rope_freqs.weight", err));
    if (n_divide && r->n_factor && n_divide != r->n_factor) /* rope_build compares one count with all three */
        return fail(err, ST_CORRUPT, "gguf: rope_freqs has %d numbers and rope_factors_long %d", n_divide, r->n_factor);
    if (n_divide)
        r->n_factor = n_divide;
    return ST_OK;
}

static void gguf_tokens(struct model_config *c, const struct gguf *g)
{
    int64_t bos = gguf_int(g, "tokenizer.ggml.bos_token_id", -1);
    c->bos = bos >= 0 && bos < c->n_vocab ? (int32_t)bos : -1;
    config_add_eos(c, gguf_int(g, "tokenizer.ggml.eos_token_id", -1));
    config_add_eos(c, gguf_int(g, "tokenizer.ggml.eot_token_id", -1));
}

enum { GGUF_POOL_NONE, GGUF_POOL_MEAN, GGUF_POOL_CLS, GGUF_POOL_LAST, GGUF_POOL_RANK };

/* A file that says how it pools is an embedding model, one with a classifier's rows a classifier. */
static enum status gguf_task(struct arch *a, struct gguf_source *g, const struct checkpoint *ck, enum pooling wished,
                             struct error *err)
{
    static const enum pooling poolings[] = {POOL_NONE, POOL_MEAN, POOL_FIRST, POOL_LAST};
    int64_t type = gguf_int(g->gguf, gguf_key(g, "pooling_type"), GGUF_POOL_NONE);
    const struct tensor *score = checkpoint_find(ck, STR("cls.output.weight"));
    if (type < 0 || type > GGUF_POOL_RANK)
        return fail(err, ST_UNSUPPORTED,
                    "gguf: %s is %lld; known are 0 (none), 1 (mean), 2 (cls), 3 (last) and 4 (rank)", g->key,
                    (long long)type);
    if (a->family->encoder && gguf_bool(g->gguf, gguf_key(g, "attention.causal"), false))
        return fail(err, ST_UNSUPPORTED, "gguf: %s: this family is offered as an encoder only", g->key);
    if (type == GGUF_POOL_RANK) {
        if (!score)
            return fail(err, ST_UNSUPPORTED,
                        "gguf: a reranker (pooling_type 4) without cls.output.weight is not offered");
        a->config.n_label = score->shape[0] > 0 && score->shape[0] <= LABEL_MAX ? (int)score->shape[0] : 0;
        return set_task(a, TASK_SCORE, POOL_NONE, err);
    }
    wished = wished ? wished : poolings[type];
    return set_task(a, wished || a->family->encoder ? TASK_EMBED : TASK_GENERATE,
                    a->family->encoder && !wished ? POOL_MEAN : wished, err);
}

static enum status from_gguf(struct arch *a, const struct checkpoint *ck, const struct model_options *options,
                             struct error *err)
{
    struct gguf_source g = {.gguf = ck->gguf};
    struct str name = gguf_string(ck->gguf, "general.architecture");
    if (name.ptr && name.len < sizeof g.arch)
        memcpy(g.arch, name.ptr, name.len);
    a->family = family_from_gguf(&g, gguf_int(ck->gguf, gguf_key(&g, "expert_count"), 0) > 0);
    if (!name.ptr || !a->family)
        return fail(
            err, ST_UNSUPPORTED,
            "gguf: architecture \"%.*s\" is not offered; known are llama, qwen2, qwen3, gpt2, gptneox, qwen2moe, "
            "qwen3moe and bert",
            STR_ARG(name));
    const struct family *f = a->family;
    struct model_config *c = &a->config;
    a->gguf = true;
    a->names = gguf_names;
    a->pairs = f->gguf_pairs;
    TRY(gguf_ints(a, &g, ck, err));
    if (c->d_head == 0)
        c->d_head = c->n_embd / c->n_head;
    c->norm_eps = gguf_real(
        ck->gguf, gguf_key(&g, f->layer_norm ? "attention.layer_norm_epsilon" : "attention.layer_norm_rms_epsilon"),
        f->norm_eps);
    TRY(set_act(a, str_of(f->act), err));
    c->tied = !checkpoint_find(ck, STR("output.weight"));
    a->norm_top_k = gguf_bool(ck->gguf, gguf_key(&g, "expert_weights_norm"), f->norm_top_k || f->norm_top_k_gguf);
    a->init_range = 0.02;
    a->alt = f->attention_alt && !gguf_bool(ck->gguf, gguf_key(&g, "use_parallel_residual"), true);
    c->window = (int)gguf_int(ck->gguf, gguf_key(&g, "attention.sliding_window"), 0);
    c->window = c->window < 0 ? 0 : c->window;
    gguf_tokens(c, ck->gguf);
    TRY(gguf_task(a, &g, ck, options->pooling, err));
    TRY(arch_prepare(a, options->n_ctx, err));
    TRY(gguf_rope(a, &g, ck, err));
    return arch_finish(a, err);
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
        TRY(set_int(a, &int_keys[i], int_keys[i].json[0], given[i], err));
    c->norm_eps = 1e-5;
    c->tied = h->shared_output;
    c->bos = c->n_vocab > 1 ? 1 : -1;
    config_add_eos(c, 2);
    TRY(set_task(a, options->pooling ? TASK_EMBED : TASK_GENERATE, options->pooling, err));
    TRY(arch_prepare(a, options->n_ctx, err));
    return arch_finish(a, err);
}

static enum status from_checkpoint(struct arch *a, const struct checkpoint *ck, const struct model_options *options,
                                   struct error *err)
{
    switch (ck->kind) {
    case CHECKPOINT_GGUF:
        return from_gguf(a, ck, options, err);
    case CHECKPOINT_LLAMA2C:
        return from_llama2c(a, ck, options, err);
    default:
        if (!ck->config)
            return fail(err, ST_NOT_FOUND, "%s: there is no config.json beside the weights; give a folder that has one",
                        ck->path);
        TRY(sentence_read(&a->sentence, &a->arena, ck->folder, err));
        return json_get(ck->config, "model_type") || json_get(ck->config, "architectures")
                   ? from_json(a, ck->config, options, err)
                   : from_signs(a, ck, options, err);
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
