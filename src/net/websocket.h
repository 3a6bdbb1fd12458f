/* websocket - a server's half of RFC 6455: messages from bytes as they come, and frames to write
 *
 *   if (websocket_accept(key, request, err) == ST_OK) ... 101 with Sec-WebSocket-Accept: key
 *   used = websocket_feed(&w, bytes, n);     // stops after every event
 *   w.event == WEBSOCKET_MESSAGE             // w.message is whole and, when text, valid UTF-8; feed on for the next
 *   w.event == WEBSOCKET_PING                // answer with websocket_write(&out, WEBSOCKET_OP_PONG, payload)
 *   w.event == WEBSOCKET_CLOSE               // the peer's code is w.code; answer with websocket_write_close, then end
 *   w.event == WEBSOCKET_BAD                 // w.code says why: write_close it, then end; nothing more is read
 *
 * Refused, because the standard does: unmasked frames, reserved bits (no extension is offered) and opcodes, lengths not
 * in their shortest form, fragmented or long control frames, a continuation of nothing, a new message inside another,
 * text that is not UTF-8, close codes nobody may send, messages longer than message_max.
 * The same bytes give the same events however they are cut into pieces.
 *
 * Memory   one message and one control frame, within limits; `message` and `control` live until the next feed
 * Source   RFC 6455
 */
#ifndef NET_WEBSOCKET_H
#define NET_WEBSOCKET_H

#include "net/http1.h"

enum { WEBSOCKET_KEY = 29, WEBSOCKET_CONTROL_MAX = 125, WEBSOCKET_HEAD_MAX = 10 };
enum websocket_op {
    WEBSOCKET_OP_MORE = 0,
    WEBSOCKET_OP_TEXT = 1,
    WEBSOCKET_OP_BINARY = 2,
    WEBSOCKET_OP_CLOSE = 8,
    WEBSOCKET_OP_PING = 9,
    WEBSOCKET_OP_PONG = 10
};
enum websocket_event {
    WEBSOCKET_NOTHING,
    WEBSOCKET_MESSAGE,
    WEBSOCKET_PING,
    WEBSOCKET_PONG,
    WEBSOCKET_CLOSE,
    WEBSOCKET_BAD
};

struct websocket {
    enum websocket_event event;
    struct buf message; /* MESSAGE */
    bool binary;
    struct buf control; /* PING, PONG: the payload; CLOSE: the reason */
    int code;           /* CLOSE: 1005 when none was sent; BAD: what to close with */
    /* private */
    size_t message_max;
    unsigned char head[14], mask[4];
    unsigned n_head, n_need;
    uint64_t left, done; /* of the frame's payload */
    bool in_payload, in_message, final;
    enum websocket_op op;
};

/* key: what Sec-WebSocket-Accept must hold, with a final NUL. ST_INVALID says what is missing. */
MUST_USE enum status websocket_accept(char key[WEBSOCKET_KEY], const struct http1 *request, struct error *err);
void websocket_init(struct websocket *w, size_t message_max);
void websocket_free(struct websocket *w);
size_t websocket_feed(struct websocket *w, const char *bytes, size_t n);

/* A server's frames are whole and not masked. */
size_t websocket_head(unsigned char out[WEBSOCKET_HEAD_MAX], enum websocket_op op, uint64_t payload); /* its length */
void websocket_write(struct buf *out, enum websocket_op op, struct str payload);
void websocket_write_close(struct buf *out, int code, struct str reason); /* the reason is cut to what fits */

#endif
