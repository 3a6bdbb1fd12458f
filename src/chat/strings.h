/* strings - string operations shared by methods and filters of templates */
#ifndef CHAT_STRINGS_H
#define CHAT_STRINGS_H

#include "chat/template.h"

enum string_case { STRING_UPPER, STRING_LOWER, STRING_CAPITALIZE, STRING_TITLE, STRING_WORDS };
/* TITLE: Python's str.title; WORDS: Jinja's title filter, which splits at spaces, - ( { [ < only. */
MUST_USE enum status string_case(struct run *r, struct value *out, const struct value *s, enum string_case how);
/* HTML escapes, unless it is safe already; the result is safe. */
MUST_USE enum status string_escape(struct run *r, struct value *out, const struct value *v);
MUST_USE enum status string_strip(struct run *r, struct value *out, const struct value *s, const struct value *chars,
                                  bool left, bool right);
MUST_USE enum status string_lines(struct run *r, struct value *out, const struct value *s, bool keep);
MUST_USE enum status string_replace(struct run *r, struct value *out, const struct value *s, const struct value *from,
                                    const struct value *to, const struct value *count);
MUST_USE enum status string_is_case(struct run *r, struct value *out, const struct value *s, bool upper);
MUST_USE enum status string_fold(struct run *r, struct value *out, const struct value *v); /* for sorting: lower case */
enum dict_part { DICT_KEYS, DICT_VALUES, DICT_ITEMS };
MUST_USE enum status dict_pairs(struct run *r, struct value *out, const struct dict *d, enum dict_part part);

#endif
