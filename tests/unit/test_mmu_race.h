/*
 * What the MMU core's tests of several threads share: a policy that loses its processor where races
 * are (include this before any header of mmu/ that has code), TLB clients whose owner serves them,
 * and a place to stop everybody. Included once.
 */
#ifndef TEST_MMU_RACE_H
#define TEST_MMU_RACE_H

#include <pthread.h>
#include <sched.h>

#include "tests/unit/test_mmu_util.h"

/* ---- between reading an entry and acting on it ---- */

static inline void lose_time(void)
{
	static _Thread_local uint64_t state;

	if (!state)
		state = (uint64_t)(uintptr_t)&state | 1;
	if (test_random(&state) % 2048 == 0)
		nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
	else if (test_random(&state) % 32 == 0)
		sched_yield();
}
#define MMU_RACE_POINT() lose_time()

/* ---- a TLB client and its queue of invalidations ---- */

enum { RACE_QUEUE = 64 };
#define RACE_NO_TAG UINT32_MAX

struct race_client {
	struct s2_tlb_client tlb;
	/* By the owner, with the mutex held: drops what it holds of [start, end) under a tag, or
	 * without one; end 0: to the end. NULL: it holds nothing. */
	void (*forget)(struct race_client *c, uint32_t tag, uint64_t start, uint64_t end);
	void (*forget_all)(struct race_client *c);
	pthread_mutex_t mutex;
	struct {
		uint32_t tag;
		uint64_t start, end;
	} queue[RACE_QUEUE];
	unsigned queued;
	bool all;
	uint64_t generation;
	atomic_bool pending;
};

/* The client of this thread: it is served while its thread waits for others, who may be waiting for
 * it. */
static _Thread_local struct race_client *race_self;

static inline void race_post_tag(void *opaque, uint32_t tag, uint64_t start, uint64_t end,
				 uint64_t generation)
{
	struct race_client *c = opaque;

	pthread_mutex_lock(&c->mutex);
	if (c->queued == RACE_QUEUE) {
		c->all = true;
	} else {
		c->queue[c->queued].tag = tag;
		c->queue[c->queued].start = start;
		c->queue[c->queued++].end = end;
	}
	c->generation = generation;
	atomic_store(&c->pending, true);
	pthread_mutex_unlock(&c->mutex);
}

static inline void race_post(void *opaque, uint64_t start, uint64_t end, uint64_t generation)
{
	race_post_tag(opaque, RACE_NO_TAG, start, end, generation);
}

static inline void race_serve(struct race_client *c)
{
	uint64_t generation;

	if (!atomic_load(&c->pending))
		return;
	pthread_mutex_lock(&c->mutex);
	for (unsigned i = 0; c->forget && i < c->queued; i++)
		c->forget(c, c->queue[i].tag, c->queue[i].start, c->queue[i].end);
	if (c->all && c->forget_all)
		c->forget_all(c);
	c->queued = 0;
	c->all = false;
	generation = c->generation;
	atomic_store(&c->pending, false);
	pthread_mutex_unlock(&c->mutex);
	s2_tlb_ack(&c->tlb, generation);
}

static inline void race_wait(void *opaque, uint64_t generation)
{
	struct race_client *c = opaque;

	while (!s2_tlb_acked(&c->tlb, generation)) {
		if (race_self)
			race_serve(race_self);
		sched_yield();
	}
}

static inline void race_client_init(struct race_client *c)
{
	*c = (struct race_client){.tlb = {.opaque = c, .invalidate = race_post, .wait = race_wait}};
	pthread_mutex_init(&c->mutex, NULL);
}

/* It is no client any more; what was posted is void. */
static inline void race_client_reset(struct race_client *c)
{
	pthread_mutex_lock(&c->mutex);
	c->queued = 0;
	c->all = false;
	atomic_store(&c->pending, false);
	pthread_mutex_unlock(&c->mutex);
}

/* ---- all stand still ---- */

static atomic_bool race_park;
static atomic_int race_parked;

/* Each thread, now and then; c: its client or NULL. */
static inline void race_park_here(struct race_client *c)
{
	if (!atomic_load(&race_park))
		return;
	atomic_fetch_add(&race_parked, 1);
	while (atomic_load(&race_park)) {
		if (c)
			race_serve(c);
		sched_yield();
	}
	atomic_fetch_sub(&race_parked, 1);
}

static inline void race_stop_all(int threads)
{
	atomic_store(&race_park, true);
	while (atomic_load(&race_parked) < threads)
		sched_yield();
}

static inline void race_go_on(void)
{
	atomic_store(&race_park, false);
	while (atomic_load(&race_parked))
		sched_yield();
}

#endif
