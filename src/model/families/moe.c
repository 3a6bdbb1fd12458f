/* moe - Mixtral, Qwen2-MoE (with a gated shared expert) and Qwen3-MoE: decoders whose feed-forward rows have experts */
#include "model/program.h"

/* Qwen2-MoE adds to the chosen experts one that every token meets, weighted by a sigmoid of its own router. */
static const struct row moe_shared[] = {
    {OP_NORM, {X}, H, W_MLP_NORM},
    {OP_LINEAR, {H}, R, W_ROUTER},
    {OP_ROUTE, {R}, P, .name = "ffn_route"},
    {OP_DISPATCH, {H, P}, D, .name = "ffn_dispatch"},
    {OP_LINEAR, {D}, G, W_EXPERT_GATE},
    {OP_LINEAR, {D}, U, W_EXPERT_UP},
    {OP_GLU, {G, U}, G, .name = "ffn_glu_exps"},
    {OP_LINEAR, {G}, D, W_EXPERT_DOWN},
    {OP_COMBINE, {D, P}, S, .name = "ffn_experts"},
    {OP_LINEAR, {H}, G, W_SHARED_GATE},
    {OP_LINEAR, {H}, U, W_SHARED_UP},
    {OP_GLU, {G, U}, G, .name = "ffn_glu_shexp"},
    {OP_LINEAR, {G}, A, W_SHARED_DOWN},
    {OP_LINEAR, {H}, R, W_SHARED_ROUTER},
    {OP_GATE, {A, R}, A, .name = "ffn_gated_shexp"},
    {OP_ADD, {S, A}, S, .name = "ffn_sum"},
    {OP_ADD, {X, S}, X, .name = "layer"},
    {OP_END},
};

#define SHARED_NAMES                                                                                                   \
    {W_EMBED, "model.embed_tokens", 0}, {W_ATTN_NORM, "model.layers.{l}.input_layernorm", 0},                          \
        {W_MLP_NORM, "model.layers.{l}.post_attention_layernorm", 0}, {W_OUT_NORM, "model.norm", 0},                   \
    {                                                                                                                  \
        W_HEAD, "lm_head", 0                                                                                           \
    }
#define ATTENTION_NAMES(bias, bias_o)                                                                                  \
    {W_Q, "model.layers.{l}.self_attn.q_proj", bias}, {W_K, "model.layers.{l}.self_attn.k_proj", bias},                \
        {W_V, "model.layers.{l}.self_attn.v_proj", bias},                                                              \
    {                                                                                                                  \
        W_O, "model.layers.{l}.self_attn.o_proj", bias_o                                                               \
    }
#define DENSE_NAMES                                                                                                    \
    {W_GATE, "model.layers.{l}.mlp.gate_proj", 0}, {W_UP, "model.layers.{l}.mlp.up_proj", 0},                          \
    {                                                                                                                  \
        W_DOWN, "model.layers.{l}.mlp.down_proj", 0                                                                    \
    }
/* One tensor an expert; or, as transformers keeps them in memory, all in one with gate and up together. */
#define EXPERT_NAMES                                                                                                   \
    {W_ROUTER, "model.layers.{l}.mlp.gate", 0}, {W_EXPERT_GATE, "model.layers.{l}.mlp.experts.{e}.gate_proj", 0},      \
        {W_EXPERT_UP, "model.layers.{l}.mlp.experts.{e}.up_proj", 0},                                                  \
        {W_EXPERT_DOWN, "model.layers.{l}.mlp.experts.{e}.down_proj", 0}, STACKED_NAMES
#define STACKED_NAMES                                                                                                  \
    {W_EXPERT_GATE, "model.layers.{l}.mlp.experts.gate_up_proj", NAME_STACKED | NAME_NO_SUFFIX, 0, 2},                 \
        {W_EXPERT_UP, "model.layers.{l}.mlp.experts.gate_up_proj", NAME_STACKED | NAME_NO_SUFFIX, 1, 2},               \
    {                                                                                                                  \
        W_EXPERT_DOWN, "model.layers.{l}.mlp.experts.down_proj", NAME_STACKED | NAME_NO_SUFFIX                         \
    }

