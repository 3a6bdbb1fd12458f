/* ingot detokenize MODEL - ids to text, a line at a time */
#include "base/file.h"
#include "cli/cli.h"

enum { INPUT_MAX = 1 << 30, FLUSH_BYTES = 1 << 20 };

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
    arena_init(&arena, 0);
    enum status st = json_parse(&doc, &arena, line, 0, err);
    if (st == ST_OK && json_type(doc) != JSON_ARRAY)
        st = fail(err, ST_INVALID, "expected an array of ids");
    if (st == ST_OK)
        JSON_EACH (item, doc) {
            if (st == ST_OK)
                st = json_is(item, JSON_INT) ? push(ids, item->integer, err)
                                             : fail(err, ST_INVALID, "expected an array of ids");
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

static enum status line_decode(const struct tokenizer *tok, struct buf *out, struct ids *ids, struct str line,
                               bool jsonl, unsigned flags, struct error *err)
{
    struct buf text = {0};
    ids->count = 0;
    TRY(jsonl ? parse_array(ids, line, err) : parse_plain(ids, line, err));
    enum status st = tokenizer_decode(tok, &text, ids->ids, ids->count, flags, err);
    if (st == ST_OK && jsonl) {
        struct json_writer w;
        json_writer_init(&w, out);
        json_write_str(&w, buf_str(&text));
    } else if (st == ST_OK) {
        buf_append_str(out, buf_str(&text));
    }
    buf_append_char(out, '\n');
    buf_free(&text);
    return st;
}

static enum status decode_lines(const struct tokenizer *tok, struct str text, bool jsonl, unsigned flags,
                                struct error *err)
{
    struct buf out = {0};
    struct ids ids = {0};
    enum status st = ST_OK;
    size_t number = 1;
    for (struct str line; st == ST_OK && (line = str_next_line(&text)).ptr; number++) {
        st = line_decode(tok, &out, &ids, line, jsonl, flags, err);
        if (st != ST_OK)
            fail_context(err, "input line %zu", number);
        else if (out.len > FLUSH_BYTES) {
            st = cli_print(&out, err);
            buf_clear(&out);
        }
    }
    if (st == ST_OK)
        st = cli_print(&out, err);
    ids_free(&ids);
    buf_free(&out);
    return st;
}

enum status cmd_detokenize(int argc, char **argv, struct error *err)
{
    const char *file = "-";
    bool no_special = false, jsonl = false;
    const struct cli_option options[] = {
        {"file", 'f', CLI_TEXT, &file, "FILE", "the ids (default: standard input)"},
        {"no-special", 0, CLI_FLAG, &no_special, NULL, "leave special tokens out of the text"},
        {"jsonl", 0, CLI_FLAG, &jsonl, NULL, "each input line is an array of ids, each output line a JSON string"},
        {"json", 0, CLI_FLAG, &jsonl, NULL, "the same as --jsonl"},
    };
    const struct cli_spec spec = {
        "ingot detokenize MODEL [--file F] [--no-special] [--jsonl]",
        "Prints the text of each line of token ids: the mirror of `ingot tokenize`.",
        "  echo 15496,995 | ingot detokenize model.gguf\n"
        "  ingot tokenize tokenizer.json --jsonl < lines.jsonl | ingot detokenize tokenizer.json --jsonl",
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
        st = decode_lines(tok, buf_str(&text), jsonl, no_special ? DETOKENIZE_SKIP_SPECIAL : 0, err);
    buf_free(&text);
    tokenizer_close(tok);
    return st;
}
