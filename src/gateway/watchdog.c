/* A server that hangs must say where. Looks a few times a second whether the engine and the loop move; when one does
 * not, everything that tells why goes to the log, once a stall of a model: counts, what every thread was last at, the
 * sequences; from the loop, if that one moves, what each request is at. Reads only what may be read while the others
 * hang.
 */
#include "gateway/private.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/thread.h"

#include <stdio.h>

enum { LOOK_MS = 200, LIVE_MAX = 64, JOBS_MAX = 64 };

struct watchdog {
    struct gateway *g;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    bool stop, started;
    uint64_t loop_since_ns; /* of a stall that was told; 0 = it moves */
    uint64_t looked_ns;     /* when the last look began */
    uint64_t resumed_ns;    /* the whole process had stood still until then: a stopped machine is no hanging thread */
};

static double age_s(uint64_t now, uint64_t then)
{
    return now > then ? (double)(now - then) * 1e-9 : 0;
}

static uint64_t patience_ns(const struct gateway *g)
{
    return (uint64_t)g->options.health_ms * 1000000;
}

bool engine_stalled(const struct gateway *g, const struct engine *e, uint64_t now_ns, struct engine_stats *out)
{
    engine_stats(e, out);
    return out->running + out->waiting > 0 && now_ns > out->last_step_ns + patience_ns(g);
}

static void tell_threads(uint64_t now)
{
    struct thread_mark marks[THREAD_MARKS_MAX];
    int n = thread_marks(marks, THREAD_MARKS_MAX);
    for (int i = 0; i < n; i++) {
        char tid[16], age[32];
        snprintf(tid, sizeof tid, "%d", marks[i].tid);
        snprintf(age, sizeof age, "%.3f", age_s(now, marks[i].at_ns));
        log_event(LOG_ERROR, "watchdog.thread", "thread", marks[i].thread, "tid", tid, "last", marks[i].what, "age_s",
                  age, NULL);
    }
}

static void tell_sequences(const struct engine *e, uint64_t now)
{
    struct engine_live live[LIVE_MAX];
    int n = engine_live(e, live, LIVE_MAX);
    if (n < 0)
        log_errorf("watchdog", "the engine keeps its lock: its sequences cannot be listed");
    for (int i = 0; i < n && i < LIVE_MAX; i++) {
        char id[24], age[32], tokens[48];
        snprintf(id, sizeof id, "%llu", (unsigned long long)live[i].id);
        snprintf(age, sizeof age, "%.3f", age_s(now, live[i].submit_ns));
        snprintf(tokens, sizeof tokens, "%d of %d", live[i].n_prompt, live[i].n_limit);
        log_event(LOG_ERROR, "watchdog.sequence", "id", id, "age_s", age, "prompt_of_limit", tokens, "canceled",
                  live[i].canceled ? "yes" : "no", NULL);
    }
    if (n > LIVE_MAX)
        log_errorf("watchdog", "and %d more sequences", n - LIVE_MAX);
}

/* row: the model whose engine stalls; of the loop, the first. */
static void tell_state(struct gateway *g, const char *thread, uint64_t age_ns, const struct hosting_row *row)
{
    struct engine_stats now_stats, *s = &now_stats;
    engine_stats(row->engine, s);
    char age[32], running[16], waiting[16], blocks[48], steps[24], memory[48];
    snprintf(age, sizeof age, "%.3f", (double)age_ns * 1e-9);
    snprintf(running, sizeof running, "%d", s->running);
    snprintf(waiting, sizeof waiting, "%d", s->waiting);
    snprintf(blocks, sizeof blocks, "%d of %d", s->blocks_free, s->blocks_total);
    snprintf(steps, sizeof steps, "%llu", (unsigned long long)s->steps);
    snprintf(memory, sizeof memory, "%zu of %zu", budget_used(&g->memory), g->memory.max);
    log_event(LOG_ERROR, "watchdog.stalled", "thread", thread, "model", row->name, "age_s", age, "running", running,
              "waiting", waiting, "kv_blocks_free", blocks, "steps", steps, "request_memory", memory, NULL);
    uint64_t now = clock_ns();
    tell_threads(now);
    tell_sequences(row->engine, now);
    __atomic_store_n(&g->tell_jobs, true, __ATOMIC_RELEASE);
    telemetry_stall(g, row->name, thread, 1);
}

/* Begins, keeps or ends a stall of one thread. All is judged by the time at which the look began: by a later one, a
 * machine stopped in between would seem to stall. */
