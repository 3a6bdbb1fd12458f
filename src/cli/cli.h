/* cli - what every command shares: options as a table, errors with exit codes, a progress bar
 *
 *   static const struct cli_option options[] = {{"max-tokens", 'n', CLI_INT, &n, "N", "tokens to generate"}, ...};
 *   static const struct cli_spec spec = {"ingot generate MODEL -p TEXT [options]", about, examples, options, N, 1, 1};
 *   struct cli_args args;  TRY(cli_parse(&args, &spec, argc, argv, err));  if (args.done) return ST_OK;   // --help
 *
 * Results go to stdout, progress and statistics to stderr. An option `kv-bytes` may also come from INGOT_KV_BYTES; the
 * command line wins. A command returns a status; main prints the sentence and exits with the status's code.
 */
#ifndef CLI_CLI_H
#define CLI_CLI_H

#include "engine/engine.h"

enum cli_kind {
    CLI_FLAG,  /* bool */
    CLI_TEXT,  /* const char * */
    CLI_INT,   /* int64_t */
    CLI_REAL,  /* double */
    CLI_BYTES, /* uint64_t, with K, M, G (1024) */
    CLI_TEXTS, /* struct cli_texts: the option may be given several times */
};
struct cli_texts {
    const char *items[REQUEST_STOPS_MAX];
    int count;
    bool of_environment; /* the first word of the command line takes its place */
};
struct cli_option {
    const char *name; /* without -- */
    char letter;      /* or 0 */
    enum cli_kind kind;
    void *out; /* its type is `kind`'s; untouched when the option is not given */
    const char *value, *help;
};
struct cli_spec {
    const char *usage, *about, *examples;
    const struct cli_option *options;
    size_t n_option;
    int positional_min, positional_max;
};
/* The end of a spec: the options, and how many words beside them. */
#define CLI_TAKES(options, min, max) (options), sizeof(options) / sizeof *(options), (min), (max)
struct cli_args {
    char *const *positional;
    int n_positional;
    bool done; /* --help was printed */
};
/* argv[0] is the command's word. Unknown options are ST_INVALID with the nearest known one. */
MUST_USE enum status cli_parse(struct cli_args *out, const struct cli_spec *spec, int argc, char **argv,
                               struct error *err);

/* ---- options of every command that runs a model ---- */
struct cli_model {
    int64_t threads, ctx;
    bool exact;
    const char *kv; /* f32, f16, int8; NULL: f32 under --exact, else f16 */
    uint64_t kv_bytes;
    int64_t prefill_chunk;
    bool any_task;       /* set by commands that can use models which embed or score */
    const char *pooling; /* mean, cls, last; NULL: as the model says */
    const char *cache;   /* folder or "off"; NULL: the user's */
    uint64_t cache_bytes;
    int64_t max_sequences, queue_max; /* these are for many users at once: CLI_SERVING_OPTIONS */
    double itl_ms;
    bool no_prefix_cache;
    const char *kv_spill;
    uint64_t kv_spill_bytes;
    const char *draft; /* of commands that write text: CLI_DRAFT_OPTIONS */
    int64_t draft_tokens;
};
enum { CLI_DRAFT_TOKENS = 8 }; /* what cli_model.draft_tokens begins with where CLI_DRAFT_OPTIONS are taken */
#define CLI_POOLING_OPTION(m)                                                                                          \
    {                                                                                                                  \
        "pooling", 0, CLI_TEXT, &(m).pooling, "P",                                                                     \
            "embed with any model: mean, cls (the first token), last, max, cls+max ... (default: as it says)"          \
    }
