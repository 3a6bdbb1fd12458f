/* What the files of this room share. */
#ifndef SPEECH_PRIVATE_H
#define SPEECH_PRIVATE_H

#include "speech/speech.h"

enum step { STEP_MORE, STEP_ON }; /* wait for more text; something moved: look again */
enum match { MATCH_NONE, MATCH_PART, MATCH_FULL };

/* speech.c */
enum match speech_match(const struct speech *s, struct str text, const char *mark); /* at the text's start */
/* The first of several marks that fits; *len is that mark's length. */
enum match speech_match_any(const struct speech *s, struct str text, const char *const *marks, size_t *len);
void speech_say(struct speech *s, enum speech_what what, struct str text);
void speech_consume(struct speech *s, size_t n);
bool speech_space(char c);
/* call.c */
void call_enter(struct speech *s, size_t opened);
void call_enter_named(struct speech *s, const struct speech_tool *tool, size_t opened); /* arguments come next */
enum step call_step(struct speech *s);
const struct speech_tool *call_tool(const struct speech *s, struct str name);
/* scan.c: JSON, a byte at a time */
enum { SCAN_NOTHING, SCAN_KEY_BEGIN, SCAN_KEY_END, SCAN_VALUE_BEGIN, SCAN_VALUE_END };
void json_scan_init(struct json_scan *s);
bool json_scan_next(struct json_scan *s, char c); /* false: this is no JSON; event tells of depth 1 alone */
bool json_scan_in_string(const struct json_scan *s);
/* python.c: name(key=value, ...) at the text's start, to a name and JSON arguments; n: bytes taken */
enum python { PYTHON_NONE, PYTHON_MORE, PYTHON_CALL };
enum python python_call(struct str *name, struct buf *args, size_t *n, struct str text);

#endif
