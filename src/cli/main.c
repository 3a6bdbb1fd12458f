/* main - finds the command's row, runs it, and turns its status into one line and an exit code */
#include "base/guard.h"
#include "cli/cli.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const struct command {
    const char *word, *summary;
    enum status (*run)(int argc, char **argv, struct error *err);
} commands[] = {
#define COMMAND(word, summary) {#word, summary, cmd_##word},
#include "cli/commands.def"
#undef COMMAND
};
enum { N_COMMAND = sizeof commands / sizeof *commands };

static void print_help(FILE *out)
{
    fputs("Ingot: load a model, chat with it, serve it, train one.\n\nusage: ingot COMMAND [arguments]     (ingot help "
          "COMMAND)\n\n",
          out);
    for (int i = 0; i < N_COMMAND; i++)
        fprintf(out, "  %-12s %s\n", commands[i].word, commands[i].summary);
    fputs("\nexamples:\n  ingot run model.gguf\n  ingot serve model/ --port 8080\n  ingot generate model/ -p \"Once "
          "upon a time\" -n 64\n",
          out);
}

static const struct command *command_find(const char *word)
{
    for (int i = 0; i < N_COMMAND; i++)
        if (!strcmp(commands[i].word, word))
            return &commands[i];
    return NULL;
}

static int command_unknown(const char *word)
{
    static const char *const others[] = {"help", "--help", "--version"};
    const char *near = NULL;
    size_t best = strlen(word) / 3 + 2; /* a third of the letters may be wrong */
    for (int i = 0; i < N_COMMAND + 3; i++) {
        const char *known = i < N_COMMAND ? commands[i].word : others[i - N_COMMAND];
        size_t d = str_distance(str_of(word), str_of(known), best);
        if (d < best)
            best = d, near = known;
    }
    if (near)
        fprintf(stderr, "ingot: unknown command \"%s\": did you mean `ingot %s`?\n", word, near);
    else
        fprintf(stderr, "ingot: unknown command \"%s\": `ingot help` lists all\n", word);
    return status_row(ST_INVALID)->exit_code;
}

/* Nothing beyond the x86-64 baseline has run yet: an old processor gets a sentence, not SIGILL. */
static bool cpu_supported(void)
{
#if defined __x86_64__
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#else
    return true;
#endif
}

/* In a signal handler: what the weights are read from is gone. */
static void on_lost(void)
{
    static const char text[] = "ingot: a file in use lost bytes: another program made it shorter, or its disk failed; "
                               "start again\n";
    ssize_t ignored = write(STDERR_FILENO, text, sizeof text - 1);
    (void)ignored;
    _exit(status_row(ST_IO)->exit_code);
}

/* `ingot help CMD` is `ingot CMD --help`; `ingot --version` is `ingot version`. */
static int run_command(int argc, char **argv)
{
    const char *word = argv[0];
    struct error err = {0};
    enum status st = ST_OK;
    const struct command *command = command_find(word);
    if (!command)
        return command_unknown(word);
    if (!cpu_supported())
        st = fail(&err, ST_UNSUPPORTED, "this processor lacks AVX2 and FMA, which Ingot needs");
    if (st == ST_OK)
        st = kernels_init(NULL, &err);
    if (st == ST_OK)
        st = command->run(argc, argv, &err);
    progress_end();
    if (st == ST_OK && fflush(stdout)) /* help, or the name of a file that was written */
        st = fail(&err, ST_IO, "standard output: %s", strerror(errno));
    if (st != ST_OK)
        fprintf(stderr, "ingot %s: %s\n", word, err.text);
    return status_row(st)->exit_code;
}

static bool is_any(const char *word, const char *a, const char *b, const char *c)
{
    return !strcmp(word, a) || !strcmp(word, b) || !strcmp(word, c);
}

int main(int argc, char **argv)
{
    signal(SIGPIPE, SIG_IGN);
    guard_install(on_lost);
    const char *word = argc > 1 ? argv[1] : "help";
    if (is_any(word, "help", "--help", "-h")) {
        if (argc > 2 && argv[2][0] != '-')
            return run_command(2, (char *[]){argv[2], (char[]){"--help"}, NULL});
        print_help(stdout);
        if (!fflush(stdout))
            return 0;
        fprintf(stderr, "ingot: standard output: %s\n", strerror(errno));
        return status_row(ST_IO)->exit_code;
    }
    if (is_any(word, "--version", "-V", "-v"))
        return run_command(1, (char *[]){(char[]){"version"}, NULL});
    return run_command(argc - 1, argv + 1);
}
