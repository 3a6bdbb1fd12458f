/* config_gguf - GGUF's metadata */
#include "model/config_private.h"

#include <stdio.h>

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
    for (int i = 0; i < CONFIG_INTS; i++) {
        const struct int_key *k = &config_ints[i];
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
        TRY(config_set_int(a, k, g->key, value, err));
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

/* A classifier whose two labels are the words. */
static struct words gguf_words(struct gguf_source *g, const struct tensor *score)
{
    struct words w = {.yes = -1, .no = -1};
    const struct gguf_value *labels = gguf_find(g->gguf, gguf_key(g, "classifier.output_labels"));
    for (int32_t i = 0; labels && labels->strings && labels->count == 2 && score->shape[0] == 2 && i < 2; i++) {
        w.yes = str_is(labels->strings[i], "yes") ? i : w.yes;
        w.no = str_is(labels->strings[i], "no") ? i : w.no;
    }
    w.found = w.yes >= 0 && w.no >= 0;
    return w;
}

/* A file that says how it pools is an embedding model, one with a classifier's rows a classifier. */
static enum status gguf_task(struct arch *a, struct gguf_source *g, const struct checkpoint *ck, unsigned wished,
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
        a->sentence.words = gguf_words(g, score);
        config_words(a, 0);
        return config_set_task(a, TASK_SCORE, POOL_NONE, err);
    }
    if (config_words(a, wished))
        return config_set_task(a, TASK_SCORE, POOL_NONE, err);
    wished = wished ? wished : poolings[type];
    return config_set_task(a, wished || a->family->encoder ? TASK_EMBED : TASK_GENERATE,
                           a->family->encoder && !wished ? POOL_MEAN : wished, err);
}

enum status config_from_gguf(struct arch *a, const struct checkpoint *ck, const struct model_options *options,
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
            "qwen3moe, bert and nomic-bert",
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
    TRY(config_set_act(a, str_of(f->act), err));
    c->tied = !checkpoint_find(ck, STR("output.weight"));
    a->norm_top_k = gguf_bool(ck->gguf, gguf_key(&g, "expert_weights_norm"), f->norm_top_k || f->norm_top_k_gguf);
    a->init_range = 0.02;
    a->alt = f->attention_alt && !gguf_bool(ck->gguf, gguf_key(&g, "use_parallel_residual"), true);
    c->window = (int)gguf_int(ck->gguf, gguf_key(&g, "attention.sliding_window"), 0);
    c->window = c->window < 0 ? 0 : c->window;
    gguf_tokens(c, ck->gguf);
    TRY(gguf_task(a, &g, ck, options->pooling, err));
    TRY(config_prepare(a, options->n_ctx, err));
    TRY(gguf_rope(a, &g, ck, err));
    return config_finish(a, err);
}
