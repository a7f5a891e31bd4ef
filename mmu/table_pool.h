/*
 * A thread's cache of zeroed table pages, filled before any lock is taken and used under locks,
 * where nothing may be allocated. Not for roots, which may be larger. No locking: one owner.
 */
#ifndef MMU_TABLE_POOL_H
#define MMU_TABLE_POOL_H

#include <stdbool.h>
#include <stddef.h>

#include "mmu/second_stage.h"

enum { TABLE_POOL_MAX = 8 };

struct table_pool {
	const struct s2_env *env;
	size_t bytes;	      /* of one table */
	unsigned output_bits; /* a table beyond is given back, as if memory were short */
	unsigned count;
	void *table[TABLE_POOL_MAX];
};

/* Conversions of table addresses. An environment without to_pa/from_pa is the identity. */
static inline uint64_t env_to_pa(const struct s2_env *env, const void *table)
{
	return env->to_pa ? env->to_pa(env->opaque, table) : (uint64_t)(uintptr_t)table;
}

static inline void *env_from_pa(const struct s2_env *env, uint64_t pa)
{
	return env->from_pa ? env->from_pa(env->opaque, pa) : (void *)(uintptr_t)pa;
}

/* A zeroed table of `bytes`, and the address that entries hold. -ENOMEM; with *pa what cannot be
 * used and was given back: -ERANGE: wider than output_bits, -EINVAL: no multiple of `bytes`. */
int table_alloc(const struct s2_env *env, size_t bytes, unsigned output_bits, void **out,
		uint64_t *pa);

/* Tries to have `want` (<= TABLE_POOL_MAX) tables at hand; false: memory is short and there are
 * fewer. Calls env->alloc. */
bool table_pool_fill(struct table_pool *pool, unsigned want);
/* The caller has checked pool->count. */
void *table_pool_get(struct table_pool *pool);
/* Back after a lost race; the pool zeroes it. */
void table_pool_put(struct table_pool *pool, void *table);
/* Gives back all but `keep`. Calls env->free. */
void table_pool_trim(struct table_pool *pool, unsigned keep);

#endif
