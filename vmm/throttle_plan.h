/*
 * Which vCPUs wait, and how long, so that all of them together dirty no more than so many pages per
 * second: each is charged for what it has written itself, by the estimate of the MMU core
 * (s2_dirty_rate()), and what writes little never waits. Here is no clock, no thread and no
 * machine: who calls brings the time and the lock.
 */
#ifndef VMM_THROTTLE_PLAN_H
#define VMM_THROTTLE_PLAN_H

#include "cpu/engine.h"
#include "mmu/second_stage.h"

struct throttle_plan {
	unsigned count; /* vCPUs, at most CPU_MAX */
	uint64_t pages; /* per second, of all */
	/* Times are CLOCK_MONOTONIC in ns. `dirty_rate` as in struct engine_ops, for vCPU `vcpu`.
	 */
	uint64_t (*dirty_rate)(void *opaque, unsigned vcpu, struct s2_dirty_rate *state,
			       uint64_t now);
	void *opaque;
	uint64_t last; /* tick */
	struct {
		struct s2_dirty_rate rate;
		double demand;	/* pages per second while it runs */
		uint64_t until; /* when it has waited enough */
	} vcpu[CPU_MAX];
};

/* The fields above `last` are set, the rest is zero. */
void throttle_plan_begin(struct throttle_plan *p, uint64_t now);
/* Every 10 ms or so. The vCPUs that wait longer than before, a bit each: they must be told. */
uint64_t throttle_plan_tick(struct throttle_plan *p, uint64_t now);

#endif
