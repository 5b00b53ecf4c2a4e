/* Calls a function again and again, and tells how many nanoseconds one call took: for callers in Python, whose own loop
 * would cost more than what is measured. */
#include <stdint.h>
#include <time.h>

typedef int (*function)(uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t);

double repeat(function call, long times) {
    struct timespec from, to;
    clock_gettime(CLOCK_MONOTONIC, &from);
    for (long i = 0; i < times; i++) call(0, 0, 0, 0, 0, 0);
    clock_gettime(CLOCK_MONOTONIC, &to);
    return ((to.tv_sec - from.tv_sec) * 1e9 + to.tv_nsec - from.tv_nsec) / times;
}
