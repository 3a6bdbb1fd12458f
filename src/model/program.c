/* program - the tables every decoder shares, the roles of weights, and which rows a layer has */
#include "model/program.h"

const struct role_row role_rows[W_COUNT] = {
    [W_EMBED] = {"token_embd", DIM_VOCAB, DIM_EMBD, .global = true},
    [W_POSITION] = {"position_embd", DIM_POSITION, DIM_EMBD, .global = true},
    [W_TYPE] = {"token_types", DIM_TYPE, DIM_EMBD, .global = true},
    [W_EMBED_NORM] = {"token_embd_norm", DIM_EMBD, DIM_1, .global = true},
    [W_ATTN_NORM] = {"attn_norm", DIM_EMBD, DIM_1},
    [W_Q] = {"attn_q", DIM_Q, DIM_EMBD},
    [W_K] = {"attn_k", DIM_KV, DIM_EMBD},
    [W_V] = {"attn_v", DIM_KV, DIM_EMBD},
    [W_Q_NORM] = {"attn_q_norm", DIM_HEAD, DIM_1},
    [W_K_NORM] = {"attn_k_norm", DIM_HEAD, DIM_1},
    [W_O] = {"attn_output", DIM_EMBD, DIM_Q},
    [W_ATTN_POST_NORM] = {"attn_output_norm", DIM_EMBD, DIM_1},
    [W_MLP_NORM] = {"ffn_norm", DIM_EMBD, DIM_1},
    [W_GATE] = {"ffn_gate", DIM_FF, DIM_EMBD},
    [W_UP] = {"ffn_up", DIM_FF, DIM_EMBD},
    [W_DOWN] = {"ffn_down", DIM_EMBD, DIM_FF},
    [W_MLP_POST_NORM] = {"layer_output_norm", DIM_EMBD, DIM_1},
    [W_ROUTER] = {"ffn_gate_inp", DIM_EXPERT, DIM_EMBD},
    [W_EXPERT_GATE] = {"ffn_gate_exps", DIM_FF_EXPERT, DIM_EMBD, .expert = true},
    [W_EXPERT_UP] = {"ffn_up_exps", DIM_FF_EXPERT, DIM_EMBD, .expert = true},
    [W_EXPERT_DOWN] = {"ffn_down_exps", DIM_EMBD, DIM_FF_EXPERT, .expert = true},
    [W_SHARED_ROUTER] = {"ffn_gate_inp_shexp", DIM_ONE_ROW, DIM_EMBD},
    [W_SHARED_GATE] = {"ffn_gate_shexp", DIM_FF_SHARED, DIM_EMBD},
    [W_SHARED_UP] = {"ffn_up_shexp", DIM_FF_SHARED, DIM_EMBD},
    [W_SHARED_DOWN] = {"ffn_down_shexp", DIM_EMBD, DIM_FF_SHARED},
    [W_OUT_NORM] = {"output_norm", DIM_EMBD, DIM_1, .global = true},
    [W_HEAD] = {"output", DIM_VOCAB, DIM_EMBD, .global = true},
    [W_POOLER] = {"cls", DIM_EMBD, DIM_EMBD, .global = true},
    [W_SCORE] = {"cls.output", DIM_LABEL, DIM_EMBD, .global = true},
    [W_DENSE] = {"dense_2", DIM_DENSE, DIM_POOLED, .global = true},
    [W_DENSE_2] = {"dense_3", DIM_DENSE_2, DIM_DENSE, .global = true},
};

const struct family *const families[] = {
    &family_llama,      &family_mistral,     &family_qwen2,
    &family_qwen3,      &family_mixtral,     &family_qwen2_moe,
    &family_qwen3_moe,  &family_gpt2,        &family_gpt_neox,
    &family_gpt_blocks, &family_gpt_chars,   &family_bert,
    &family_roberta,    &family_xlm_roberta, &family_camembert,
    &family_distilbert, &family_nomic_bert,  NULL,
};

/* ---- Llama, Mistral, Qwen: rows whose weight the model lacks drop out ---- */
const struct row common_begin[] = {
    {OP_EMBED, {NONE}, X, W_EMBED},
    {OP_END},
};
const struct row common_attention[] = {
    {OP_NORM, {X}, H, W_ATTN_NORM},
    {OP_LINEAR, {H}, Q, W_Q},
    {OP_LINEAR, {H}, K, W_K},
    {OP_LINEAR, {H}, V, W_V},
    {OP_NORM_HEAD, {Q}, Q, W_Q_NORM},
    {OP_NORM_HEAD, {K}, K, W_K_NORM},
    {OP_ROPE, {Q}, Q, .name = "attn_q_rope"},
    {OP_ROPE, {K}, K, .name = "attn_k_rope"},
    {OP_ATTEND, {Q, K, V}, A, .name = "attn_heads"},
    {OP_LINEAR, {A}, H, W_O},
    {OP_ADD, {X, H}, X, .name = "attn_sum"},
    {OP_END},
};
const struct row common_mlp[] = {
    {OP_NORM, {X}, H, W_MLP_NORM},
    {OP_LINEAR, {H}, G, W_GATE},
    {OP_LINEAR, {H}, U, W_UP},
    {OP_GLU, {G, U}, G, .name = "ffn_glu"},
    {OP_LINEAR, {G}, H, W_DOWN},
    {OP_ADD, {X, H}, X, .name = "layer"},
    {OP_END},
};
/* A row of tokens becomes n_expert_used rows, ordered by expert, and comes back as a weighted sum. */
const struct row common_moe[] = {
    {OP_NORM, {X}, H, W_MLP_NORM},
    {OP_LINEAR, {H}, R, W_ROUTER},
    {OP_ROUTE, {R}, P, .name = "ffn_route"},
    {OP_DISPATCH, {H, P}, D, .name = "ffn_dispatch"},
    {OP_LINEAR, {D}, G, W_EXPERT_GATE},
    {OP_LINEAR, {D}, U, W_EXPERT_UP},
    {OP_GLU, {G, U}, G, .name = "ffn_glu_exps"},
    {OP_LINEAR, {G}, D, W_EXPERT_DOWN},
    {OP_COMBINE, {D, P}, S, .name = "ffn_experts"},
    {OP_ADD, {X, S}, X, .name = "layer"},
    {OP_END},
};
const struct row common_end[] = {
    {OP_SELECT, {X}, H, .name = "selected"},
    {OP_NORM, {H}, H, W_OUT_NORM},
    {OP_LINEAR, {H}, LOGITS, W_HEAD},
    {OP_END},
};

