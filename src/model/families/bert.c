/* bert - encoders: BERT (MiniLM, bge, e5), RoBERTa, XLM-RoBERTa, CamemBERT, DistilBERT and Nomic BERT
 *
 * Every token sees every other one; norms come after the sums. The end pools the rows, or is a classifier over
 * the first. RoBERTa's first position is row pad_token_id + 1; GGUF files have left out the rows before it, and
 * call all of them "bert". Nomic BERT rotates instead of learning positions, and its feed-forward is gated.
 */
#include "model/program.h"

static const struct row begin[] = {
    {OP_EMBED, {NONE}, X, W_EMBED},    {OP_TYPE, {X}, X, W_TYPE}, /* before positions: the order in which transformers
                                                                     adds */
    {OP_POSITION, {X}, X, W_POSITION}, {OP_NORM, {X}, X, W_EMBED_NORM}, {OP_END},
};
static const struct row attention[] = {
    {OP_LINEAR, {X}, Q, W_Q},
    {OP_LINEAR, {X}, K, W_K},
    {OP_LINEAR, {X}, V, W_V},
    {OP_ROPE, {Q}, Q, .name = "attn_q_rope"}, /* drops out where positions are learned */
    {OP_ROPE, {K}, K, .name = "attn_k_rope"},
    {OP_ATTEND, {Q, K, V}, A, .name = "attn_heads"},
    {OP_LINEAR, {A}, H, W_O},
    {OP_ADD, {X, H}, X, .name = "attn_sum"},
    {OP_NORM, {X}, X, W_ATTN_POST_NORM},
    {OP_END},
};
static const struct row mlp[] = {
    {OP_LINEAR, {X}, U, W_UP},          {OP_FN, {U}, U, .name = "ffn_act"},
    {OP_LINEAR, {U}, H, W_DOWN},        {OP_ADD, {X, H}, X, .name = "ffn_sum"},
    {OP_NORM, {X}, X, W_MLP_POST_NORM}, {OP_END},
};

static const struct row mlp_gated[] = {
    {OP_LINEAR, {X}, G, W_GATE},
    {OP_LINEAR, {X}, U, W_UP},
    {OP_GLU, {G, U}, G, .name = "ffn_glu"},
    {OP_LINEAR, {G}, H, W_DOWN},
    {OP_ADD, {X, H}, X, .name = "ffn_sum"},
    {OP_NORM, {X}, X, W_MLP_POST_NORM},
    {OP_END},
};

/* The earliest files say gamma and beta. A bias that either spelling may have is demanded of neither. */
#define NORM_NAMES(role, name)                                                                                         \
    {role, name, NAME_BIAS_MAYBE},                                                                                     \
    {                                                                                                                  \
        role, name, NAME_BIAS_MAYBE | NAME_GAMMA                                                                       \
    }
#define LAYER_NAMES(model)                                                                                             \
    {W_EMBED, model ".embeddings.word_embeddings", 0}, {W_POSITION, model ".embeddings.position_embeddings", 0},       \
        {W_TYPE, model ".embeddings.token_type_embeddings", 0},                                                        \
        NORM_NAMES(W_EMBED_NORM, model ".embeddings.LayerNorm"),                                                       \
        {W_Q, model ".encoder.layer.{l}.attention.self.query", NAME_BIAS},                                             \
        {W_K, model ".encoder.layer.{l}.attention.self.key", NAME_BIAS},                                               \
        {W_V, model ".encoder.layer.{l}.attention.self.value", NAME_BIAS},                                             \
        {W_O, model ".encoder.layer.{l}.attention.output.dense", NAME_BIAS},                                           \
        NORM_NAMES(W_ATTN_POST_NORM, model ".encoder.layer.{l}.attention.output.LayerNorm"),                           \
        {W_UP, model ".encoder.layer.{l}.intermediate.dense", NAME_BIAS},                                              \
        {W_DOWN, model ".encoder.layer.{l}.output.dense", NAME_BIAS},                                                  \
        NORM_NAMES(W_MLP_POST_NORM, model ".encoder.layer.{l}.output.LayerNorm")

