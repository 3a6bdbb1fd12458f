/* dispatch - which kernel does each operation: chosen once at start from
 * kernels.def
 *
 * Sets are cumulative: a processor runs set n when it offers the bundles of all
 * sets up to n. INGOT_ISA forces a set; one that is not available is an error,
 * never a silent fallback.
 */
#include "kernels/kernels_private.h"

#include <stdlib.h>

/* The order of this list is the order of preference, and the suffix of each
 * row's function. */
#ifdef __aarch64__
enum { SET_ref, SET_neon, SET_dotprod, SET_COUNT };
#else
enum { SET_ref, SET_avx2, SET_avx512, SET_vnni, SET_bf16, SET_amx, SET_COUNT };
#endif
static const struct {
    const char *name, *alias;
    unsigned needs;
} sets[SET_COUNT] = {
    {"ref", NULL, 0},
#ifdef __aarch64__
    {"neon", NULL, CPU_NEON},
    {"neon-dotprod", "dotprod", CPU_NEON | CPU_DOTPROD},
#else
    {"avx2", NULL, CPU_AVX2},
    {"avx512", NULL, CPU_AVX2 | CPU_AVX512},
    {"avx512-vnni", "vnni", CPU_AVX2 | CPU_AVX512 | CPU_VNNI},
    {"avx512-vnni-bf16", "bf16", CPU_AVX2 | CPU_AVX512 | CPU_VNNI | CPU_BF16},
    {"avx512-amx", "amx", CPU_AVX2 | CPU_AVX512 | CPU_VNNI | CPU_BF16 | CPU_AMX},
#endif
};
#if KERNELS_X86 || KERNELS_ARM
enum { SETS_BUILT = SET_COUNT };
#else
enum { SETS_BUILT = 1 };
#endif

static const struct kernel_row rows[] = {
#define KERNEL(op, isa, needs)                                                                                         \
    {#op, #isa, SET_##isa, needs, (void (*)(void))op##__##isa, offsetof(struct kernel_table, op)},
#include "kernels/kernels.def"
};
enum { ROW_COUNT = sizeof rows / sizeof rows[0] };

/* ref until kernels_init: a program that forgets it is slow, not wrong. */
struct kernel_table kernels = {
#define KERNEL_OP(op) .op = op##__ref,
#include "kernels/kernels.def"
};

const struct kernel_row *kernel_rows(int *count)
{
    *count = ROW_COUNT;
    return rows;
}

static bool set_available(int set)
{
    return (sets[set].needs & ~cpu_features()) == 0;
}

bool kernel_row_available(const struct kernel_row *row)
{
    return set_available(row->set) && (row->needs & ~cpu_features()) == 0;
}

static int set_find(const char *name)
{
    for (int i = 0; i < SETS_BUILT; i++)
        if (strcmp(name, sets[i].name) == 0 || (sets[i].alias && strcmp(name, sets[i].alias) == 0))
            return i;
    return -1;
}

static void choose(int set)
{
    kernels.chosen = set;
    for (int i = 0; i < ROW_COUNT; i++)
        if (rows[i].set <= set && kernel_row_available(&rows[i]))
            memcpy((char *)&kernels + rows[i].slot, &rows[i].fn, sizeof rows[i].fn);
}

enum status kernels_init(const char *name, struct error *err)
{
    if (!name)
        name = getenv("INGOT_ISA");
    if (!name || !*name) {
        int best = SETS_BUILT - 1;
        while (!set_available(best))
            best--;
        choose(best);
        return ST_OK;
    }
    int set = set_find(name);
    if (set < 0)
        return fail(err, ST_INVALID, "INGOT_ISA: no instruction set is called \"%s\"; this build knows %s", name,
                    KERNELS_X86   ? "ref, avx2, avx512, avx512-vnni, avx512-vnni-bf16, avx512-amx"
                    : KERNELS_ARM ? "ref, neon, neon-dotprod"
                                  : "ref");
    if (!set_available(set))
        return fail(err, ST_UNSUPPORTED,
                    "INGOT_ISA: this processor (%s) lacks %s; leave INGOT_ISA "
                    "unset to pick the best",
                    cpu_name(), sets[set].name);
    choose(set);
    return ST_OK;
}

const char *kernels_isa(void)
{
    return sets[kernels.chosen].name;
}

bool kernels_isa_available(const char *name)
{
    int set = set_find(name);
    return set >= 0 && set_available(set);
}

const char *kernels_isa_list(int i)
{
    return i >= 0 && i < SETS_BUILT ? sets[i].name : NULL;
}
const char *kernels_cpu_name(void)
{
    return cpu_name();
}