#define CLI_MODEL_OPTIONS(m)                                                                                            \
    {"threads", 't', CLI_INT, &(m).threads, "N", "threads (default: all CPUs)"},                                        \
        {"ctx", 'c', CLI_INT, &(m).ctx, "N", "context in tokens (default: the model's, at most 32768)"},                \
        {"kv", 0, CLI_TEXT, &(m).kv, "TYPE", "KV cache: f32, f16 or int8 (default f16; f32 under --exact)"},            \
        {"exact", 0, CLI_FLAG, &(m).exact, NULL, "activations and KV in f32 whatever the weights"},                     \
        {"kv-bytes", 0, CLI_BYTES, &(m).kv_bytes, "B", "memory for KV blocks, e.g. 2G"},                                \
        {"cache", 0, CLI_TEXT, &(m).cache, "DIR|off", "keeps large models packed for the next start (~/.cache/ingot)"}, \
        {"cache-bytes", 0, CLI_BYTES, &(m).cache_bytes, "B", "of all packed models together (default 32G)"},            \
    {                                                                                                                   \
        "prefill-chunk", 0, CLI_INT, &(m).prefill_chunk, "N", "prompt tokens a step may carry (default 256)"            \
    }
#define CLI_SERVING_OPTIONS(m)                                                                                         \
    {"max-sequences", 0, CLI_INT, &(m).max_sequences, "N", "answers written at once (default 64)"},                    \
        {"queue", 0, CLI_INT, &(m).queue_max, "N", "requests that may wait; 503 beyond (default 1024)"},               \
        {"itl-ms",                                                                                                     \
         0,                                                                                                            \
         CLI_REAL,                                                                                                     \
         &(m).itl_ms,                                                                                                  \
         "MS",                                                                                                         \
         "time between tokens that other prompts may stretch a step to (default: 1.6 times a step of all, or 20)"},    \
        {"kv-spill", 0, CLI_TEXT, &(m).kv_spill, "DIR", "keeps full KV blocks there, also for the next start"},        \
        {"kv-spill-bytes", 0, CLI_BYTES, &(m).kv_spill_bytes, "B", "of all files in it (default 8G)"},                 \
    {                                                                                                                  \
        "no-prefix-cache", 0, CLI_FLAG, &(m).no_prefix_cache, NULL,                                                    \
            "compute every prompt whole, even if another began alike"                                                  \
    }
#define CLI_DRAFT_OPTIONS(m)                                                                                           \
    {"draft-tokens",                                                                                                   \
     0,                                                                                                                \
     CLI_INT,                                                                                                          \
     &(m).draft_tokens,                                                                                                \
     "N",                                                                                                              \
     "tokens guessed ahead and verified in one step, if it pays: the same answer, sooner (default 8; 0 = none)"},      \
    {                                                                                                                  \
        "draft", 0, CLI_TEXT, &(m).draft, "MODEL", "a small model of the same vocabulary to guess with"                \
    }
/* Checks the values and makes the pool; *pool is the caller's. */
MUST_USE enum status cli_model_options(struct model_options *out, struct pool **pool, const struct cli_model *m,
                                       struct error *err);
/* The same without a pool. */
MUST_USE enum status cli_model_numbers(struct model_options *out, const struct cli_model *m, struct error *err);
/* Opens MODEL with a progress bar. Errors say what was found, what was expected and what to do. */
MUST_USE enum status cli_bundle_open(struct bundle **out, struct pool **pool, const char *path,
                                     const struct cli_model *m, struct error *err);
/* out->draft is open when ST_OK is returned: engine_create takes it, whatever becomes of it. */
MUST_USE enum status cli_engine_options(struct engine_options *out, const struct cli_model *m, struct pool *pool,
                                        struct error *err);
/* The engine of a command that writes one text at a time. */
MUST_USE enum status cli_engine_start(struct engine **out, struct bundle *bundle, const struct cli_model *m,
                                      struct pool *pool, struct error *err);

