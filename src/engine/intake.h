/* intake - what an engine's thread and those who ask it share: a lock, how many requests there are, how it ends
 *
 *   a request comes   intake_check, intake_enter
 *   a request goes    intake_leave; its owner is told, without the lock; intake_left
 *   none comes more   intake_drain, intake_stop
 *
 * Invariants
 * 1. n_live counts a request until its owner was told: who drains or stops waits for the callbacks too.
 * 2. Its place is free before (n_leaving): who learned of an end may ask again.
 * Under the lock: check, enter, leave, left. Any thread, without it: drain, stop.
 */
#ifndef ENGINE_INTAKE_H
#define ENGINE_INTAKE_H

#include "engine/engine.h"

#include <pthread.h>

struct intake {
    pthread_mutex_t lock;
    pthread_cond_t wake, idle; /* wake: there is something to do for the thread */
    pthread_t thread;
    bool has_thread;
    /* under the lock */
    int n_live, n_leaving, max; /* max: of those that run or wait */
    uint64_t next_id;
    bool draining, stopping;
};
void intake_init(struct intake *in, int max);
MUST_USE enum status intake_start(struct intake *in, void *(*fn)(void *), void *ctx, struct error *err);
void intake_drain(struct intake *in);
void intake_stop(struct intake *in); /* the thread sees `stopping`, and is waited for */
void intake_free(struct intake *in);
/* May n more come? ST_LIMIT says why not. */
MUST_USE enum status intake_check(const struct intake *in, int n, struct error *err);
uint64_t intake_enter(struct intake *in, struct engine_stats *stats); /* returns its id */
void intake_leave(struct intake *in);
void intake_left(struct intake *in);

/* One request, waited for: its on_finish calls waiting_tell on the engine's thread. */
struct waiting {
    pthread_mutex_t lock;
    pthread_cond_t done;
    struct finish_event *end;
    bool finished;
};
#define WAITING(end)                                                                                                   \
    {                                                                                                                  \
        PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, (end), false                                              \
    }
void waiting_tell(struct waiting *w, const struct finish_event *end);
/* submitted: what submitting gave. FINISH_ERROR becomes the returned status. */
MUST_USE enum status waiting_take(struct waiting *w, enum status submitted, struct error *err);

#endif
