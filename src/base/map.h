/* map - open-addressed hash map from byte strings to 64-bit values; keys are borrowed, hashing is seeded
 *
 * Memory   24 bytes a slot, at most 3/4 full; keys must outlive the map
 * Threads  one owner; concurrent map_find is fine while nobody writes
 */
#ifndef BASE_MAP_H
#define BASE_MAP_H

#include "base/str.h"

struct map_slot {
    const char *key; /* NULL = empty */
    uint32_t len, hash;
    uint64_t value;
};
struct map {
    struct map_slot *slots;
    size_t count, mask; /* mask + 1 slots */
    uint64_t seed;
};

bool map_init(struct map *m, size_t expected); /* false when out of memory */
void map_free(struct map *m);
bool map_put(struct map *m, struct str key, uint64_t value); /* inserts or replaces; false when out of memory */
const uint64_t *map_find(const struct map *m, struct str key);

#endif
