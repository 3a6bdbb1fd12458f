/* status - how every fallible function reports, and the sentence people read
 *
 *   return fail(err, ST_CORRUPT, "gguf: tensor %s ends at byte %zu of a %zu-byte file", name, end, size);
 *
 * Status for programs, sentence for people: what, where, expected, found, what to do. Codes are never renumbered.
 * Threads  a struct error belongs to its caller
 */
#ifndef BASE_STATUS_H
#define BASE_STATUS_H

enum status {
    ST_OK,
    ST_INVALID,     /* argument or request */
    ST_CORRUPT,     /* damaged file or message */
    ST_UNSUPPORTED, /* understood, not offered */
    ST_NOT_FOUND,
    ST_DENIED,
    ST_LIMIT,
    ST_NOMEM,
    ST_IO,
    ST_CANCELED,
    ST_TIMEOUT,
    ST_DEVICE,
    ST_COUNT
};

struct error {
    enum status status;
    char text[512];
};

/* Fills *err (may be NULL) and returns st. Always one line: control characters are replaced by spaces. */
enum status fail(struct error *err, enum status st, const char *fmt, ...) __attribute__((format(printf, 3, 4), cold));
/* Out of memory: the one message that needs no format. */
enum status fail_nomem(struct error *err, const char *what) __attribute__((cold));
/* Puts "prefix: " before the sentence already in *err; returns err->status. */
enum status fail_context(struct error *err, const char *fmt, ...) __attribute__((format(printf, 2, 3), cold));

struct status_row {
    const char *name; /* "corrupt" */
    int http, exit_code;
    const char *grpc;
};
const struct status_row *status_row(enum status st);

#define TRY(call)                                                                                                      \
    do {                                                                                                               \
        enum status try_status_ = (call);                                                                              \
        if (try_status_ != ST_OK)                                                                                      \
            return try_status_;                                                                                        \
    } while (0)

/* What the analyzer cannot see from a caller: these never return ST_OK. */
#ifdef __clang_analyzer__
#define fail(err, st, ...)     ((fail)(err, st, __VA_ARGS__), (st))
#define fail_nomem(err, what)  ((fail_nomem)(err, what), ST_NOMEM)
#define fail_context(err, ...) ((fail_context)(err, __VA_ARGS__), ST_INVALID)
#endif

#define MUST_USE __attribute__((warn_unused_result))

#endif
