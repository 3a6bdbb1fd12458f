/* write_gguf - one GGUF file: the configuration in its keys, the tokenizer inside, rows in llama.cpp's order */
#include "model/private.h"

#include "base/file.h"
#include "model/recipe.h"

#include <stdio.h>

struct gguf_out {
    struct gguf_writer *w;
    const struct model *m;
    char key[128];
};

static const char *key_of(struct gguf_out *g, const char *name)
{
    snprintf(g->key, sizeof g->key, "%s.%s", g->m->arch.family->gguf, name);
    return g->key;
}
static void put_int(struct gguf_out *g, const char *name, int64_t value)
{
    if (value > 0) /* an absent key reads as 0 */
        gguf_put_int(g->w, key_of(g, name), GGUF_U32, value);
}
static void put_real(struct gguf_out *g, const char *name, double value)
{
    if (value > 0)
        gguf_put_real(g->w, key_of(g, name), GGUF_F32, value);
}

/* ---- configuration ---- */
static void put_rope_keys(struct gguf_out *g)
{
    const struct rope_config *r = &g->m->arch.rope_config;
    put_int(g, "rope.dimension_count", 2 * g->m->arch.rope[0].n_half);
    put_real(g, "rope.freq_base", r->theta);
    if (!r->type[0])
        return;
    gguf_put_string(g->w, key_of(g, "rope.scaling.type"), str_of(r->type));
    put_real(g, "rope.scaling.factor", r->factor);
    put_int(g, "rope.scaling.original_context_length", (int64_t)r->original);
    put_real(g, "rope.scaling.yarn_beta_fast", r->beta_fast);
    put_real(g, "rope.scaling.yarn_beta_slow", r->beta_slow);
}

static void put_config(struct gguf_out *g, const char *name)
{
    const struct arch *a = &g->m->arch;
    const struct model_config *c = &a->config;
    gguf_put_string(g->w, "general.architecture", str_of(a->family->gguf));
    if (name)
        gguf_put_string(g->w, "general.name", str_of(name));
    put_int(g, "block_count", c->n_layer);
    put_int(g, "context_length", c->n_ctx_train);
    put_int(g, "embedding_length", c->n_embd);
    put_int(g, "feed_forward_length", c->n_ff);
    put_int(g, "attention.head_count", c->n_head);
    put_int(g, "attention.head_count_kv", c->n_kv_head);
    put_int(g, "attention.key_length", c->d_head);
    put_int(g, "attention.value_length", c->d_head);
    put_int(g, "attention.sliding_window", c->window);
    put_int(g, "vocab_size", c->n_vocab);
    put_int(g, "expert_count", c->n_expert);
    put_int(g, "expert_used_count", c->n_expert_used);
    if (c->n_expert) {
        put_int(g, "expert_feed_forward_length", c->n_ff_expert);
        put_int(g, "expert_shared_feed_forward_length", c->n_ff_shared);
        gguf_put_bool(g->w, key_of(g, "expert_weights_norm"), a->norm_top_k);
    }
    put_real(g, a->family->layer_norm ? "attention.layer_norm_epsilon" : "attention.layer_norm_rms_epsilon",
             c->norm_eps);
    if (a->family == &family_gpt_neox)
        gguf_put_bool(g->w, key_of(g, "use_parallel_residual"), !a->alt);
    static const int poolings[] = {[POOL_MEAN] = 1, [POOL_FIRST] = 2, [POOL_LAST] = 3};
    if (c->task != TASK_GENERATE)
        put_int(g, "pooling_type", c->task == TASK_SCORE ? 4 : poolings[pooling_first(c->pooling)]);
    if (c->encoder)
        gguf_put_bool(g->w, key_of(g, "attention.causal"), false);
    if (a->rope[0].n_half)
        put_rope_keys(g);
}

/* What the keys of this format cannot say, so that no other program computes something else from the file. */
static enum status check_expressible(const struct arch *a, struct error *err)
{
    const struct rope_config *r = &a->rope_config;
    const struct model_config *c = &a->config;
    const char *what = NULL;
    bool plain_act = str_is(str_of(a->family->act ? a->family->act : ""), "silu") ? a->act == FN_SILU
                                                                                  : !c->encoder || a->act == FN_GELU;
    if (strcmp(r->type, "linear") != 0 && strcmp(r->type, "yarn") != 0 && r->type[0])
        what = "this rope scaling";
    else if (r->mscale || r->mscale_all_dim || r->attention_factor || r->no_truncate)
        what = "this form of yarn";
    else if (r->divide)
        what = "a table of rope divisors";
    else if (a->family == &family_gpt2 && (a->alt || a->act != FN_GELU_TANH))
        what = "this variant of GPT-2";
    else if (!plain_act)
        what = "this activation";
    else if (c->task == TASK_EMBED && (c->pooling > POOL_LAST || a->sentence.n_dense))
        what = "this pooling, or what stands behind it";
    else if (a->sentence.words.found)
        what = "a score of two words";
    for (int l = 0; l < c->n_layer && !what; l++)
        if (a->sparse[l] != a->sparse[0] || a->attrs[l][0].window != c->window)
            what = "layers that differ";
    if (!what && c->window && strcmp(a->family->gguf, "llama") == 0)
        what = "a sliding window of the llama architecture";
    return what
               ? fail(err, ST_UNSUPPORTED, "write: GGUF has no words for %s; write a Hugging Face folder instead", what)
               : ST_OK;
}

