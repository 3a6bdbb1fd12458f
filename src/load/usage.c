/* What processes use: this one and a local server's. */
#include "load/load_private.h"

#include "base/clock.h"
#include "base/file.h"

#include <stdio.h>
#include <sys/resource.h>
#include <unistd.h>

double cpu_seconds(void)
{
    struct rusage u;
    if (getrusage(RUSAGE_SELF, &u) != 0)
        return 0;
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) + (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

static bool read_proc(struct buf *out, int pid, const char *name)
{
    char path[64];
    if (pid)
        snprintf(path, sizeof path, "/proc/%d/%s", pid, name);
    else
        snprintf(path, sizeof path, "/proc/self/%s", name);
    return file_read_all(out, path, 1 << 20, NULL) == ST_OK;
}

uint64_t rss_peak(int pid)
{
    struct buf text = {0};
    uint64_t bytes = 0;
    if (read_proc(&text, pid, "status")) {
        struct str rest = buf_str(&text);
        while (rest.ptr) {
            struct str line = str_next_line(&rest);
            int64_t kb;
            if (!str_starts(line, STR("VmHWM:")))
                continue;
            line = str_trim(str_from(line, 6));
            if (line.len > 3 && str_to_i64(&kb, str_n(line.ptr, line.len - 3))) /* " kB" */
                bytes = (uint64_t)kb * 1024;
        }
    }
    buf_free(&text);
    return bytes;
}

double cpu_seconds_of(int pid)
{
    uint64_t ns = pid ? clock_process_cpu_ns_of(pid) : 0;
    return ns ? (double)ns * 1e-9 : -1;
}
