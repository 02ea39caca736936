/* Preloaded into a program that runs SLOWER times as slow as it does: its monotonic clock runs as slow, and its waits for
 * events take as long by that clock as they were asked to. So what it does by the clock it does as often as otherwise. */
#define _GNU_SOURCE
#include <limits.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define SLOWER 50

int clock_gettime(clockid_t clock, struct timespec *at) {
    int failed = (int)syscall(SYS_clock_gettime, clock, at);
    if (!failed && clock == CLOCK_MONOTONIC) {
        long long ns = (at->tv_sec * 1000000000LL + at->tv_nsec) / SLOWER;
        at->tv_sec = ns / 1000000000;
        at->tv_nsec = ns % 1000000000;
    }
    return failed;
}

int epoll_wait(int epoll, struct epoll_event *events, int most, int ms) {
    if (ms > 0) ms = ms > INT_MAX / SLOWER ? INT_MAX : ms * SLOWER;
    return (int)syscall(SYS_epoll_pwait, epoll, events, most, ms, NULL, 8);
}
