#include "base/yaml.h"

#include <stdlib.h>

/* Parses; what parses is a tree whose containers span exactly their children. */
static const struct json *check(const struct json *v)
{
    const struct json *end = json_next(v);
    const struct json *at = v + 1;
    uint32_t n = 0;
    for (; v->type >= JSON_ARRAY && at < end; n++) {
        if (v->type == JSON_OBJECT)
            at = check(at);
        at = check(at);
    }
    if (v->type >= JSON_ARRAY && (at != end || n != v->count))
        abort();
    return end;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arena a;
    const struct json *doc;
    struct error err;
    arena_init(&a, 0);
    if (yaml_parse(&doc, &a, str_n(data, size), &err) == ST_OK)
        check(doc);
    arena_free(&a);
    return 0;
}
