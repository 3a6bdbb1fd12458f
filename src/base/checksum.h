/* checksum - 64 bits over a span of memory, at memory speed: tells damage, not intent (it is no cryptographic hash)
 *
 * Any change within one 8-byte word is found with certainty, any other with all but one chance in 2^64. The value is
 * part of file formats (the panel cache): it must never change.
 */
#ifndef BASE_CHECKSUM_H
#define BASE_CHECKSUM_H

#include <stddef.h>
#include <stdint.h>

uint64_t checksum64(const void *data, size_t n, uint64_t seed);

#endif