static const struct name_row names_mixtral[] = {
    SHARED_NAMES,
    ATTENTION_NAMES(0, 0),
    {W_ROUTER, "model.layers.{l}.block_sparse_moe.gate", 0},
    {W_EXPERT_GATE, "model.layers.{l}.block_sparse_moe.experts.{e}.w1", 0},
    {W_EXPERT_UP, "model.layers.{l}.block_sparse_moe.experts.{e}.w3", 0},
    {W_EXPERT_DOWN, "model.layers.{l}.block_sparse_moe.experts.{e}.w2", 0},
    {W_ROUTER, "model.layers.{l}.mlp.gate", 0},
    STACKED_NAMES,
    {W_NONE},
};

static const struct name_row names_qwen2_moe[] = {
    SHARED_NAMES,
    ATTENTION_NAMES(NAME_BIAS_MAYBE, 0),
    DENSE_NAMES,
    EXPERT_NAMES,
    {W_SHARED_ROUTER, "model.layers.{l}.mlp.shared_expert_gate", 0},
    {W_SHARED_GATE, "model.layers.{l}.mlp.shared_expert.gate_proj", 0},
    {W_SHARED_UP, "model.layers.{l}.mlp.shared_expert.up_proj", 0},
    {W_SHARED_DOWN, "model.layers.{l}.mlp.shared_expert.down_proj", 0},
    {W_NONE},
};

static const struct name_row names_qwen3_moe[] = {
    SHARED_NAMES,
    ATTENTION_NAMES(NAME_BIAS_MAYBE, NAME_BIAS_MAYBE),
    {W_Q_NORM, "model.layers.{l}.self_attn.q_norm", 0},
    {W_K_NORM, "model.layers.{l}.self_attn.k_norm", 0},
    DENSE_NAMES,
    EXPERT_NAMES,
    {W_NONE},
};

const struct family family_mixtral = {
    .name = "mixtral",
    .model_type = "mixtral",
    .architecture = "MixtralForCausalLM",
    .gguf = "llama", /* with experts */
    .begin = common_begin,
    .attention = common_attention,
    .mlp = common_mlp,
    .moe = common_moe,
    .end = common_end,
    .names = names_mixtral,
    .gguf_pairs = true,
    .norm_top_k = true,
    .rope_theta = 1000000,
    .norm_eps = 1e-5,
    .n_kv_head = 8,
    .n_expert_used = 2,
    .act = "silu",
};

const struct family family_qwen2_moe = {
    .name = "qwen2_moe",
    .model_type = "qwen2_moe",
    .architecture = "Qwen2MoeForCausalLM",
    .gguf = "qwen2moe",
    .begin = common_begin,
    .attention = common_attention,
    .mlp = common_mlp,
    .moe = moe_shared,
    .bias = true,
    .end = common_end,
    .names = names_qwen2_moe,
    .window_switch = true,
    .window_from_layer = true,
    .window_even = true,
    .rope_theta = 10000,
    .norm_eps = 1e-6,
    .window = 4096,
    .n_expert_used = 4,
    .act = "silu",
};

const struct family family_qwen3_moe = {
    .name = "qwen3_moe",
    .model_type = "qwen3_moe",
    .architecture = "Qwen3MoeForCausalLM",
    .gguf = "qwen3moe",
    .begin = common_begin,
    .attention = common_attention,
    .mlp = common_mlp,
    .moe = common_moe,
    .end = common_end,
    .names = names_qwen3_moe,
    .window_switch = true,
    .norm_top_k_gguf = true,
    .rope_theta = 10000,
    .norm_eps = 1e-6,
    .n_kv_head = 4,
    .window = 4096,
    .n_expert_used = 8,
    .act = "silu",
};
