/*
 * A scheduler of coroutines that tries every interleaving of a few threads, up to a number of
 * preemptions, and what a memory model weaker than x86's lets a load see.
 *
 * A program runs again and again from the beginning; each decision (who goes on, which of several
 * values a load returns) is taken from a list, and the last one that has another choice is changed
 * for the next run, until none has. A run that fails is repeated with its steps printed.
 *
 * Memory model: release and acquire. Every atomic location has the list of its values; every thread
 * has a view, the oldest value of each location that it may still see. A release passes the
 * writer's view on with the value, an acquire takes it. A read-modify-write reads the newest value.
 * Sequentially consistent accesses, locks and grace periods pass views both ways. What a table held
 * before its owner filled it can be seen by whoever has not acquired from the owner: garbage.
 */
#ifndef EXPLORE_H
#define EXPLORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { EXPLORE_THREADS = 4 };

struct explore_config {
	unsigned preemptions; /* involuntary switches per run */
	unsigned stale;	      /* loads per run that see an older value than the newest */
	uint64_t max_runs;    /* 0: until all are done */
	unsigned window; /* bytes of each block that threads change; the rest is never a point */
};

struct explore_result {
	uint64_t runs, steps;
	bool complete; /* every interleaving within the bounds */
	bool failed;
};

/* Runs setup (alone), the threads (at once), finish (alone), for every schedule. */
struct explore_program {
	void (*setup)(void *arg);
	void (*thread[EXPLORE_THREADS])(void *arg);
	void (*finish)(void *arg);
	void *arg;
};
struct explore_result explore(const struct explore_program *program,
			      const struct explore_config *config);

/* Within a run. The run has failed: it is abandoned. */
_Noreturn void explore_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Another thread may come here. */
void explore_point(const char *what);
/* 0 .. EXPLORE_THREADS - 1; in setup and finish: EXPLORE_THREADS. */
unsigned explore_self(void);
/* Memory that is watched: tables and bitmaps. Used after it is freed: the run fails. */
void *explore_alloc(size_t bytes);
void explore_free(void *memory, size_t bytes);
/* Pieces that are allocated and not freed. */
long explore_live(void);
/* Such memory by small numbers, for formats whose entries have no room for pointers. */
uint64_t explore_address(const void *memory);
void *explore_memory(uint64_t address);
/* Until the end of the run, accesses to [at, at + bytes) that are ordered are points as those to
 * entries are, and stores there are seen by others in their own time. */
void explore_watch(const volatile void *at, size_t bytes);

/* For programs: relaxed accesses to data. */
uint64_t explore_read(const uint64_t *at);
void explore_write(uint64_t *at, uint64_t value);

#endif
