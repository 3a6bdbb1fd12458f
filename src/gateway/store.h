/* store - responses that were answered, kept in memory for GET and previous_response_id; the least used go first
 *
 * Memory   at most STORE_ENTRIES_MAX responses and `bytes_max` bytes; lost when the server stops
 * Threads  any
 */
#ifndef GATEWAY_STORE_H
#define GATEWAY_STORE_H

#include "base/status.h"
#include "base/str.h"

enum { STORE_ENTRIES_MAX = 4096 };

struct store;
MUST_USE enum status store_create(struct store **out, size_t bytes_max, struct error *err);
void store_destroy(struct store *s);
/* tenant: only who put a response finds it. Takes both texts over, whether it keeps them or not. */
void store_put(struct store *s, uint64_t tenant, struct str id, struct buf *body, struct buf *conversation);
/* Append a copy; false when there is none of that id, or no memory. */
bool store_body(struct store *s, uint64_t tenant, struct str id, struct buf *out);
bool store_conversation(struct store *s, uint64_t tenant, struct str id, struct buf *out);
bool store_delete(struct store *s, uint64_t tenant, struct str id);
bool store_has(struct store *s, uint64_t tenant, struct str id);
/* The events of its stream, with one that is kept: taken over. */
void store_add_events(struct store *s, uint64_t tenant, struct str id, struct buf *events);
bool store_events(struct store *s, uint64_t tenant, struct str id,
                  struct buf *out); /* false also when there are none */

#endif
