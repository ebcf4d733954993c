/* Whether the processor, and the operating system, run what setup.py builds for a SIMD level. */
#ifndef INSTNORM_CPU_H
#define INSTNORM_CPU_H

#if defined(__x86_64__) && defined(__GNUC__)
static int instnorm_runs_avx2(void) {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}
static int instnorm_runs_avx512(void) {
    return instnorm_runs_avx2() && __builtin_cpu_supports("avx512f")
        && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw")
        && __builtin_cpu_supports("avx512vl");
}
#else
static int instnorm_runs_avx2(void) { return 0; }
static int instnorm_runs_avx512(void) { return 0; }
#endif

#endif