/* ---- options of every command that samples; what is not given comes from generation_config.json, else is off ---- */
struct cli_sampling {
    int64_t n, top_k, seed;
    double temperature, top_p, min_p, typical_p, repetition_penalty, presence_penalty, frequency_penalty;
    struct cli_texts stops;
};
#define CLI_SAMPLING_OPTIONS(s)                                                                                        \
    {"max-tokens", 'n', CLI_INT,                                                                                       \
     &(s).n,       "N", "at most N tokens (0, the default: until it ends or the context is full)"},                    \
        {"temperature",    0,   CLI_REAL,                                                                              \
         &(s).temperature, "T", "0: always the likeliest token (default: the model's own, else 0.7)"},                 \
        {"top-k", 0, CLI_INT, &(s).top_k, "K", "only the K likeliest tokens"},                                         \
        {"top-p", 0, CLI_REAL, &(s).top_p, "P", "only the likeliest tokens that sum to P"},                            \
        {"min-p", 0, CLI_REAL, &(s).min_p, "P", "only tokens at least P times as likely as the likeliest"},            \
        {"typical-p",    0,   CLI_REAL,                                                                                \
         &(s).typical_p, "P", "only the tokens nearest to the expected surprise, that sum to P"},                      \
        {"repetition-penalty", 0, CLI_REAL, &(s).repetition_penalty, "R", "1: off"},                                   \
        {"presence-penalty", 0, CLI_REAL, &(s).presence_penalty, "R", "0: off"},                                       \
        {"frequency-penalty", 0, CLI_REAL, &(s).frequency_penalty, "R", "0: off"},                                     \
        {"seed", 0, CLI_INT, &(s).seed, "S", "default: drawn"},                                                        \
    {                                                                                                                  \
        "stop", 0, CLI_TEXTS, &(s).stops, "TEXT", "end before this text; may be given several times"                   \
    }
void cli_sampling_init(struct cli_sampling *s); /* everything "not given" */
MUST_USE enum status cli_sampling_fill(struct request *out, const struct cli_sampling *s, const struct bundle *b,
                                       struct error *err);
/* The tokenizer of MODEL: a folder, a model file, or a tokenizer file alone. */
MUST_USE enum status cli_tokenizer_open(struct tokenizer **out, const char *path, struct error *err);
/* Each line of `file` through the tokenizer of MODEL (lines.c): `convert` appends a line's result to *out; *ids is
 * empty scratch. Errors name the line; the results of the lines before it are printed. */
struct cli_lines {
    bool jsonl;
    unsigned flags; /* of tokenizer_encode or tokenizer_decode */
    enum status (*convert)(const struct cli_lines *how, const struct tokenizer *tok, struct buf *out, struct ids *ids,
                           struct str line, struct error *err);
};
MUST_USE enum status cli_lines_run(const struct cli_lines *how, const char *model, const char *file, struct error *err);
MUST_USE enum status cli_line_json(const struct json **out, struct arena *arena, struct str line, enum json_type type,
                                   const char *expected, struct error *err);
const char *cli_finish_name(enum finish finish); /* "stop", "length" ... */

/* ---- line editing (edit.c, the one file that knows libedit) ---- */
struct editor;
MUST_USE enum status editor_open(struct editor **out, const char *prompt, struct error *err); /* history is loaded */
/* A line without its newline, valid until the next call; ptr NULL at the end; empty when interrupted. */
struct str editor_next(struct editor *e);
bool editor_interrupted(const struct editor *e); /* the last line was dropped by Ctrl-C, and is empty */
void editor_close(struct editor *e);             /* history is saved */

/* ---- output ---- */
/* A bar on stderr when it is a terminal, nothing otherwise: phase, share, and a text of its own behind. */
void progress_show(const char *phase, double done, const char *text);
void progress_model(void *ctx, const char *phase, double done); /* fits the rooms' progress callbacks */
void progress_end(void);                                        /* clears the line */
bool cli_is_terminal(int fd);
MUST_USE enum status cli_print(const struct buf *text,
                               struct error *err);             /* whole text to stdout; ST_IO when it cannot */
char *cli_bytes_text(char *text, size_t size, uint64_t bytes); /* "98.4 MB" */
/* Ctrl-C sets it to 1 (installed by cli_catch_interrupt); a second Ctrl-C ends the program at once. */
extern volatile int cli_interrupted;
void cli_catch_interrupt(void);

#define COMMAND(word, summary) enum status cmd_##word(int argc, char **argv, struct error *err);
#include "cli/commands.def"
#undef COMMAND
enum status cmd_bench_serve(int argc, char **argv, struct error *err); /* of `bench` */

#endif
