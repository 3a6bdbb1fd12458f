/* llama - Llama 2 and 3, SmolLM, TinyLlama and everything else that calls itself "llama"; Mistral adds a window */
#include "model/program.h"

static const struct name_row names[] = {
    {W_EMBED, "model.embed_tokens", 0},
    {W_ATTN_NORM, "model.layers.{l}.input_layernorm", 0},
    {W_Q, "model.layers.{l}.self_attn.q_proj", NAME_BIAS_MAYBE},
    {W_K, "model.layers.{l}.self_attn.k_proj", NAME_BIAS_MAYBE},
    {W_V, "model.layers.{l}.self_attn.v_proj", NAME_BIAS_MAYBE},
    {W_O, "model.layers.{l}.self_attn.o_proj", NAME_BIAS_MAYBE},
    {W_MLP_NORM, "model.layers.{l}.post_attention_layernorm", 0},
    {W_GATE, "model.layers.{l}.mlp.gate_proj", NAME_BIAS_MAYBE},
    {W_UP, "model.layers.{l}.mlp.up_proj", NAME_BIAS_MAYBE},
    {W_DOWN, "model.layers.{l}.mlp.down_proj", NAME_BIAS_MAYBE},
    {W_OUT_NORM, "model.norm", 0},
    {W_HEAD, "lm_head", 0},
    {W_SCORE, "score", NAME_BIAS_MAYBE},
    {W_NONE},
};

const struct family family_llama = {
    .name = "llama",
    .model_type = "llama",
    .architecture = "LlamaForCausalLM",
    .gguf = "llama",
    .begin = common_begin,
    .attention = common_attention,
    .mlp = common_mlp,
    .end = common_end,
    .names = names,
    .gguf_pairs = true,
    .rope_theta = 10000,
    .norm_eps = 1e-6,
    .act = "silu",
};

const struct family family_mistral = {
    .name = "mistral",
    .model_type = "mistral",
    .architecture = "MistralForCausalLM",
    .gguf = "llama", /* written only: reading finds the family before */
    .gguf_pairs = true,
    .begin = common_begin,
    .attention = common_attention,
    .mlp = common_mlp,
    .end = common_end,
    .names = names,
    .rope_theta = 10000,
    .norm_eps = 1e-6,
    .n_kv_head = 8,
    .window = 4096,
    .act = "silu",
};
