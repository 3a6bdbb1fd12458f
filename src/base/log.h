/* log - JSON lines on standard error (or a file), one line an event, levels, safe from any thread
 *
 *   log_info("server.ready", "url", url, NULL)            pairs of name and text, ended by NULL
 *   log_infof("engine", "loaded %d layers", n)            a sentence
 * Default level: warn (people); `serve` sets info. Lines of several threads never mix. When nobody reads (a full pipe,
 * a terminal that was stopped), a line waits 50 ms, once; then lines are lost until somebody reads again, and the next
 * one that goes is preceded by how many were lost since the first (`log.lost`).
 */
#ifndef BASE_LOG_H
#define BASE_LOG_H

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR, LOG_OFF };

void log_set_level(enum log_level level);
void log_set_fd(int fd);
int log_level_parse(const char *name);                                                  /* -1 when unknown */
void log_event(enum log_level level, const char *event, ...) __attribute__((sentinel)); /* name, text, ..., NULL */
void log_text(enum log_level level, const char *where, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
#define log_infof(where, ...)  log_text(LOG_INFO, where, __VA_ARGS__)
#define log_warnf(where, ...)  log_text(LOG_WARN, where, __VA_ARGS__)
#define log_errorf(where, ...) log_text(LOG_ERROR, where, __VA_ARGS__)

#endif
