#include "mmu/table_pool.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static void *default_alloc(void *opaque, size_t bytes)
{
	void *table = aligned_alloc(bytes, bytes);

	(void)opaque;
	return table ? memset(table, 0, bytes) : NULL;
}

static void default_free(void *opaque, void *table, size_t bytes)
{
	(void)opaque;
	(void)bytes;
	free(table);
}

const struct s2_env s2_env_default = {.alloc = default_alloc, .free = default_free};

int table_alloc(const struct s2_env *env, size_t bytes, unsigned output_bits, void **out,
		uint64_t *pa)
{
	void *table = env->alloc(env->opaque, bytes);
	int err;

	if (!table)
		return -ENOMEM;
	*pa = env_to_pa(env, table);
	err = *pa >> output_bits ? -ERANGE : *pa & (bytes - 1) ? -EINVAL : 0;
	if (err)
		env->free(env->opaque, table, bytes);
	else
		*out = table;
	return err;
}

bool table_pool_fill(struct table_pool *pool, unsigned want)
{
	while (pool->count < want) {
		uint64_t pa;

		if (table_alloc(pool->env, pool->bytes, pool->output_bits,
				&pool->table[pool->count], &pa))
			return false;
		pool->count++;
	}
	return true;
}

void *table_pool_get(struct table_pool *pool)
{
	return pool->table[--pool->count];
}

void table_pool_put(struct table_pool *pool, void *table)
{
	memset(table, 0, pool->bytes);
	pool->table[pool->count++] = table;
}

void table_pool_trim(struct table_pool *pool, unsigned keep)
{
	while (pool->count > keep)
		pool->env->free(pool->env->opaque, pool->table[--pool->count], pool->bytes);
}
