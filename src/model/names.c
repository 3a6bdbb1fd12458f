/* names - where a role's numbers lie in each container */
#include "model/plan.h"

#include <stdio.h>

/* All GGUF families share these names; a row that a family has no role for is never asked. */
const struct name_row gguf_names[] = {
    {W_EMBED, "token_embd", 0},
    {W_POSITION, "position_embd", 0},
    {W_TYPE, "token_types", 0},
    {W_EMBED_NORM, "token_embd_norm", NAME_BIAS_MAYBE},
    {W_ATTN_NORM, "blk.{l}.attn_norm", NAME_BIAS_MAYBE},
    {W_Q, "blk.{l}.attn_q", NAME_BIAS_MAYBE},
    {W_K, "blk.{l}.attn_k", NAME_BIAS_MAYBE},
    {W_V, "blk.{l}.attn_v", NAME_BIAS_MAYBE},
    {W_Q, "blk.{l}.attn_qkv", NAME_BIAS_MAYBE, 0, 3},
    {W_K, "blk.{l}.attn_qkv", NAME_BIAS_MAYBE, 1, 3},
    {W_V, "blk.{l}.attn_qkv", NAME_BIAS_MAYBE, 2, 3},
    {W_Q_NORM, "blk.{l}.attn_q_norm", 0},
    {W_K_NORM, "blk.{l}.attn_k_norm", 0},
    {W_O, "blk.{l}.attn_output", NAME_BIAS_MAYBE},
    {W_ATTN_POST_NORM, "blk.{l}.attn_output_norm", NAME_BIAS_MAYBE},
    {W_MLP_NORM, "blk.{l}.ffn_norm", NAME_BIAS_MAYBE},
    {W_GATE, "blk.{l}.ffn_gate", NAME_BIAS_MAYBE},
    {W_UP, "blk.{l}.ffn_up", NAME_BIAS_MAYBE},
    {W_DOWN, "blk.{l}.ffn_down", NAME_BIAS_MAYBE},
    {W_MLP_POST_NORM, "blk.{l}.layer_output_norm", NAME_BIAS_MAYBE},
    {W_ROUTER, "blk.{l}.ffn_gate_inp", 0},
    {W_EXPERT_GATE, "blk.{l}.ffn_gate_exps", NAME_STACKED},
    {W_EXPERT_UP, "blk.{l}.ffn_up_exps", NAME_STACKED},
    {W_EXPERT_DOWN, "blk.{l}.ffn_down_exps", NAME_STACKED},
    {W_EXPERT_GATE, "blk.{l}.ffn_gate.{e}", 0}, /* files of 2023 */
    {W_EXPERT_UP, "blk.{l}.ffn_up.{e}", 0},
    {W_EXPERT_DOWN, "blk.{l}.ffn_down.{e}", 0},
    {W_SHARED_ROUTER, "blk.{l}.ffn_gate_inp_shexp", 0},
    {W_SHARED_GATE, "blk.{l}.ffn_gate_shexp", 0},
    {W_SHARED_UP, "blk.{l}.ffn_up_shexp", 0},
    {W_SHARED_DOWN, "blk.{l}.ffn_down_shexp", 0},
    {W_OUT_NORM, "output_norm", NAME_BIAS_MAYBE},
    {W_HEAD, "output", NAME_BIAS_MAYBE},
    {W_POOLER, "cls", NAME_BIAS_MAYBE},
    {W_SCORE, "cls.output", NAME_BIAS_MAYBE},
    {W_NONE},
};

/* Modules behind the pooling: formats gives their tensors these names. */
static const struct name_row sentence_names[] = {
    {W_DENSE, "dense_2.linear", NAME_BIAS_MAYBE},
    {W_DENSE_2, "dense_3.linear", NAME_BIAS_MAYBE},
    {W_NONE},
};

const struct name_row *arch_names(const struct arch *a, enum role role, bool of_family)
{
    bool dense = role >= W_DENSE && role < W_DENSE + DENSE_MAX;
    return dense ? sentence_names : of_family ? a->family->names : a->names;
}

const struct name_row llama2c_names[] = {
    {W_EMBED, "tok_embeddings", 0},
    {W_ATTN_NORM, "layers.{l}.attention_norm", 0},
    {W_Q, "layers.{l}.attention.wq", 0},
    {W_K, "layers.{l}.attention.wk", 0},
    {W_V, "layers.{l}.attention.wv", 0},
    {W_O, "layers.{l}.attention.wo", 0},
    {W_MLP_NORM, "layers.{l}.ffn_norm", 0},
    {W_GATE, "layers.{l}.feed_forward.w1", 0},
    {W_DOWN, "layers.{l}.feed_forward.w2", 0},
    {W_UP, "layers.{l}.feed_forward.w3", 0},
    {W_OUT_NORM, "norm", 0},
    {W_HEAD, "output", 0},
    {W_NONE},
};

const struct tensor *tensor_by_name(const struct checkpoint *ck, const char *name)
{
    return checkpoint_find(ck, str_of(name));
}

char *name_format(char *text, size_t size, const struct name_row *row, int layer, int expert, bool bias)
{
    size_t n = 0;
    for (const char *p = row->pattern; *p && n + 16 < size;) {
        int number = strncmp(p, "{l}", 3) == 0 ? layer : strncmp(p, "{e}", 3) == 0 ? expert : -1;
        if (*p == '{') {
            n += (size_t)snprintf(text + n, size - n, "%d", number);
            p += 3;
        } else {
            text[n++] = *p++;
        }
    }
    text[n] = 0;
    if (!(row->flags & NAME_NO_SUFFIX))
        snprintf(text + n, size - n, "%s",
                 row->flags & NAME_GAMMA ? bias ? ".beta" : ".gamma"
                 : bias                  ? ".bias"
                                         : ".weight");
    return text;
}

static const struct tensor *find(const struct name_row **row, const struct checkpoint *ck, const struct name_row *names,
                                 enum role role, const struct param *p)
{
    char text[128];
    const struct name_row *first = NULL;
    for (const struct name_row *n = names; n->role; n++) {
        if (n->role != role)
            continue;
        first = first ? first : n;
        *row = n;
        name_format(text, sizeof text, n, p->layer, p->expert, p->bias);
        const struct tensor *t = tensor_by_name(ck, text);
        const char *dot = strchr(text, '.'); /* files saved from the inner model lack "model." or "transformer." */
        if (!t && dot)
            t = tensor_by_name(ck, dot + 1);
        if (t)
            return t;
    }
    *row = first;
    return NULL;
}

/* Two rows of it make the score: GGUF's classifier, or the vocabulary's matrix. */
static const struct tensor *words_tensor(const struct name_row **row, const struct arch *a, const struct checkpoint *ck,
                                         const struct param *p)
{
    const struct tensor *t = a->gguf ? find(row, ck, a->names, W_SCORE, p) : NULL;
    if (!t && a->config.tied)
        t = find(row, ck, a->names, W_EMBED, p);
    return t ? t : find(row, ck, a->names, W_HEAD, p);
}

const struct tensor *param_tensor(const struct name_row **row, const struct arch *a, const struct checkpoint *ck,
                                  const struct param *p)
{
    if (arch_makes_score(a, p->role))
        return words_tensor(row, a, ck, p);
    const struct tensor *t = find(row, ck, arch_names(a, p->role, false), p->role, p);
    const struct name_row *head;
    if (!t && p->role == W_EMBED && a->config.tied && !p->bias) { /* stored once, under the other's name */
        t = find(&head, ck, a->names, W_HEAD, p);
        *row = t ? head : *row;
    }
    return t;
}
