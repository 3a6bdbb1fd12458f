/* config_json - config.json, as transformers writes it for the families offered, and a training script's */
#include "model/config_private.h"

#include <math.h>
#include <stdio.h>

static const struct json *get_any(const struct json *object, const char *const keys[], int n)
{
    for (int i = 0; i < n && keys[i]; i++) {
        const struct json *v = json_get(object, keys[i]);
        if (v && v->type != JSON_NULL)
            return v;
    }
    return NULL;
}

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
    for (int i = 0; i < CONFIG_INTS; i++) {
        const struct int_key *k = &config_ints[i];
        const struct json *v = get_any(config, k->json, 4);
        if (v && v->type != JSON_INT)
            return fail(err, ST_CORRUPT, "config: %s must be an integer", k->json[0]);
        if (!v && k->need)
            return fail(err, ST_CORRUPT, "config: %s is missing", k->json[0]);
        if (v)
            TRY(config_set_int(a, k, k->json[0], v->integer, err));
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
        {"rotary_emb_fraction", offsetof(struct rope_config, partial), true},
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
    static const char *const other[] = {"prenorm", "parallel_block", "use_rms_norm", "rotary_emb_interleaved",
                                        "causal"};
    for (size_t i = 0; i < sizeof other / sizeof *other; i++) /* what Nomic BERT's own code could do besides */
        if (json_bool(json_get(config, other[i]), false))
            return fail(err, ST_UNSUPPORTED, "config: %s: true is not offered for %s", other[i], a->family->name);
    int64_t pad = json_int(json_get(config, "pad_token_id"), 1);
    if (a->family->position_after_pad && (pad < 0 || pad > 1 << 20))
        return fail(err, ST_CORRUPT, "config: pad_token_id is %lld", (long long)pad);
    a->position0 = a->family->position_after_pad ? (int)pad + 1 : 0;
    return ST_OK;
}

static enum status json_task(struct arch *a, const struct json *config, unsigned wished, struct error *err)
{
    struct str arch = json_str(json_at(json_get(config, "architectures"), 0));
    bool encoder = a->family->encoder;
    if (encoder)
        TRY(json_encoder(a, config, err));
    if (str_ends(arch, STR("ForSequenceClassification"))) {
        a->sentence.words.found = false;
        a->config.n_label = json_labels(config);
        return config_set_task(a, TASK_SCORE, POOL_NONE, err);
    }
    if (config_words(a, wished))
        return config_set_task(a, TASK_SCORE, POOL_NONE, err);
    if (encoder && arch.ptr && !str_ends(arch, STR("Model")) && !str_ends(arch, STR("ForMaskedLM")) &&
        !str_ends(arch, STR("ForPreTraining")))
        return fail(err, ST_UNSUPPORTED,
                    "config: architecture \"%.*s\" is not offered; an encoder gives embeddings or, as "
                    "...ForSequenceClassification, scores",
                    STR_ARG(arch));
    if (!wished && a->sentence.found)
        wished = a->sentence.pooling;
    return config_set_task(a, wished || encoder ? TASK_EMBED : TASK_GENERATE, encoder && !wished ? POOL_MEAN : wished,
                           err);
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
    TRY(config_set_act(a, v ? json_str(v) : str_of(f->act), err));
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
    TRY(config_prepare(a, options->n_ctx, err));
    json_layers(a, config);
    return config_finish(a, err);
}

enum status config_from_json(struct arch *a, const struct json *config, const struct model_options *options,
                             struct error *err)
{
    a->family = family_from_json(config);
    if (!a->family) {
        struct str type = json_str(json_get(config, "model_type"));
        return fail(
            err, ST_UNSUPPORTED,
            "config: model_type \"%.*s\" is not offered; known are llama, mistral, qwen2, qwen3, gpt2, gpt_neox, "
            "mixtral, qwen2_moe, qwen3_moe, bert, roberta, xlm-roberta, camembert, distilbert and nomic_bert",
            STR_ARG(type));
    }
    a->names = a->family->names;
    return json_read(a, config, options, err);
}

/* A training script's checkpoint says no model_type: its tensors' names do. */
enum status config_from_signs(struct arch *a, const struct checkpoint *ck, const struct model_options *options,
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
