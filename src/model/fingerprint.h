/* fingerprint - 256 bits over everything that decides an answer's bits; part of model's door
 *
 * Equal fingerprints: the same request gives the same answer, whatever the processors, threads and load. It is SHA-256
 * of the lines "name value\n" of its parts, in order (docs/replay.md lists them).
 *
 * Whole files are hashed on a thread of their own, once: a file's digest is kept in the cache folder under the file's
 * identity (what the panel cache goes by), so that no start waits for it.
 * Threads  safe
 */
#ifndef MODEL_FINGERPRINT_H
#define MODEL_FINGERPRINT_H

#include "base/sha256.h"
#include "model/model.h"

enum { FINGERPRINT_VERSION = 1, FINGERPRINT_BRIEF = 14 };
enum fingerprint_name { /* in the order in which they are hashed */
                        PART_FINGERPRINT,
                        PART_NUMERICS,
                        PART_DEVICE,
                        PART_KV,
                        PART_EXACT,
                        PART_WEIGHTS,
                        PART_ADAPTER,
                        PART_TOKENIZER,
                        PART_TEMPLATE,
                        PART_DEFAULTS,
                        PART_POSITIONS,
                        PART_TEXTS, /* of models that embed or score */
                        FINGERPRINT_PARTS
};
struct fingerprint {
    char text[SHA256_TEXT];
    struct fingerprint_part {
        const char *name;        /* static */
        char value[SHA256_TEXT]; /* a digest or a word */
    } parts[FINGERPRINT_PARTS];
    int n_part;
};
struct digests;
/* "fp_" and the first ten digits, the form of OpenAI's system_fingerprint; false when there are none. */
bool fingerprint_brief(char brief[FINGERPRINT_BRIEF], const char *text);

/* Hashing begins, unless it did already; a model that came from no file has nothing to hash. */
void bundle_fingerprint_begin(const struct bundle *b);
/* Begins when nobody did, and waits. The bundle's sampling defaults count as they are when it is first asked. adapter:
 * the digest of a LoRA adapter, or NULL. ST_INVALID when a file is not the one that was opened any more; ST_IO. */
MUST_USE enum status bundle_fingerprint(struct fingerprint *out, const struct bundle *b, const char *adapter,
                                        struct error *err);
/* The same; soon after *stop (atomic; may be NULL) is set it waits no longer: ST_CANCELED. */
MUST_USE enum status bundle_fingerprint_unless(struct fingerprint *out, const struct bundle *b, const char *adapter,
                                               const bool *stop, struct error *err);
/* The same without waiting: false when it is not known yet, or cannot be. */
bool bundle_fingerprint_known(struct fingerprint *out, const struct bundle *b, const char *adapter);

#endif
