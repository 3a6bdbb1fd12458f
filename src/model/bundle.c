/* bundle - model, tokenizer, template and generation defaults, from one path */
#include "model/private.h"

#include "base/file.h"

#include <math.h>
#include <stdio.h>

/* Whatever generation_config.json says; a file that is not there, or does not parse, changes nothing. */
static void read_generation_config(struct bundle *b, struct model_config *c, const char *folder)
{
    enum { FILE_MAX = 1 << 20 };
    char path[4096];
    struct buf text = {0};
    struct arena arena;
    const struct json *doc;
    arena_init(&arena, 0);
    if (file_read_all(&text, path_join(path, sizeof path, folder, "generation_config.json"), FILE_MAX, NULL) == ST_OK &&
        json_parse(&doc, &arena, buf_str(&text), 0, NULL) == ST_OK) {
        b->temperature = json_real(json_get(doc, "temperature"), NAN);
        b->top_p = json_real(json_get(doc, "top_p"), NAN);
        b->repetition_penalty = json_real(json_get(doc, "repetition_penalty"), NAN);
        int64_t top_k = json_int(json_get(doc, "top_k"), -1);
        b->top_k = top_k >= 0 && top_k <= INT32_MAX ? (int)top_k : -1;
        const struct json *eos = json_get(doc, "eos_token_id");
        if (json_is(eos, JSON_INT))
            config_add_eos(c, eos->integer);
        JSON_EACH (v, eos) {
            config_add_eos(c, json_int(v, -1));
        }
    }
    buf_free(&text);
    arena_free(&arena);
}

/* What the fingerprint will be made of. */
static enum status note_files(struct bundle *b, const struct checkpoint *ck, const char *cache, struct error *err)
{
    struct file_id id;
    const char *path;
    TRY(digests_create(&b->digests, cache, err));
    for (size_t i = 0; i < ck->n_file; i++)
        TRY(digests_add(b->digests, ck->files[i].path, &ck->files[i].map.id, false, err));
    for (int i = 0; b->tokenizer && (path = tokenizer_file(&id, b->tokenizer, i)); i++)
        TRY(digests_add(b->digests, path, &id, true, err));
    return ST_OK;
}

/* Everything but weights. */
static enum status open_words(struct bundle *b, struct model_config *c, const struct checkpoint *ck, struct error *err)
{
    enum status st = tokenizer_from_checkpoint(&b->tokenizer, ck, err);
    if (st != ST_OK && st != ST_NOT_FOUND) /* a model may have no vocabulary; a broken one is an error */
        return st;
    if (b->tokenizer) {
        if (tokenizer_vocab_size(b->tokenizer) > c->n_vocab)
            return fail(err, ST_CORRUPT, "%s: the tokenizer has %d tokens, the model %d; they do not belong together",
                        ck->path, tokenizer_vocab_size(b->tokenizer), c->n_vocab);
        config_add_eos(c, tokenizer_eos(b->tokenizer));
        b->template_source = tokenizer_chat_template(b->tokenizer);
    }
    if (b->template_source.ptr) {
        /* A template beyond our subset takes nothing from the model but its chat. */
        st = template_parse(&b->template, b->template_source, &b->template_error);
        if (st == ST_NOMEM)
            return fail_nomem(err, "chat template");
        b->template_error.status = st;
    }
    read_generation_config(b, c, ck->folder);
    return ST_OK;
}

static enum status open_parts(struct bundle *b, const struct checkpoint *ck, const struct model_options *options,
                              struct error *err)
{
    TRY(model_load(&b->model, ck, options, err));
    TRY(open_words(b, &b->model->arch.config, ck, err));
    return note_files(b, ck, options->cache, err);
}

/* config NULL: all of it. */
static enum status open_path(struct bundle **out, struct model_config *config, const char *path,
                             const struct model_options *options, struct error *err)
{
    struct model_plan plan;
    *out = NULL;
    struct checkpoint *ck;
    TRY(checkpoint_open(&ck, path, err));
    struct bundle *b = mem_alloc_zero(1, sizeof *b);
    if (!b) {
        checkpoint_close(ck);
        return fail_nomem(err, "bundle");
    }
    b->temperature = b->top_p = b->repetition_penalty = NAN;
    b->top_k = -1;
    struct str id = path_stem(str_of(path));
    snprintf(b->id, sizeof b->id, "%.*s", STR_ARG(id));
    enum status st = config ? model_plan(&plan, ck, options, 1, err) : open_parts(b, ck, options, err);
    if (config && st == ST_OK) {
        st = open_words(b, &plan.config, ck, err);
        *config = plan.config;
    }
    if (checkpoint_check(ck, err) != ST_OK)
        st = ST_IO;
    checkpoint_close(ck);
    if (st != ST_OK) {
        bundle_close(b);
        return st;
    }
    *out = b;
    return ST_OK;
}

enum status bundle_open(struct bundle **out, const char *path, const struct model_options *options, struct error *err)
{
    return open_path(out, NULL, path, options, err);
}

enum status bundle_peek(struct bundle **out, struct model_config *config, const char *path, struct error *err)
{
    return open_path(out, config, path, &(struct model_options){0}, err);
}

void bundle_close(struct bundle *b)
{
    if (!b)
        return;
    digests_destroy(b->digests);
    template_free(b->template);
    tokenizer_close(b->tokenizer);
    model_free(b->model);
    mem_free(b);
}

bool bundle_is_eos(const struct bundle *b, int32_t id)
{
    const struct model_config *c = &b->model->arch.config;
    for (int i = 0; i < c->n_eos; i++)
        if (c->eos[i] == id)
            return true;
    return false;
}
