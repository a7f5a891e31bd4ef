#include "mmu/table_pool.h"

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

void *table_alloc(const struct s2_env *env, size_t bytes, unsigned output_bits)
{
	void *table = env->alloc(env->opaque, bytes);

	if (table &&
	    (env_to_pa(env, table) >> output_bits || env_to_pa(env, table) & (bytes - 1))) {
		env->free(env->opaque, table, bytes);
		return NULL;
	}
	return table;
}

bool table_pool_fill(struct table_pool *pool, unsigned want)
{
	while (pool->count < want) {
		void *table = table_alloc(pool->env, pool->bytes, pool->output_bits);

		if (!table)
			return false;
		pool->table[pool->count++] = table;
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
