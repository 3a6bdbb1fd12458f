#include "base/file.h"

#include "base/fault.h"
#include "base/mem.h"
#include "base/rng.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static enum status fail_errno(struct error *err, const char *path, const char *doing, int e)
{
    if (e == EISDIR)
        return fail(err, ST_INVALID, "%.300s: expected a file, found a folder", path);
    enum status st = e == ENOENT || e == ENOTDIR               ? ST_NOT_FOUND
                     : e == EACCES || e == EPERM || e == EROFS ? ST_DENIED
                     : e == ENOMEM                             ? ST_NOMEM
                                                               : ST_IO;
    char reason[128];
    return fail(err, st, "%.300s: cannot %s: %s", path, doing, strerror_r(e, reason, sizeof reason));
}

static int open_fd(const char *path, int flags)
{
    if (fault_hit(FAULT_OPEN))
        return -1;
    int fd;
    do
        fd = open(path, flags | O_CLOEXEC, 0666);
    while (fd < 0 && errno == EINTR);
    return fd;
}

/* ---- map ---- */

enum status file_map(struct mapping *out, const char *path, struct error *err)
{
    static const uint8_t nothing[1];
    *out = (struct mapping){nothing, 0};
    int fd = open_fd(path, O_RDONLY);
    if (fd < 0)
        return fail_errno(err, path, "open", errno);
    struct stat st;
    enum status result = ST_OK;
    if (fstat(fd, &st) != 0)
        result = fail_errno(err, path, "read its size", errno);
    else if (!S_ISREG(st.st_mode))
        result = fail(err, ST_INVALID, "%.300s: expected a regular file, found %s", path,
                      S_ISDIR(st.st_mode) ? "a folder" : "a device or a pipe");
    else if (st.st_size > 0) {
        void *p = fault_hit(FAULT_MMAP) ? MAP_FAILED : mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (p == MAP_FAILED)
            result = fail_errno(err, path, "map into memory", errno);
        else
            *out = (struct mapping){p, (size_t)st.st_size};
    }
    close(fd);
    return result;
}

void file_unmap(struct mapping *m)
{
    if (m->size)
        munmap((void *)m->data, m->size);
    *m = (struct mapping){(const uint8_t *)"", 0};
}

/* ---- read ---- */

static enum status read_fd(struct buf *out, int fd, const char *path, size_t max, struct error *err)
{
    size_t start = out->len;
    for (;;) {
        if (!buf_reserve(out, 65536))
            return fail_nomem(err, path);
        ssize_t n = fault_hit(FAULT_READ) ? -1 : read(fd, out->ptr + out->len, 65536);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return fail_errno(err, path, "read", errno);
        if (n == 0)
            break;
        out->len += (size_t)n;
        if (out->len - start > max)
            return fail(err, ST_LIMIT, "%.300s: larger than %zu bytes", path, max);
    }
    out->ptr[out->len] = 0;
    return ST_OK;
}

enum status file_read_all(struct buf *out, const char *path, size_t max, struct error *err)
{
    if (strcmp(path, "-") == 0)
        return read_fd(out, STDIN_FILENO, "standard input", max, err);
    int fd = open_fd(path, O_RDONLY);
    if (fd < 0)
        return fail_errno(err, path, "open", errno);
    enum status st = read_fd(out, fd, path, max, err);
    close(fd);
    return st;
}

/* ---- write ---- */

/* A device or a pipe is written in place: a rename would put a file where it stands. */
static enum status writer_open_device(struct file_writer *w, const char *path, struct error *err)
{
    w->path = mem_strdup(path);
    if (!w->path)
        return fail_nomem(err, path);
    w->fd = open_fd(path, O_WRONLY);
    if (w->fd >= 0)
        return ST_OK;
    enum status st = fail_errno(err, path, "open for writing", errno);
    file_writer_abort(w);
    return st;
}

enum status file_writer_open(struct file_writer *w, const char *path, struct error *err)
{
    *w = (struct file_writer){.fd = -1};
    enum file_kind kind = file_kind(path);
    if (kind == FILE_OTHER)
        return writer_open_device(w, path, err);
    if (kind == FILE_FOLDER)
        return fail(err, ST_INVALID, "%.300s: expected the name of a file to write, found a folder", path);
    size_t size = strlen(path) + 32;
    w->path = mem_strdup(path);
    w->temp = mem_alloc(size);
    if (!w->path || !w->temp) {
        file_writer_abort(w);
        return fail_nomem(err, path);
    }
    /* Beside its goal, because rename does not cross file systems; a random name, because two writers may race. */
    snprintf(w->temp, size, "%s.tmp-%016llx", path, (unsigned long long)rng_entropy());
    w->fd = open_fd(w->temp, O_WRONLY | O_CREAT | O_EXCL);
    if (w->fd < 0) {
        enum status st = fail_errno(err, path, "create", errno);
        mem_free(w->temp);
        w->temp = NULL;
        file_writer_abort(w);
        return st;
    }
    return ST_OK;
}

void file_writer_write(struct file_writer *w, const void *bytes, size_t n)
{
    const char *p = bytes;
    while (n && !w->failed) {
        ssize_t done = fault_hit(FAULT_WRITE) ? -1 : write(w->fd, p, n);
        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0) {
            w->failed = true;
            w->saved_errno = errno;
            return;
        }
        p += done;
        n -= (size_t)done;
        w->offset += (uint64_t)done;
    }
}

static int sync_fd(int fd)
{
    return fault_hit(FAULT_FSYNC) ? -1 : fsync(fd);
}

