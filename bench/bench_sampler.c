/* bench_sampler - what does drawing one id cost, against a vocabulary of 151,936 (Qwen2.5)?
 *
 * The clock is this thread's CPU time. It includes the copy, the check for NaN, filters and the draw; it excludes
 * making the row. Rows are normal with the given spread: 3 is about what a trained model gives, 0.5 is nearly flat and
 * makes the sorted part long.
 */
#include "base/clock.h"
#include "base/rng.h"
#include "engine/engine_private.h"

#include <stdio.h>

enum { VOCAB = 151936, ROUNDS = 200 };
static real row[VOCAB];

static void measure(const char *what, float spread, const struct sampling *how, struct sampler_scratch *scratch)
{
    struct rng r;
    int32_t ids[] = {1, 2, 3};
    struct sampling s = *how;
    struct sample out;
    uint64_t best = UINT64_MAX, sum = 0;
    rng_init(&r, 1);
    for (int i = 0; i < VOCAB; i++)
        row[i] = (real)(rng_normal(&r) * spread);
    for (int i = 0; i < ROUNDS; i++) {
        s.seed = (uint64_t)i;
        struct sampler_in in = {
            .how = &s, .logits = row, .n_vocab = VOCAB, .ids = ids, .n_prompt = 1, .n_ids = 3, .given = -1};
        uint64_t start = clock_thread_cpu_ns();
        sampler_pick(&out, &in, scratch);
        uint64_t ns = clock_thread_cpu_ns() - start;
        sum += ns;
        best = ns < best ? ns : best;
    }
    printf("%-44s spread %.1f  best %8.1f us  mean %8.1f us\n", what, (double)spread, (double)best / 1e3,
           (double)sum / 1e3 / ROUNDS);
}

int main(void)
{
    struct error err;
    struct sampler_scratch scratch;
    struct sampling s;
    if (kernels_init(NULL, &err) != ST_OK || sampler_scratch_init(&scratch, VOCAB, &err) != ST_OK) {
        fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    printf("%s, %s\n", kernels_cpu_name(), kernels_isa());
    sampling_defaults(&s);
    s.temperature = 0;
    measure("greedy", 3, &s, &scratch);
    s.n_logprobs = 5;
    measure("greedy, 5 log-probabilities", 3, &s, &scratch);
    sampling_defaults(&s);
    measure("temperature 1", 3, &s, &scratch);
    measure("temperature 1", 0.5f, &s, &scratch);
    s.temperature = 0.8f;
    s.top_p = 0.95f;
    measure("temperature 0.8, top-p 0.95", 3, &s, &scratch);
    measure("temperature 0.8, top-p 0.95", 0.5f, &s, &scratch);
    s.top_k = 40;
    measure("temperature 0.8, top-k 40, top-p 0.95", 3, &s, &scratch);
    s.repetition_penalty = 1.1f;
    s.min_p = 0.05f;
    measure("all of it", 3, &s, &scratch);
    sampler_scratch_free(&scratch);
    return 0;
}
