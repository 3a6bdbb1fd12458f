/* gpt - GPT-2 and its relatives: layer norms, learned positions, one activation without a gate
 *
 * Norm place (before, or after the sum), activation and a head's bias are variants of one table. Two more naming
 * schemes of small training scripts are known: "blocks.N.attn.c_attn" and "blocks.N.self_attn.W_q".
 */
#include "model/program.h"

static const struct row begin[] = {
    {OP_EMBED, {NONE}, X, W_EMBED},
    {OP_POSITION, {X}, X, W_POSITION},
    {OP_END},
};
static const struct row mlp[] = {
    {OP_NORM, {X}, H, W_MLP_NORM},        {OP_LINEAR, {H}, U, W_UP},
    {OP_FN, {U}, U, .name = "ffn_act"},   {OP_LINEAR, {U}, H, W_DOWN},
    {OP_ADD, {X, H}, X, .name = "layer"}, {OP_END},
};
/* The original transformer's order: norms after the sums. */
static const struct row attention_post[] = {
    {OP_LINEAR, {X}, Q, W_Q},       {OP_LINEAR, {X}, K, W_K},
    {OP_LINEAR, {X}, V, W_V},       {OP_ATTEND, {Q, K, V}, A, .name = "attn_heads"},
    {OP_LINEAR, {A}, H, W_O},       {OP_ADD, {X, H}, X, .name = "attn_sum"},
    {OP_NORM, {X}, X, W_ATTN_NORM}, {OP_END},
};
static const struct row mlp_post[] = {
    {OP_LINEAR, {X}, U, W_UP},     {OP_FN, {U}, U, .name = "ffn_act"},
    {OP_LINEAR, {U}, H, W_DOWN},   {OP_ADD, {X, H}, X, .name = "ffn_sum"},
    {OP_NORM, {X}, X, W_MLP_NORM}, {OP_END},
};

static const struct name_row names_gpt2[] = {
    {W_EMBED, "transformer.wte", 0},
    {W_POSITION, "transformer.wpe", 0},
    {W_ATTN_NORM, "transformer.h.{l}.ln_1", NAME_BIAS},
    {W_Q, "transformer.h.{l}.attn.c_attn", NAME_BIAS | NAME_TRANSPOSED, 0, 3},
    {W_K, "transformer.h.{l}.attn.c_attn", NAME_BIAS | NAME_TRANSPOSED, 1, 3},
    {W_V, "transformer.h.{l}.attn.c_attn", NAME_BIAS | NAME_TRANSPOSED, 2, 3},
    {W_O, "transformer.h.{l}.attn.c_proj", NAME_BIAS | NAME_TRANSPOSED},
    {W_MLP_NORM, "transformer.h.{l}.ln_2", NAME_BIAS},
    {W_UP, "transformer.h.{l}.mlp.c_fc", NAME_BIAS | NAME_TRANSPOSED},
    {W_DOWN, "transformer.h.{l}.mlp.c_proj", NAME_BIAS | NAME_TRANSPOSED},
    {W_OUT_NORM, "transformer.ln_f", NAME_BIAS},
    {W_HEAD, "lm_head", NAME_BIAS_MAYBE},
    {W_NONE},
};
static const struct name_row names_blocks[] = {
    {W_EMBED, "tok_emb", 0},
    {W_POSITION, "pos_emb", 0},
    {W_ATTN_NORM, "blocks.{l}.ln_1", NAME_BIAS_MAYBE},
    {W_Q, "blocks.{l}.attn.c_attn", NAME_BIAS_MAYBE, 0, 3},
    {W_K, "blocks.{l}.attn.c_attn", NAME_BIAS_MAYBE, 1, 3},
    {W_V, "blocks.{l}.attn.c_attn", NAME_BIAS_MAYBE, 2, 3},
    {W_O, "blocks.{l}.attn.c_proj", NAME_BIAS_MAYBE},
    {W_MLP_NORM, "blocks.{l}.ln_2", NAME_BIAS_MAYBE},
    {W_UP, "blocks.{l}.mlp.c_fc", NAME_BIAS_MAYBE},
    {W_DOWN, "blocks.{l}.mlp.c_proj", NAME_BIAS_MAYBE},
    {W_OUT_NORM, "ln_f", NAME_BIAS_MAYBE},
    {W_HEAD, "head", NAME_BIAS_MAYBE},
    {W_NONE},
};
static const struct name_row names_chars[] = {
    {W_EMBED, "token_embedding", 0},
    {W_POSITION, "pos_embedding", 0},
    {W_ATTN_NORM, "blocks.{l}.norm1", NAME_BIAS_MAYBE},
    {W_Q, "blocks.{l}.self_attn.W_q", NAME_BIAS_MAYBE},
    {W_K, "blocks.{l}.self_attn.W_k", NAME_BIAS_MAYBE},
    {W_V, "blocks.{l}.self_attn.W_v", NAME_BIAS_MAYBE},
    {W_O, "blocks.{l}.self_attn.W_o", NAME_BIAS_MAYBE},
    {W_MLP_NORM, "blocks.{l}.norm2", NAME_BIAS_MAYBE},
    {W_UP, "blocks.{l}.ffn.linear1", NAME_BIAS_MAYBE},
    {W_DOWN, "blocks.{l}.ffn.linear2", NAME_BIAS_MAYBE},
    {W_OUT_NORM, "ln_f", NAME_BIAS_MAYBE},
    {W_HEAD, "lm_head", NAME_BIAS_MAYBE},
    {W_NONE},
};

#define GPT_TABLES                                                                                                     \
    .begin = begin, .attention = common_attention, .mlp = mlp, .attention_alt = attention_post, .mlp_alt = mlp_post,   \
    .end = common_end, .layer_norm = true, .norm_eps = 1e-5

const struct family family_gpt2 = {
    .name = "gpt2",
    .model_type = "gpt2",
    .architecture = "GPT2LMHeadModel",
    .gguf = "gpt2",
    .gguf_fused = true,
    GPT_TABLES,
    .names = names_gpt2,
    .tied = true,
    .act = "gelu_new",
};

const struct family family_gpt_blocks = {
    .name = "gpt2",
    .sign = "blocks.0.attn.c_attn.weight",
    GPT_TABLES,
    .names = names_blocks,
    .act = "gelu",
};

const struct family family_gpt_chars = {
    .name = "gpt2",
    .sign = "blocks.0.self_attn.W_q.weight",
    GPT_TABLES,
    .names = names_chars,
    .act = "gelu",
};
