#include "base/sha256.h"

#include "base/fault.h"

#include <openssl/evp.h>

/* libcrypto allocates on its own: the seam is here. */
void sha256_begin(struct sha256 *s)
{
    EVP_MD_CTX *state = fault_hit(FAULT_ALLOC) ? NULL : EVP_MD_CTX_new();
    if (state && EVP_DigestInit_ex(state, EVP_sha256(), NULL) != 1) {
        EVP_MD_CTX_free(state);
        state = NULL;
    }
    s->state = state;
}

void sha256_add(struct sha256 *s, const void *data, size_t n)
{
    if (s->state && EVP_DigestUpdate(s->state, data, n) != 1) {
        EVP_MD_CTX_free(s->state);
        s->state = NULL;
    }
}

bool sha256_end(uint8_t digest[SHA256_BYTES], struct sha256 *s)
{
    bool good = s->state && EVP_DigestFinal_ex(s->state, digest, NULL) == 1;
    EVP_MD_CTX_free(s->state);
    s->state = NULL;
    return good;
}

bool sha256_of(uint8_t digest[SHA256_BYTES], struct str text)
{
    struct sha256 s;
    sha256_begin(&s);
    sha256_add(&s, text.ptr, text.len);
    return sha256_end(digest, &s);
}

void sha256_text(char text[SHA256_TEXT], const uint8_t digest[SHA256_BYTES])
{
    static const char hex[] = "0123456789abcdef";
    for (int i = 0; i < SHA256_BYTES; i++) {
        text[2 * i] = hex[digest[i] >> 4];
        text[2 * i + 1] = hex[digest[i] & 15];
    }
    text[2 * SHA256_BYTES] = 0;
}

bool sha256_read(uint8_t digest[SHA256_BYTES], struct str text)
{
    if (text.len != 2 * SHA256_BYTES)
        return false;
    for (size_t i = 0; i < SHA256_BYTES; i++) {
        int high = hex_digit(text.ptr[2 * i]), low = hex_digit(text.ptr[2 * i + 1]);
        if (high < 0 || low < 0)
            return false;
        digest[i] = (uint8_t)(high << 4 | low);
    }
    return true;
}
