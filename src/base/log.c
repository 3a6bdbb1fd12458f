#include "base/log.h"

#include "base/clock.h"
#include "base/json.h"

#include <stdarg.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

static const char *const level_names[] = {"debug", "info", "warn", "error", "off"};
static int level_now = LOG_WARN, fd_now = STDERR_FILENO;

void log_set_level(enum log_level level)
{
    __atomic_store_n(&level_now, (int)level, __ATOMIC_RELAXED);
}

void log_set_fd(int fd)
{
    __atomic_store_n(&fd_now, fd, __ATOMIC_RELAXED);
}

int log_level_parse(const char *name)
{
    for (int i = 0; i <= LOG_OFF; i++)
        if (strcmp(name, level_names[i]) == 0)
            return i;
    return -1;
}

static bool is_on(enum log_level level)
{
    return level < LOG_OFF && (int)level >= __atomic_load_n(&level_now, __ATOMIC_RELAXED);
}

static void begin_line(struct json_writer *w, struct buf *line, enum log_level level)
{
    uint64_t ns = clock_wall_ns();
    time_t seconds = (time_t)(ns / 1000000000u);
    struct tm tm;
    char date[32], stamp[48];
    gmtime_r(&seconds, &tm);
    strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%S", &tm);
    snprintf(stamp, sizeof stamp, "%s.%03uZ", date, (unsigned)(ns / 1000000 % 1000));
    json_writer_init(w, line);
    json_begin_object(w);
    json_put_str(w, "time", str_of(stamp));
    json_put_str(w, "level", str_of(level_names[level]));
}

/* One write(2) a line, so that lines of several threads never mix. A line that cannot be written is lost: the log must
 * not become the reason why a request fails. */
static void end_line(struct json_writer *w, struct buf *line)
{
    json_end_object(w);
    buf_append_char(line, '\n');
    if (!line->failed) {
        ssize_t ignored = write(__atomic_load_n(&fd_now, __ATOMIC_RELAXED), line->ptr, line->len);
        (void)ignored;
    }
    buf_free(line);
}

void log_event(enum log_level level, const char *event, ...)
{
    if (!is_on(level))
        return;
    struct buf line = {0};
    struct json_writer w;
    va_list ap;
    begin_line(&w, &line, level);
    json_put_str(&w, "event", str_of(event));
    va_start(ap, event);
    for (const char *name; (name = va_arg(ap, const char *));) {
        const char *text = va_arg(ap, const char *);
        json_put_str(&w, name, str_of(text ? text : ""));
    }
    va_end(ap);
    end_line(&w, &line);
}

void log_text(enum log_level level, const char *where, const char *fmt, ...)
{
    if (!is_on(level))
        return;
    struct buf line = {0}, text = {0};
    struct json_writer w;
    va_list ap;
    va_start(ap, fmt);
    buf_vprintf(&text, fmt, ap);
    va_end(ap);
    begin_line(&w, &line, level);
    json_put_str(&w, "event", str_of(where));
    json_put_str(&w, "message", buf_str(&text));
    end_line(&w, &line);
    buf_free(&text);
}
