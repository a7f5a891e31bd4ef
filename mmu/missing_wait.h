/*
 * Those who wait for a page, hashed by its address; for mmu/ only. A bucket's mutex is taken with
 * the instance's lock (read side) held, and is the innermost but for what `fill` and `wake` take.
 */
#ifndef MMU_MISSING_WAIT_H
#define MMU_MISSING_WAIT_H

#include <pthread.h>
#include <stdatomic.h>

#include "mmu/missing.h"

struct missing_bucket {
	/* also held by whoever fills a page of this bucket */
	_Alignas(64) pthread_mutex_t mutex;
	struct s2_page_waiter *waiters;
};

enum { MISSING_BUCKETS = 64 };

struct missing {
	struct s2_missing_ops ops;
	_Atomic uint64_t awaited, requested, received, dropped, waits;
	unsigned shift; /* of a page */
	struct missing_bucket bucket[MISSING_BUCKETS];
};

/* NULL: no memory. */
struct missing *missing_create(const struct s2_env *env, const struct s2_missing_ops *ops,
			       unsigned shift);
void missing_free(struct missing *m, const struct s2_env *env);

static inline struct missing_bucket *missing_bucket(struct missing *m, uint64_t gpa)
{
	return &m->bucket[(gpa >> m->shift) % MISSING_BUCKETS];
}

/* Wakes those in the bucket that wait for [first, last]; its mutex is held. */
void missing_wake(struct missing_bucket *bucket, uint64_t first, uint64_t last);

#endif
