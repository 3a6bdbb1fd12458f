/* fuzz_spill - any bytes as a file of a KV block: what is believed must be whole, of this model, with a right checksum;
 * so the checksum is put right first, half of the time. */
#include "base/checksum.h"
#include "base/mem.h"
#include "engine/engine_private.h"

enum { BLOCK = 64, KEY_AT = 72 };

static void put_right(uint8_t *file, size_t size)
{
    uint64_t key[2] = {0, 0}, sum;
    if (size < KEY_AT + sizeof key + 8)
        return;
    memcpy(key, file + KEY_AT, sizeof key);
    sum = checksum64(file, size - 8, key[0] ^ key[1]);
    memcpy(file + size - 8, &sum, 8);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char model[SHA256_TEXT];
    struct spill_head head;
    const uint8_t *block;
    uint8_t *file = mem_alloc(size + 1);
    if (!file)
        return 0;
    memcpy(file, data, size);
    memset(model, 'a', sizeof model);
    model[sizeof model - 1] = 0;
    if (size % 2)
        put_right(file, size);
    if (spill_parse(&head, &block, str_n(file, size), model, BLOCK, NULL) == ST_OK)
        for (size_t i = 0; i < BLOCK; i++)
            if (block + i < file || block + i >= file + size)
                __builtin_trap();
    mem_free(file);
    return 0;
}
