/* file - the disk seam: read, map, and write so that a reader sees the old bytes or the new ones, never a mixture
 *
 * Errors   ST_NOT_FOUND, ST_DENIED, ST_IO with the path and the system's reason
 */
#ifndef BASE_FILE_H
#define BASE_FILE_H

#include "base/status.h"
#include "base/str.h"

struct mapping {
    const uint8_t *data; /* read-only, private; never NULL after file_map, also for an empty file */
    size_t size;
};

MUST_USE enum status file_map(struct mapping *out, const char *path, struct error *err);
void file_unmap(struct mapping *m);
/* Appends the whole file; ST_LIMIT when it is larger than `max` bytes. "-" is standard input. */
MUST_USE enum status file_read_all(struct buf *out, const char *path, size_t max, struct error *err);
MUST_USE enum status file_write_all(const char *path, struct str bytes,
                                    struct error *err); /* atomic: temp, fsync, rename */

/* Streamed atomic writing: nothing is visible under `path` before commit. A device or a pipe is written in place. */
struct file_writer {
    int fd;
    uint64_t offset;
    char *path, *temp; /* temp NULL: in place */
    bool failed;
    int saved_errno;
};
MUST_USE enum status file_writer_open(struct file_writer *w, const char *path, struct error *err);
void file_writer_write(struct file_writer *w, const void *bytes, size_t n);        /* sticky failure */
MUST_USE enum status file_writer_commit(struct file_writer *w, struct error *err); /* fsync, rename, fsync folder */
void file_writer_abort(struct file_writer *w); /* removes the temporary file; harmless after commit */

enum file_kind { FILE_ABSENT, FILE_REGULAR, FILE_FOLDER, FILE_OTHER };
enum file_kind file_kind(const char *path);
bool file_same(const char *a, const char *b); /* two names of one existing file or folder */
MUST_USE enum status file_make_folders(const char *path, struct error *err); /* like mkdir -p */
MUST_USE enum status file_remove(const char *path, struct error *err);
/* Calls fn with each entry's name (not . and ..), sorted; stops at the first status that is not ST_OK. */
MUST_USE enum status file_each(const char *folder, enum status (*fn)(void *ctx, const char *name, struct error *err),
                               void *ctx, struct error *err);
/* folder + "/" + name into buf; returns buf. */
char *path_join(char *buf, size_t size, const char *folder, const char *name);
struct str path_base(struct str path); /* "a/b/c.gguf" -> "c.gguf"; trailing slashes ignored */
struct str path_stem(struct str path); /* "a/b/c.gguf" -> "c": a model's default id */

#endif
