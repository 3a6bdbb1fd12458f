/* edit - reading lines from people: libedit on a terminal, whole lines otherwise */
#include "base/file.h"
#include "base/mem.h"
#include "cli/cli.h"

#include "base/unicode.h"

#include <histedit.h>
#include <locale.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { HISTORY_LINES = 1000 };

struct editor {
    const char *prompt;
    EditLine *edit; /* NULL when standard input is no terminal */
    History *history;
    char history_path[4096];
    struct buf line;
    bool interrupted;
    sigset_t open_mask; /* with SIGINT let in: only while waiting for a key */
};

static char *show_prompt(EditLine *edit)
{
    void *e = NULL;
    el_get(edit, EL_CLIENTDATA, &e);
    return (char *)((struct editor *)e)->prompt;
}

/* $INGOT_CACHE, else $XDG_CACHE_HOME/ingot, else ~/.cache/ingot; without any, or when it is "off", nothing is kept. */
static void history_find(struct editor *e)
{
    const char *cache = getenv("INGOT_CACHE"), *xdg = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    char folder[4000];
    struct error ignored;
    if (cache && strcmp(cache, "off") == 0)
        return;
    if (cache && *cache)
        snprintf(folder, sizeof folder, "%s", cache);
    else if (xdg && *xdg)
        snprintf(folder, sizeof folder, "%s/ingot", xdg);
    else if (home && *home)
        snprintf(folder, sizeof folder, "%s/.cache/ingot", home);
    else
        return;
    if (file_make_folders(folder, &ignored) == ST_OK)
        path_join(e->history_path, sizeof e->history_path, folder, "history");
}

/* One key. SIGINT is blocked while a line is edited and let in only inside ppoll: an interrupt can never fall between
 * looking at the flag and waiting, where it would go unseen until the next key. -1 ends el_gets. */
static int read_key(EditLine *edit, wchar_t *out)
{
    struct editor *e = NULL;
    char bytes[4];
    int n = 0, len = 1;
    el_get(edit, EL_CLIENTDATA, (void **)&e);
    while (n < len) {
        struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};
        if (cli_interrupted || ppoll(&input, 1, NULL, &e->open_mask) < 0)
            return -1;
        ssize_t got = read(STDIN_FILENO, bytes + n, 1);
        if (got <= 0)
            return (int)got;
        if (n++ == 0)
            len = (bytes[0] & 0xE0) == 0xC0 ? 2 : (bytes[0] & 0xF0) == 0xE0 ? 3 : (bytes[0] & 0xF8) == 0xF0 ? 4 : 1;
    }
    *out = (wchar_t)utf8_decode(bytes, (size_t)n, &len, NULL);
    return 1;
}

static const char *edit_line(struct editor *e, int *n)
{
    sigset_t interrupt;
    sigemptyset(&interrupt);
    sigaddset(&interrupt, SIGINT);
    sigprocmask(SIG_BLOCK, &interrupt, &e->open_mask);
    /* Keys one by one before the prompt shows: el_gets does it after, and what is typed in between would be the line
     * discipline's (a Ctrl-D lost). */
    el_set(e->edit, EL_PREP_TERM, 1);
    const char *line = el_gets(e->edit, n);
    sigprocmask(SIG_SETMASK, &e->open_mask, NULL);
    return line;
}

static enum status edit_open(struct editor *e, struct error *err)
{
    HistEvent event;
    setlocale(LC_CTYPE, ""); /* characters of more than one byte; numbers stay those of the C locale */
    e->edit = el_init("ingot", stdin, stdout, stderr);
    e->history = history_init();
    if (!e->edit || !e->history)
        return fail_nomem(err, "line editing");
    history(e->history, &event, H_SETSIZE, HISTORY_LINES);
    history(e->history, &event, H_SETUNIQUE, 1);
    history_find(e);
    if (e->history_path[0])
        history(e->history, &event, H_LOAD, e->history_path);
    el_set(e->edit, EL_CLIENTDATA, e);
    el_set(e->edit, EL_PROMPT, show_prompt);
    el_set(e->edit, EL_GETCFN, read_key);
    el_set(e->edit, EL_EDITOR, "emacs");
    el_set(e->edit, EL_HIST, history, e->history);
    el_source(e->edit, NULL); /* ~/.editrc: people's own keys */
    return ST_OK;
}

enum status editor_open(struct editor **out, const char *prompt, struct error *err)
{
    struct editor *e = *out = mem_alloc_zero(1, sizeof *e);
    if (!e)
        return fail_nomem(err, "line editing");
    e->prompt = prompt;
    enum status st = cli_is_terminal(STDIN_FILENO) ? edit_open(e, err) : ST_OK;
    if (st != ST_OK) {
        editor_close(e);
        *out = NULL;
    }
    return st;
}

static struct str next_plain(struct editor *e)
{
    int c;
    buf_clear(&e->line);
    while ((c = getchar()) != EOF && c != '\n')
        buf_append_char(&e->line, (char)c);
    if (e->line.failed || (c == EOF && e->line.len == 0))
        return (struct str){NULL, 0};
    return buf_str(&e->line);
}

struct str editor_next(struct editor *e)
{
    HistEvent event;
    int n = 0;
    if (!e->edit)
        return next_plain(e);
    const char *line = edit_line(e, &n);
    e->interrupted = cli_interrupted != 0;
    if (e->interrupted) { /* Ctrl-C at the prompt: drop the line */
        __atomic_store_n(&cli_interrupted, 0, __ATOMIC_RELAXED);
        fputs("\n", stdout);
        return STR("");
    }
    if (!line || n <= 0)
        return (struct str){NULL, 0};
    if (n > 1)
        history(e->history, &event, H_ENTER, line);
    buf_clear(&e->line);
    buf_append(&e->line, line, (size_t)n - (line[n - 1] == '\n'));
    return buf_str(&e->line);
}

bool editor_interrupted(const struct editor *e)
{
    return e->interrupted;
}

void editor_close(struct editor *e)
{
    HistEvent event;
    if (!e)
        return;
    if (e->history && e->history_path[0])
        history(e->history, &event, H_SAVE, e->history_path);
    if (e->edit)
        el_end(e->edit);
    if (e->history)
        history_end(e->history);
    buf_free(&e->line);
    mem_free(e);
}
