/* ingot detokenize MODEL - ids to text, a line at a time */
#include "cli/cli.h"

static enum status push(struct ids *ids, int64_t id, struct error *err)
{
    if (id < 0 || id > INT32_MAX)
        return fail(err, ST_INVALID, "%lld is no token id", (long long)id);
    return ids_push(ids, (int32_t)id) ? ST_OK : fail_nomem(err, "ids");
}

static enum status parse_array(struct ids *ids, struct str line, struct error *err)
{
    struct arena arena;
    const struct json *doc;
    const char *expected = "a JSON array of ids";
    arena_init(&arena, 0);
    enum status st = cli_line_json(&doc, &arena, line, JSON_ARRAY, expected, err);
    if (st == ST_OK)
        JSON_EACH (item, doc) {
            if (st == ST_OK)
                st = json_is(item, JSON_INT) ? push(ids, item->integer, err)
                                             : fail(err, ST_INVALID, "expected %s", expected);
        }
    arena_free(&arena);
    return st;
}

/* Numbers with commas or spaces between them. */
static enum status parse_plain(struct ids *ids, struct str line, struct error *err)
{
    for (size_t i = 0; i < line.len;) {
        size_t n = 0;
        int64_t id;
        while (i + n < line.len && !strchr(", \t\r", line.ptr[i + n]))
            n++;
        if (n) {
            struct str word = str_n(line.ptr + i, n);
            if (!str_to_i64(&id, word))
                return fail(err, ST_INVALID, "\"%.*s\" is no token id", STR_ARG(word));
            TRY(push(ids, id, err));
        }
        i += n + 1;
    }
    return ST_OK;
}

static enum status line_decode(const struct cli_lines *how, const struct tokenizer *tok, struct buf *out,
                               struct ids *ids, struct str line, struct error *err)
{
    struct buf text = {0};
    TRY(how->jsonl ? parse_array(ids, line, err) : parse_plain(ids, line, err));
    enum status st = tokenizer_decode(tok, &text, ids->ids, ids->count, how->flags, err);
    if (st == ST_OK && how->jsonl) {
        struct json_writer w;
        json_writer_init(&w, out);
        json_write_str(&w, buf_str(&text));
    } else if (st == ST_OK) {
        buf_append_str(out, buf_str(&text));
    }
    if (st == ST_OK)
        buf_append_char(out, '\n');
    buf_free(&text);
    return st;
}

enum status cmd_detokenize(int argc, char **argv, struct error *err)
{
    const char *file = "-";
    bool no_special = false;
    struct cli_lines how = {.convert = line_decode};
    const struct cli_option options[] = {
        {"file", 'f', CLI_TEXT, &file, "FILE", "the ids (default: standard input)"},
        {"no-special", 0, CLI_FLAG, &no_special, NULL, "leave special tokens out of the text"},
        {"jsonl", 0, CLI_FLAG, &how.jsonl, NULL, "each input line is an array of ids, each output line a JSON string"},
        {"json", 0, CLI_FLAG, &how.jsonl, NULL, "the same as --jsonl"},
    };
    const struct cli_spec spec = {
        "ingot detokenize MODEL [--file F] [--no-special] [--jsonl]",
        "Prints the text of each line of token ids: the mirror of `ingot tokenize`.",
        "  echo \"Hello world\" | ingot tokenize model.gguf | ingot detokenize model.gguf\n"
        "  ingot tokenize tokenizer.json --jsonl < lines.jsonl | ingot detokenize tokenizer.json --jsonl",
        CLI_TAKES(options, 1, 1)};
    struct cli_args args;
    TRY(cli_parse(&args, &spec, argc, argv, err));
    if (args.done)
        return ST_OK;
    how.flags = no_special ? DETOKENIZE_SKIP_SPECIAL : 0;
    return cli_lines_run(&how, args.positional[0], file, err);
}
