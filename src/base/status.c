#include "base/status.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const struct status_row rows[ST_COUNT] = {
    [ST_OK] = {"ok", 200, 0, "OK"},
    [ST_INVALID] = {"invalid", 400, 2, "INVALID_ARGUMENT"},
    [ST_CORRUPT] = {"corrupt", 422, 65, "DATA_LOSS"},
    [ST_UNSUPPORTED] = {"unsupported", 501, 69, "UNIMPLEMENTED"},
    [ST_NOT_FOUND] = {"not_found", 404, 66, "NOT_FOUND"},
    [ST_DENIED] = {"denied", 403, 77, "PERMISSION_DENIED"},
    [ST_LIMIT] = {"limit", 429, 75, "RESOURCE_EXHAUSTED"},
    [ST_NOMEM] = {"nomem", 503, 71, "RESOURCE_EXHAUSTED"},
    [ST_IO] = {"io", 500, 74, "UNAVAILABLE"},
    [ST_CANCELED] = {"canceled", 499, 130, "CANCELLED"},
    [ST_TIMEOUT] = {"timeout", 504, 124, "DEADLINE_EXCEEDED"},
    [ST_DEVICE] = {"device", 503, 70, "UNAVAILABLE"},
};

const struct status_row *status_row(enum status st)
{
    return &rows[(unsigned)st < ST_COUNT ? st : ST_DEVICE];
}

/* Untrusted names end up in messages; keep a message one line of printable bytes. */
static void one_line(char *text)
{
    for (; *text; text++)
        if ((unsigned char)*text < 0x20 || *text == 0x7f)
            *text = ' ';
}

enum status(fail)(struct error *err, enum status st, const char *fmt, ...)
{
    if (err) {
        va_list ap;
        va_start(ap, fmt);
        vsnprintf(err->text, sizeof err->text, fmt, ap);
        va_end(ap);
        one_line(err->text);
        err->status = st;
    }
    return st;
}

enum status(fail_nomem)(struct error *err, const char *what)
{
    return fail(err, ST_NOMEM, "%s: out of memory", what);
}

enum status(fail_context)(struct error *err, const char *fmt, ...)
{
    if (!err)
        return ST_INVALID;
    char prefix[sizeof err->text], old[sizeof err->text];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(prefix, sizeof prefix, fmt, ap);
    va_end(ap);
    memcpy(old, err->text, sizeof old);
    snprintf(err->text, sizeof err->text, "%.200s: %.300s", prefix, old);
    one_line(err->text);
    return err->status;
}
