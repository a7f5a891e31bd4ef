/*
 * Short pieces of work of several contestants by turns in one process: the bare floor, and the core
 * with each kind of locking. A machine's noise then falls on all alike, and the ratio of two
 * neighbours says more than that of two runs.
 *
 * side.c is built once for each kind of locking and linked with its own copy of the core, of which
 * nothing but its struct side is visible outside.
 */
#ifndef BENCH_MMU_PAIRS_SIDE_H
#define BENCH_MMU_PAIRS_SIDE_H

#include <stdbool.h>
#include <stdint.h>

#include "mmu/second_stage.h"

/* In the order in which they make sense, each for the same pages. */
enum side_op {
	SIDE_MAP,
	SIDE_HIT,	  /* the floor's without, */
	SIDE_HIT_SECTION, /* and with the core's read section */
	SIDE_PERMISSION,
	SIDE_HARVEST,
	SIDE_WRITABLE, /* again; not measured */
	SIDE_WRITE_PROTECT,
	SIDE_UNMAP,
	SIDE_SPLIT, /* of blocks that are mapped for reading all the time */
	SIDE_COLLAPSE,
	SIDE_OPS
};

/* Each thread's memory: pages from its beginning, blocks from SIDE_BLOCKS on. */
#define SIDE_STRIDE (UINT64_C(4) << 30)
#define SIDE_BLOCKS (UINT64_C(2) << 30)

struct side {
	const char *scheme;
	/* An instance with [0, size) as guest memory; a thread's place in it. */
	void *(*create)(const struct s2_config *config, uint64_t size);
	void (*destroy)(void *instance);
	void *(*enter)(void *instance, uint64_t base, uint64_t pages);
	void (*leave)(void *thread);
	/* For so many of its smallest pages: from base, or base + SIDE_BLOCKS. false: there is no
	 * such operation. */
	bool (*run)(void *thread, enum side_op op, uint64_t base, uint64_t pages);
};

extern const struct side side_floor, side_parallel, side_exclusive, side_older;

#endif
