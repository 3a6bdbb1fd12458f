#include "base/file.h"

#include "base/checksum.h"
#include "base/clock.h"
#include "base/fault.h"
#include "base/guard.h"
#include "base/mem.h"
#include "base/rng.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>
#include <time.h>
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

static int open_mode(const char *path, int flags, mode_t mode)
{
    if (fault_hit(FAULT_OPEN))
        return -1;
    int fd;
    do
        fd = open(path, flags | O_CLOEXEC, mode);
    while (fd < 0 && errno == EINTR);
    return fd;
}

static int open_fd(const char *path, int flags)
{
    return open_mode(path, flags, 0666);
}

/* ---- map ---- */

static const uint8_t nothing[1];

static struct file_id id_of(const struct stat *st)
{
    const int64_t second = 1000000000;
    return (struct file_id){.inode = st->st_ino,
                            .size = (uint64_t)st->st_size,
                            .modified_ns = st->st_mtim.tv_sec * second + st->st_mtim.tv_nsec,
                            .changed_ns = st->st_ctim.tv_sec * second + st->st_ctim.tv_nsec};
}

static enum status check_regular(struct stat *st, int fd, const char *path, struct error *err)
{
    if (fstat(fd, st) != 0)
        return fail_errno(err, path, "read its size", errno);
    if (!S_ISREG(st->st_mode))
        return fail(err, ST_INVALID, "%.300s: expected a regular file, found %s", path,
                    S_ISDIR(st->st_mode) ? "a folder" : "a device or a pipe");
    return ST_OK;
}

/* What is mapped at p becomes *out, guarded against the file being cut. */
static enum status mapped(struct mapping *out, void *p, const struct stat *st, const char *path, struct error *err)
{
    if (p == MAP_FAILED)
        return fail_errno(err, path, "map into memory", errno);
    *out = (struct mapping){p, (size_t)st->st_size, id_of(st)};
    guard_add(p, out->size);
    return ST_OK;
}

enum status file_map(struct mapping *out, const char *path, struct error *err)
{
    *out = (struct mapping){nothing, 0};
    int fd = open_fd(path, O_RDONLY);
    if (fd < 0)
        return fail_errno(err, path, "open", errno);
    struct stat st;
    enum status result = check_regular(&st, fd, path, err);
    if (result == ST_OK && st.st_size > 0) {
        void *p = fault_hit(FAULT_MMAP) ? MAP_FAILED : mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        result = mapped(out, p, &st, path, err);
    }
    close(fd);
    return result;
}

/* The kernel gives huge pages only where address and offset agree below 2 MB: the place is chosen with room to spare.
 */
static void *map_huge(int fd, size_t size)
{
    const size_t huge = (size_t)2 << 20;
    size_t room;
    if (fault_hit(FAULT_MMAP) || !size_add(&room, size, huge))
        return MAP_FAILED;
    char *space = mmap(NULL, room, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (space == MAP_FAILED)
        return MAP_FAILED;
    size_t page = (size_t)sysconf(_SC_PAGESIZE), whole = (size + page - 1) / page * page;
    char *at = space + (huge - (uintptr_t)space % huge) % huge;
    void *p = mmap(at, size, PROT_READ, MAP_SHARED | MAP_FIXED, fd, 0);
    int e = errno;
    if (p == MAP_FAILED) {
        munmap(space, room);
        errno = e;
        return p;
    }
    if (at > space)
        munmap(space, (size_t)(at - space));
    munmap(at + whole, (size_t)(space + room - (at + whole)));
    madvise(p, size, MADV_HUGEPAGE); /* a wish: also makes reading from disk fill huge pages */
    return p;
}

enum status file_map_own(struct mapping *out, const char *path, struct error *err)
{
    *out = (struct mapping){nothing, 0};
    int fd = open_fd(path, O_RDONLY | O_NOFOLLOW);
    if (fd < 0)
        return fail_errno(err, path, "open", errno);
    struct stat st;
    enum status result = check_regular(&st, fd, path, err);
    if (result == ST_OK && (st.st_uid != geteuid() || st.st_mode & 022))
        result = fail(err, ST_DENIED, "%.300s: others may write into it, or own it; remove it", path);
    if (result == ST_OK && st.st_size > 0) {
        void *p = map_huge(fd, (size_t)st.st_size);
        result = mapped(out, p, &st, path, err);
    }
    close(fd);
    return result;
}

void file_unmap(struct mapping *m)
{
    if (m->size) {
        guard_remove(m->data); /* first: the address may be another mapping's as soon as it is free */
        munmap((void *)m->data, m->size);
    }
    *m = (struct mapping){nothing, 0};
}

void file_forget(const struct mapping *m, const void *data, size_t bytes)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), from = (size_t)((const uint8_t *)data - m->data) / page * page;
    size_t to = (size_t)((const uint8_t *)data - m->data) + bytes;
    if (to <= m->size && from < to)
        madvise((void *)(m->data + from), to - from, MADV_DONTNEED);
}

