/* lines - what tokenize and detokenize share: every line of a file through a tokenizer, one way or the other */
#include "base/file.h"
#include "cli/cli.h"

enum { INPUT_MAX = 1 << 30, FLUSH_BYTES = 1 << 20 };

/* One line of JSON; `expected` names what it should hold. A line has no second line: its column is enough. */
enum status cli_line_json(const struct json **out, struct arena *arena, struct str line, enum json_type type,
                          const char *expected, struct error *err)
{
    enum status st = json_parse(out, arena, line, 0, err);
    if (st == ST_OK)
        return json_is(*out, type) ? ST_OK : fail(err, ST_INVALID, "expected %s", expected);
    struct error why = *err;
    struct str text = str_of(why.text);
    if (str_starts(text, STR("line 1 ")))
        text = str_from(text, 7);
    return st == ST_NOMEM ? st : fail(err, st, "expected %s: %.*s", expected, STR_ARG(text));
}

static enum status convert_lines(const struct cli_lines *how, const struct tokenizer *tok, struct str text,
                                 struct error *err)
{
    struct buf out = {0};
    struct ids ids = {0};
    enum status st = ST_OK;
    for (size_t number = 1; st == ST_OK && text.len; number++) {
        size_t end = str_find(text, STR("\n"), 0); /* bytes as they are: a \r belongs to its line */
        struct str line = str_n(text.ptr, end == SIZE_MAX ? text.len : end);
        text = str_from(text, line.len + 1);
        ids.count = 0;
        st = how->convert(how, tok, &out, &ids, line, err);
        if (st != ST_OK)
            fail_context(err, "input line %zu", number);
        else if (out.len > FLUSH_BYTES || out.failed) {
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

enum status cli_lines_run(const struct cli_lines *how, const char *model, const char *file, struct error *err)
{
    struct tokenizer *tok = NULL;
    struct buf text = {0};
    enum status st = cli_tokenizer_open(&tok, model, err);
    if (st == ST_OK)
        st = file_read_all(&text, file, INPUT_MAX, err);
    if (st == ST_OK)
        st = convert_lines(how, tok, buf_str(&text), err);
    buf_free(&text);
    tokenizer_close(tok);
    return st;
}
