/* guard - what becomes of a mapped file that loses its bytes: another program truncates it, or its disk fails
 *
 * Touching such a page raises SIGBUS, which ends a program without a word. With guard_install, the lost part of a
 * guarded mapping reads as zeros instead, and guard_lost says so: readers finish on zeros (every reader is safe on any
 * bytes) and then refuse the result. A mapping marked essential has no such moment: its loss is reported to the
 * program, which ends. file_map guards what it maps; beyond GUARD_MAX mappings at a time SIGBUS stays what it was.
 *
 * Threads  safe
 */
#ifndef BASE_GUARD_H
#define BASE_GUARD_H

#include <stdbool.h>
#include <stddef.h>

enum { GUARD_MAX = 512 };

/* Once, by the program. on_lost runs inside a signal handler (write and _exit, nothing more) and does not return. */
void guard_install(void (*on_lost)(void));
void guard_add(const void *data, size_t size);
void guard_remove(const void *data);
bool guard_lost(const void *data);
void guard_essential(const void *data);

#endif
