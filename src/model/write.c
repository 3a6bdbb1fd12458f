/* write - parameters back into the tensors of a naming; a Hugging Face folder that transformers loads */
#include "model/private.h"

#include "base/file.h"
#include "model/recipe.h"

#include <stdio.h>

/* ---- one tensor, made on demand ---- */
static void param_row(float *out, real *wide, const struct param *p, int64_t i)
{
    weight_get_row(wide, &p->weight, i);
    for (int64_t k = 0; k < p->n_in; k++)
        out[k] = (float)wide[k];
}

struct row_buffers {
    float *row, *whole; /* whole: of a tensor stored transposed, or of a vector */
    real *wide;
};

/* One part of the tensor, of one expert: of a vector, of a matrix. */
static enum status fill_vector(const struct tensor_source *s, int part, const struct param *p, float *whole)
{
    for (int32_t i = 0; i < p->n_out; i++)
        whole[param_stored_row(&s->m->arch, &s->row[part], p, s->pairs, i)] = (float)p->vector[i];
    return ST_OK;
}

static enum status fill_matrix(const struct tensor_source *s, int part, int expert, const struct param *p,
                               struct row_buffers *b, char *out, struct error *err)
{
    int64_t all = p->n_out * s->n_part, n_in = p->n_in;
    size_t row_bytes = (size_t)(n_in / dtype_row(s->type)->block * dtype_row(s->type)->bytes);
    for (int32_t i = 0; i < p->n_out; i++) {
        int64_t to = (int64_t)expert * all + param_stored_row(&s->m->arch, &s->row[part], p, s->pairs, i);
        param_row(b->row, b->wide, p, i);
        if (s->row->flags & NAME_TRANSPOSED)
            for (int64_t k = 0; k < n_in; k++)
                b->whole[k * all + to] = b->row[k];
        else
            TRY(dtype_from_f32(out + (size_t)to * row_bytes, s->type, b->row, (size_t)n_in, err));
    }
    return ST_OK;
}

static enum status fill_parts(const struct tensor_source *s, struct row_buffers *b, char *out, struct error *err)
{
    for (int e = 0; e < s->n_expert; e++)
        for (int part = 0; part < s->n_part; part++) {
            struct param *p = &s->m->plan.params[s->first[part] + e];
            TRY(param_hold(s->m, p, err));
            enum status st =
                param_is_vector(p) ? fill_vector(s, part, p, b->whole) : fill_matrix(s, part, e, p, b, out, err);
            param_release(s->m, p);
            TRY(st);
        }
    return ST_OK;
}

static enum status fill_tensor(void *ctx, void *out, struct error *err)
{
    const struct tensor_source *s = ctx;
    const struct param *p = &s->m->plan.params[s->first[0]];
    size_t count = (size_t)(p->n_out * s->n_part * p->n_in);
    bool vector = param_is_vector(p), whole = vector || s->row->flags & NAME_TRANSPOSED;
    struct row_buffers b = {.row = mem_alloc((size_t)p->n_in * sizeof(float)),
                            .wide = mem_alloc((size_t)p->n_in * sizeof(real)),
                            .whole = mem_alloc((whole ? count : 1) * sizeof(float))};
    enum status st = ST_OK;
    if (!b.row || !b.wide || !b.whole)
        st = fail_nomem(err, "write");
    else
        st = fill_parts(s, &b, out, err);
    if (st == ST_OK && whole)
        st = dtype_from_f32(out, s->type, b.whole, count, err);
    mem_free(b.row);
    mem_free(b.wide);
    mem_free(b.whole);
    return st;
}

/* ---- all tensors of a naming ---- */
static int param_index(const struct model *m, enum role role, int layer, int expert, bool bias)
{
    for (int i = 0; i < m->plan.n_param; i++) {
        const struct param *p = &m->plan.params[i];
        if (p->role == role && p->layer == layer && p->expert == expert && p->bias == bias)
            return i;
    }
    return -1;
}

static enum status list_add(struct tensor_list *l, const struct tensor_source *s, int expert, struct error *err)
{
    if (!MEM_GROW(l->tensors, l->capacity, l->n))
        return fail_nomem(err, "write");
    const struct param *p = &s->m->plan.params[s->first[0]];
    char text[128];
    name_format(text, sizeof text, s->row, p->layer, expert, p->bias);
    char *name = arena_copy(&l->arena, str_of(text));
    struct tensor_source *kept = arena_alloc(&l->arena, sizeof *kept);
    if (!name || !kept)
        return fail_nomem(err, "write");
    *kept = *s;
    kept->name = str_of(name);
    struct tensor_out t = {.name = str_of(name), .type = s->type, .ctx = kept};
    t.fill = s->how && !param_is_vector(p) ? quantize_tensor : fill_tensor;
    int64_t all = p->n_out * s->n_part;
    bool turned = s->row->flags & NAME_TRANSPOSED;
    if (s->n_expert > 1)
        t.shape[t.n_dim++] = s->n_expert;
    if (param_is_vector(p)) {
        t.shape[t.n_dim++] = all;
    } else {
        t.shape[t.n_dim++] = turned ? p->n_in : all;
        t.shape[t.n_dim++] = turned ? all : p->n_in;
    }
    l->tensors[l->n++] = t;
    return ST_OK;
}

