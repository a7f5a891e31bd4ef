/*
 * What time it is, in one number: ns. Any thread. (The guest's own time is another: vmm/loop.h.)
 */
#ifndef MIGRATION_CLOCK_H
#define MIGRATION_CLOCK_H

#include <stdint.h>
#include <time.h>

static inline uint64_t clock_read(clockid_t clock)
{
	struct timespec now;

	clock_gettime(clock, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/* CLOCK_MONOTONIC */
static inline uint64_t clock_now(void)
{
	return clock_read(CLOCK_MONOTONIC);
}

/* The same in ms, for what poll() waits. */
static inline int64_t clock_now_ms(void)
{
	return (int64_t)(clock_now() / 1000000);
}

/* For pthread_cond_clockwait() and its like. */
static inline struct timespec clock_timespec(uint64_t ns)
{
	return (struct timespec){.tv_sec = (time_t)(ns / 1000000000),
				 .tv_nsec = (long)(ns % 1000000000)};
}

#endif
