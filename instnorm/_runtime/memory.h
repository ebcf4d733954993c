/* What the cache of array memory asks of C and of the system: a lock, and pages. */
#ifndef INSTNORM_MEMORY_H
#define INSTNORM_MEMORY_H

#include <stdatomic.h>
#include <stdlib.h>
#if defined(__linux__)
#include <sys/mman.h>
#endif

static atomic_flag instnorm_flag = ATOMIC_FLAG_INIT;
static void instnorm_lock(void) {
    while (atomic_flag_test_and_set_explicit(&instnorm_flag, memory_order_acquire)) {}
}
static void instnorm_unlock(void) {
    atomic_flag_clear_explicit(&instnorm_flag, memory_order_release);
}

/* Memory that begins where a page does; from twice INSTNORM_HUGE on, where a huge page does, and
   of huge pages where the system gives them. */
#define INSTNORM_PAGE ((size_t)4096)
#define INSTNORM_HUGE ((size_t)2 << 20)
static void *instnorm_pages(size_t size) {
    void *pages = NULL;
    size_t alignment = size >= 2 * INSTNORM_HUGE ? INSTNORM_HUGE : INSTNORM_PAGE;
    if (posix_memalign(&pages, alignment, size) != 0) { return NULL; }
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    if (alignment == INSTNORM_HUGE) { madvise(pages, size, MADV_HUGEPAGE); }
#endif
    return pages;
}

#endif