/* ---- the tokenizer and what is said of the model, copied from a GGUF ---- */
static enum status copy_array(struct gguf_writer *w, const char *key, const struct gguf_value *v, struct error *err)
{
    if (v->strings) {
        gguf_put_strings(w, key, v->strings, v->count);
        return ST_OK;
    }
    bool is_real = v->element == GGUF_F32 || v->element == GGUF_F64;
    void *copy = mem_alloc_zero(v->count, is_real ? sizeof(float) : sizeof(int64_t));
    if (!copy)
        return fail_nomem(err, "write");
    for (uint64_t i = 0; i < v->count; i++)
        if (is_real)
            ((float *)copy)[i] = (float)gguf_real_at(v, i, 0);
        else
            ((int64_t *)copy)[i] = gguf_int_at(v, i, 0);
    if (is_real)
        gguf_put_reals(w, key, copy, v->count);
    else
        gguf_put_ints(w, key, v->element, copy, v->count);
    mem_free(copy);
    return ST_OK;
}

/* All but what is said of this file's own bytes. */
static bool key_is_copied(struct str key)
{
    static const char *const own[] = {"general.architecture", "general.alignment", "general.file_type",
                                      "general.quantization_version"};
    for (size_t i = 0; i < sizeof own / sizeof *own; i++)
        if (str_is(key, own[i]))
            return false;
    return str_starts(key, STR("tokenizer.")) || str_starts(key, STR("general."));
}

static enum status copy_keys(struct gguf_writer *w, const struct gguf *g, struct error *err)
{
    char key[256];
    for (size_t i = 0; i < g->n_value; i++) {
        const struct gguf_value *v = &g->values[i];
        if (!key_is_copied(v->key) || v->key.len >= sizeof key)
            continue;
        memcpy(key, v->key.ptr, v->key.len);
        key[v->key.len] = 0;
        if (v->type == GGUF_ARRAY)
            TRY(copy_array(w, key, v, err));
        else if (v->type == GGUF_STRING)
            gguf_put_string(w, key, gguf_string(g, key));
        else if (v->type == GGUF_BOOL)
            gguf_put_bool(w, key, gguf_bool(g, key, false));
        else if (v->type == GGUF_F32 || v->type == GGUF_F64)
            gguf_put_real(w, key, v->type, gguf_real(g, key, 0));
        else
            gguf_put_int(w, key, v->type, gguf_int(g, key, 0));
    }
    return ST_OK;
}

/* ---- the tokenizer beside a model ---- */
static enum status put_tokenizer_of(struct gguf_out *g, const char *folder, struct error *err)
{
    const struct model_config *c = &g->m->arch.config;
    struct tokenizer *tok;
    enum status st = tokenizer_open(&tok, folder, err);
    if (st == ST_NOT_FOUND) /* a model without words: so is its file */
        return ST_OK;
    TRY(st);
    st = tokenizer_write_gguf(tok, g->w, c->n_vocab, c->bos, c->n_eos ? c->eos[0] : -1, err);
    tokenizer_close(tok);
    return st;
}

static enum status put_source(struct gguf_out *g, const struct checkpoint *ck, const char *from, struct error *err)
{
    if (!from)
        return ST_OK;
    return ck && ck->gguf ? copy_keys(g->w, ck->gguf, err) : put_tokenizer_of(g, ck ? ck->folder : from, err);
}

static enum status write_gguf(const struct model *m, const char *path, const struct write_want *plain,
                              const char *tokenizer_from, struct error *err)
{
    struct gguf_out g = {.m = m};
    if (!m->arch.family->gguf)
        return fail(err, ST_UNSUPPORTED, "write: GGUF knows no architecture for family %s; write a Hugging Face folder",
                    m->arch.config.family);
    TRY(check_expressible(&m->arch, err));
    struct checkpoint *ck = NULL;
    if (tokenizer_from && file_kind(tokenizer_from) == FILE_REGULAR)
        TRY(checkpoint_open(&ck, tokenizer_from, err));
    enum status st = gguf_writer_create(&g.w, err);
    if (st != ST_OK) {
        checkpoint_close(ck);
        return st;
    }
    bool named = ck && ck->gguf && gguf_find(ck->gguf, "general.name");
    char name[128];
    snprintf(name, sizeof name, "%.*s", STR_ARG(path_stem(str_of(path))));
    put_config(&g, named ? NULL : name);
    struct write_want want = *plain;
    want.names = gguf_names;
    want.pairs = m->arch.family->gguf_pairs;
    want.fused = m->arch.family->gguf_fused;
    if (want.how) {
        gguf_put_int(g.w, "general.file_type", GGUF_U32, recipe_file_type(want.how->recipe));
        gguf_put_int(g.w, "general.quantization_version", GGUF_U32, 2);
    }
    struct tensor_list list = {0};
    st = put_source(&g, ck, tokenizer_from, err);
    if (st == ST_OK)
        st = tensor_list_make(&list, m, &want, err);
    if (st == ST_OK)
        st = gguf_writer_commit(g.w, path, list.tensors, list.n, err);
    tensor_list_free(&list);
    gguf_writer_destroy(g.w);
    checkpoint_close(ck);
    return st;
}

enum status model_write_gguf(const struct model *m, const char *path, enum dtype type, const char *tokenizer_from,
                             struct error *err)
{
    if (type != DT_F32 && weight_type(type) != type)
        return fail(err, ST_UNSUPPORTED, "write: type %s is not offered; f32, f16, bf16, q8_0, q4_0 and q4_1 are",
                    dtype_row(type)->name);
    struct write_want want = {.matrix = type, .vector = DT_F32};
    return write_gguf(m, path, &want, tokenizer_from, err);
}

enum status model_quantize_gguf(const struct model *m, const char *path, const struct model_quantize *how,
                                const char *tokenizer_from, struct error *err)
{
    struct write_want want = {.vector = DT_F32, .how = how};
    return write_gguf(m, path, &want, tokenizer_from, err);
}
