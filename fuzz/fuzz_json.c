#include "base/json.h"

#include <stdlib.h>

/* Parses; what parses is written, read again and written again: the two writings must be equal. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arena a;
    const struct json *doc, *again;
    struct error err;
    arena_init(&a, 0);
    if (size && json_parse(&doc, &a, str_n(data + 1, size - 1), data[0] & JSON_UNIQUE, &err) == ST_OK) {
        struct buf first = {0}, second = {0};
        struct json_writer w;
        json_writer_init(&w, &first);
        w.indent = data[0] >> 6;
        json_write_value(&w, doc);
        if (json_parse(&again, &a, buf_str(&first), data[0] & JSON_UNIQUE, &err) != ST_OK)
            abort();
        json_writer_init(&w, &second);
        w.indent = data[0] >> 6;
        json_write_value(&w, again);
        if (!str_eq(buf_str(&first), buf_str(&second)))
            abort();
        buf_free(&first);
        buf_free(&second);
    }
    arena_free(&a);
    return 0;
}
