/* ingot convert IN OUT - the same model in another container */
#include "base/file.h"
#include "cli/convert.h"

#include <stdio.h>

/* The files beside a model that make it speak: they go along as they are. */
enum status cli_side_files_copy(const char *from, const char *to, struct error *err)
{
    enum { SIDE_FILE_MAX = 256 << 20 };
    static const char *const names[] = {
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "added_tokens.json",
        "vocab.json",
        "merges.txt",
        "tokenizer.model",
        "tokenizer.bin",
        "generation_config.json",
        "chat_template.jinja",
        "vocab.txt",
    };
    char source[4096], target[4096];
    struct buf bytes = {0};
    enum status st = ST_OK;
    for (size_t i = 0; i < sizeof names / sizeof *names && st == ST_OK; i++) {
        path_join(source, sizeof source, from, names[i]);
        if (file_kind(source) != FILE_REGULAR)
            continue;
        buf_clear(&bytes);
        st = file_read_all(&bytes, source, SIDE_FILE_MAX, err);
        if (st == ST_OK)
            st = file_write_all(path_join(target, sizeof target, to, names[i]), buf_str(&bytes), err);
    }
    buf_free(&bytes);
    return st;
}

/* Writing over what is read would lose it for ever, and usually to fewer bits. */
enum status cli_check_apart(const struct checkpoint *ck, const char *out, bool gguf, struct error *err)
{
    bool same = file_same(out, ck->path) || (!gguf && ck->kind != CHECKPOINT_GGUF && file_same(out, ck->folder));
    for (size_t i = 0; i < ck->n_file; i++) /* IN may be a folder */
        same |= file_same(out, ck->files[i].path);
    if (!gguf && file_kind(out) == FILE_REGULAR)
        return fail(err, ST_INVALID,
                    "OUT %s is a file: a folder is written there, or a GGUF file when it ends in .gguf", out);
    return same ? fail(err, ST_INVALID, "OUT %s is the model that is read: name another", out) : ST_OK;
}

enum status cmd_convert(int argc, char **argv, struct error *err)
{
    const char *type = NULL;
    const struct cli_option options[] = {
        {"type", 0, CLI_TEXT, &type, "TYPE",
         "of matrices: f32, f16, bf16, q8_0, q4_0, q4_1 (GGUF); f32, f16, bf16 (folder)"}};
    const struct cli_spec spec = {
        "ingot convert IN OUT [--type T]",
        "Writes the model IN as OUT: a GGUF file when OUT ends in .gguf, else a Hugging Face folder.\n"
        "The tokenizer goes along: into a GGUF whatever file it comes from, its files into a folder; one inside a "
        "GGUF\n"
        "stays there. Without --type: f16 for GGUF, f32 for a folder.",
        "  ingot convert model/ model.gguf --type q8_0\n  ingot convert model.gguf folder/ --type bf16",
        options,
        1,
        2,
        2};
    struct cli_args args;
    TRY(cli_parse(&args, &spec, argc, argv, err));
    if (args.done)
        return ST_OK;
    const char *in = args.positional[0], *out = args.positional[1];
    bool gguf = str_ends(str_of(out), STR(".gguf"));
    int dtype = dtype_find(str_of(type ? type : gguf ? "f16" : "f32"));
    if (dtype < 0)
        return fail(err, ST_INVALID,
                    "--type %s: expected f32, f16, bf16, q8_0, q4_0 or q4_1 (a folder: f32, f16 or bf16)", type);
    struct pool *pool = NULL;
    struct cli_model common = {.exact = true};
    struct model_options load;
    TRY(cli_model_options(&load, &pool, &common, err));
    load.any_task = true;
    load.stream = true;
    struct checkpoint *ck = NULL;
    struct model *model = NULL;
    enum status st = checkpoint_open(&ck, in, err);
    if (st == ST_OK)
        st = cli_check_apart(ck, out, gguf, err);
    if (st == ST_OK)
        st = model_load(&model, ck, &load, err);
    if (st == ST_OK)
        st = gguf ? model_write_gguf(model, out, (enum dtype)dtype, ck->gguf ? ck->path : ck->folder, err)
                  : model_write_hf(model, out, (enum dtype)dtype, err);
    if (st == ST_OK && !gguf && ck->folder && ck->kind != CHECKPOINT_GGUF)
        st = cli_side_files_copy(ck->folder, out, err);
    progress_end();
    model_free(model);
    checkpoint_close(ck);
    pool_destroy(pool);
    if (st == ST_OK)
        printf("%s\n", out);
    return st;
}
