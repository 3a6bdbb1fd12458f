#include "net/websocket.h"

#include "base/unicode.h"

#include <openssl/evp.h>

/* ---- handshake ---- */

/* "keep-alive, Upgrade" holds "upgrade" */
static bool list_holds(struct str list, struct str word)
{
    while (list.len) {
        const char *comma = memchr(list.ptr, ',', list.len);
        size_t n = comma ? (size_t)(comma - list.ptr) : list.len;
        if (str_eq_nocase(str_trim(str_n(list.ptr, n)), word))
            return true;
        list = str_from(list, n + 1);
    }
    return false;
}

enum status websocket_accept(char key[WEBSOCKET_KEY], const struct http1 *request, struct error *err)
{
    static const char guid[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    struct str nonce = http1_header(request, "sec-websocket-key"), upgrade = http1_header(request, "upgrade"),
               connection = http1_header(request, "connection"),
               version = http1_header(request, "sec-websocket-version");
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned n = 0;
    char text[64];
    if (!list_holds(upgrade, STR("websocket")) || !list_holds(connection, STR("upgrade")) || request->minor != 1)
        return fail(err, ST_INVALID, "this route speaks WebSocket: connect with one (Upgrade: websocket)");
    if (!str_is(version, "13"))
        return fail(err, ST_INVALID, "Sec-WebSocket-Version: expected 13");
    if (nonce.len != 24 || !str_ends(nonce, STR("==")))
        return fail(err, ST_INVALID, "Sec-WebSocket-Key: expected 16 bytes in base64");
    memcpy(text, nonce.ptr, nonce.len);
    memcpy(text + nonce.len, guid, sizeof guid - 1);
    if (EVP_Digest(text, nonce.len + sizeof guid - 1, digest, &n, EVP_sha1(), NULL) != 1 || n != 20)
        return fail(err, ST_DEVICE, "websocket: no SHA-1 here");
    EVP_EncodeBlock((unsigned char *)key, digest, 20);
    return ST_OK;
}

/* ---- reading ---- */

void websocket_init(struct websocket *w, size_t message_max)
{
    *w = (struct websocket){.message_max = message_max, .n_need = 2};
    w->control.limit = WEBSOCKET_CONTROL_MAX + 1;
}

void websocket_free(struct websocket *w)
{
    buf_free(&w->message);
    buf_free(&w->control);
}

static void bad(struct websocket *w, int code)
{
    w->event = WEBSOCKET_BAD;
    w->code = code;
}

static bool is_control(enum websocket_op op)
{
    return op >= WEBSOCKET_OP_CLOSE;
}

/* The first two bytes: what kind of frame, and how long its head is. */
static void read_kind(struct websocket *w)
{
    unsigned first = w->head[0], length = w->head[1] & 0x7F;
    w->final = first & 0x80;
    w->op = (enum websocket_op)(first & 15);
    bool known = w->op <= WEBSOCKET_OP_BINARY || (w->op >= WEBSOCKET_OP_CLOSE && w->op <= WEBSOCKET_OP_PONG);
    bool control = is_control(w->op), begins = w->op == WEBSOCKET_OP_TEXT || w->op == WEBSOCKET_OP_BINARY;
    if ((first & 0x70) || !known || !(w->head[1] & 0x80) ||
        (control && (!w->final || length > WEBSOCKET_CONTROL_MAX)) || (begins && w->in_message) ||
        (w->op == WEBSOCKET_OP_MORE && !w->in_message)) {
        bad(w, 1002);
        return;
    }
    w->n_need = 2 + 4 + (length == 126 ? 2 : length == 127 ? 8 : 0);
}

static void read_head(struct websocket *w)
{
    unsigned length = w->head[1] & 0x7F, n_length = w->n_need - 6;
    uint64_t size = n_length ? 0 : length;
    for (unsigned i = 0; i < n_length; i++)
        size = size << 8 | w->head[2 + i];
    memcpy(w->mask, w->head + w->n_need - 4, 4);
    bool longer = (n_length == 2 && size < 126) || (n_length == 8 && size <= 0xFFFF) || size >> 63;
    if (longer) {
        bad(w, 1002);
        return;
    }
    if (!is_control(w->op) && (size > w->message_max || w->message.len + size > w->message_max)) {
        bad(w, 1009);
        return;
    }
    if (is_control(w->op)) {
        buf_clear(&w->control);
    } else if (w->op != WEBSOCKET_OP_MORE) {
        buf_clear(&w->message);
        w->binary = w->op == WEBSOCKET_OP_BINARY;
        w->in_message = true;
    }
    w->left = size;
    w->done = 0;
    w->in_payload = true;
}

static bool may_close_with(int code)
{
    return (code >= 1000 && code <= 1003) || (code >= 1007 && code <= 1014) || (code >= 3000 && code <= 4999);
}

static void read_close(struct websocket *w)
{
    struct buf *c = &w->control;
    w->event = WEBSOCKET_CLOSE;
    w->code = 1005;
    if (c->len == 0)
        return;
    if (c->len == 1) {
        bad(w, 1002);
        return;
    }
    w->code = (unsigned char)c->ptr[0] << 8 | (unsigned char)c->ptr[1];
    memmove(c->ptr, c->ptr + 2, c->len - 1);
    c->len -= 2;
    if (!may_close_with(w->code))
        bad(w, 1002);
    else if (!utf8_valid(buf_str(c)))
        bad(w, 1007);
}

static void frame_end(struct websocket *w)
{
    w->in_payload = false;
    w->n_head = 0;
    w->n_need = 2;
    if (w->control.failed || w->message.failed) {
        bad(w, 1011);
    } else if (w->op == WEBSOCKET_OP_CLOSE) {
        read_close(w);
    } else if (is_control(w->op)) {
        w->event = w->op == WEBSOCKET_OP_PING ? WEBSOCKET_PING : WEBSOCKET_PONG;
    } else if (w->final) {
        w->in_message = false;
        w->event = WEBSOCKET_MESSAGE;
        if (!w->binary && !utf8_valid(buf_str(&w->message)))
            bad(w, 1007);
    }
}

static size_t read_payload(struct websocket *w, const char *bytes, size_t n)
{
    struct buf *out = is_control(w->op) ? &w->control : &w->message;
    size_t take = n < w->left ? n : (size_t)w->left, from = out->len;
    buf_append(out, bytes, take);
    for (size_t i = 0; i < take && !out->failed; i++)
        out->ptr[from + i] = (char)(out->ptr[from + i] ^ (char)w->mask[(w->done + i) & 3]);
    w->left -= take;
    w->done += take;
    return take;
}

size_t websocket_feed(struct websocket *w, const char *bytes, size_t n)
{
    size_t used = 0;
    if (w->event == WEBSOCKET_BAD || w->event == WEBSOCKET_CLOSE)
        return n; /* nothing after it counts */
    if (w->event == WEBSOCKET_MESSAGE)
        buf_clear(&w->message);
    w->event = WEBSOCKET_NOTHING;
    while (w->event == WEBSOCKET_NOTHING) {
        if (w->in_payload) {
            used += read_payload(w, bytes + used, n - used);
            if (w->left)
                break;
            frame_end(w);
            continue;
        }
        if (used == n)
            break;
        w->head[w->n_head++] = (unsigned char)bytes[used++];
        if (w->n_head == 2)
            read_kind(w);
        if (w->event == WEBSOCKET_NOTHING && w->n_head == w->n_need && w->n_head > 2)
            read_head(w);
    }
    return used;
}

/* ---- writing ---- */

size_t websocket_head(unsigned char out[WEBSOCKET_HEAD_MAX], enum websocket_op op, uint64_t payload)
{
    unsigned n_length = payload < 126 ? 0 : payload <= 0xFFFF ? 2 : 8;
    out[0] = (unsigned char)(0x80 | op);
    out[1] = (unsigned char)(n_length == 0 ? payload : n_length == 2 ? 126 : 127);
    for (unsigned i = 0; i < n_length; i++)
        out[2 + i] = (unsigned char)(payload >> 8 * (n_length - 1 - i));
    return 2 + n_length;
}

void websocket_write(struct buf *out, enum websocket_op op, struct str payload)
{
    unsigned char head[WEBSOCKET_HEAD_MAX];
    buf_append(out, head, websocket_head(head, op, payload.len));
    buf_append_str(out, payload);
}

void websocket_write_close(struct buf *out, int code, struct str reason)
{
    char payload[WEBSOCKET_CONTROL_MAX];
    size_t n = reason.len < sizeof payload - 2 ? reason.len : sizeof payload - 2;
    while (n < reason.len && n && ((unsigned char)reason.ptr[n] & 0xC0) == 0x80)
        n--; /* not inside a character */
    payload[0] = (char)(code >> 8);
    payload[1] = (char)code;
    memcpy(payload + 2, reason.ptr, n);
    websocket_write(out, WEBSOCKET_OP_CLOSE, str_n(payload, code == 1005 ? 0 : n + 2));
}
