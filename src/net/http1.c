/* Invariants
 * 1. head holds exactly the bytes of the head; every str of the head points into it, set once, when it is complete.
 * 2. A decision depends only on the bytes before it, never on how they were cut: scan_head goes byte by byte, and lines
 *    are judged when they are whole.
 * 3. body.len <= limits.body_max, head.len <= limits.head_max, line.len <= HTTP1_CHUNK_LINE_MAX or trailers' rest.
 *
 *   HEAD --scan_head, parse_head--> HEAD_DONE --feed--> BODY --body_*--> DONE
 *     \______________________________\__________________\____ bad ____> BAD
 */
#include "net/http1.h"

#include <strings.h>

/* Bytes of a token (RFC 9110 section 5.6.2): methods and header names. */
static bool is_token(unsigned char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
           (c && strchr("!#$%&'*+-.^_`|~", c));
}

static bool all_token(struct str s)
{
    for (size_t i = 0; i < s.len; i++)
        if (!is_token((unsigned char)s.ptr[i]))
            return false;
    return s.len > 0;
}

bool str_eq_nocase(struct str a, struct str b)
{
    return a.len == b.len && (a.len == 0 || strncasecmp(a.ptr, b.ptr, a.len) == 0);
}

static bool bad(struct http1 *p, int status, const char *text)
{
    p->state = HTTP1_BAD;
    p->fault = (struct http1_fault){status, text};
    return false;
}

void http1_init(struct http1 *p, enum http1_kind kind, const struct http1_limits *limits)
{
    *p = (struct http1){.kind = kind, .limits = *limits, .eol = 2};
}

void http1_reset(struct http1 *p)
{
    struct http1 old = *p;
    http1_init(p, old.kind, &old.limits);
    p->head = old.head;
    p->body = old.body;
    p->line = old.line;
    buf_clear(&p->head);
    buf_clear(&p->line);
    if (p->body.capacity > 65536) /* an idle connection must not keep a 16 MB body */
        buf_free(&p->body);
    buf_clear(&p->body);
}

void http1_free(struct http1 *p)
{
    buf_free(&p->head);
    buf_free(&p->body);
    buf_free(&p->line);
}

bool http1_started(const struct http1 *p)
{
    return p->head.len > 0 || p->eol != 2 || p->state != HTTP1_HEAD;
}

struct str http1_header(const struct http1 *p, const char *name)
{
    struct str want = str_of(name);
    for (int i = 0; i < p->n_header; i++)
        if (str_eq_nocase(p->headers[i].name, want))
            return p->headers[i].value;
    return (struct str){NULL, 0};
}

/* ---- head ---- */

/* Takes bytes up to the empty line. Line ends are exactly CRLF; other control bytes but TAB are refused here. */
static size_t scan_head(struct http1 *p, const char *bytes, size_t n, bool *complete)
{
    size_t i = 0, start = 0;
    *complete = false;
    while (i < n && !*complete) {
        unsigned char c = (unsigned char)bytes[i];
        bool after_cr = p->eol == 1 || p->eol == 3;
        if (after_cr != (c == '\n') || (c < 0x20 && c != '\n' && c != '\r' && c != '\t') || c == 0x7f) {
            bad(p, 400,
                after_cr ? "a carriage return stands alone" : "a control character or bare line feed in the head");
            return i;
        }
        i++;
        if (c == '\r')
            p->eol = p->eol == 2 ? 3 : 1;
        else if (c == '\n')
            *complete = p->eol == 3, p->eol = 2;
        else
            p->eol = 0;
        if (*complete &&
            p->head.len + (i - start) == 2) { /* one empty line before the message (RFC 9112 section 2.2) */
            *complete = false;
            buf_clear(&p->head);
            start = i;
            if (p->empty_lines++ > 0) {
                bad(p, 400, "empty lines where a message should begin");
                return i;
            }
        } else if (p->head.len + (i - start) > p->limits.head_max) {
            bad(p, 431, "the head is larger than this server takes");
            return i;
        }
    }
    buf_append(&p->head, bytes + start, i - start);
    if (p->head.failed)
        bad(p, 503, "out of memory");
    return i;
}

