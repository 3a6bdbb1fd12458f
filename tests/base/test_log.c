#include "test.h"

#include "base/clock.h"
#include "base/fault.h"
#include "base/file.h"
#include "base/json.h"
#include "base/log.h"

#include <fcntl.h>
#include <pthread.h>

static struct error err;
static char path[64];

static int begin(void)
{
    strcpy(path, "/tmp/ingot-log-XXXXXX");
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(fcntl(fd, F_SETFL, O_APPEND), 0);
    log_set_fd(fd);
    return fd;
}

/* Closes the log; every line must be JSON; returns how many lines there are. */
static int end(int fd, struct buf *text)
{
    log_set_fd(STDERR_FILENO);
    log_set_level(LOG_WARN);
    close(fd);
    OK(file_read_all(text, path, 1 << 24, &err));
    unlink(path);
    struct str rest = buf_str(text);
    int n = 0;
    for (struct str line; (line = str_next_line(&rest)).ptr; n++) {
        struct arena a;
        const struct json *d;
        arena_init(&a, 0);
        OK(json_parse(&d, &a, line, JSON_UNIQUE, &err));
        assert_int_equal(json_str(json_get(d, "time")).len, 24);
        assert_true(json_str(json_get(d, "event")).len > 0);
        arena_free(&a);
    }
    return n;
}

static void test_log_lines_are_json(void **state)
{
    (void)state;
    struct buf text = {0};
    int fd = begin();
    log_set_level(LOG_INFO);
    log_event(LOG_DEBUG, "hidden", "a", "b", NULL);
    log_event(LOG_INFO, "server.ready", "url", "http://x/\"\n", "empty", NULL, NULL);
    log_infof("engine", "loaded %d layers", 7);
    log_set_level(LOG_OFF);
    log_errorf("engine", "hidden too");
    assert_int_equal(end(fd, &text), 2);
    assert_non_null(
        strstr(text.ptr, "\"level\":\"info\",\"event\":\"server.ready\",\"url\":\"http://x/\\\"\\n\",\"empty\":\"\"}"));
    assert_non_null(strstr(text.ptr, "\"message\":\"loaded 7 layers\""));
    buf_free(&text);
}

static void *many_lines(void *arg)
{
    (void)arg;
    for (int i = 0; i < 500; i++)
        log_warnf("thread", "line %d of a text that is long enough to be torn if it could be torn", i);
    return NULL;
}

static void test_log_lines_stay_whole(void **state)
{
    (void)state;
    struct buf text = {0};
    pthread_t threads[4];
    int fd = begin();
    for (int i = 0; i < 4; i++)
        pthread_create(&threads[i], NULL, many_lines, NULL);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(end(fd, &text), 2000);
    buf_free(&text);
}

static void test_log_without_memory_is_silent(void **state)
{
    (void)state;
    struct buf text = {0};
    int fd = begin();
    fault_arm(FAULT_ALLOC, 1);
    log_warnf("x", "lost");
    fault_disarm();
    log_warnf("x", "kept");
    assert_int_equal(end(fd, &text) <= 2, 1);
    assert_non_null(strstr(text.ptr, "kept"));
    buf_free(&text);
}

/* Reads what is in the pipe; how many lines parse, how many do not; *told: how many one says were lost. */
static void drain(int fd, int *good, int *bad, int64_t *told)
{
    static char bytes[1 << 18];
    size_t n = 0;
    *good = *bad = 0;
    for (ssize_t got; (got = read(fd, bytes + n, sizeof bytes - n)) > 0;)
        n += (size_t)got;
    struct str rest = {bytes, n};
    for (struct str line; (line = str_next_line(&rest)).ptr;) {
        struct arena a;
        const struct json *d;
        arena_init(&a, 0);
        bool is_json = json_parse(&d, &a, line, JSON_UNIQUE, &err) == ST_OK;
        *good += is_json;
        *bad += !is_json;
        if (is_json && json_get(d, "lines"))
            *told = json_int(json_get(d, "lines"), -1);
        arena_free(&a);
    }
}

static void write_lines(int n, const char *text)
{
    uint64_t start = clock_ns();
    for (int i = 0; i < n; i++)
        log_warnf("x", "%s", text);
    assert_true(clock_ns() - start < 20000000000u); /* one wait, not one a line */
}

static void test_log_nobody_reads_a_pipe(void **state)
{
    (void)state;
    enum { LINES = 3000, LONG = 9000, LONG_LINES = 20, PIPE = 65536 };
    static char text[LONG + 1];
    int ends[2], good, bad;
    int64_t told = 0;
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    assert_int_equal(fcntl(ends[0], F_SETFL, O_NONBLOCK), 0);
    if (fcntl(ends[1], F_SETPIPE_SZ, PIPE) != PIPE)
        skip();
    log_set_fd(ends[1]);
    write_lines(LINES, "a line that nobody reads");
    drain(ends[0], &good, &bad, &told);
    assert_int_equal(bad, 0);
    assert_in_range(good, 1, LINES - 1);
    int lost = LINES - good;
    write_lines(1, "somebody reads");
    drain(ends[0], &good, &bad, &told);
    assert_int_equal(good, 2);
    assert_int_equal(bad, 0);
    assert_int_equal(told, lost);
    write_lines(1, "and is told once");
    drain(ends[0], &good, &bad, &told);
    assert_int_equal(good, 1);

    memset(text, 'a', LONG);
    write_lines(LONG_LINES, text);
    drain(ends[0], &good, &bad, &told);
    assert_int_equal(bad, 1); /* of the last one a part went */
    assert_in_range(good, 1, LONG_LINES - 1);
    lost += LONG_LINES - good;
    write_lines(1, "on a line of its own");
    drain(ends[0], &good, &bad, &told);
    assert_int_equal(good, 2);
    assert_int_equal(bad, 1); /* the end of the broken one */
    assert_int_equal(told, lost);
    log_set_fd(STDERR_FILENO);
    close(ends[0]);
    close(ends[1]);
}

static void test_log_nobody_reads_a_terminal(void **state)
{
    (void)state;
    char name[64];
    int master = posix_openpt(O_RDWR | O_NOCTTY);
    if (master < 0 || grantpt(master) || unlockpt(master) || ptsname_r(master, name, sizeof name))
        skip();
    int slave = open(name, O_WRONLY | O_NOCTTY | O_CLOEXEC);
    assert_true(slave >= 0);
    log_set_fd(slave);
    write_lines(3000, "a line that nobody reads, long enough to end in the middle of what a terminal takes");
    log_set_fd(STDERR_FILENO);
    close(slave);
    close(master);
}

static void test_log_levels_have_names(void **state)
{
    (void)state;
    assert_int_equal(log_level_parse("debug"), LOG_DEBUG);
    assert_int_equal(log_level_parse("off"), LOG_OFF);
    assert_int_equal(log_level_parse("loud"), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_log_lines_are_json),           cmocka_unit_test(test_log_lines_stay_whole),
        cmocka_unit_test(test_log_without_memory_is_silent), cmocka_unit_test(test_log_nobody_reads_a_pipe),
        cmocka_unit_test(test_log_nobody_reads_a_terminal),  cmocka_unit_test(test_log_levels_have_names),
    };
    return RUN(tests);
}
