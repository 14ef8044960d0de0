/*
 * dispatch.c - the kernel table of this process.
 *
 * Chosen once, when the library is loaded: the best level that both this build and this machine
 * have, or the one that RUVECTOR_SIMD names (scalar, avx2, avx512, neon). A name that is unknown,
 * or names a level that cannot run here, is ignored: the best level is used, since a wrong setting
 * must not stop a server. rv_kernels_active()->name tells which one runs.
 *
 * NEON is there on every machine, because SIMDe emulates it where it is not native; it is chosen by
 * itself on ARM only. The choice sits in one atomic pointer, the only mutable global state of the
 * engine; choosing it twice gives the same answer, so the first use may race with another.
 */
#include "kernels.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

static _Atomic(const rv_kernels *) active_kernels;

#if defined(__x86_64__)
/* __builtin_cpu_supports knows this name in some compilers only. Whether the system saves the wide
 * registers is answered by its "avx2". */
static bool
has_f16c(void)
{
    unsigned eax, ebx, ecx, edx;
    return __get_cpuid(1, &eax, &ebx, &ecx, &edx) && (ecx & bit_F16C) != 0;
}
#endif

const rv_kernels *
rv_kernels_for(rv_simd_level level)
{
    switch (level) {
        case RV_SIMD_SCALAR:
            return &rv_kernels_scalar;
        case RV_SIMD_NEON:
            return &rv_kernels_neon;
#if defined(__x86_64__)
        /* The compiler's cpuid run-time also asks whether the system saves the wide registers. */
        case RV_SIMD_AVX2:
            __builtin_cpu_init();
            return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c()
                       ? &rv_kernels_avx2
                       : NULL;
        case RV_SIMD_AVX512:
            __builtin_cpu_init();
            return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")
                       ? &rv_kernels_avx512
                       : NULL;
#endif
        default:
            return NULL;
    }
}

static const rv_kernels *
best_kernels(void)
{
#if defined(__aarch64__)
    return &rv_kernels_neon;
#else
    const rv_kernels *best = rv_kernels_for(RV_SIMD_AVX512);
    if (best == NULL)
        best = rv_kernels_for(RV_SIMD_AVX2);
    return best != NULL ? best : &rv_kernels_scalar;
#endif
}

static const rv_kernels *
choose_kernels(void)
{
    static const struct {
        const char *name;
        rv_simd_level level;
    } levels[] = {{"scalar", RV_SIMD_SCALAR},
                  {"avx2", RV_SIMD_AVX2},
                  {"avx512", RV_SIMD_AVX512},
                  {"neon", RV_SIMD_NEON}};
    const char *wanted = getenv("RUVECTOR_SIMD");

    for (size_t i = 0; wanted != NULL && i < sizeof(levels) / sizeof(levels[0]); i++) {
        const rv_kernels *kernels =
            strcmp(wanted, levels[i].name) == 0 ? rv_kernels_for(levels[i].level) : NULL;
        if (kernels != NULL)
            return kernels;
    }
    return best_kernels();
}

const rv_kernels *
rv_kernels_active(void)
{
    const rv_kernels *kernels = atomic_load_explicit(&active_kernels, memory_order_relaxed);
    const rv_kernels *none = NULL;

    if (kernels != NULL)
        return kernels;
    kernels = choose_kernels();
    /* The first choice stays, even if the environment changed in between. */
    return atomic_compare_exchange_strong(&active_kernels, &none, kernels) ? kernels : none;
}

/* Chosen at load, while the process has one thread: getenv is not safe beside setenv. */
__attribute__((constructor)) static void
choose_at_load(void)
{
    rv_kernels_active();
}