/* A line without its CRLF, and moves on. The scanner has made sure that every line ends so. */
static struct str take_line(struct str *rest)
{
    const char *end = memchr(rest->ptr, '\r', rest->len);
    struct str line = {rest->ptr, (size_t)(end - rest->ptr)};
    *rest = str_from(*rest, line.len + 2);
    return line;
}

static bool parse_version(struct http1 *p, struct str v)
{
    if (v.len != 8 || memcmp(v.ptr, "HTTP/", 5) != 0 || v.ptr[6] != '.' || v.ptr[5] < '0' || v.ptr[5] > '9' ||
        v.ptr[7] < '0' || v.ptr[7] > '9')
        return bad(p, 400, "the first line does not end with HTTP/1.1");
    if (v.ptr[5] != '1' || v.ptr[7] > '1')
        return bad(p, 505, "only HTTP/1.1 and HTTP/1.0 are spoken here");
    p->minor = v.ptr[7] - '0';
    return true;
}

/* "http://host/path" is as good as "/path" (RFC 9112 section 3.2.2). */
static struct str strip_authority(struct str target)
{
    static const struct str schemes[] = {{"http://", 7}, {"https://", 8}};
    for (int i = 0; i < 2; i++)
        if (target.len > schemes[i].len && str_eq_nocase(str_n(target.ptr, schemes[i].len), schemes[i])) {
            const char *slash = memchr(target.ptr + schemes[i].len, '/', target.len - schemes[i].len);
            return slash ? str_from(target, (size_t)(slash - target.ptr)) : STR("/");
        }
    return target;
}

static bool parse_request_line(struct http1 *p, struct str line)
{
    const char *first = memchr(line.ptr, ' ', line.len);
    const char *second = first ? memchr(first + 1, ' ', line.len - (size_t)(first + 1 - line.ptr)) : NULL;
    if (!second)
        return bad(p, 400, "the first line is not METHOD TARGET VERSION");
    p->method = str_n(line.ptr, (size_t)(first - line.ptr));
    p->target = str_n(first + 1, (size_t)(second - first - 1));
    if (!all_token(p->method) || p->method.len > 32)
        return bad(p, 400, "the method is not a token");
    if (p->target.len > HTTP1_TARGET_MAX)
        return bad(p, 414, "the request target is too long");
    for (size_t i = 0; i < p->target.len; i++)
        if ((unsigned char)p->target.ptr[i] <= 0x20 || (unsigned char)p->target.ptr[i] >= 0x7f)
            return bad(p, 400, "the request target has a character that must be percent-encoded");
    p->path = strip_authority(p->target);
    if (p->path.len == 0 || (p->path.ptr[0] != '/' && !str_is(p->path, "*")))
        return bad(p, 400, "the request target does not begin with a slash");
    const char *mark = memchr(p->path.ptr, '?', p->path.len);
    if (mark) {
        p->query = str_from(p->path, (size_t)(mark + 1 - p->path.ptr));
        p->path.len = (size_t)(mark - p->path.ptr);
    }
    return parse_version(p, str_from(line, (size_t)(second + 1 - line.ptr)));
}

static bool parse_status_line(struct http1 *p, struct str line)
{
    if (line.len < 12 || line.ptr[8] != ' ' || (line.len > 12 && line.ptr[12] != ' '))
        return bad(p, 400, "the first line is not VERSION STATUS REASON");
    for (int i = 9; i < 12; i++) {
        if (line.ptr[i] < '0' || line.ptr[i] > '9')
            return bad(p, 400, "the status is not three digits");
        p->status = p->status * 10 + (line.ptr[i] - '0');
    }
    return parse_version(p, str_n(line.ptr, 8));
}