/* The tensor that starts at this row of the naming, for one layer and expert; nothing when the model lacks it. */
static enum status list_one(struct tensor_list *l, const struct model *m, const struct write_want *want,
                            const struct name_row *row, int layer, int expert, bool bias, struct error *err)
{
    struct tensor_source s = {.m = m, .row = row, .n_part = row->n_part ? row->n_part : 1, .pairs = want->pairs};
    s.n_expert = row->flags & NAME_STACKED ? m->arch.config.n_expert : 1;
    for (int part = 0; part < s.n_part; part++) {
        s.first[part] = param_index(m, row[part].role, layer, expert, bias);
        if (s.first[part] < 0)
            return ST_OK;
    }
    const struct param *p = &m->plan.params[s.first[0]];
    if (want->how && want->how->packing) {
        s.how = want->how;
        s.type = s.wanted = DT_F16;
        return packed_wanted(want->how, p) ? packed_add(l, &s, expert, err) : list_add(l, &s, expert, err);
    }
    bool router = p->role == W_ROUTER || p->role == W_SHARED_ROUTER;
    if (want->how) {
        s.how = want->how;
        struct recipe_answer answer =
            recipe_type(want->how->recipe, &(struct recipe_ask){.role = p->role,
                                                                .layer = layer,
                                                                .vector = param_is_vector(p),
                                                                .fused_qkv = s.n_part == 3,
                                                                .n_in = p->n_in,
                                                                .config = &m->arch.config,
                                                                .pure = want->how->pure,
                                                                .imatrix = want->how->imatrix != NULL});
        s.type = answer.type;
        s.wanted = answer.wanted;
        return list_add(l, &s, expert, err);
    }
    s.type = param_is_vector(p) || (router && dtype_is_block(want->matrix)) ? want->vector : want->matrix;
    if (p->n_in % dtype_row(s.type)->block && !param_is_vector(p))
        s.type = DT_F16; /* rows that hold no whole blocks */
    return list_add(l, &s, expert, err);
}

/* A naming may have several spellings of a role: the first that suits is written. */
static bool row_is_written(const struct write_want *want, const struct name_row *row)
{
    bool qkv = row->role == W_Q || row->role == W_K || row->role == W_V, both = want->names == gguf_names;
    if (qkv && both && (row->n_part > 0) != want->fused)
        return false;
    for (const struct name_row *n = want->names; n < row; n++)
        if (n->role == row->role && row_is_written(want, n))
            return false;
    return row->part == 0; /* later parts go with the first */
}

enum status tensor_list_make(struct tensor_list *l, const struct model *m, const struct write_want *want,
                             struct error *err)
{
    const struct model_config *c = &m->arch.config;
    *l = (struct tensor_list){0};
    arena_init(&l->arena, 0);
    for (const struct name_row *row = want->names; row->role; row++) {
        const struct role_row *r = &role_rows[row->role];
        if (!row_is_written(want, row))
            continue;
        bool each = r->expert && !(row->flags & NAME_STACKED);
        for (int layer = r->global ? -1 : 0; layer < (r->global ? 0 : c->n_layer); layer++)
            for (int expert = 0; expert < (each ? c->n_expert : 1); expert++)
                for (int bias = 0; bias < 2; bias++)
                    TRY(list_one(l, m, want, row, layer, expert, bias, err));
    }
    return ST_OK;
}

void tensor_list_free(struct tensor_list *l)
{
    mem_free(l->tensors);
    arena_free(&l->arena);
}

/* ---- config.json ---- */
static const char *act_name(const struct arch *a)
{
    static const char *const names[] = {
        [FN_SILU] = "silu", [FN_GELU] = "gelu", [FN_GELU_TANH] = "gelu_new", [FN_RELU] = "relu"};
    return names[a->act];
}

static void put_reals(struct json_writer *w, const char *key, const float *values, int n)
{
    json_key(w, key);
    json_begin_array(w);
    for (int i = 0; i < n; i++)
        json_write_real(w, (double)values[i]);
    json_end_array(w);
}

