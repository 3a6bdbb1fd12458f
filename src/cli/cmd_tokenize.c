/* ingot tokenize MODEL - text to ids, a line at a time */
#include "base/file.h"
#include "cli/cli.h"

enum { INPUT_MAX = 1 << 30, FLUSH_BYTES = 1 << 20 };

static void write_ids(struct buf *out, const struct ids *ids, bool jsonl)
{
    if (jsonl)
        buf_append_char(out, '[');
    for (size_t i = 0; i < ids->count; i++)
        buf_printf(out, i ? ",%d" : "%d", ids->ids[i]);
    buf_append_str(out, jsonl ? STR("]\n") : STR("\n"));
}

/* One line of input; in JSON lines, a JSON string. */
static enum status line_encode(const struct tokenizer *tok, struct ids *ids, struct str line, bool jsonl,
                               unsigned flags, struct error *err)
{
    struct arena arena;
    const struct json *doc;
    ids->count = 0;
    if (!jsonl)
        return tokenizer_encode(tok, ids, line, flags, err);
    arena_init(&arena, 0);
    enum status st = json_parse(&doc, &arena, line, 0, err);
    if (st == ST_OK && json_type(doc) != JSON_STRING)
        st = fail(err, ST_INVALID, "expected a JSON string");
    if (st == ST_OK)
        st = tokenizer_encode(tok, ids, json_str(doc), flags, err);
    arena_free(&arena);
    return st;
}

static enum status encode_lines(const struct tokenizer *tok, struct str text, bool jsonl, unsigned flags,
                                struct error *err)
{
    struct buf out = {0};
    struct ids ids = {0};
    enum status st = ST_OK;
    for (size_t number = 1; st == ST_OK && text.len; number++) {
        size_t end = str_find(text, STR("\n"), 0); /* bytes as they are: a \r belongs to its line */
        struct str line = str_n(text.ptr, end == SIZE_MAX ? text.len : end);
        text = str_from(text, line.len + 1);
        st = line_encode(tok, &ids, line, jsonl, flags, err);
        if (st != ST_OK) {
            fail_context(err, "input line %zu", number);
            break;
        }
        write_ids(&out, &ids, jsonl);
        if (out.len > FLUSH_BYTES) {
            st = cli_print(&out, err);
            buf_clear(&out);
        }
    }
    if (out.len || out.failed) { /* lines before a bad one still come out */
        enum status printed = cli_print(&out, st == ST_OK ? err : NULL);
        st = st == ST_OK ? printed : st;
    }
    ids_free(&ids);
    buf_free(&out);
    return st;
}

enum status cmd_tokenize(int argc, char **argv, struct error *err)
{
    const char *file = "-";
    bool no_special = false, jsonl = false;
    const struct cli_option options[] = {
        {"file", 'f', CLI_TEXT, &file, "FILE", "the text (default: standard input)"},
        {"no-special", 0, CLI_FLAG, &no_special, NULL, "add no BOS, EOS or template tokens"},
        {"jsonl", 0, CLI_FLAG, &jsonl, NULL, "each input line is a JSON string, each output line an array of ids"},
        {"json", 0, CLI_FLAG, &jsonl, NULL, "the same as --jsonl"},
    };
    const struct cli_spec spec = {
        "ingot tokenize MODEL [--file F] [--no-special] [--jsonl]",
        "Prints the token ids of each line of text, with commas. MODEL may be a folder, a model file, or a tokenizer\n"
        "file alone. Special tokens written in the text are recognised.",
        "  echo \"Hello world\" | ingot tokenize model.gguf\n"
        "  ingot tokenize tokenizer.json --file text.txt --no-special",
        options,
        sizeof options / sizeof *options,
        1,
        1};
    struct cli_args args;
    struct tokenizer *tok = NULL;
    struct buf text = {0};
    TRY(cli_parse(&args, &spec, argc, argv, err));
    if (args.done)
        return ST_OK;
    enum status st = cli_tokenizer_open(&tok, args.positional[0], err);
    if (st == ST_OK)
        st = file_read_all(&text, file, INPUT_MAX, err);
    if (st == ST_OK)
        st = encode_lines(tok, buf_str(&text), jsonl, TOKENIZE_SPECIAL | (no_special ? 0 : TOKENIZE_ADD), err);
    buf_free(&text);
    tokenizer_close(tok);
    return st;
}
