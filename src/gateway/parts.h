/* parts - pieces of grammars, made in a request's arena; a failure of it shows once, at the end */
#ifndef GATEWAY_PARTS_H
#define GATEWAY_PARTS_H

#include "gateway/fields.h"

struct maker {
    struct parse *p;
    bool forced;  /* calls must be made */
    bool failed;  /* out of memory */
    bool refused; /* p->why says what */
};

static inline struct grammar_part part_text(struct str text)
{
    return (struct grammar_part){.kind = GRAMMAR_TEXT, .text = text};
}
/* Copies the parts. */
struct grammar_part parts_list(struct maker *m, enum grammar_kind kind, const struct grammar_part *parts, size_t n);
#define PARTS(m, kind, ...)                                                                                            \
    parts_list(m, kind, (const struct grammar_part[]){__VA_ARGS__},                                                    \
               sizeof((const struct grammar_part[]){__VA_ARGS__}) / sizeof(struct grammar_part))
struct grammar_part part_repeat(struct maker *m, struct grammar_part one, int max); /* 0 to max times; -1: no end */
struct str part_source(struct maker *m, const struct json *v);                      /* v as JSON text */

/* calls_xml.c: <parameter=key>, its value, </parameter>, for each key, in the order of the schema's properties */
struct grammar_part xml_arguments(struct maker *m, const struct json *function);
struct grammar_part xml_any_arguments(struct maker *m);

#endif