static void put_rope(struct json_writer *w, const struct arch *a)
{
    const struct rope_config *r = &a->rope_config;
    json_put_real(w, "rope_theta", r->theta);
    if (!r->type[0])
        return;
    const struct {
        const char *key;
        double value;
    } reals[] = {{"factor", r->factor},
                 {"low_freq_factor", r->low},
                 {"high_freq_factor", r->high},
                 {"beta_fast", r->beta_fast},
                 {"beta_slow", r->beta_slow},
                 {"mscale", r->mscale},
                 {"mscale_all_dim", r->mscale_all_dim},
                 {"attention_factor", r->attention_factor}};
    json_key(w, "rope_scaling");
    json_begin_object(w);
    json_put_str(w, "rope_type", str_of(r->type));
    for (size_t i = 0; i < sizeof reals / sizeof *reals; i++)
        if (reals[i].value)
            json_put_real(w, reals[i].key, reals[i].value);
    if (r->original)
        json_put_int(w, "original_max_position_embeddings", (int64_t)r->original);
    if (r->no_truncate)
        json_put_bool(w, "truncate", false);
    if (r->long_factor) {
        put_reals(w, "long_factor", r->long_factor, r->n_factor);
        put_reals(w, "short_factor", r->short_factor, r->n_factor);
    }
    json_end_object(w);
}

static void put_gpt2(struct json_writer *w, const struct arch *a)
{
    const struct model_config *c = &a->config;
    json_put_int(w, "n_embd", c->n_embd);
    json_put_int(w, "n_layer", c->n_layer);
    json_put_int(w, "n_head", c->n_head);
    json_put_int(w, "n_inner", c->n_ff);
    json_put_int(w, "n_positions", c->n_ctx_train);
    json_put_real(w, "layer_norm_epsilon", c->norm_eps);
    json_put_str(w, "activation_function", str_of(act_name(a)));
    if (a->alt)
        json_put_str(w, "norm", STR("post"));
}

static void put_window(struct json_writer *w, const struct arch *a)
{
    const struct model_config *c = &a->config;
    if (!a->family->window_switch) {
        json_key(w, "sliding_window");
        if (c->window)
            json_write_int(w, c->window);
        else
            json_write_null(w);
        return;
    }
    json_put_bool(w, "use_sliding_window", c->window > 0);
    if (c->window == 0)
        return;
    json_put_int(w, "sliding_window", c->window);
    if (!a->family->window_from_layer)
        return;
    json_put_int(w, "max_window_layers", 0);
    json_key(w, "layer_types");
    json_begin_array(w);
    for (int l = 0; l < c->n_layer; l++)
        json_write_str(w, a->attrs[l][0].window ? STR("sliding_attention") : STR("full_attention"));
    json_end_array(w);
}

static void put_experts(struct json_writer *w, const struct arch *a)
{
    const struct model_config *c = &a->config;
    bool mixtral = a->family == &family_mixtral;
    json_put_int(w, mixtral ? "num_local_experts" : "num_experts", c->n_expert);
    json_put_int(w, "num_experts_per_tok", c->n_expert_used);
    if (mixtral)
        return;
    json_put_int(w, "moe_intermediate_size", c->n_ff_expert);
    if (c->n_ff_shared)
        json_put_int(w, "shared_expert_intermediate_size", c->n_ff_shared);
    json_put_bool(w, "norm_topk_prob", a->norm_top_k);
    json_put_int(w, "decoder_sparse_step", 1);
    json_key(w, "mlp_only_layers");
    json_begin_array(w);
    for (int l = 0; l < c->n_layer; l++)
        if (!a->sparse[l])
            json_write_int(w, l);
    json_end_array(w);
}

static void put_decoder(struct json_writer *w, const struct arch *a)
{
    const struct model_config *c = &a->config;
    json_put_int(w, "hidden_size", c->n_embd);
    json_put_int(w, "num_hidden_layers", c->n_layer);
    json_put_int(w, "num_attention_heads", c->n_head);
    json_put_int(w, "num_key_value_heads", c->n_kv_head);
    json_put_int(w, "head_dim", c->d_head);
    json_put_int(w, "intermediate_size", c->n_ff);
    json_put_int(w, "max_position_embeddings", c->n_ctx_train);
    json_put_real(w, a->family->layer_norm ? "layer_norm_eps" : "rms_norm_eps", c->norm_eps);
    json_put_str(w, "hidden_act", str_of(act_name(a)));
    put_rope(w, a);
    json_put_bool(w, a->family == &family_qwen2_moe ? "qkv_bias" : "attention_bias", c->qkv_bias);
    if (a->need_mlp_bias)
        json_put_bool(w, "mlp_bias", true);
    if (a->family == &family_gpt_neox) {
        json_put_real(w, "rotary_pct", c->rope_partial);
        json_put_real(w, "rotary_emb_base", c->rope_theta);
        json_put_bool(w, "use_parallel_residual", !a->alt);
    }
    if (a->family->window || a->family == &family_mixtral)
        put_window(w, a);
    if (c->n_expert)
        put_experts(w, a);
}