enum status file_check(const struct mapping *m, const char *path, struct error *err)
{
    if (!m->size || !guard_lost(m->data))
        return ST_OK;
    return fail(err, ST_IO,
                "%.300s: another program made it shorter while it was read, or its disk failed; write a new file and "
                "rename it instead of writing into one that is in use",
                path);
}

/* ---- identity ---- */

bool file_id_equal(const struct file_id *a, const struct file_id *b)
{
    return a->inode == b->inode && a->size == b->size && a->modified_ns == b->modified_ns &&
           a->changed_ns == b->changed_ns;
}

/* Their change times come from another machine's clock, or are made up. */
static bool is_remote(int fd)
{
    static const unsigned long remote[] = {
        0x6969 /* nfs */,      0x517b /* smb */,        0xff534d42 /* cifs */, 0xfe534d42 /* smb2 */,
        0x65735546 /* fuse */, 0x01021997 /* 9p */,     0x00c36400 /* ceph */, 0x5346414f /* afs */,
        0x73757245 /* coda */, 0x0bd00bd0 /* lustre */, 0x01161970 /* gfs2 */, 0x7461636f /* ocfs2 */,
        0x4d44 /* fat */,      0x2011bab0 /* exfat */,  0x47504653 /* gpfs */, 0x2fc12fc1 /* zfs */};
    struct statfs fs;
    if (fstatfs(fd, &fs) != 0)
        return true;
    for (size_t i = 0; i < sizeof remote / sizeof *remote; i++)
        if ((uint32_t)fs.f_type == remote[i])
            return true;
    return false;
}

static enum status settle_fd(struct file_id *out, int fd, const char *path, struct error *err)
{
    enum { GRAIN_MS = 100 }; /* no local file system counts change times in steps of more than 10 ms */
    const int64_t grain_ns = GRAIN_MS * (int64_t)1000000;
    struct stat st;
    if (is_remote(fd))
        return fail(err, ST_UNSUPPORTED, "%.300s: its file system does not tell every change", path);
    if (fault_hit(FAULT_FSYNC) || fsync(fd) != 0)
        return fail_errno(err, path, "write to disk", errno);
    for (int turn = 0; turn < 2; turn++) {
        TRY(check_regular(&st, fd, path, err));
        *out = id_of(&st);
        int64_t age_ns = (int64_t)clock_wall_ns() - out->changed_ns;
        if (age_ns >= grain_ns)
            return ST_OK;
        if (age_ns < 0)
            break;
        nanosleep(&(struct timespec){.tv_nsec = grain_ns - age_ns}, NULL);
    }
    return fail(err, ST_UNSUPPORTED, "%.300s: it is being written, or was written in the future", path);
}

enum status file_settle(struct file_id *out, const char *path, struct error *err)
{
    int fd = open_fd(path, O_RDONLY);
    if (fd < 0)
        return fail_errno(err, path, "open", errno);
    enum status st = settle_fd(out, fd, path, err);
    close(fd);
    return st;
}

bool file_identify(struct file_id *out, const char *path)
{
    struct stat st;
    if (stat(path, &st) != 0 || !S_ISREG(st.st_mode))
        return false;
    *out = id_of(&st);
    return true;
}

