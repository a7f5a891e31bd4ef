/* Memory of tables: what the instance is given as its environment. */
#include "tests/explore/world.h"

/* Nothing is allocated or freed under the core's lock. */
static void check_unlocked(void)
{
	const struct s2_thread *t = me();

	if (t && t->reader.turn & 1)
		explore_fail("allocates or frees with the lock held");
}

static void *env_alloc(void *opaque, size_t bytes)
{
	(void)opaque;
	check_unlocked();
	return explore_alloc(bytes < 4096 ? 4096 : bytes);
}

static void env_free(void *opaque, void *memory, size_t bytes)
{
	(void)opaque;
	check_unlocked();
	explore_free(memory, bytes);
}

/* Not 0, which is no table's address. */
static const uint64_t first_address = 1 << 20;

static uint64_t env_number(void *opaque, const void *table)
{
	(void)opaque;
	return first_address + explore_address(table);
}

static void *env_numbered(void *opaque, uint64_t pa)
{
	(void)opaque;
	return explore_memory(pa - first_address);
}

const void *world_table(void *opaque, uint64_t pa)
{
	(void)opaque;
	return format->numbered ? env_numbered(NULL, pa) : (const void *)(uintptr_t)pa;
}

static const struct s2_env env = {.alloc = env_alloc, .free = env_free};
static const struct s2_env numbered_env = {
	.alloc = env_alloc, .free = env_free, .to_pa = env_number, .from_pa = env_numbered};

const struct s2_env *world_env(void)
{
	return format->numbered ? &numbered_env : &env;
}
