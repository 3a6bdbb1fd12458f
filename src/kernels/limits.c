/* limits - what this machine can do at most, measured: the figures every speed is held against
 *
 * Bandwidth: sums a block larger than any cache. Peaks: independent chains of the widest instruction, in registers.
 * Each is the best of several short runs: neighbours on the host only ever take away.
 */
#include "kernels/kernels_private.h"

#include "base/clock.h"
#include "base/mem.h"

enum { PIECES = 64, RUNS = 5, LOOPS = 400000 };

struct probe {
    const uint64_t *data;
    size_t words; /* of one piece */
    double (*work)(int loops);
    volatile uint64_t sink;
    volatile double float_sink;
};

#if KERNELS_X86
#include <immintrin.h>

__attribute__((target("avx2"))) static uint64_t read_words(const uint64_t *p, size_t n)
{
    __m256i a[4] = {_mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256()};
    for (size_t i = 0; i + 16 <= n; i += 16)
        for (int j = 0; j < 4; j++)
            a[j] = _mm256_xor_si256(a[j], _mm256_loadu_si256((const __m256i *)(const void *)(p + i + 4 * j)));
    a[0] = _mm256_xor_si256(_mm256_xor_si256(a[0], a[1]), _mm256_xor_si256(a[2], a[3]));
    return (uint64_t)_mm256_extract_epi64(a[0], 0) ^ (uint64_t)_mm256_extract_epi64(a[0], 1);
}

/* Twelve chains cover latency 4-5 times two ports; the empty asm keeps them in registers and apart. */
#define KEEP(c) __asm__ volatile("" : "+v"(c));
#define KEEP_ALL()                                                                                                     \
    KEEP(c0) KEEP(c1) KEEP(c2) KEEP(c3) KEEP(c4) KEEP(c5) KEEP(c6) KEEP(c7) KEEP(c8) KEEP(c9) KEEP(c10) KEEP(c11)
#define CHAINS(TYPE, INIT, STEP)                                                                                       \
    TYPE c0 = INIT, c1 = INIT, c2 = INIT, c3 = INIT, c4 = INIT, c5 = INIT, c6 = INIT, c7 = INIT, c8 = INIT, c9 = INIT, \
         c10 = INIT, c11 = INIT;                                                                                       \
    KEEP_ALL() /* equal chains would be computed once */                                                               \
    for (int i = 0; i < loops; i++) {                                                                                  \
        STEP(c0) STEP(c1) STEP(c2) STEP(c3) STEP(c4) STEP(c5) STEP(c6) STEP(c7) STEP(c8) STEP(c9) STEP(c10) STEP(c11)  \
    }

__attribute__((target("avx2,fma"))) static double fma_avx2(int loops)
{
    const __m256 x = _mm256_set1_ps(0.999f), y = _mm256_set1_ps(0.001f);
#define STEP(c) c = _mm256_fmadd_ps(c, x, y);
    CHAINS(__m256, x, STEP)
#undef STEP
    KEEP_ALL()
    return 12.0 * 16 * loops;
}

__attribute__((target("avx512f"))) static double fma_avx512(int loops)
{
    const __m512 x = _mm512_set1_ps(0.999f), y = _mm512_set1_ps(0.001f);
#define STEP(c) c = _mm512_fmadd_ps(c, x, y);
    CHAINS(__m512, x, STEP)
#undef STEP
    KEEP_ALL()
    return 12.0 * 32 * loops;
}

/* Without VNNI: unsigned times signed bytes into i16, then to i32 (three instructions for 32 products and their sums).
 */
__attribute__((target("avx2"))) static double int8_avx2(int loops)
{
    __m256i x = _mm256_set1_epi8(3);
    const __m256i one = _mm256_set1_epi16(1);
#define STEP(c) KEEP(x) c = _mm256_add_epi32(c, _mm256_madd_epi16(_mm256_maddubs_epi16(x, x), one));
    CHAINS(__m256i, x, STEP)
#undef STEP
    KEEP_ALL()
    return 12.0 * 64 * loops;
}

