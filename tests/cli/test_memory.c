/* Commands that fail give back what they took: on named paths by the count of live bytes, and, where a sanitizer
 * looks, wherever an allocation can fail. The commands are called as main.c calls them. */
#include "test.h"

#include "base/fault.h"
#include "base/file.h"
#include "base/mem.h"
#include "cli/cli.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define MODEL TEST_DIR "/../models/storyteller.gguf"
enum { WORDS_MAX = 16, RUNS_MAX = 60 };

struct row {
    enum status (*run)(int argc, char **argv, struct error *err);
    enum status want;
    const char *words[WORDS_MAX];
};

static struct error err;
static int out, quiet;

static int set_up(void **state)
{
    (void)state;
    setenv("INGOT_CACHE", "off", 1);
    out = dup(STDOUT_FILENO);
    quiet = open("/dev/null", O_WRONLY);
    return kernels_init(NULL, &err) != ST_OK || out < 0 || quiet < 0;
}

/* What the command prints goes nowhere. */
static enum status call(const struct row *r)
{
    char *words[WORDS_MAX + 1] = {NULL};
    int n = 0;
    for (; n < WORDS_MAX && r->words[n]; n++)
        words[n] = (char *)(uintptr_t)r->words[n]; /* getopt wants them so, and changes none */
    fflush(stdout);
    dup2(quiet, STDOUT_FILENO);
    enum status st = r->run(n, words, &err);
    fflush(stdout);
    dup2(out, STDOUT_FILENO);
    return st;
}

/* These fail after something large was opened. */
static void test_failing_commands_give_everything_back(void **state)
{
    static const struct row rows[] = {
        {cmd_generate, ST_NOT_FOUND, {"generate", MODEL, "-p", "a", "--draft", MODEL, "--lora", "/nowhere", "-t", "1"}},
        {cmd_generate, ST_NOT_FOUND, {"generate", MODEL, "-p", "a", "--draft", "/nowhere", "-t", "1"}},
        {cmd_generate,
         ST_NOT_FOUND,
         {"generate", MODEL, "-p", "a", "--draft", MODEL, "--grammar", "/nowhere", "-t", "1"}},
        {cmd_generate, ST_INVALID, {"generate", MODEL, "-p", "a", "--temperature", "-1", "-t", "1"}},
        {cmd_run, ST_NOT_FOUND, {"run", MODEL, "a", "--draft", MODEL, "--lora", "/nowhere", "-t", "1"}},
        {cmd_run, ST_NOT_FOUND, {"run", MODEL, "a", "--draft", "/nowhere", "-t", "1"}},
        {cmd_serve, ST_NOT_FOUND, {"serve", MODEL, "--draft", "/nowhere", "-t", "1"}},
        {cmd_serve, ST_NOT_FOUND, {"serve", MODEL, "--draft", MODEL, "--models", "/nowhere", "-t", "1"}},
        {cmd_serve, ST_NOT_FOUND, {"serve", MODEL, "--chat-template", "/nowhere", "-t", "1"}},
        {cmd_serve, ST_INVALID, {"serve", MODEL, "--draft", MODEL, "--tool-format", "none", "-t", "1"}},
        {cmd_embed, ST_INVALID, {"embed", MODEL, "-t", "1", "a text"}},
        {cmd_logits, ST_INVALID, {"logits", MODEL, "--ids", "1,x", "--npy", "/nowhere/a", "-t", "1"}},
        {cmd_perplexity, ST_NOT_FOUND, {"perplexity", MODEL, "--file", "/nowhere", "-t", "1"}},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct mem_budget live;
        mem_budget_begin(&live, SIZE_MAX);
        enum status st = call(&rows[i]);
        mem_budget_end(&live);
        if (st != rows[i].want || live.live)
            fail_msg("%s %s: %s (%s); %zu bytes were not given back", rows[i].words[0], rows[i].words[4],
                     status_row(st)->name, err.text, live.live);
    }
}

/* Each allocation of a run, or an even selection of them, fails once: the command says so, or does without. */
static void sweep(const struct row *r)
{
    fault_count(FAULT_ALLOC);
    if (call(r) != ST_OK)
        fail_msg("%s: %s", r->words[0], err.text);
    uint64_t n_call = fault_calls(), step = n_call / RUNS_MAX + 1;
    fault_disarm();
    int failed = 0;
    for (uint64_t n = 1; n <= n_call; n += step) {
        fault_arm(FAULT_ALLOC, n);
        enum status st = call(r);
        fault_disarm();
        failed += st != ST_OK;
    }
    assert_true(failed > 3);
}

static void test_commands_survive_lack_of_memory(void **state)
{
    static const struct row rows[] = {
        {cmd_generate,
         ST_OK,
         {"generate", MODEL, "-p", "a", "-n", "2", "--draft", MODEL, "--json", "-t", "1", "-c", "64"}},
        {cmd_generate, ST_OK, {"generate", MODEL, "-p", "a", "-n", "2", "--regex", "[ab]+", "-t", "1", "-c", "64"}},
        {cmd_run, ST_OK, {"run", MODEL, "a", "-n", "2", "--stop", "x", "--stop", "y", "-t", "1", "-c", "64"}},
        {cmd_embed, ST_OK, {"embed", MODEL, "--pooling", "mean", "-t", "1", "a text"}},
        {cmd_logits, ST_OK, {"logits", MODEL, "--ids", "1,2", "--npy", "/dev/null", "-t", "1"}},
        {cmd_tokenize, ST_OK, {"tokenize", MODEL, "--file", TEST_DIR "/../models/README.md"}},
        {cmd_inspect, ST_OK, {"inspect", MODEL}},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        sweep(&rows[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_failing_commands_give_everything_back),
        cmocka_unit_test(test_commands_survive_lack_of_memory),
    };
    return cmocka_run_group_tests(tests, set_up, NULL);
}
