/* checkpoint - a folder that is complete or absent
 *
 * Written as checkpoint-N.tmp, every file synced, then renamed: a kill at any moment leaves the older checkpoints and
 * at most a .tmp folder, which the next save removes. model.safetensors is F32, so parameters come back with their
 * bits; moments are stored as the panels they live in (m.NAME, v.NAME), exact for the same reason.
 */
#include "train/train_private.h"

#include "base/fault.h"
#include "base/file.h"
#include "base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

const char *train_cstr(char *buf, size_t size, struct str s)
{
    snprintf(buf, size, "%.*s", (int)(s.len < size ? s.len : size - 1), s.ptr ? s.ptr : "");
    return buf;
}

enum { PATH_BYTES = 4096 };

/* ---- removing ---- */

static enum status remove_entry(void *ctx, const char *name, struct error *err)
{
    char path[PATH_BYTES];
    path_join(path, sizeof path, ctx, name);
    return file_remove(path, err);
}

static enum status folder_remove(const char *path, struct error *err)
{
    if (file_kind(path) == FILE_ABSENT)
        return ST_OK;
    TRY(file_each(path, remove_entry, (void *)path, err));
    return rmdir(path) ? fail(err, ST_IO, "%s: cannot be removed: %s", path, strerror(errno)) : ST_OK;
}

static enum status folder_rename(const char *from, const char *to, struct error *err)
{
    if (fault_hit(FAULT_RENAME) || rename(from, to))
        return fail(err, ST_IO, "%s: cannot be renamed to %s: %s", from, to, strerror(errno));
    char folder[PATH_BYTES];
    struct str base = path_base(str_of(to));
    snprintf(folder, sizeof folder, "%.*s", (int)(base.ptr - to), to);
    int fd = open(*folder ? folder : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC); /* the rename itself must last */
    int failed = fd < 0 || fault_hit(FAULT_FSYNC) || fsync(fd), reason = errno;
    if (fd >= 0)
        close(fd);
    return failed ? fail(err, ST_IO, "%s: its folder cannot be written to disk: %s", to, strerror(reason)) : ST_OK;
}

/* ---- saving ---- */

struct moment {
    const real *data;
    int64_t count;
};

static enum status moment_fill(void *ctx, void *out, struct error *err)
{
    const struct moment *m = ctx;
    (void)err;
    memcpy(out, m->data, (size_t)m->count * sizeof(real));
    return ST_OK;
}

static enum status moments_write(const struct trainer *t, const char *folder, struct error *err)
{
    struct arena a;
    arena_init(&a, 0);
    const size_t n = 2 * (size_t)t->n_param;
    struct tensor_out *out = arena_alloc_zero(&a, n, sizeof *out);
    struct moment *moments = arena_alloc_zero(&a, n, sizeof *moments);
    enum status st = out && moments ? ST_OK : fail_nomem(err, "checkpoint");
    for (size_t i = 0; st == ST_OK && i < n; i++) {
        const struct model_param *p = &t->params[i / 2];
        char name[256];
        snprintf(name, sizeof name, "%c.%s", i % 2 ? 'v' : 'm', p->name);
        const char *copy = arena_copy(&a, str_of(name));
        if (!copy)
            st = fail_nomem(err, "checkpoint");
        moments[i] = (struct moment){i % 2 ? t->v[i / 2] : t->m[i / 2], p->count};
        out[i] = (struct tensor_out){.name = str_of(copy),
                                     .type = sizeof(real) == 4 ? DT_F32 : DT_F64,
                                     .n_dim = 1,
                                     .shape = {p->count},
                                     .fill = moment_fill,
                                     .ctx = &moments[i]};
    }
    char sub[PATH_BYTES]; /* safetensors_write names its file model.safetensors: a folder of its own */
    if (st == ST_OK)
        st = file_make_folders(path_join(sub, sizeof sub, folder, "optimizer"), err);
    if (st == ST_OK)
        st = safetensors_write(sub, out, n, 0, err);
    arena_free(&a);
    return st;
}

