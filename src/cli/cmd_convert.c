/* ingot convert IN OUT - the same model in another container */
#include "base/file.h"
#include "cli/cli.h"

#include <stdio.h>

enum status cmd_convert(int argc, char **argv, struct error *err)
{
    const char *type = NULL;
    const struct cli_option options[] = {
        {"type", 0, CLI_TEXT, &type, "TYPE",
         "of matrices: f32, f16, bf16, q8_0, q4_0, q4_1 (GGUF); f32, f16, bf16 (folder)"}};
    const struct cli_spec spec = {
        "ingot convert IN OUT [--type T]",
        "Writes the model IN as OUT: a GGUF file when OUT ends in .gguf, else a Hugging Face folder.\n"
        "The tokenizer goes along. Without --type: f16 for GGUF, f32 for a folder.",
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
        return fail(err, ST_INVALID, "--type %s: unknown; `ingot convert --help` lists the types", type);
    struct pool *pool = NULL;
    struct cli_model common = {.exact = true};
    struct model_options load;
    TRY(cli_model_options(&load, &pool, &common, err));
    struct checkpoint *ck = NULL;
    struct model *model = NULL;
    enum status st = checkpoint_open(&ck, in, err);
    if (st == ST_OK)
        st = model_load(&model, ck, &load, err);
    if (st == ST_OK)
        st = gguf ? model_write_gguf(model, out, (enum dtype)dtype, ck->gguf ? ck->path : ck->folder, err)
                  : model_write_hf(model, out, (enum dtype)dtype, err);
    progress_end();
    model_free(model);
    checkpoint_close(ck);
    pool_destroy(pool);
    if (st == ST_OK)
        printf("%s\n", out);
    return st;
}