static const struct name_row names_bert[] = {
    LAYER_NAMES("bert"),
    {W_POOLER, "bert.pooler.dense", NAME_BIAS},
    {W_SCORE, "classifier", NAME_BIAS},
    {W_NONE},
};
static const struct name_row names_roberta[] = {
    LAYER_NAMES("roberta"),
    {W_POOLER, "classifier.dense", NAME_BIAS},
    {W_SCORE, "classifier.out_proj", NAME_BIAS},
    {W_NONE},
};
static const struct name_row names_distilbert[] = {
    {W_EMBED, "distilbert.embeddings.word_embeddings", 0},
    {W_POSITION, "distilbert.embeddings.position_embeddings", 0},
    {W_EMBED_NORM, "distilbert.embeddings.LayerNorm", NAME_BIAS},
    {W_Q, "distilbert.transformer.layer.{l}.attention.q_lin", NAME_BIAS},
    {W_K, "distilbert.transformer.layer.{l}.attention.k_lin", NAME_BIAS},
    {W_V, "distilbert.transformer.layer.{l}.attention.v_lin", NAME_BIAS},
    {W_O, "distilbert.transformer.layer.{l}.attention.out_lin", NAME_BIAS},
    {W_ATTN_POST_NORM, "distilbert.transformer.layer.{l}.sa_layer_norm", NAME_BIAS},
    {W_UP, "distilbert.transformer.layer.{l}.ffn.lin1", NAME_BIAS},
    {W_DOWN, "distilbert.transformer.layer.{l}.ffn.lin2", NAME_BIAS},
    {W_MLP_POST_NORM, "distilbert.transformer.layer.{l}.output_layer_norm", NAME_BIAS},
    {W_NONE},
};

static const struct name_row names_nomic[] = {
    {W_EMBED, "nomic_bert.embeddings.word_embeddings", 0},
    {W_TYPE, "nomic_bert.embeddings.token_type_embeddings", 0},
    {W_EMBED_NORM, "nomic_bert.emb_ln", NAME_BIAS_MAYBE},
    {W_Q, "nomic_bert.encoder.layers.{l}.attn.Wqkv", NAME_BIAS_MAYBE, 0, 3},
    {W_K, "nomic_bert.encoder.layers.{l}.attn.Wqkv", NAME_BIAS_MAYBE, 1, 3},
    {W_V, "nomic_bert.encoder.layers.{l}.attn.Wqkv", NAME_BIAS_MAYBE, 2, 3},
    {W_O, "nomic_bert.encoder.layers.{l}.attn.out_proj", NAME_BIAS_MAYBE},
    {W_ATTN_POST_NORM, "nomic_bert.encoder.layers.{l}.norm1", NAME_BIAS_MAYBE},
    {W_GATE, "nomic_bert.encoder.layers.{l}.mlp.fc12", NAME_BIAS_MAYBE},
    {W_UP, "nomic_bert.encoder.layers.{l}.mlp.fc11", NAME_BIAS_MAYBE},
    {W_DOWN, "nomic_bert.encoder.layers.{l}.mlp.fc2", NAME_BIAS_MAYBE},
    {W_MLP_POST_NORM, "nomic_bert.encoder.layers.{l}.norm2", NAME_BIAS_MAYBE},
    {W_NONE},
};

#define BERT_TABLES                                                                                                    \
    .begin = begin, .attention = attention, .mlp = mlp, .end = pooled_end, .layer_norm = true, .encoder = true,        \
    .norm_eps = 1e-12, .act = "gelu"

const struct family family_bert = {
    .name = "bert",
    .model_type = "bert",
    .architecture = "BertModel",
    .gguf = "bert",
    BERT_TABLES,
    .names = names_bert,
};
const struct family family_roberta = {
    .name = "roberta",
    .model_type = "roberta",
    .architecture = "RobertaModel",
    BERT_TABLES,
    .names = names_roberta,
    .position_after_pad = true,
};
const struct family family_xlm_roberta = {
    .name = "xlm-roberta",
    .model_type = "xlm-roberta",
    .architecture = "XLMRobertaModel",
    BERT_TABLES,
    .names = names_roberta,
    .position_after_pad = true,
};
const struct family family_camembert = {
    .name = "camembert",
    .model_type = "camembert",
    .architecture = "CamembertModel",
    BERT_TABLES,
    .names = names_roberta,
    .position_after_pad = true,
};
const struct family family_distilbert = {
    .name = "distilbert",
    .model_type = "distilbert",
    .architecture = "DistilBertModel",
    BERT_TABLES,
    .names = names_distilbert,
};
const struct family family_nomic_bert = {
    .name = "nomic_bert",
    .model_type = "nomic_bert",
    .architecture = "NomicBertModel",
    .gguf = "nomic-bert",
    .begin = begin,
    .attention = attention,
    .mlp = mlp_gated,
    .end = pooled_end,
    .names = names_nomic,
    .layer_norm = true,
    .encoder = true,
    .gguf_fused = true,
    .rope_theta = 1000,
    .norm_eps = 1e-12,
    .act = "silu",
};
