/* qwen - Qwen2 and 2.5 (biases on Q, K and V) and Qwen3 (norms on every head of Q and K) */
#include "model/program.h"

#define SHARED_NAMES                                                                                                   \
    {W_EMBED, "model.embed_tokens", 0}, {W_ATTN_NORM, "model.layers.{l}.input_layernorm", 0},                          \
        {W_MLP_NORM, "model.layers.{l}.post_attention_layernorm", 0}, {W_GATE, "model.layers.{l}.mlp.gate_proj", 0},   \
        {W_UP, "model.layers.{l}.mlp.up_proj", 0}, {W_DOWN, "model.layers.{l}.mlp.down_proj", 0},                      \
        {W_OUT_NORM, "model.norm", 0}, {W_SCORE, "score", NAME_BIAS_MAYBE},                                            \
    {                                                                                                                  \
        W_HEAD, "lm_head", 0                                                                                           \
    }

static const struct name_row names_qwen2[] = {
    SHARED_NAMES,
    {W_Q, "model.layers.{l}.self_attn.q_proj", NAME_BIAS},
    {W_K, "model.layers.{l}.self_attn.k_proj", NAME_BIAS},
    {W_V, "model.layers.{l}.self_attn.v_proj", NAME_BIAS},
    {W_O, "model.layers.{l}.self_attn.o_proj", 0},
    {W_NONE},
};

static const struct name_row names_qwen3[] = {
    SHARED_NAMES,
    {W_Q, "model.layers.{l}.self_attn.q_proj", NAME_BIAS_MAYBE},
    {W_K, "model.layers.{l}.self_attn.k_proj", NAME_BIAS_MAYBE},
    {W_V, "model.layers.{l}.self_attn.v_proj", NAME_BIAS_MAYBE},
    {W_O, "model.layers.{l}.self_attn.o_proj", NAME_BIAS_MAYBE},
    {W_Q_NORM, "model.layers.{l}.self_attn.q_norm", 0},
    {W_K_NORM, "model.layers.{l}.self_attn.k_norm", 0},
    {W_NONE},
};

const struct family family_qwen2 = {
    .name = "qwen2",
    .model_type = "qwen2",
    .architecture = "Qwen2ForCausalLM",
    .gguf = "qwen2",
    .begin = common_begin,
    .attention = common_attention,
    .mlp = common_mlp,
    .end = common_end,
    .names = names_qwen2,
    .window_switch = true,
    .window_from_layer = true,
    .rope_theta = 10000,
    .norm_eps = 1e-6,
    .window = 4096,
    .act = "silu",
};

const struct family family_qwen3 = {
    .name = "qwen3",
    .model_type = "qwen3",
    .architecture = "Qwen3ForCausalLM",
    .gguf = "qwen3",
    .begin = common_begin,
    .attention = common_attention,
    .mlp = common_mlp,
    .end = common_end,
    .names = names_qwen3,
    .window_switch = true,
    .window_from_layer = true,
    .rope_theta = 10000,
    .norm_eps = 1e-6,
    .d_head = 128,
    .window = 4096,
    .act = "silu",
};
