/* gpt_neox - GPT-NeoX and Pythia: a part of each head rotates, attention and feed-forward side by side */
#include "model/program.h"

/* x + attention(norm1 x) + mlp(norm2 x): both branches read the same X. */
static const struct row attention[] = {
    {OP_NORM, {X}, H, W_ATTN_NORM},
    {OP_LINEAR, {H}, Q, W_Q},
    {OP_LINEAR, {H}, K, W_K},
    {OP_LINEAR, {H}, V, W_V},
    {OP_ROPE, {Q}, Q, .name = "attn_q_rope"},
    {OP_ROPE, {K}, K, .name = "attn_k_rope"},
    {OP_ATTEND, {Q, K, V}, A, .name = "attn_heads"},
    {OP_LINEAR, {A}, A, W_O},
    {OP_END},
};
static const struct row mlp[] = {
    {OP_NORM, {X}, H, W_MLP_NORM},
    {OP_LINEAR, {H}, U, W_UP},
    {OP_FN, {U}, U, .name = "ffn_act"},
    {OP_LINEAR, {U}, H, W_DOWN},
    {OP_ADD, {H, A}, H, .name = "branch_sum"},
    {OP_ADD, {H, X}, X, .name = "layer"},
    {OP_END},
};
/* use_parallel_residual: false */
static const struct row mlp_serial[] = {
    {OP_NORM, {X}, H, W_MLP_NORM},        {OP_LINEAR, {H}, U, W_UP},
    {OP_FN, {U}, U, .name = "ffn_act"},   {OP_LINEAR, {U}, H, W_DOWN},
    {OP_ADD, {H, X}, X, .name = "layer"}, {OP_END},
};

static const struct name_row names[] = {
    {W_EMBED, "gpt_neox.embed_in", 0},
    {W_ATTN_NORM, "gpt_neox.layers.{l}.input_layernorm", NAME_BIAS},
    {W_Q, "gpt_neox.layers.{l}.attention.query_key_value", NAME_BIAS_MAYBE | NAME_HEADS, 0, 3},
    {W_K, "gpt_neox.layers.{l}.attention.query_key_value", NAME_BIAS_MAYBE | NAME_HEADS, 1, 3},
    {W_V, "gpt_neox.layers.{l}.attention.query_key_value", NAME_BIAS_MAYBE | NAME_HEADS, 2, 3},
    {W_O, "gpt_neox.layers.{l}.attention.dense", NAME_BIAS_MAYBE},
    {W_MLP_NORM, "gpt_neox.layers.{l}.post_attention_layernorm", NAME_BIAS},
    {W_UP, "gpt_neox.layers.{l}.mlp.dense_h_to_4h", NAME_BIAS},
    {W_DOWN, "gpt_neox.layers.{l}.mlp.dense_4h_to_h", NAME_BIAS},
    {W_OUT_NORM, "gpt_neox.final_layer_norm", NAME_BIAS},
    {W_HEAD, "embed_out", 0},
    {W_HEAD, "lm_head", 0},
    {W_NONE},
};

const struct family family_gpt_neox = {
    .name = "gpt_neox",
    .model_type = "gpt_neox",
    .architecture = "GPTNeoXForCausalLM",
    .gguf = "gptneox",
    .gguf_fused = true,
    .begin = common_begin,
    .attention = attention,
    .mlp = mlp,
    .attention_alt = common_attention,
    .mlp_alt = mlp_serial,
    .end = common_end,
    .names = names,
    .layer_norm = true,
    .bias = true,
    .rope_theta = 10000,
    .rope_partial = 0.25,
    .norm_eps = 1e-5,
    .act = "gelu",
};
