/* ingot inspect MODEL - what is in it, without loading it: family, sizes, quantization, tokenizer, template, memory
 * plan */
#include "cli/cli.h"

#include <stdio.h>

struct inspect {
    struct checkpoint *ck;
    struct tokenizer *tokenizer; /* NULL when there is none */
    struct error no_tokenizer;   /* why not */
    struct error template_error; /* why its chat template cannot be used; ST_OK: it can, or there is none */
    struct model_plan plan;
    uint64_t type_bytes[DT_COUNT];
    int type_count[DT_COUNT];
};

enum { PLAN_ROWS = 256 };

static const char *container_name(const struct checkpoint *ck)
{
    static const char *const names[] = {"safetensors / Hugging Face folder", "GGUF", "llama2.c", "PyTorch archive"};
    return names[ck->kind];
}

static enum status inspect_open(struct inspect *i, const char *path, const struct cli_model *m, struct error *err)
{
    TRY(checkpoint_open(&i->ck, path, err));
    for (size_t t = 0; t < i->ck->n_tensor; t++) {
        i->type_bytes[i->ck->tensors[t].type] += i->ck->tensors[t].bytes;
        i->type_count[i->ck->tensors[t].type]++;
    }
    if (tokenizer_from_checkpoint(&i->tokenizer, i->ck, &i->no_tokenizer) != ST_OK)
        i->tokenizer = NULL;
    struct template *template = NULL;
    struct str source = i->tokenizer ? tokenizer_chat_template(i->tokenizer) : STR("");
    i->template_error.status = source.len ? template_parse(&template, source, &i->template_error) : ST_OK;
    template_free(template);
    struct pool *pool;
    struct model_options options;
    TRY(cli_model_options(&options, &pool, m, err));
    options.pool = NULL;
    options.progress = NULL;
    pool_destroy(pool);
    return model_plan(&i->plan, i->ck, &options, PLAN_ROWS, err);
}

static void inspect_close(struct inspect *i)
{
    tokenizer_close(i->tokenizer);
    checkpoint_close(i->ck);
}

/* ---- for people ---- */

static void print_types(struct buf *out, const struct inspect *i)
{
    char size[32];
    for (int t = 0; t < DT_COUNT; t++)
        if (i->type_count[t])
            buf_printf(out, "  %-8s %5d tensors  %s\n", dtype_row((enum dtype)t)->name, i->type_count[t],
                       cli_bytes_text(size, sizeof size, i->type_bytes[t]));
}

static void print_text(struct buf *out, const struct inspect *i)
{
    const struct model_config *c = &i->plan.config;
    char size[32];
    buf_printf(out, "%s: %s, %s, %s\n", i->ck->path, c->family, container_name(i->ck),
               cli_bytes_text(size, sizeof size, i->ck->file_bytes));
    static const char *const poolings[POOL_COUNT] = {
        "",       "the mean of all tokens",         "the first token",     "the last token",
        "maxima", "sums by the root of the length", "the mean by position"};
    if (c->task != TASK_GENERATE)
        buf_printf(out, "gives        %s of %d, from", c->task == TASK_EMBED ? "embeddings" : "scores", c->n_out);
    for (unsigned left = c->task != TASK_GENERATE ? c->pooling : 0; left; left >>= POOL_BITS)
        buf_printf(out, " %s%s", poolings[pooling_first(left)], left >> POOL_BITS ? "," : "\n");
    buf_printf(out, "parameters   %.2f M\n", (double)c->n_param / 1e6);
    buf_printf(out, "layers       %d, width %d, feed-forward %d, vocabulary %d%s\n", c->n_layer, c->n_embd, c->n_ff,
               c->n_vocab, c->tied ? " (tied)" : "");
    buf_printf(out, "attention    %d heads of %d, %d for keys and values%s\n", c->n_head, c->d_head, c->n_kv_head,
               c->qk_norm ? ", Q/K norm" : "");
    if (c->window)
        buf_printf(out, "window       %d tokens\n", c->window);
    if (c->n_expert)
        buf_printf(out, "experts      %d, %d used, feed-forward %d each\n", c->n_expert, c->n_expert_used,
                   c->n_ff_expert);
    buf_printf(out, "context      %d trained, %d in force\n", c->n_ctx_train, c->n_ctx);
    if (c->rope_theta > 0)
        buf_printf(out, "positions    rotary, theta %g, scaling %s\n", c->rope_theta, c->rope_scaling);
    buf_printf(out, "weights\n");
    print_types(out, i);
    if (i->tokenizer)
        buf_printf(out, "tokenizer    %s, %d ids, template: %s%s\n", tokenizer_kind(i->tokenizer),
                   (int)tokenizer_vocab_size(i->tokenizer),
                   i->template_error.status != ST_OK               ? "cannot be used, "
                   : tokenizer_chat_template(i->tokenizer).len > 0 ? "yes"
                                                                   : "none",
                   i->template_error.text);
    else
        buf_printf(out, "tokenizer    none (%s)\n", i->no_tokenizer.text);
    buf_printf(out, "memory plan\n");
    buf_printf(out, "  weights    %s\n", cli_bytes_text(size, sizeof size, i->plan.weight_bytes));
    buf_printf(out, "  KV         %s a token, ", cli_bytes_text(size, sizeof size, i->plan.kv_bytes_per_token));
    buf_printf(out, "%s for one full context\n",
               cli_bytes_text(size, sizeof size, i->plan.kv_bytes_per_token * (uint64_t)c->n_ctx));
    buf_printf(out, "  run        %s for steps of %d rows\n", cli_bytes_text(size, sizeof size, i->plan.run_bytes),
               PLAN_ROWS);
}

