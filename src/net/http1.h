/* http1 - strict HTTP/1.1 messages from bytes as they come, and heads to write
 *
 *   http1_init(&p, HTTP1_REQUEST, &limits);
 *   used = http1_feed(&p, bytes, n);         // stops after the head, after the message, and at the first fault
 *   p.state == HTTP1_HEAD_DONE               // decide (refuse? 100 Continue?), then feed on for the body
 *   p.state == HTTP1_DONE, HTTP1_BAD         // method, target, headers, body; or p.fault with its HTTP status
 *
 * What two parsers could read differently is refused, because that is how requests are smuggled: a bare CR or LF, NUL,
 * a folded line, white space before a colon, more than one Content-Length (equal or not) or Transfer-Encoding, both
 * together, a sign or blank in a length, a chunk size beyond 64 bits, a chunk not followed by CRLF, a second Host.
 * The same bytes give the same result however they are cut into pieces.
 *
 * Memory   head and body are owned by the parser, within limits; every str points into them until reset
 * Errors   fault.status is an HTTP status, fault.text a sentence; after HTTP1_BAD nothing more is read
 * Source   RFC 9112, RFC 9110. Stricter: obs-fold and lists in Content-Length are errors, trailers are dropped
 */
#ifndef NET_HTTP1_H
#define NET_HTTP1_H

#include "base/status.h"
#include "base/str.h"

enum { HTTP1_HEADERS_MAX = 100, HTTP1_TARGET_MAX = 8192, HTTP1_CHUNK_LINE_MAX = 256, HTTP1_TRAILERS_MAX = 8192 };

enum http1_kind { HTTP1_REQUEST, HTTP1_RESPONSE };
enum http1_state { HTTP1_HEAD, HTTP1_HEAD_DONE, HTTP1_BODY, HTTP1_DONE, HTTP1_BAD };
enum http1_framing { HTTP1_NO_BODY, HTTP1_LENGTH, HTTP1_CHUNKED, HTTP1_UNTIL_CLOSE };
enum http1_chunk { CHUNK_SIZE_LINE, CHUNK_DATA, CHUNK_DATA_CR, CHUNK_DATA_LF, CHUNK_TRAILER_LINE };

struct http1_limits {
    size_t head_max, body_max; /* bytes */
};
struct http1_header {
    struct str name, value; /* value without white space around it */
};
struct http1_fault {
    int status; /* 400, 413, 414, 417, 431, 501, 503, 505 */
    const char *text;
};

struct http1 {
    enum http1_state state;
    enum http1_kind kind;
    struct http1_limits limits;
    struct http1_fault fault;
    /* the head */
    struct str method, target, path, query; /* path and query: target split at the first '?' */
    int status;                             /* of a response */
    int minor;                              /* HTTP/1.minor */
    bool keep_alive, expect_continue;
    struct http1_header headers[HTTP1_HEADERS_MAX];
    int n_header;
    enum http1_framing framing;
    uint64_t content_length;
    /* bytes */
    struct buf head, body;
    uint64_t body_total; /* received; the reader of a stream may clear `body` meanwhile */
    /* private to http1.c */
    enum http1_chunk chunk;
    uint64_t left;
    struct buf line;
    size_t trailer_bytes;
    int empty_lines;   /* before the message */
    unsigned char eol; /* line-end scanner: 0 inside, 1 after CR, 2 at a line's start, 3 CR at a line's start */
};

void http1_init(struct http1 *p, enum http1_kind kind, const struct http1_limits *limits);
void http1_reset(struct http1 *p); /* for the next message of the connection; keeps the memory */
void http1_free(struct http1 *p);
size_t http1_feed(struct http1 *p, const char *bytes, size_t n); /* returns how many were taken */
void http1_end(struct http1 *p);           /* the peer closed: completes a body delimited by that, else HTTP1_BAD */
bool http1_started(const struct http1 *p); /* some byte of this message came */

/* Value of the only header of that name (any case); ptr NULL when absent. */
struct str http1_header(const struct http1 *p, const char *name);
bool str_eq_nocase(struct str a, struct str b);

/* ---- writing ---- */
void http1_write_status(struct buf *out, int status);
/* CR, LF and NUL in a value become spaces: no header can be injected. */
void http1_write_header(struct buf *out, const char *name, struct str value);
void http1_write_chunk(struct buf *out, struct str bytes); /* nothing for an empty one: that would end the body */
void http1_write_last_chunk(struct buf *out);

#endif