static enum status state_write(const struct train_state *s, const char *folder, struct error *err)
{
    struct buf text = {0};
    struct json_writer w;
    json_writer_init(&w, &text);
    w.indent = 2;
    json_begin_object(&w);
    json_put_int(&w, "version", 1);
    json_put_int(&w, "global_step", s->step);
    json_put_int(&w, "max_steps", s->max_steps);
    json_put_int(&w, "epoch", (int64_t)s->epoch);
    json_put_int(&w, "window", (int64_t)s->window);
    json_put_int(&w, "tokens", (int64_t)s->tokens);
    json_put_int(&w, "data_hash", (int64_t)s->data_hash);
    json_put_real(&w, "time_s", s->time_s);
    json_put_int(&w, "numerics_version", NUMERICS_VERSION);
    json_end_object(&w);
    char path[PATH_BYTES];
    enum status st = text.failed
                         ? fail_nomem(err, "checkpoint")
                         : file_write_all(path_join(path, sizeof path, folder, "state.json"), buf_str(&text), err);
    buf_free(&text);
    return st;
}

static int64_t checkpoint_number(const char *name)
{
    struct str s = str_of(name);
    int64_t n;
    return str_starts(s, STR("checkpoint-")) && str_to_i64(&n, str_from(s, 11)) && n >= 0 ? n : -1;
}

struct scan {
    int64_t newest, oldest;
    size_t count;
};

static enum status scan_entry(void *ctx, const char *name, struct error *err)
{
    struct scan *scan = ctx;
    int64_t n = checkpoint_number(name);
    (void)err;
    if (n < 0)
        return ST_OK;
    scan->count++;
    scan->newest = n > scan->newest ? n : scan->newest;
    scan->oldest = scan->oldest < 0 || n < scan->oldest ? n : scan->oldest;
    return ST_OK;
}

static enum status folder_remove_checkpoint(const char *path, struct error *err)
{
    char sub[PATH_BYTES];
    TRY(folder_remove(path_join(sub, sizeof sub, path, "optimizer"), err));
    return folder_remove(path, err);
}

/* The oldest go until at most `keep` are left. */
static enum status rotate(const char *output_dir, int64_t keep, struct error *err)
{
    for (;;) {
        struct scan scan = {-1, -1, 0};
        char path[PATH_BYTES], name[64];
        TRY(file_each(output_dir, scan_entry, &scan, err));
        if ((int64_t)scan.count <= keep)
            return ST_OK;
        snprintf(name, sizeof name, "checkpoint-%lld", (long long)scan.oldest);
        TRY(folder_remove_checkpoint(path_join(path, sizeof path, output_dir, name), err));
    }
}

enum status checkpoint_save(const struct trainer *t, const struct train_config *c, const struct train_state *s,
                            struct error *err)
{
    char out[PATH_BYTES], name[64], path[PATH_BYTES], temp[PATH_BYTES];
    train_cstr(out, sizeof out, c->output_dir);
    snprintf(name, sizeof name, "checkpoint-%lld", (long long)s->step);
    path_join(path, sizeof path, out, name);
    snprintf(name, sizeof name, "checkpoint-%lld.tmp", (long long)s->step);
    path_join(temp, sizeof temp, out, name);
    if (file_kind(path) == FILE_FOLDER) /* the same step again (a resume that stopped at once): it is the same bytes */
        return ST_OK;
    TRY(folder_remove_checkpoint(temp, err));
    TRY(file_make_folders(temp, err));
    TRY(model_write_hf(t->model, temp, DT_F32, err));
    TRY(moments_write(t, temp, err));
    TRY(state_write(s, temp, err));
    TRY(folder_rename(temp, path, err));
    return rotate(out, c->save_total_limit, err);
}

struct leftovers {
    const char *output_dir;
    bool all; /* complete checkpoints too */
};

static enum status leftover_remove(void *ctx, const char *name, struct error *err)
{
    const struct leftovers *l = ctx;
    char path[PATH_BYTES];
    bool part = str_starts(str_of(name), STR("checkpoint-")) && str_ends(str_of(name), STR(".tmp"));
    if (!part && !(l->all && checkpoint_number(name) >= 0))
        return ST_OK;
    return folder_remove_checkpoint(path_join(path, sizeof path, l->output_dir, name), err);
}

