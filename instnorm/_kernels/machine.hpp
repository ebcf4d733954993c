// What the build knows of itself: the compiler and OpenMP; and the size of a cache.
#pragma once

#if defined(__unix__) || defined(__APPLE__)
#include <unistd.h>
#endif

// Bytes of the second-level cache; 512 KiB, which most have at least, where nobody says.
static inline long instnorm_l2_bytes(void) {
#if defined(_SC_LEVEL2_CACHE_SIZE)
    long bytes = sysconf(_SC_LEVEL2_CACHE_SIZE);
    if (bytes > 0) { return bytes; }
#endif
    return 524288;
}

#ifdef _OPENMP
#include <omp.h>
static const int INSTNORM_HAS_OPENMP = 1;
#else
static const int INSTNORM_HAS_OPENMP = 0;
#endif
#if defined(__clang__)
static const char *const INSTNORM_COMPILER = "clang " __clang_version__;
#elif defined(__GNUC__)
static const char *const INSTNORM_COMPILER = "gcc " __VERSION__;
#else
static const char *const INSTNORM_COMPILER = "unknown";
#endif
