/* ingot tokenizer train FILES --vocab-size N --out FOLDER - a vocabulary of one's own */
#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "cli/cli.h"

#include <stdio.h>

enum { SPECIAL_MAX = 64 };

/* "a,b": special tokens cannot hold a comma. */
static enum status split_special(struct str *out, size_t *n, struct str list, struct error *err)
{
    for (*n = 0; list.len;) {
        size_t comma = str_find(list, STR(","), 0);
        struct str token = str_n(list.ptr, comma == SIZE_MAX ? list.len : comma);
        list = str_from(list, token.len + 1);
        if (token.len == 0)
            continue;
        if (*n == SPECIAL_MAX)
            return fail(err, ST_LIMIT, "--special: at most %d tokens", SPECIAL_MAX);
        out[(*n)++] = token;
    }
    return ST_OK;
}

static enum status train(const struct cli_args *args, const struct tokenizer_train *how, const char *folder,
                         struct error *err)
{
    size_t n = (size_t)args->n_positional - 1, opened = 0, bytes = 0;
    struct mapping *maps = mem_alloc_zero(n, sizeof *maps);
    struct str *texts = mem_alloc_zero(n, sizeof *texts);
    enum status st = maps && texts ? ST_OK : fail_nomem(err, "the list of files");
    for (; st == ST_OK && opened < n; opened++) {
        st = file_map(&maps[opened], args->positional[opened + 1], err);
        if (st != ST_OK)
            break;
        texts[opened] = str_n(maps[opened].data, maps[opened].size);
        bytes += maps[opened].size;
    }
    if (st == ST_OK && bytes == 0)
        st = fail(err, ST_INVALID, "%s%s no text to learn from", args->positional[1],
                  n > 1 ? " and the other files hold" : " holds");
    if (st == ST_OK)
        st = file_make_folders(folder, err);
    if (st == ST_OK)
        st = tokenizer_train(folder, texts, n, how, err);
    for (size_t i = 0; i < opened && st == ST_OK; i++)
        st = file_check(&maps[i], args->positional[i + 1], err);
    for (size_t i = 0; i < opened; i++)
        file_unmap(&maps[i]);
    mem_free(maps);
    mem_free(texts);
    return st;
}

enum status cmd_tokenizer(int argc, char **argv, struct error *err)
{
    int64_t vocab_size = 0, min_frequency = 2;
    const char *folder = NULL, *special_list = "<|endoftext|>", *pretokenizer = "gpt2";
    const struct cli_option options[] = {
        {"vocab-size", 'v', CLI_INT, &vocab_size, "N", "256 bytes, merges and special tokens together"},
        {"out", 'o', CLI_TEXT, &folder, "FOLDER", "where tokenizer.json goes"},
        {"special", 0, CLI_TEXT, &special_list, "LIST", "special tokens, with commas (default: <|endoftext|>)"},
        {"min-frequency", 0, CLI_INT, &min_frequency, "N", "merge pairs seen at least N times (default 2)"},
        {"pretokenizer", 0, CLI_TEXT, &pretokenizer, "NAME", "gpt2, cl100k or qwen2 (default gpt2)"},
    };
    const struct cli_spec spec = {
        "ingot tokenizer train FILES --vocab-size N --out FOLDER",
        "Trains a byte-level BPE vocabulary on text files. Hugging Face's tokenizers loads the result.",
        "  ingot tokenizer train a.txt b.txt --vocab-size 4096 --out tok/\n"
        "  ingot tokenizer train corpus.txt --vocab-size 8192 --special \"<|endoftext|>,<|im_start|>,<|im_end|>\" "
        "--out "
        "tok/",
        CLI_TAKES(options, 1, -1)};
    struct cli_args args;
    struct str special[SPECIAL_MAX];
    TRY(cli_parse(&args, &spec, argc, argv, err));
    if (args.done)
        return ST_OK;
    if (strcmp(args.positional[0], "train") != 0)
        return fail(err, ST_INVALID, "%s: expected train; usage: %s", args.positional[0], spec.usage);
    if (args.n_positional < 2 || !folder || vocab_size == 0)
        return fail(err, ST_INVALID, "%s is missing; usage: %s",
                    args.n_positional < 2 ? "a text file"
                    : folder              ? "--vocab-size N"
                                          : "--out FOLDER",
                    spec.usage);
    if (min_frequency < 1 || min_frequency > 1 << 30)
        return fail(err, ST_INVALID, "--min-frequency %lld: expected 1 to %d", (long long)min_frequency, 1 << 30);
    if (vocab_size < 257 || vocab_size > 1 << 24)
        return fail(err, ST_INVALID, "--vocab-size %lld: expected 257 to %d (256 bytes, merges, special tokens)",
                    (long long)vocab_size, 1 << 24);
    struct tokenizer_train how = {
        .vocab_size = (int)vocab_size,
        .min_frequency = (int)min_frequency,
        .special = special,
        .pretokenizer = pretokenizer,
        .progress = progress_model,
    };
    TRY(split_special(special, &how.n_special, str_of(special_list), err));
    uint64_t start = clock_ns();
    TRY(train(&args, &how, folder, err));
    progress_end();
    fprintf(stderr, "trained in %.1f s\n", (double)(clock_ns() - start) * 1e-9);
    printf("%s\n", folder);
    return ST_OK;
}
