/* cpu - what the processor and the operating system offer; the baseline is any
 * x86-64, so ask before using more */
#include "kernels/kernels_private.h"

#ifdef __x86_64__
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

static bool bit(uint32_t word, int n)
{
    return (word >> n) & 1;
}

/* XCR0: which register files the operating system saves. */
static uint32_t xcr0(void)
{
    uint32_t lo, hi;
    __asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
    return lo;
}

/* Linux gives a process the tiles' registers only when asked (arch_prctl(2)):
 * once, for all its threads. */
static bool tiles_allowed(uint32_t saved)
{
    enum { ARCH_REQ_XCOMP_PERM = 0x1023, TILE_DATA = 18, TILE_STATES = 3 << 17 };
    return (saved & TILE_STATES) == TILE_STATES && syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, TILE_DATA) == 0;
}

unsigned cpu_features(void)
{
    uint32_t a, b, c, d, b7, c7, d7, a71 = 0, unused;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !bit(c, 27)) /* osxsave */
        return 0;
    uint32_t saved = xcr0();
    bool fma_f16c = bit(c, 12) && bit(c, 29) && bit(c, 28);
    if ((saved & 6) != 6 || !fma_f16c || !__get_cpuid_count(7, 0, &a, &b7, &c7, &d7))
        return 0;
    if (!bit(b7, 5) || !bit(b7, 8)) /* avx2, bmi2 */
        return 0;
    unsigned has = CPU_AVX2;
    if ((saved & 0xe6) == 0xe6 && bit(b7, 16) && bit(b7, 17) && bit(b7, 30) && bit(b7, 31)) { /* f, dq, bw, vl */
        has |= CPU_AVX512;
        if (bit(c7, 11))
            has |= CPU_VNNI;
        if (a >= 1 && __get_cpuid_count(7, 1, &a71, &unused, &c, &d) && bit(a71, 5))
            has |= CPU_BF16;
        if (bit(d7, 24) && bit(d7, 25) && tiles_allowed(saved))
            has |= CPU_AMX;
    }
    return has;
}

const char *cpu_name(void)
{
    static char name[49]; /* the same bytes whoever writes them */
    uint32_t word[12];
    for (uint32_t i = 0; i < 3; i++)
        if (!__get_cpuid(0x80000002u + i, &word[4 * i], &word[4 * i + 1], &word[4 * i + 2], &word[4 * i + 3]))
            return "x86-64";
    char text[49] = {0};
    memcpy(text, word, 48);
    const char *from = text + strspn(text, " ");
    memcpy(name, from, strlen(from) + 1);
    return name;
}
#elif defined __aarch64__
#include <sys/auxv.h>

unsigned cpu_features(void)
{
    enum { ASIMDDP = 1 << 20 }; /* HWCAP_ASIMDDP: the sdot instruction */
    return CPU_NEON | (getauxval(AT_HWCAP) & ASIMDDP ? CPU_DOTPROD : 0);
}
const char *cpu_name(void)
{
    return "64-bit ARM processor";
}
#else
unsigned cpu_features(void)
{
    return 0;
}
const char *cpu_name(void)
{
    return "unknown processor";
}
#endif