/* Instead of a vocabulary: texts as vectors, or pairs of texts as scores. */
const struct row pooled_end[] = {
    {OP_NORM, {X}, H, W_OUT_NORM},
    {OP_POOL, {H}, LOGITS, .name = "pooled"},
    {OP_END},
};
const struct row score_end[] = {
    {OP_NORM, {X}, H, W_OUT_NORM}, {OP_POOL, {H}, H, .name = "pooled"}, {OP_LINEAR, {H}, H, W_POOLER},
    {OP_TANH, {H}, H, W_POOLER},   {OP_LINEAR, {H}, LOGITS, W_SCORE},   {OP_END},
};

const struct row *arch_rows(const struct arch *a, int layer, bool feed_forward)
{
    const struct family *f = a->family;
    if (layer < 0)
        return f->begin;
    if (layer >= a->config.n_layer)
        return a->end;
    if (!feed_forward)
        return a->alt ? f->attention_alt : f->attention;
    return a->sparse[layer] ? f->moe : a->alt ? f->mlp_alt : f->mlp;
}

int64_t arch_dim(const struct arch *a, enum dim d)
{
    const struct model_config *c = &a->config;
    switch (d) {
    case DIM_1:
    case DIM_ONE_ROW:
        return 1;
    case DIM_EMBD:
        return c->n_embd;
    case DIM_VOCAB:
        return c->n_vocab;
    case DIM_POSITION:
        return a->n_position;
    case DIM_TYPE:
        return c->n_type;
    case DIM_LABEL:
        return c->n_label;
    case DIM_Q:
        return (int64_t)c->n_head * c->d_head;
    case DIM_KV:
        return (int64_t)c->n_kv_head * c->d_head;
    case DIM_HEAD:
        return c->d_head;
    case DIM_FF:
        return c->n_ff;
    case DIM_EXPERT:
        return c->n_expert;
    case DIM_FF_EXPERT:
        return c->n_ff_expert;
    case DIM_FF_SHARED:
        return c->n_ff_shared;
    case DIM_POOLED:
        return (int64_t)c->n_embd * pooling_count(c->pooling);
    case DIM_DENSE:
        return a->sentence.dense[0].n_out;
    case DIM_DENSE_2:
        return a->sentence.dense[1].n_out;
    }
    return 0;
}

const char *arch_dim_text(enum dim d)
{
    static const char *const text[] = {[DIM_1] = "1",
                                       [DIM_ONE_ROW] = "1",
                                       [DIM_EMBD] = "hidden_size",
                                       [DIM_VOCAB] = "vocab_size",
                                       [DIM_POSITION] = "n_positions",
                                       [DIM_TYPE] = "type_vocab_size",
                                       [DIM_LABEL] = "num_labels",
                                       [DIM_Q] = "num_attention_heads * head_dim",
                                       [DIM_KV] = "num_key_value_heads * head_dim",
                                       [DIM_HEAD] = "head_dim",
                                       [DIM_FF] = "intermediate_size",
                                       [DIM_EXPERT] = "num_experts",
                                       [DIM_FF_EXPERT] = "moe_intermediate_size",
                                       [DIM_FF_SHARED] = "shared_expert_intermediate_size",
                                       [DIM_POOLED] = "hidden_size * ways of pooling",
                                       [DIM_DENSE] = "out_features",
                                       [DIM_DENSE_2] = "out_features"};
    return text[d];
}

static bool rows_have(const struct row *rows, enum role role)
{
    for (; rows->op != OP_END; rows++)
        if (rows->role == role)
            return true;
    return false;
}

bool arch_layer_has(const struct arch *a, enum role role, int layer)
{
    if (role == W_HEAD && a->config.tied)
        return false;
    bool named = arch_makes_score(a, role);
    for (const struct name_row *n = arch_names(a, role, true); n->role && !named; n++)
        named = n->role == role;
    if (!named)
        return false;
    return rows_have(arch_rows(a, layer, false), role) || rows_have(arch_rows(a, layer, true), role);
}

bool arch_has(const struct arch *a, enum role role)
{
    if (role_rows[role].global)
        return arch_layer_has(a, role, -1) || arch_layer_has(a, role, a->config.n_layer);
    for (int l = 0; l < a->config.n_layer; l++)
        if (arch_layer_has(a, role, l))
            return true;
    return false;
}
