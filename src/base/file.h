/* file - the disk seam: read, map, and write so that a reader sees the old bytes or the new ones, never a mixture
 *
 * Errors   ST_NOT_FOUND, ST_DENIED, ST_IO with the path and the system's reason
 */
#ifndef BASE_FILE_H
#define BASE_FILE_H

#include "base/status.h"
#include "base/str.h"

/* What tells that a file is the same and unchanged: no write leaves the change time as it was (see file_settle). */
struct file_id {
    uint64_t inode, size;
    int64_t modified_ns, changed_ns;
};
bool file_id_equal(const struct file_id *a, const struct file_id *b);
bool file_identify(struct file_id *out, const char *path); /* false when it is no regular file */
/* After it, whoever finds the same id again finds the same content. Dirty pages are written first (a program that has
 * the file mapped could else go on writing without a new change time), and a change time of this very moment is waited
 * out, at most 100 ms. ST_UNSUPPORTED where change times cannot be trusted: network and FAT file systems. */
MUST_USE enum status file_settle(struct file_id *out, const char *path, struct error *err);

struct mapping {
    const uint8_t *data; /* read-only; never NULL after file_map, also for an empty file; guarded (base/guard.h) */
    size_t size;
    struct file_id id; /* when it was mapped; zeros for an empty file */
};

MUST_USE enum status file_map(struct mapping *out, const char *path, struct error *err);
/* A large file of this program's own: huge pages where the kernel has them. ST_DENIED when it is a link, when somebody
 * else owns it or may write into it. */
MUST_USE enum status file_map_own(struct mapping *out, const char *path, struct error *err);
void file_unmap(struct mapping *m);
/* What was read of a mapping need not stay in memory; read again it comes from the file again. */
void file_forget(const struct mapping *m, const void *data, size_t bytes);
/* ST_IO when it lost bytes since it was mapped and zeros were read instead (base/guard.h). */
MUST_USE enum status file_check(const struct mapping *m, const char *path, struct error *err);
/* Checksum of pages spread over it, the first and the last among them: for file systems whose change times lie. */
uint64_t file_sample(const struct mapping *m);
/* Appends the whole file; ST_LIMIT when it is larger than `max` bytes. "-" is standard input. */
MUST_USE enum status file_read_all(struct buf *out, const char *path, size_t max, struct error *err);
MUST_USE enum status file_write_all(const char *path, struct str bytes,
                                    struct error *err); /* atomic: temp, fsync, rename */

/* Streamed atomic writing: nothing is visible under `path` before commit. A device or a pipe is written in place. */
struct file_writer {
    int fd;
    uint64_t offset;
    char *path, *temp; /* temp NULL: in place */
    bool failed, unsynced;
    int saved_errno;
};
MUST_USE enum status file_writer_open(struct file_writer *w, const char *path, struct error *err);
/* For a file that can be made again and carries its own checksums: readable by its owner alone, never forced to disk
 * (a power failure may leave it damaged). */
MUST_USE enum status file_writer_open_own(struct file_writer *w, const char *path, struct error *err);
void file_writer_seek(struct file_writer *w, uint64_t offset);
void file_writer_write(struct file_writer *w, const void *bytes, size_t n);        /* sticky failure */
MUST_USE enum status file_writer_commit(struct file_writer *w, struct error *err); /* fsync, rename, fsync folder */
void file_writer_abort(struct file_writer *w); /* removes the temporary file; harmless after commit */

enum file_kind { FILE_ABSENT, FILE_REGULAR, FILE_FOLDER, FILE_OTHER };
enum file_kind file_kind(const char *path);
bool file_same(const char *a, const char *b); /* two names of one existing file or folder */
MUST_USE enum status file_make_folders(const char *path, struct error *err); /* like mkdir -p */
/* The last folder of the path is made for this user alone; ST_DENIED when it is there and others may write into it. */
MUST_USE enum status file_make_own_folder(const char *path, struct error *err);
int file_lock(const char *path); /* -1: somebody else holds it; ends with the process at the latest */
void file_unlock(int lock);
bool file_space(uint64_t *available, uint64_t *total, const char *path); /* bytes of the disk that holds path */
void file_touch(const char *path);                                       /* modified now */
MUST_USE enum status file_remove(const char *path, struct error *err);
/* Calls fn with each entry's name (not . and ..), sorted; stops at the first status that is not ST_OK. */
MUST_USE enum status file_each(const char *folder, enum status (*fn)(void *ctx, const char *name, struct error *err),
                               void *ctx, struct error *err);
/* folder + "/" + name into buf; returns buf. */
char *path_join(char *buf, size_t size, const char *folder, const char *name);
struct str path_base(struct str path); /* "a/b/c.gguf" -> "c.gguf"; trailing slashes ignored */
struct str path_stem(struct str path); /* "a/b/c.gguf" -> "c": a model's default id */

/* Bytes that could be used without swapping; 0 when the system does not say. */
uint64_t memory_available(void);

#endif