/* Twice one of these, and two readers may obey different ones. */
static bool must_be_single(struct str name)
{
    static const char *const names[] = {"host",          "content-length", "transfer-encoding",
                                        "authorization", "content-type",   "x-api-key",
                                        "expect",        "origin"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (str_eq_nocase(name, str_of(names[i])))
            return true;
    return false;
}

static struct str trim_blanks(struct str s)
{
    while (s.len && (*s.ptr == ' ' || *s.ptr == '\t'))
        s = str_from(s, 1);
    while (s.len && (s.ptr[s.len - 1] == ' ' || s.ptr[s.len - 1] == '\t'))
        s.len--;
    return s;
}

static bool parse_header_line(struct http1 *p, struct str line)
{
    if (*line.ptr == ' ' || *line.ptr == '\t')
        return bad(p, 400, "a header line is folded");
    const char *colon = memchr(line.ptr, ':', line.len);
    struct str name = {line.ptr, colon ? (size_t)(colon - line.ptr) : 0};
    if (!all_token(name))
        return bad(p, 400, "a header line is not NAME: VALUE");
    if (p->n_header == HTTP1_HEADERS_MAX)
        return bad(p, 431, "more headers than this server takes");
    for (int i = 0; i < p->n_header && must_be_single(name); i++)
        if (str_eq_nocase(p->headers[i].name, name))
            return bad(p, 400, "a header that must stand once is repeated");
    p->headers[p->n_header++] = (struct http1_header){name, trim_blanks(str_from(line, name.len + 1))};
    return true;
}

static bool parse_length(struct http1 *p, struct str value)
{
    uint64_t n = 0;
    if (value.len == 0 || value.len > 19)
        return bad(p, 400, "Content-Length is not a number");
    for (size_t i = 0; i < value.len; i++) {
        if (value.ptr[i] < '0' || value.ptr[i] > '9')
            return bad(p, 400, "Content-Length is not a number");
        n = n * 10 + (uint64_t)(value.ptr[i] - '0'); /* 19 digits fit 64 bits */
    }
    p->content_length = n;
    return true;
}

static bool list_has(struct str list, const char *word)
{
    while (list.len) {
        const char *comma = memchr(list.ptr, ',', list.len);
        size_t n = comma ? (size_t)(comma - list.ptr) : list.len;
        if (str_eq_nocase(trim_blanks(str_n(list.ptr, n)), str_of(word)))
            return true;
        list = str_from(list, n + 1);
    }
    return false;
}

static bool connection_has(const struct http1 *p, const char *word)
{
    for (int i = 0; i < p->n_header; i++)
        if (str_eq_nocase(p->headers[i].name, STR("connection")) && list_has(p->headers[i].value, word))
            return true;
    return false;
}

/* Who knows where the body ends (RFC 9112 section 6.3), with everything ambiguous refused. */
static bool decide_framing(struct http1 *p)
{
    struct str length = http1_header(p, "content-length"), coding = http1_header(p, "transfer-encoding");
    bool bodiless = p->kind == HTTP1_RESPONSE && (p->status < 200 || p->status == 204 || p->status == 304);
    if (length.ptr && coding.ptr)
        return bad(p, 400, "Content-Length and Transfer-Encoding together");
    if (length.ptr && !parse_length(p, length))
        return false;
    if (coding.ptr) {
        if (p->minor == 0)
            return bad(p, 400, "Transfer-Encoding in HTTP/1.0");
        if (!str_eq_nocase(coding, STR("chunked")))
            return bad(p, 501, "only the transfer coding chunked is understood");
        p->framing = HTTP1_CHUNKED;
    } else if (length.ptr) {
        p->framing = HTTP1_LENGTH;
        p->left = p->content_length;
    } else {
        p->framing = p->kind == HTTP1_RESPONSE ? HTTP1_UNTIL_CLOSE : HTTP1_NO_BODY;
    }
    if (bodiless)
        p->framing = HTTP1_NO_BODY;
    if (p->framing == HTTP1_LENGTH && p->content_length > p->limits.body_max)
        return bad(p, 413, "the body is larger than this server takes");
    return true;
}

static bool parse_head(struct http1 *p)
{
    struct str rest = {p->head.ptr, p->head.len - 2}, line = take_line(&rest);
    if (p->kind == HTTP1_REQUEST ? !parse_request_line(p, line) : !parse_status_line(p, line))
        return false;
    while (rest.len)
        if (!parse_header_line(p, take_line(&rest)))
            return false;
    struct str expect = http1_header(p, "expect");
    p->keep_alive = p->minor == 1 ? !connection_has(p, "close") : connection_has(p, "keep-alive");
    if (p->kind == HTTP1_REQUEST && p->minor == 1 && !http1_header(p, "host").ptr)
        return bad(p, 400, "the Host header is missing");
    if (expect.ptr && !str_eq_nocase(expect, STR("100-continue")))
        return bad(p, 417, "the only expectation understood is 100-continue");
    p->expect_continue = expect.ptr && p->minor == 1;
    return decide_framing(p);
}

/* ---- body ---- */

static bool body_take(struct http1 *p, const char *bytes, size_t n)
{
    p->body_total += n;
    buf_append(&p->body, bytes, n);
    return p->body.failed ? bad(p, 503, "out of memory") : true;
}

/* Collects one CRLF-ended line into p->line; true when it is whole (without its end). */
static bool take_chunk_line(struct http1 *p, const char *bytes, size_t n, size_t *used, size_t max)
{
    while (*used < n) {
        char c = bytes[(*used)++];
        bool after_cr = p->line.len && p->line.ptr[p->line.len - 1] == '\r';
        if (after_cr != (c == '\n') || ((unsigned char)c < 0x20 && c != '\n' && c != '\r' && c != '\t') || c == 0x7f)
            return bad(p, 400, "a control character or bare line end between chunks");
        if (c == '\n') {
            p->line.len--;
            return true;
        }
        if (p->line.len > max)
            return bad(p, 400, "a chunk's size line or the trailer is too long");
        buf_append_char(&p->line, c);
        if (p->line.failed)
            return bad(p, 503, "out of memory");
    }
    return false;
}

/* 1*HEXDIG [ ";" extension ], the extension dropped. */
static bool parse_chunk_size(struct http1 *p)
{
    size_t i = 0;
    uint64_t size = 0;
    for (; i < p->line.len && hex_digit(p->line.ptr[i]) >= 0; i++) {
        if (size >> 60)
            return bad(p, 400, "a chunk size does not fit 64 bits");
        size = size << 4 | (uint64_t)hex_digit(p->line.ptr[i]);
    }
    if (i == 0 || i > 16 || (i < p->line.len && p->line.ptr[i] != ';'))
        return bad(p, 400, "a chunk size is not a hexadecimal number");
    if (size > p->limits.body_max || p->body_total > p->limits.body_max - size)
        return bad(p, 413, "the body is larger than this server takes");
    p->left = size;
    p->chunk = size ? CHUNK_DATA : CHUNK_TRAILER_LINE;
    buf_clear(&p->line);
    return true;
}

static void trailer_line(struct http1 *p)
{
    if (p->line.len == 0) {
        p->state = HTTP1_DONE;
        return;
    }
    const char *colon = memchr(p->line.ptr, ':', p->line.len);
    if (!colon || !all_token(str_n(p->line.ptr, (size_t)(colon - p->line.ptr)))) {
        bad(p, 400, "a trailer line is not NAME: VALUE");
        return;
    }
    p->trailer_bytes += p->line.len;
    if (p->trailer_bytes > HTTP1_TRAILERS_MAX)
        bad(p, 431, "the trailers are larger than this server takes");
    buf_clear(&p->line);
}

static size_t feed_data(struct http1 *p, const char *bytes, size_t n)
{
    size_t take = n < p->left ? n : (size_t)p->left;
    if (body_take(p, bytes, take))
        p->left -= take;
    return take;
}

static size_t feed_chunked(struct http1 *p, const char *bytes, size_t n)
{
    size_t used = 0;
    while (used < n && p->state == HTTP1_BODY) {
        switch (p->chunk) {
        case CHUNK_SIZE_LINE:
            if (take_chunk_line(p, bytes, n, &used, HTTP1_CHUNK_LINE_MAX))
                parse_chunk_size(p);
            break;
        case CHUNK_DATA:
            used += feed_data(p, bytes + used, n - used);
            if (p->left == 0)
                p->chunk = CHUNK_DATA_CR;
            break;
        case CHUNK_DATA_CR:
        case CHUNK_DATA_LF:
            if (bytes[used++] != (p->chunk == CHUNK_DATA_CR ? '\r' : '\n'))
                bad(p, 400, "a chunk is longer than its size says");
            p->chunk = p->chunk == CHUNK_DATA_CR ? CHUNK_DATA_LF : CHUNK_SIZE_LINE;
            break;
        case CHUNK_TRAILER_LINE:
            if (take_chunk_line(p, bytes, n, &used, HTTP1_TRAILERS_MAX))
                trailer_line(p);
            break;
        }
    }
    return used;
}

static size_t feed_body(struct http1 *p, const char *bytes, size_t n)
{
    size_t used = 0;
    if (p->framing == HTTP1_CHUNKED) {
        used = feed_chunked(p, bytes, n);
    } else if (p->framing == HTTP1_LENGTH) {
        used = feed_data(p, bytes, n);
        if (p->left == 0 && p->state == HTTP1_BODY)
            p->state = HTTP1_DONE;
    } else { /* until the peer closes */
        if (n > p->limits.body_max || p->body_total > p->limits.body_max - n)
            bad(p, 413, "the body is larger than this client takes");
        else if (body_take(p, bytes, n))
            used = n;
    }
    return used;
}

static void after_head(struct http1 *p)
{
    bool empty = p->framing == HTTP1_NO_BODY || (p->framing == HTTP1_LENGTH && p->left == 0);
    p->state = empty ? HTTP1_DONE : HTTP1_BODY;
}

size_t http1_feed(struct http1 *p, const char *bytes, size_t n)
{
    if (p->state == HTTP1_HEAD_DONE) {
        after_head(p);
        if (p->state == HTTP1_DONE)
            return 0;
    }
    if (p->state == HTTP1_BODY)
        return feed_body(p, bytes, n);
    if (p->state != HTTP1_HEAD)
        return 0;
    bool complete;
    size_t used = scan_head(p, bytes, n, &complete);
    if (p->state == HTTP1_HEAD && complete && parse_head(p))
        p->state = HTTP1_HEAD_DONE;
    return used;
}

void http1_end(struct http1 *p)
{
    if (p->state == HTTP1_HEAD_DONE)
        after_head(p);
    if (p->state == HTTP1_BODY && p->framing == HTTP1_UNTIL_CLOSE)
        p->state = HTTP1_DONE;
    else if (p->state != HTTP1_DONE && p->state != HTTP1_BAD)
        bad(p, 400, "the connection ended inside a message");
}

/* ---- writing ---- */

static const char *http1_reason(int status)
{
    static const struct {
        int status;
        const char *reason;
    } rows[] = {
        {100, "Continue"},
        {200, "OK"},
        {204, "No Content"},
        {304, "Not Modified"},
        {101, "Switching Protocols"},
        {400, "Bad Request"},
        {401, "Unauthorized"},
        {403, "Forbidden"},
        {404, "Not Found"},
        {405, "Method Not Allowed"},
        {408, "Request Timeout"},
        {413, "Content Too Large"},
        {414, "URI Too Long"},
        {417, "Expectation Failed"},
        {422, "Unprocessable Content"},
        {426, "Upgrade Required"},
        {429, "Too Many Requests"},
        {431, "Request Header Fields Too Large"},
        {499, "Client Closed Request"},
        {500, "Internal Server Error"},
        {501, "Not Implemented"},
        {503, "Service Unavailable"},
        {504, "Gateway Timeout"},
        {505, "HTTP Version Not Supported"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (rows[i].status == status)
            return rows[i].reason;
    return "Status";
}

void http1_write_status(struct buf *out, int status)
{
    buf_printf(out, "HTTP/1.1 %d %s\r\n", status, http1_reason(status));
}

void http1_write_header(struct buf *out, const char *name, struct str value)
{
    buf_append_str(out, str_of(name));
    buf_append(out, ": ", 2);
    for (size_t i = 0; i < value.len; i++) {
        unsigned char c = (unsigned char)value.ptr[i];
        buf_append_char(out, c < 0x20 || c == 0x7f ? ' ' : (char)c);
    }
    buf_append(out, "\r\n", 2);
}

void http1_write_chunk(struct buf *out, struct str bytes)
{
    char head[18] = "                \r\n", *at = head + 16; /* without printf: this is once a token */
    if (bytes.len == 0 || !buf_reserve(out, sizeof head + bytes.len + 2))
        return;
    for (size_t left = bytes.len; left; left >>= 4)
        *--at = "0123456789abcdef"[left & 15];
    buf_append(out, at, (size_t)(head + sizeof head - at));
    buf_append_str(out, bytes);
    buf_append(out, "\r\n", 2);
}

void http1_write_last_chunk(struct buf *out)
{
    buf_append(out, "0\r\n\r\n", 5);
}