static void put_eos(struct json_writer *w, const struct model_config *c)
{
    json_key(w, "eos_token_id");
    if (c->n_eos == 0) {
        json_write_null(w);
    } else if (c->n_eos == 1) {
        json_write_int(w, c->eos[0]);
    } else {
        json_begin_array(w);
        for (int i = 0; i < c->n_eos; i++)
            json_write_int(w, c->eos[i]);
        json_end_array(w);
    }
}

static enum status write_config(const struct model *m, const struct family *f, const char *folder, enum dtype type,
                                const struct model_quantize *how, struct error *err)
{
    const struct arch *a = &m->arch;
    const struct model_config *c = &a->config;
    struct buf text = {0};
    struct json_writer w;
    json_writer_init(&w, &text);
    w.indent = 2;
    json_begin_object(&w);
    json_key(&w, "architectures");
    json_begin_array(&w);
    json_write_str(&w, str_of(f->architecture));
    json_end_array(&w);
    json_put_str(&w, "model_type", str_of(f->model_type));
    json_put_str(&w, "torch_dtype",
                 type == DT_F32   ? STR("float32")
                 : type == DT_F16 ? STR("float16")
                                  : STR("bfloat16"));
    json_put_int(&w, "vocab_size", c->n_vocab);
    json_put_bool(&w, "tie_word_embeddings", c->tied);
    json_put_real(&w, "initializer_range", a->init_range);
    json_key(&w, "bos_token_id");
    if (c->bos >= 0)
        json_write_int(&w, c->bos);
    else
        json_write_null(&w);
    put_eos(&w, c);
    if (f == &family_gpt2)
        put_gpt2(&w, a);
    else
        put_decoder(&w, a);
    if (how)
        packed_put_config(&w, m, how);
    json_end_object(&w);
    buf_append_char(&text, '\n');
    char path[4096];
    enum status st = text.failed
                         ? fail_nomem(err, "write")
                         : file_write_all(path_join(path, sizeof path, folder, "config.json"), buf_str(&text), err);
    buf_free(&text);
    return st;
}

/* The family as transformers knows it: training scripts' namings are GPT-2's. */
static const struct family *public_family(const struct arch *a)
{
    return a->family->model_type ? a->family : &family_gpt2;
}

static enum status check_folder(const struct model *m, struct error *err)
{
    if (m->arch.config.task != TASK_GENERATE)
        return fail(err, ST_UNSUPPORTED, "write: encoders, embedding models and classifiers are written as GGUF only");
    if (m->arch.rope_config.divide)
        return fail(err, ST_UNSUPPORTED,
                    "write: this GGUF scales positions by a table (rope_freqs) that config.json cannot express");
    return ST_OK;
}

static enum status write_hf(const struct model *m, const char *folder, enum dtype type,
                            const struct model_quantize *how, struct error *err)
{
    const struct family *f = public_family(&m->arch);
    struct write_want want = {.names = f->names, .matrix = type, .vector = type, .how = how};
    struct tensor_list list;
    TRY(check_folder(m, err));
    if (how)
        TRY(packed_check(m, f, how, err));
    TRY(file_make_folders(folder, err));
    enum status st = tensor_list_make(&list, m, &want, err);
    if (st == ST_OK)
        st = safetensors_write(folder, list.tensors, list.n, 0, err);
    if (st == ST_OK) /* last: a folder with a config.json is whole */
        st = write_config(m, f, folder, type, how, err);
    tensor_list_free(&list);
    return st;
}

enum status model_write_hf(const struct model *m, const char *folder, enum dtype type, struct error *err)
{
    if (type != DT_F32 && type != DT_F16 && type != DT_BF16)
        return fail(err, ST_UNSUPPORTED,
                    "write: a Hugging Face folder holds f32, f16 or bf16, not %s; write a GGUF instead",
                    dtype_row(type)->name);
    return write_hf(m, folder, type, NULL, err);
}

enum status model_quantize_hf(const struct model *m, const char *folder, const struct model_quantize *how,
                              struct error *err)
{
    return write_hf(m, folder, DT_F16, how, err);
}