enum status checkpoints_clear(const char *output_dir, bool all, struct error *err)
{
    struct leftovers l = {output_dir, all};
    return file_kind(output_dir) == FILE_FOLDER ? file_each(output_dir, leftover_remove, &l, err) : ST_OK;
}

/* ---- resuming ---- */

enum status checkpoint_newest(char *path, size_t size, const char *output_dir, struct error *err)
{
    struct scan scan = {-1, -1, 0};
    if (file_kind(output_dir) == FILE_FOLDER)
        TRY(file_each(output_dir, scan_entry, &scan, err));
    if (scan.newest < 0)
        return fail(err, ST_NOT_FOUND, "%s: no checkpoint-N folder to resume from", output_dir);
    char name[64];
    snprintf(name, sizeof name, "checkpoint-%lld", (long long)scan.newest);
    path_join(path, size, output_dir, name);
    return ST_OK;
}

enum status checkpoint_state(struct train_state *out, const char *path, struct error *err)
{
    char file[PATH_BYTES];
    struct buf text = {0};
    struct arena a;
    const struct json *doc;
    arena_init(&a, 1 << 20);
    enum status st = file_read_all(&text, path_join(file, sizeof file, path, "state.json"), 1 << 16, err);
    if (st == ST_OK)
        st = json_parse(&doc, &a, buf_str(&text), JSON_UNIQUE, err);
    if (st == ST_OK && json_int(json_get(doc, "version"), 0) != 1)
        st = fail(err, ST_CORRUPT, "%s: version: expected 1", file);
    if (st == ST_OK && json_int(json_get(doc, "numerics_version"), 0) != NUMERICS_VERSION)
        st = fail(err, ST_UNSUPPORTED,
                  "%s: written under another numerics version: it cannot be resumed bit for bit; start a new run from "
                  "its weights",
                  file);
    if (st == ST_OK) {
        *out = (struct train_state){
            .step = json_int(json_get(doc, "global_step"), -1),
            .max_steps = json_int(json_get(doc, "max_steps"), -1),
            .epoch = (uint64_t)json_int(json_get(doc, "epoch"), 0),
            .window = (uint64_t)json_int(json_get(doc, "window"), 0),
            .tokens = (uint64_t)json_int(json_get(doc, "tokens"), 0),
            .data_hash = (uint64_t)json_int(json_get(doc, "data_hash"), 0),
            .time_s = json_real(json_get(doc, "time_s"), 0),
        };
        if (out->step < 0 || (int64_t)out->window < 0 || (int64_t)out->epoch < 0)
            st = fail(err, ST_CORRUPT, "%s: global_step, epoch and window must not be negative", file);
    }
    arena_free(&a);
    buf_free(&text);
    return st;
}

static enum status moment_read(real *out, const struct checkpoint *ck, char which, const struct model_param *p,
                               struct error *err)
{
    char name[256];
    snprintf(name, sizeof name, "%c.%s", which, p->name);
    const struct tensor *t = checkpoint_find(ck, str_of(name));
    if (!t)
        return fail(err, ST_CORRUPT, "%s: %s is missing", ck->path, name);
    if (t->bytes != (size_t)p->count * sizeof(real))
        return fail(err, ST_CORRUPT, "%s: %s has %zu bytes, expected %zu", ck->path, name, t->bytes,
                    (size_t)p->count * sizeof(real));
    memcpy(out, t->data, t->bytes);
    return ST_OK;
}

enum status checkpoint_moments(struct trainer *t, const char *path, struct error *err)
{
    char file[PATH_BYTES], folder[PATH_BYTES];
    struct checkpoint *ck;
    path_join(folder, sizeof folder, path, "optimizer");
    TRY(checkpoint_open(&ck, path_join(file, sizeof file, folder, "model.safetensors"), err));
    enum status st = ST_OK;
    for (int i = 0; st == ST_OK && i < t->n_param; i++) {
        st = moment_read(t->m[i], ck, 'm', &t->params[i], err);
        if (st == ST_OK)
            st = moment_read(t->v[i], ck, 'v', &t->params[i], err);
    }
    checkpoint_close(ck);
    return st;
}
