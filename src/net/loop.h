/* loop - one thread that waits for sockets, time, signals and other threads (libevent underneath)
 *
 *   TRY(loop_create(&l, err));  loop_run(l);            // until loop_stop
 *   loop_wake(l, &task);                                // from any thread: task.fn(task.ctx) will run on the loop
 *
 * A task is in the queue at most once however often it is woken, so the queue is bounded by the number of tasks,
 * waking allocates nothing and cannot fail: who has news puts it where it belongs and wakes its task.
 *
 * Threads  loop_wake and loop_stop: any; all else: the loop's own thread (or before it runs)
 */
#ifndef NET_LOOP_H
#define NET_LOOP_H

#include "base/status.h"

#include <stdbool.h>
#include <stdint.h>

struct loop;
struct event_base;

typedef void loop_fn(void *ctx);
struct loop_task { /* owned by its user; must live until it has run or loop_forget was called */
    loop_fn *fn;
    void *ctx;
    struct loop_task *next; /* private */
    bool queued;            /* private */
};

MUST_USE enum status loop_create(struct loop **out, struct error *err);
void loop_destroy(struct loop *l);
MUST_USE enum status loop_run(struct loop *l, struct error *err);
void loop_stop(struct loop *l);
void loop_wake(struct loop *l, struct loop_task *task);
void loop_forget(struct loop *l, struct loop_task *task); /* the task will not run any more; loop thread only */
MUST_USE enum status loop_every(struct loop *l, int interval_ms, loop_fn *fn, void *ctx, struct error *err);
MUST_USE enum status loop_on_signal(struct loop *l, int number, loop_fn *fn, void *ctx, struct error *err);
/* A timer to be set again and again, exact to some ten microseconds (libevent's own count milliseconds). */
struct loop_timer;
MUST_USE enum status loop_timer_open(struct loop_timer **out, struct loop *l, loop_fn *fn, void *ctx,
                                     struct error *err);
void loop_timer_at(struct loop_timer *t, uint64_t at_ns); /* of clock_ns; the past means now */
void loop_timer_close(struct loop_timer *t);
struct event_base *loop_base(struct loop *l); /* for the other files of this room */

#endif
