/* ingot tokenize MODEL - text to ids, a line at a time */
#include "cli/cli.h"

static enum status line_encode(const struct cli_lines *how, const struct tokenizer *tok, struct buf *out,
                               struct ids *ids, struct str line, struct error *err)
{
    struct arena arena;
    const struct json *doc = NULL;
    enum status st = ST_OK;
    arena_init(&arena, 0);
    if (how->jsonl)
        st = cli_line_json(&doc, &arena, line, JSON_STRING, "a JSON string", err);
    if (st == ST_OK)
        st = tokenizer_encode(tok, ids, how->jsonl ? json_str(doc) : line, how->flags, err);
    arena_free(&arena);
    TRY(st);
    if (how->jsonl)
        buf_append_char(out, '[');
    for (size_t i = 0; i < ids->count; i++)
        buf_printf(out, i ? ",%d" : "%d", ids->ids[i]);
    buf_append_str(out, how->jsonl ? STR("]\n") : STR("\n"));
    return ST_OK;
}

enum status cmd_tokenize(int argc, char **argv, struct error *err)
{
    const char *file = "-";
    bool no_special = false;
    struct cli_lines how = {.convert = line_encode};
    const struct cli_option options[] = {
        {"file", 'f', CLI_TEXT, &file, "FILE", "the text (default: standard input)"},
        {"no-special", 0, CLI_FLAG, &no_special, NULL, "add no BOS, EOS or template tokens"},
        {"jsonl", 0, CLI_FLAG, &how.jsonl, NULL, "each input line is a JSON string, each output line an array of ids"},
        {"json", 0, CLI_FLAG, &how.jsonl, NULL, "the same as --jsonl"},
    };
    const struct cli_spec spec = {
        "ingot tokenize MODEL [--file F] [--no-special] [--jsonl]",
        "Prints the token ids of each line of text, with commas. MODEL may be a folder, a model file, or a tokenizer\n"
        "file alone. Special tokens written in the text are recognised.",
        "  echo \"Hello world\" | ingot tokenize model.gguf\n"
        "  ingot tokenize tokenizer.json --file text.txt --no-special",
        CLI_TAKES(options, 1, 1)};
    struct cli_args args;
    TRY(cli_parse(&args, &spec, argc, argv, err));
    if (args.done)
        return ST_OK;
    how.flags = TOKENIZE_SPECIAL | (no_special ? 0 : TOKENIZE_ADD);
    return cli_lines_run(&how, args.positional[0], file, err);
}
