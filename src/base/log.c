#include "base/log.h"

#include "base/clock.h"
#include "base/json.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static const char *const level_names[] = {"debug", "info", "warn", "error", "off"};
static int level_now = LOG_WARN, fd_now = STDERR_FILENO;

enum { PATIENCE_MS = 50 };
static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER; /* of one line; what follows is touched under it */
static struct sink {
    int fd, set_fd; /* written to, ours if another than what was set */
    dev_t dev;
    ino_t ino;
    bool is_socket;
    unsigned long lost, told; /* lines, since the first one; what the reader knows of */
    bool torn;                /* of a lost line a part went */
} sink = {.fd = -1, .set_fd = -1};

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

/* Where lines go. Pipes and terminals are opened once more, so as never to wait in write: the flag belongs to a
 * description, and that of standard error is shared with other programs. Where that is refused a write may wait. */
static void sink_find(int fd)
{
    struct stat st = {0};
    if (fstat(fd, &st) == 0 && fd == sink.set_fd && st.st_dev == sink.dev && st.st_ino == sink.ino)
        return;
    if (sink.fd != sink.set_fd)
        close(sink.fd);
    sink = (struct sink){.fd = fd, .set_fd = fd, .dev = st.st_dev, .ino = st.st_ino, .is_socket = S_ISSOCK(st.st_mode)};
    if (S_ISFIFO(st.st_mode) || S_ISCHR(st.st_mode)) {
        char path[40];
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        int again = open(path, O_WRONLY | O_APPEND | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
        sink.fd = again >= 0 ? again : fd;
    }
}

/* False: it did not go, or not whole. */
static bool put(struct str text)
{
    uint64_t until = clock_ns() + (sink.lost > sink.told ? 0 : PATIENCE_MS * 1000000ull);
    while (text.len) {
        ssize_t n = sink.is_socket ? send(sink.fd, text.ptr, text.len, MSG_DONTWAIT | MSG_NOSIGNAL)
                                   : write(sink.fd, text.ptr, text.len);
        if (n > 0) {
            text = str_from(text, (size_t)n);
            sink.torn = text.len > 0;
            continue;
        }
        uint64_t now = clock_ns();
        struct pollfd p = {.fd = sink.fd, .events = POLLOUT};
        if (n < 0 && errno == EINTR)
            continue;
        if (n == 0 || errno != EAGAIN || now >= until)
            return false;
        poll(&p, 1, (int)((until - now) / 1000000) + 1);
    }
    return true;
}

/* A line that cannot be written is lost: the log must not become the reason why a request fails, or waits. */
static void end_line(struct json_writer *w, struct buf *line)
{
    struct buf notice = {0};
    json_end_object(w);
    buf_append_char(line, '\n');
    int error = errno;
    pthread_mutex_lock(&turn);
    sink_find(__atomic_load_n(&fd_now, __ATOMIC_RELAXED));
    if (sink.lost > sink.told) { /* both at once: a pipe that has little room takes both or none */
        struct json_writer n;
        if (sink.torn)
            buf_append_char(&notice, '\n');
        begin_line(&n, &notice, LOG_WARN);
        json_put_str(&n, "event", STR("log.lost"));
        json_put_int(&n, "lines", (int64_t)sink.lost);
        json_end_object(&n);
        buf_append_char(&notice, '\n');
        buf_append(&notice, line->ptr, line->len);
    }
    struct str text = buf_str(notice.len ? &notice : line);
    if (line->failed || notice.failed || !put(text))
        sink.lost++;
    else
        sink.told = sink.lost;
    pthread_mutex_unlock(&turn);
    errno = error;
    buf_free(&notice);
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
