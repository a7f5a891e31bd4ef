/*
 * Loads and changes of one table entry, which may happen under the eyes of other threads: always
 * atomic. An entry is 8 or 4 bytes; the size is a constant in specialised code.
 */
#ifndef MMU_ENTRY_H
#define MMU_ENTRY_H

#include <stdbool.h>
#include <stdint.h>

#include "mmu/geometry.h"

mmu_inline void *entry_at(const struct geometry *g, void *table, size_t index)
{
	return (char *)table + index * g->entry_size;
}

/* Acquire: what a table entry points to was filled before the entry was published. */
mmu_inline uint64_t entry_load(const struct geometry *g, const void *entry)
{
	if (g->entry_size == 4)
		return __atomic_load_n((const uint32_t *)entry, __ATOMIC_ACQUIRE);
	return __atomic_load_n((const uint64_t *)entry, __ATOMIC_ACQUIRE);
}

/* For a table that nobody else can see yet. */
mmu_inline void entry_store(const struct geometry *g, void *entry, uint64_t value)
{
	if (g->entry_size == 4)
		__atomic_store_n((uint32_t *)entry, (uint32_t)value, __ATOMIC_RELAXED);
	else
		__atomic_store_n((uint64_t *)entry, value, __ATOMIC_RELAXED);
}

/* On failure *old is what stands there now. */
mmu_inline bool entry_cas(const struct geometry *g, void *entry, uint64_t *old, uint64_t value)
{
	if (g->entry_size == 4) {
		uint32_t old32 = (uint32_t)*old;
		bool done = __atomic_compare_exchange_n((uint32_t *)entry, &old32, (uint32_t)value,
							false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);

		*old = old32;
		return done;
	}
	return __atomic_compare_exchange_n((uint64_t *)entry, old, value, false, __ATOMIC_ACQ_REL,
					   __ATOMIC_ACQUIRE);
}

#endif
