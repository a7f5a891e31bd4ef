/*
 * What the parts of the explorer share: explore.c (the scheduler: who goes on, the runs and their
 * decisions), memory.c (what a load sees, locks, barriers), rcu.c (grace periods), heap.c (memory
 * that a run allocates and watches). All is one real thread: nothing here is locked.
 */
#ifndef EXPLORE_INTERNAL_H
#define EXPLORE_INTERNAL_H

#include "tests/explore/calls.h"
#include "tests/explore/explore.h"

enum {
	EXPLORE_MAIN = EXPLORE_THREADS, /* explore_self() in setup and finish */
	EXPLORE_BLOCKS = 64,		/* of 4096 bytes */
};

/* The run under way. The scheduler changes it; the others read it. */
struct explore_run {
	const struct explore_config *config;
	unsigned self, threads;
	unsigned steps; /* memory.c adds those that are no points */
	bool done[EXPLORE_THREADS];
	bool tracing; /* it has failed, and is repeated to be printed */
};
extern struct explore_run current;

/* ---- explore.c ---- */

/* One of 0 .. choices - 1; each of them in some run. */
unsigned explore_choose(unsigned choices);

/* ---- memory.c ---- */

/* Before setup: nothing has a history. */
void memory_begins(void);
/* Between setup and the threads, between these and finish: all before is seen by all after. */
void memory_starts_threads(void);
void memory_ends_threads(void);
/* The calling thread owns the `n` blocks from `first`, and fills them. */
void memory_fills(unsigned first, unsigned n);
/* What threads have seen that began a grace period, and those that begin a section after it see. */
void memory_gives_grace(void);
void memory_takes_grace(void);
/* The calling thread sees what `thread` has done so far. */
void memory_sees(unsigned thread);

/* ---- rcu.c ---- */

/* Before setup: nobody reads. */
void rcu_begins(void);
/* The calling thread is in a read section. */
bool rcu_in_section(void);

/* ---- heap.c ---- */

/* Before setup: nothing is allocated or watched. */
void heap_begins(void);
bool heap_watched(const volatile void *at);

/* For the inline functions only: every load of an entry calls them. */
extern char heap_blocks[EXPLORE_BLOCKS][4096];
extern bool heap_freed[EXPLORE_BLOCKS];

/* The block that `at` lies in; -1: none. */
static inline int heap_block(const volatile void *at)
{
	const char *p = (const char *)at;

	return p >= heap_blocks[0] && p < heap_blocks[EXPLORE_BLOCKS]
		       ? (int)((p - heap_blocks[0]) / 4096)
		       : -1;
}

/* The run fails if `at` lies in a block that is freed. */
static inline void heap_check(const volatile void *at)
{
	int block = heap_block(at);

	if (block >= 0 && heap_freed[block])
		explore_fail("a freed table is used: block %d", block);
}

/* What is not of interest is done at once, in the order of its program. */
static inline bool heap_beyond_window(const volatile void *at)
{
	int block = heap_block(at);

	return block >= 0 && (const char *)at >= heap_blocks[block] + current.config->window;
}

/* ---- what else instrument.h makes of the code's calls ---- */

int rcu_init(void);
void rcu_enter(void);
void rcu_exit(void);
void rcu_synchronize(void);

#endif