__attribute__((target("avx512f,avx512bw"))) static double int8_avx512(int loops)
{
    __m512i x = _mm512_set1_epi8(3);
    const __m512i one = _mm512_set1_epi16(1);
#define STEP(c) KEEP(x) c = _mm512_add_epi32(c, _mm512_madd_epi16(_mm512_maddubs_epi16(x, x), one));
    CHAINS(__m512i, x, STEP)
#undef STEP
    KEEP_ALL()
    return 12.0 * 128 * loops;
}

__attribute__((target("avx512f,avx512vnni"))) static double int8_vnni(int loops)
{
    const __m512i x = _mm512_set1_epi8(3);
#define STEP(c) c = _mm512_dpbusd_epi32(c, x, x);
    CHAINS(__m512i, x, STEP)
#undef STEP
    KEEP_ALL()
    return 12.0 * 128 * loops;
}

__attribute__((target("avx512f,avx512bf16"))) static double bf16_avx512(int loops)
{
    const __m512bh x = _mm512_cvtne2ps_pbh(_mm512_set1_ps(0.5f), _mm512_set1_ps(0.5f));
#define STEP(c) c = _mm512_dpbf16_ps(c, x, x);
    CHAINS(__m512, _mm512_set1_ps(0), STEP)
#undef STEP
    KEEP_ALL()
    return 12.0 * 64 * loops;
}
#else
static uint64_t read_words(const uint64_t *p, size_t n)
{
    uint64_t x = 0;
    for (size_t i = 0; i < n; i++)
        x ^= p[i];
    return x;
}
#endif

static void read_item(void *ctx, int item, int thread)
{
    struct probe *p = ctx;
    (void)thread;
    __atomic_fetch_xor(&p->sink, read_words(p->data + (size_t)item * p->words, p->words), __ATOMIC_RELAXED);
}

#if KERNELS_X86
static void work_item(void *ctx, int item, int thread)
{
    struct probe *p = ctx;
    (void)item;
    (void)thread;
    double done = p->work(LOOPS); /* the same on every thread */
    __atomic_store(&p->float_sink, &done, __ATOMIC_RELAXED);
}

/* Best operations per nanosecond of one item a thread. */
static double peak(double (*work)(int loops), struct pool *pool)
{
    struct probe p = {.work = work};
    double best = 0;
    for (int run = 0; run < RUNS; run++) {
        uint64_t start = clock_ns();
        pool_run(pool, work_item, &p, pool_threads(pool));
        double rate = p.float_sink * pool_threads(pool) / (double)(clock_ns() - start);
        best = rate > best ? rate : best;
    }
    return best;
}
#endif

double machine_read_gb_s(struct pool *pool)
{
    const size_t bytes = (size_t)512 << 20;
    void *block = mem_alloc_aligned(bytes);
    if (!block)
        return 0;
    memset(block, 1, bytes);
    struct probe p = {.data = block, .words = bytes / PIECES / sizeof(uint64_t)};
    double best = 0;
    for (int run = 0; run < RUNS; run++) {
        uint64_t start = clock_ns();
        pool_run(pool, read_item, &p, PIECES);
        double rate = (double)bytes / (double)(clock_ns() - start);
        best = rate > best ? rate : best;
    }
    mem_free(block);
    return best;
}

void machine_limits(struct machine_limits *out, struct pool *pool)
{
    *out = (struct machine_limits){.read_gb_s = machine_read_gb_s(pool)};
#if KERNELS_X86
    unsigned cpu = cpu_features();
    out->f32_gflop_s = peak(cpu & CPU_AVX512 ? fma_avx512 : fma_avx2, pool);
    out->int8_gop_s = peak(cpu & CPU_VNNI ? int8_vnni : cpu & CPU_AVX512 ? int8_avx512 : int8_avx2, pool);
    out->bf16_gop_s = cpu & CPU_BF16 ? peak(bf16_avx512, pool) : out->f32_gflop_s;
#endif
}