static void print_tensors(struct buf *out, const struct checkpoint *ck)
{
    for (size_t t = 0; t < ck->n_tensor; t++) {
        char shape[96];
        buf_printf(out, "%-8s %-24s %.*s\n", dtype_row(ck->tensors[t].type)->name,
                   tensor_shape_text(shape, sizeof shape, &ck->tensors[t]), STR_ARG(ck->tensors[t].name));
    }
}

/* ---- for scripts ---- */

static void json_config(struct json_writer *w, const struct model_config *c)
{
    json_put_int(w, "parameters", c->n_param);
    json_put_int(w, "layers", c->n_layer);
    json_put_int(w, "hidden_size", c->n_embd);
    json_put_int(w, "feed_forward", c->n_ff);
    json_put_int(w, "heads", c->n_head);
    json_put_int(w, "kv_heads", c->n_kv_head);
    json_put_int(w, "head_dim", c->d_head);
    json_put_int(w, "vocab_size", c->n_vocab);
    json_put_int(w, "experts", c->n_expert);
    json_put_int(w, "experts_used", c->n_expert_used);
    json_put_int(w, "context_trained", c->n_ctx_train);
    json_put_int(w, "context", c->n_ctx);
    json_put_int(w, "window", c->window);
    json_put_real(w, "rope_theta", c->rope_theta);
    json_put_str(w, "rope_scaling", str_of(c->rope_scaling));
    json_put_bool(w, "tied_embeddings", c->tied);
}

static void json_tensors(struct json_writer *w, const struct checkpoint *ck)
{
    json_key(w, "tensors");
    json_begin_array(w);
    for (size_t t = 0; t < ck->n_tensor; t++) {
        json_begin_object(w);
        json_put_str(w, "name", ck->tensors[t].name);
        json_put_str(w, "type", str_of(dtype_row(ck->tensors[t].type)->name));
        json_key(w, "shape");
        json_begin_array(w);
        for (int d = 0; d < ck->tensors[t].n_dim; d++)
            json_write_int(w, ck->tensors[t].shape[d]);
        json_end_array(w);
        json_put_int(w, "bytes", (int64_t)ck->tensors[t].bytes);
        json_end_object(w);
    }
    json_end_array(w);
}

static void print_json(struct buf *out, const struct inspect *i, bool tensors)
{
    struct json_writer w;
    json_writer_init(&w, out);
    json_begin_object(&w);
    json_put_str(&w, "path", str_of(i->ck->path));
    json_put_str(&w, "family", str_of(i->plan.config.family));
    json_put_str(&w, "container", str_of(container_name(i->ck)));
    json_put_int(&w, "file_bytes", (int64_t)i->ck->file_bytes);
    json_config(&w, &i->plan.config);
    json_key(&w, "weights");
    json_begin_object(&w);
    for (int t = 0; t < DT_COUNT; t++)
        if (i->type_count[t])
            json_put_int(&w, dtype_row((enum dtype)t)->name, (int64_t)i->type_bytes[t]);
    json_end_object(&w);
    json_key(&w, "tokenizer");
    if (i->tokenizer)
        json_write_str(&w, str_of(tokenizer_kind(i->tokenizer)));
    else
        json_write_null(&w);
    json_put_bool(&w, "chat_template", i->tokenizer && tokenizer_chat_template(i->tokenizer).len);
    json_put_str(&w, "chat_template_error", str_of(i->template_error.text));
    json_key(&w, "plan");
    json_begin_object(&w);
    json_put_int(&w, "weight_bytes", (int64_t)i->plan.weight_bytes);
    json_put_int(&w, "kv_bytes_per_token", (int64_t)i->plan.kv_bytes_per_token);
    json_put_int(&w, "run_bytes", (int64_t)i->plan.run_bytes);
    json_put_int(&w, "run_rows", PLAN_ROWS);
    json_end_object(&w);
    if (tensors)
        json_tensors(&w, i->ck);
    json_end_object(&w);
    buf_append_char(out, '\n');
}

enum status cmd_inspect(int argc, char **argv, struct error *err)
{
    bool json = false, tensors = false;
    struct cli_model m = {0};
    const struct cli_option options[] = {
        {"tensors", 0, CLI_FLAG, &tensors, NULL, "every tensor with type and shape"},
        {"json", 0, CLI_FLAG, &json, NULL, "as one JSON object"},
        CLI_MODEL_OPTIONS(m),
    };
    const struct cli_spec spec = {
        "ingot inspect MODEL [--tensors] [--json]",
        "Prints what a model holds and the memory it will take, without loading it.",
        "  ingot inspect model.gguf\n  ingot inspect model/ --tensors\n  ingot inspect model/ --json --ctx 8192",
        CLI_TAKES(options, 1, 1)};
    struct cli_args args;
    TRY(cli_parse(&args, &spec, argc, argv, err));
    if (args.done)
        return ST_OK;
    struct inspect i = {0};
    struct buf out = {0};
    enum status st = inspect_open(&i, args.positional[0], &m, err);
    if (st == ST_OK) {
        if (json)
            print_json(&out, &i, tensors);
        else
            print_text(&out, &i);
        if (tensors && !json)
            print_tensors(&out, i.ck);
        st = cli_print(&out, err);
    }
    buf_free(&out);
    inspect_close(&i);
    return st;
}
