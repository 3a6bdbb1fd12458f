/* pool - threads that share items of work; completion is counted in items, not in threads
 *
 * pool_run claims items 0..n_item-1 from one atomic counter; the caller works too, so that it alone can finish when
 * workers are preempted: a lost CPU costs one item, never the whole step. Who holds that item and has no CPU is moved
 * to the CPU of who waits for it. Workers spin up to 30 us, then sleep on a futex. What an item computes must not
 * depend on which thread runs it, or in which order (the numbers contract).
 *
 *   static void rows(void *ctx, int item, int thread) { ... }      // thread: 0 .. pool_threads()-1, for scratch
 *   pool_run(pool, rows, &job, n_item);                            // returns when all items are done
 *
 * Require  pool_run is called by one thread at a time; an item must not call pool_run. pool may be NULL: inline
 * Threads  every worker sets FTZ and DAZ (docs/numerics.md section 7); pool_run sets them on the caller too
 */
#ifndef BASE_POOL_H
#define BASE_POOL_H

#include "base/status.h"

#include <stdint.h>

struct pool;
typedef void pool_fn(void *ctx, int item, int thread);

MUST_USE enum status pool_create(struct pool **out, int n_thread, struct error *err); /* caller included; >= 1 */
void pool_destroy(struct pool *p);
int pool_threads(const struct pool *p); /* 1 for NULL */
void pool_run(struct pool *p, pool_fn *fn, void *ctx, int n_item);
uint64_t pool_rescues(const struct pool *p); /* threads that had lost their CPU with work in hand, and got another */
int cpu_count(void);                         /* CPUs this process may use */

#endif