uint64_t file_sample(const struct mapping *m)
{
    enum { SAMPLES = 16, SAMPLE_BYTES = 4096 };
    uint64_t sum = 0;
    if (m->size <= SAMPLES * SAMPLE_BYTES)
        return checksum64(m->data, m->size, 0);
    for (size_t i = 0; i < SAMPLES; i++)
        sum = checksum64(m->data + (m->size - SAMPLE_BYTES) / (SAMPLES - 1) * i, SAMPLE_BYTES, sum);
    return checksum64(m->data + m->size - SAMPLE_BYTES, SAMPLE_BYTES, sum);
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

static enum status writer_open(struct file_writer *w, const char *path, mode_t mode, struct error *err)
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
    w->fd = open_mode(w->temp, O_WRONLY | O_CREAT | O_EXCL, mode);
    if (w->fd < 0) {
        enum status st = fail_errno(err, path, "create", errno);
        mem_free(w->temp);
        w->temp = NULL;
        file_writer_abort(w);
        return st;
    }
    return ST_OK;
}

enum status file_writer_open(struct file_writer *w, const char *path, struct error *err)
{
    return writer_open(w, path, 0666, err);
}

enum status file_writer_open_own(struct file_writer *w, const char *path, struct error *err)
{
    TRY(writer_open(w, path, 0400, err));
    w->unsynced = true;
    return ST_OK;
}

void file_writer_seek(struct file_writer *w, uint64_t offset)
{
    if (!w->failed && lseek(w->fd, (off_t)offset, SEEK_SET) < 0) {
        w->failed = true;
        w->saved_errno = errno;
    }
    w->offset = offset;
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
    else if (w->temp && !w->unsynced && sync_fd(fd) != 0)
        st = fail_errno(err, w->path, "write to disk", errno);
    if (close(fd) != 0 && st == ST_OK)
        st = fail_errno(err, w->path, "write", errno);
    if (st == ST_OK && w->temp && (fault_hit(FAULT_RENAME) || rename(w->temp, w->path) != 0))
        st = fail_errno(err, w->path, "rename its temporary file into place", errno);
    if (st == ST_OK && w->temp) {
        mem_free(w->temp); /* it is the file now: abort must not remove it */
        w->temp = NULL;
        if (!w->unsynced && sync_folder_of(w->path) != 0)
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

enum status file_make_own_folder(const char *path, struct error *err)
{
    struct stat st;
    char *parent = mem_strdup(path);
    if (!parent)
        return fail_nomem(err, path);
    char *slash = strrchr(parent, '/');
    enum status result = ST_OK;
    if (slash && slash > parent) {
        *slash = 0;
        result = file_make_folders(parent, err);
    }
    mem_free(parent);
    TRY(result);
    if (mkdir(path, 0700) != 0 && errno != EEXIST)
        return fail_errno(err, path, "create the folder", errno);
    if (lstat(path, &st) != 0)
        return fail_errno(err, path, "look at the folder", errno);
    if (!S_ISDIR(st.st_mode) || st.st_uid != geteuid() || st.st_mode & 022)
        return fail(err, ST_DENIED, "%.300s: expected a folder of your own that nobody else may write into", path);
    return ST_OK;
}

int file_lock(const char *path)
{
    int fd = open_mode(path, O_RDWR | O_CREAT | O_NOFOLLOW, 0600);
    if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) != 0) {
        close(fd);
        fd = -1;
    }
    return fd;
}

void file_unlock(int lock)
{
    if (lock >= 0)
        close(lock);
}

bool file_space(uint64_t *available, uint64_t *total, const char *path)
{
    struct statvfs fs;
    if (fault_hit(FAULT_OPEN) || statvfs(path, &fs) != 0)
        return false;
    *available = (uint64_t)fs.f_bavail * fs.f_frsize;
    *total = (uint64_t)fs.f_blocks * fs.f_frsize;
    return true;
}

void file_touch(const char *path)
{
    utimensat(AT_FDCWD, path, NULL, AT_SYMLINK_NOFOLLOW);
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

/* "MemAvailable:   123 kB" */
uint64_t memory_available(void)
{
    struct buf text = {0};
    struct error ignored;
    int64_t kb = 0;
    if (file_read_all(&text, "/proc/meminfo", 1 << 16, &ignored) == ST_OK) {
        struct str rest = buf_str(&text);
        for (struct str line; (line = str_next_line(&rest)).ptr;)
            if (str_starts(line, STR("MemAvailable:")) && str_ends(line, STR(" kB"))) {
                line = str_from(line, strlen("MemAvailable:"));
                line.len -= strlen(" kB");
                if (!str_to_i64(&kb, str_trim(line)))
                    kb = 0;
            }
    }
    buf_free(&text);
    return (uint64_t)kb << 10;
}
