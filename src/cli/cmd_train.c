/* ingot train pretrain CONFIG.yaml - every key of train_keys.def is also a flag */
#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "cli/cli.h"
#include "train/train.h"

#include <stdio.h>
#include <unistd.h>

static const char usage[] = "ingot train pretrain [CONFIG.yaml] [--KEY VALUE ...]";

static void print_help(void)
{
    size_t n;
    const struct train_key *keys = train_keys(&n);
    printf("usage: %s\n\nTrains a model on text files. The result is a Hugging Face folder that `ingot serve` serves; "
           "metrics.jsonl and\n"
           "checkpoints lie beside it. Ctrl-C saves a checkpoint and stops.\n\nkeys (in CONFIG.yaml, or as flags):\n",
           usage);
    for (size_t i = 0; i < n; i++)
        printf("  --%-30s %s%s%s%s\n", keys[i].name, keys[i].what, *keys[i].what ? "  " : "",
               "default: ", keys[i].otherwise);
    printf("\nexamples:\n"
           "  ingot train pretrain config.yaml\n"
           "  ingot train pretrain config.yaml --max_steps 200 --learning_rate 1e-3 --output_dir trial\n"
           "  ingot train pretrain config.yaml --resume_from_checkpoint true\n"
           "  ingot train pretrain --model config.json --tokenizer tok/ --data a.txt,b.txt --output_dir out\n");
}

/* "--max_steps 5", "--max-steps=5"; a flag alone means true. */
static enum status flag_set(struct train_config *c, int argc, char **argv, int *at, struct error *err)
{
    char key[128];
    const char *given = argv[*at] + 2, *equal = strchr(given, '=');
    size_t n = equal ? (size_t)(equal - given) : strlen(given);
    if (n >= sizeof key)
        return fail(err, ST_INVALID, "unknown option %s", argv[*at]);
    for (size_t i = 0; i < n; i++)
        key[i] = given[i] == '-' ? '_' : given[i];
    const char *value = "true";
    if (equal)
        value = equal + 1;
    else if (*at + 1 < argc && strncmp(argv[*at + 1], "--", 2) != 0)
        value = argv[++*at];
    return train_config_set(c, str_n(key, n), str_of(value), err);
}

static enum status config_read(struct train_config *c, const char *path, struct error *err)
{
    struct buf text = {0};
    enum status st = file_read_all(&text, path, 1 << 20, err);
    if (st == ST_OK && (st = train_config_read(c, buf_str(&text), err)) != ST_OK)
        fail_context(err, "%s", path);
    buf_free(&text);
    return st;
}

/* The file first, then the flags, wherever they stand. */
static enum status arguments_read(struct train_config *c, int argc, char **argv, struct error *err)
{
    const char *file = NULL;
    for (int pass = 0; pass < 2; pass++) {
        for (int i = 2; i < argc; i++) {
            if (!strncmp(argv[i], "--", 2)) {
                if (pass == 1)
                    TRY(flag_set(c, argc, argv, &i, err));
                else if (!strchr(argv[i], '=') && i + 1 < argc && strncmp(argv[i + 1], "--", 2) != 0)
                    i++;
            } else if (pass == 0) {
                if (file)
                    return fail(err, ST_INVALID, "unexpected argument %s; usage: %s", argv[i], usage);
                file = argv[i];
            }
        }
        if (pass == 0 && file)
            TRY(config_read(c, file, err));
    }
    return ST_OK;
}

/* ---- watching ---- */

static void on_phase(void *ctx, const char *phase, double done)
{
    (void)ctx;
    progress_show(phase, done, NULL);
}

static void on_plan(void *ctx, const char *text)
{
    (void)ctx;
    progress_end();
    fprintf(stderr, "%s\n", text);
}

static void time_text(char *text, size_t size, double seconds)
{
    if (!(seconds >= 0))
        seconds = 0;
    snprintf(text, size, "%d:%02d:%02d", (int)(seconds / 3600), (int)(seconds / 60) % 60, (int)seconds % 60);
}

static void on_step(void *ctx, const struct train_progress *p)
{
    uint64_t *last_ns = ctx;
    char text[160], eta[32];
    time_text(eta, sizeof eta, p->eta_s);
    bool evaluated = p->eval_loss == p->eval_loss;
    snprintf(text, sizeof text, "update %lld of %lld  loss %.4f  norm %.2f  %.0f tok/s  %s left", (long long)p->step,
             (long long)p->max_steps, p->loss, p->grad_norm, p->tokens_per_s, eta);
    progress_show("train", (double)p->step / (double)p->max_steps, text);
    /* Into a file or a pipe goes a line now and then instead of a bar. */
    bool quiet = cli_is_terminal(STDERR_FILENO) || (clock_ns() - *last_ns < 10000000000u && p->step != p->max_steps);
    if (evaluated) {
        progress_end();
        fprintf(stderr, "update %lld: eval loss %.4f, %.4f bits per byte\n", (long long)p->step, p->eval_loss,
                p->eval_bits_per_byte);
    } else if (!quiet) {
        fprintf(stderr, "%s\n", text);
    }
    if (!quiet)
        *last_ns = clock_ns();
}

enum status cmd_train(int argc, char **argv, struct error *err)
{
    bool help = argc < 2;
    for (int i = 1; i < argc; i++)
        help = help || !strcmp(argv[i], "--help") || !strcmp(argv[i], "-h");
    if (help) {
        print_help();
        return ST_OK;
    }
    if (strcmp(argv[1], "pretrain") != 0)
        return fail(err, ST_INVALID, "%s: expected pretrain; usage: %s", argv[1], usage);
    struct train_config c;
    TRY(train_config_init(&c, err));
    enum status st = arguments_read(&c, argc, argv, err);
    if (st == ST_OK) {
        uint64_t last_ns = clock_ns();
        cli_catch_interrupt();
        struct train_watch watch = {&last_ns, on_phase, on_plan, on_step, &cli_interrupted};
        st = train_run(&c, &watch, err);
        progress_end();
    }
    if (st == ST_OK)
        printf("%.*s\n", STR_ARG(c.output_dir));
    train_config_free(&c);
    return st;
}