/* The rename is on disk only once the folder is. */
static int sync_folder_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    char *folder = mem_strdup(slash ? path : ".");
    if (!folder) {
        errno = ENOMEM;
        return -1;
    }
    if (slash)
        folder[slash == path ? 1 : slash - path] = 0;
    int fd = open_fd(folder, O_RDONLY | O_DIRECTORY), result = -1, e = errno;
    mem_free(folder);
    if (fd >= 0) {
        result = sync_fd(fd);
        e = errno;
        close(fd);
    }
    errno = e;
    return result;
}

enum status file_writer_commit(struct file_writer *w, struct error *err)
{
    enum status st = ST_OK;
    int fd = w->fd;
    assert(fd >= 0 && w->path); /* open succeeded, and neither commit nor abort came before */
    w->fd = -1;
    if (w->failed)
        st = fail_errno(err, w->path, "write", w->saved_errno);
    else if (w->temp && sync_fd(fd) != 0)
        st = fail_errno(err, w->path, "write to disk", errno);
    if (close(fd) != 0 && st == ST_OK)
        st = fail_errno(err, w->path, "write", errno);
    if (st == ST_OK && w->temp && (fault_hit(FAULT_RENAME) || rename(w->temp, w->path) != 0))
        st = fail_errno(err, w->path, "rename its temporary file into place", errno);
    if (st == ST_OK && w->temp) {
        mem_free(w->temp); /* it is the file now: abort must not remove it */
        w->temp = NULL;
        if (sync_folder_of(w->path) != 0)
            st = fail_errno(err, w->path, "write its folder to disk", errno);
    }
    file_writer_abort(w);
    return st;
}

void file_writer_abort(struct file_writer *w)
{
    if (w->fd >= 0)
        close(w->fd);
    if (w->temp)
        unlink(w->temp);
    mem_free(w->temp);
    mem_free(w->path);
    *w = (struct file_writer){.fd = -1};
}

enum status file_write_all(const char *path, struct str bytes, struct error *err)
{
    struct file_writer w;
    TRY(file_writer_open(&w, path, err));
    file_writer_write(&w, bytes.ptr, bytes.len);
    return file_writer_commit(&w, err);
}

/* ---- folders ---- */

enum file_kind file_kind(const char *path)
{
    struct stat st;
    if (stat(path, &st) != 0)
        return FILE_ABSENT;
    return S_ISREG(st.st_mode) ? FILE_REGULAR : S_ISDIR(st.st_mode) ? FILE_FOLDER : FILE_OTHER;
}

bool file_same(const char *a, const char *b)
{
    struct stat x, y;
    return stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

enum status file_make_folders(const char *path, struct error *err)
{
    char *copy = mem_strdup(path);
    if (!copy)
        return fail_nomem(err, path);
    int failed = 0;
    for (char *p = copy; *p && !failed;) {
        p += strspn(p, "/");
        p += strcspn(p, "/");
        char end = *p;
        *p = 0;
        if (mkdir(copy, 0777) != 0 && file_kind(copy) != FILE_FOLDER)
            failed = errno;
        *p = end;
    }
    mem_free(copy);
    if (failed == EEXIST)
        return fail(err, ST_INVALID, "%.300s: expected a folder, found a file of that name", path);
    return failed ? fail_errno(err, path, "create the folder", failed) : ST_OK;
}

enum status file_remove(const char *path, struct error *err)
{
    return remove(path) == 0 ? ST_OK : fail_errno(err, path, "remove", errno);
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Appends the folder's entry names; on failure the caller frees what is there. */
static enum status list_names(DIR *dir, const char *folder, char ***names, size_t *count, struct error *err)
{
    size_t capacity = 0;
    struct dirent *entry;
    for (errno = 0; (entry = readdir(dir)); errno = 0) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        if (!MEM_GROW(*names, capacity, *count) || !((*names)[*count] = mem_strdup(entry->d_name)))
            return fail_nomem(err, folder);
        ++*count;
    }
    return errno ? fail_errno(err, folder, "list", errno) : ST_OK;
}

enum status file_each(const char *folder, enum status (*fn)(void *ctx, const char *name, struct error *err), void *ctx,
                      struct error *err)
{
    DIR *dir = fault_hit(FAULT_OPEN) ? NULL : opendir(folder);
    if (!dir)
        return fail_errno(err, folder, "open the folder", errno);
    char **names = NULL;
    size_t count = 0;
    enum status st = list_names(dir, folder, &names, &count, err);
    closedir(dir);
    if (st == ST_OK && count)
        qsort(names, count, sizeof *names, compare_names);
    for (size_t i = 0; i < count && st == ST_OK; i++)
        st = fn(ctx, names[i], err);
    for (size_t i = 0; i < count; i++)
        mem_free(names[i]);
    mem_free(names);
    return st;
}

/* ---- names ---- */

char *path_join(char *buf, size_t size, const char *folder, const char *name)
{
    size_t n = strlen(folder);
    const char *slash = n == 0 || folder[n - 1] == '/' ? "" : "/";
    snprintf(buf, size, "%s%s%s", folder, slash, name);
    return buf;
}

struct str path_base(struct str path)
{
    while (path.len > 1 && path.ptr[path.len - 1] == '/')
        path.len--;
    const char *slash = path.len > 1 ? memrchr(path.ptr, '/', path.len) : NULL;
    return slash ? str_from(path, (size_t)(slash - path.ptr) + 1) : path;
}

struct str path_stem(struct str path)
{
    struct str base = path_base(path);
    const char *dot = base.len > 1 ? memrchr(base.ptr + 1, '.', base.len - 1) : NULL;
    if (dot)
        base.len = (size_t)(dot - base.ptr);
    return base;
}