static void judge(struct watchdog *w, const char *thread, bool stalled, uint64_t moved_ns, uint64_t *since,
                  const struct hosting_row *row)
{
    uint64_t now = w->looked_ns;
    if (stalled && !*since && now > w->resumed_ns + patience_ns(w->g)) {
        *since = moved_ns ? moved_ns : 1;
        tell_state(w->g, thread, now - moved_ns, row);
    } else if (!stalled && *since) {
        log_warnf("watchdog", "%s: the %s moves again, %.1f s later", row->name, thread, age_s(now, *since));
        *since = 0;
    }
}

static void look_at_engine(void *ctx, struct served *served, const struct hosting_row *row)
{
    struct watchdog *w = ctx;
    struct engine_stats s;
    bool stalled = engine_stalled(w->g, row->engine, w->looked_ns, &s);
    judge(w, "engine", stalled, s.last_step_ns, &served->stalled_ns, row);
}

static void look(struct watchdog *w)
{
    struct gateway *g = w->g;
    struct hosting_row own = {.name = g->bundle->id, .engine = g->engine};
    uint64_t now = clock_ns();
    if (w->looked_ns && now > w->looked_ns + LOOK_MS * 1000000ull + patience_ns(g) / 2)
        w->resumed_ns = now;
    w->looked_ns = now;
    served_each(g, look_at_engine, w);
    uint64_t beat = __atomic_load_n(&g->beat_ns, __ATOMIC_RELAXED);
    bool loop = beat && now > beat + patience_ns(g);
    judge(w, "loop", loop, beat, &w->loop_since_ns, &own);
}

static void *watch(void *arg)
{
    struct watchdog *w = arg;
    pthread_mutex_lock(&w->lock);
    while (!w->stop) {
        thread_wait_ms(&w->wake, &w->lock, LOOK_MS);
        if (w->stop)
            break;
        pthread_mutex_unlock(&w->lock);
        look(w);
        pthread_mutex_lock(&w->lock);
    }
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

enum status watchdog_create(struct gateway *g, struct error *err)
{
    struct watchdog *w = mem_alloc_zero(1, sizeof *w);
    if (!w)
        return fail_nomem(err, "watchdog");
    w->g = g;
    pthread_mutex_init(&w->lock, NULL);
    thread_cond_init(&w->wake);
    g->watchdog = w;
    return ST_OK;
}

enum status watchdog_start(struct gateway *g, struct error *err)
{
    int rc = thread_start(&g->watchdog->thread, watch, g->watchdog);
    if (rc != 0)
        return fail(err, ST_NOMEM, "gateway: the watchdog's thread cannot be started: %s", strerror(rc));
    g->watchdog->started = true;
    return ST_OK;
}

void watchdog_stop(struct gateway *g)
{
    struct watchdog *w = g->watchdog;
    if (!w)
        return;
    pthread_mutex_lock(&w->lock);
    w->stop = true;
    pthread_cond_signal(&w->wake);
    pthread_mutex_unlock(&w->lock);
    if (w->started)
        pthread_join(w->thread, NULL);
    pthread_cond_destroy(&w->wake);
    pthread_mutex_destroy(&w->lock);
    mem_free(w);
    g->watchdog = NULL;
}

void watchdog_jobs(struct gateway *g)
{
    static const char *const phases[] = {
        [JOB_CONTENT] = "is parsed", [JOB_GENERATE] = "generates", [JOB_WRITE] = "is written", [JOB_DONE] = "ends"};
    uint64_t now = clock_ns();
    int n = 0;
    if (!__atomic_exchange_n(&g->tell_jobs, false, __ATOMIC_ACQUIRE))
        return;
    for (const struct job *j = g->jobs; j; j = j->next) {
        char age[32], choices[48], held[24];
        if (n++ == JOBS_MAX) {
            log_errorf("watchdog", "and %d more requests", g->n_job - JOBS_MAX);
            return;
        }
        snprintf(age, sizeof age, "%.3f", age_s(now, j->begin_ns));
        snprintf(choices, sizeof choices, "%d of %d", j->n_submitted, j->n_choice);
        snprintf(held, sizeof held, "%zu", j->held);
        log_event(LOG_ERROR, "watchdog.request", "id", j->id, "phase", phases[j->phase], "age_s", age, "submitted",
                  choices, "bytes", held, "client", j->x ? "waits" : "left", NULL);
    }
}
