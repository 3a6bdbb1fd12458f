/* A request whose end another thread can wait for, over the stand-in of fake.h; set_up and tear_down of such programs.
 */
#ifndef TESTS_ENGINE_JOB_H
#define TESTS_ENGINE_JOB_H

#include "engine/fake.h"

#include <time.h>

static struct error err;
static struct sampler_scratch scratch;

static inline int set_up(void **state)
{
    (void)state;
    enum status st = kernels_init(NULL, &err);
    return st != ST_OK ? (int)st : (int)sampler_scratch_init(&scratch, FAKE_VOCAB, &err);
}

static inline int tear_down(void **state)
{
    (void)state;
    sampler_scratch_free(&scratch);
    return 0;
}

static inline void nap(long us)
{
    nanosleep(&(struct timespec){.tv_nsec = us * 1000}, NULL);
}

struct job {
    struct request r;
    struct record got, want;
    int32_t prompt[FAKE_CTX];
    int done; /* atomic */
};

static inline void job_finish(void *ctx, const struct finish_event *e)
{
    struct job *j = ctx;
    record_finish(&j->got, e);
    __atomic_store_n(&j->done, 1, __ATOMIC_RELEASE);
}

static inline void job_token(void *ctx, const struct token_event *e)
{
    record_token(&((struct job *)ctx)->got, e);
}

static inline void job_wait(struct job *j)
{
    for (int i = 0; !__atomic_load_n(&j->done, __ATOMIC_ACQUIRE); i++) {
        assert_true(i < 600000);
        nap(100);
    }
}

#endif
