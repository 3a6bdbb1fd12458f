/* sha256 - FIPS 180-4, by the system's libcrypto: what a fingerprint is made of
 *
 *   struct sha256 s; sha256_begin(&s); sha256_add(&s, data, n); ... ok = sha256_end(digest, &s);
 *
 * Errors   sticky: sha256_end says false when anything failed (out of memory). sha256_end must be called after begin
 * Threads  one owner
 */
#ifndef BASE_SHA256_H
#define BASE_SHA256_H

#include "base/str.h"

enum { SHA256_BYTES = 32, SHA256_TEXT = 2 * SHA256_BYTES + 1 };
struct sha256 {
    void *state; /* NULL: failed */
};
void sha256_begin(struct sha256 *s);
void sha256_add(struct sha256 *s, const void *data, size_t n);
bool sha256_end(uint8_t digest[SHA256_BYTES], struct sha256 *s);
bool sha256_of(uint8_t digest[SHA256_BYTES], struct str text);
void sha256_text(char text[SHA256_TEXT], const uint8_t digest[SHA256_BYTES]); /* 64 hexadecimal digits */
bool sha256_read(uint8_t digest[SHA256_BYTES], struct str text); /* the same back; false: these are not 64 of them */

#endif
