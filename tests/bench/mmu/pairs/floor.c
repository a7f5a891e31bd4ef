/*
 * The physical floor: what an emulator without this core would write by hand, for EPT with 4 levels
 * only. Constants, no formats, no slots, no lock, no RCU, no counters: a walk and one
 * compare-and-exchange per page, in the same process and on the same number of threads.
 */
#include <stdlib.h>

#include "mmu/rcu.h"
#include "tests/bench/mmu/bench.h"
#include "tests/bench/mmu/pairs/side.h"

static const uint64_t ADDR = UINT64_C(0xffffffffff000);

/* The entry of level 1, with the tables on the way; NULL: a table is missing and make is false. */
static uint64_t *floor_entry(uint64_t *root, uint64_t gpa, bool make)
{
	uint64_t *table = root;

	for (unsigned shift = 39; shift > 12; shift -= 9) {
		uint64_t *entry = &table[gpa >> shift & 511];
		uint64_t e = __atomic_load_n(entry, __ATOMIC_ACQUIRE);

		if (!(e & 7)) {
			uint64_t *fresh, none = 0;

			if (!make)
				return NULL;
			fresh = bench_env.alloc(NULL, 4096);
			if (!fresh)
				bench_fail("no memory");
			e = (uint64_t)(uintptr_t)fresh | 7;
			if (!__atomic_compare_exchange_n(entry, &none, e, false, __ATOMIC_ACQ_REL,
							 __ATOMIC_ACQUIRE)) {
				bench_env.free(NULL, fresh, 4096);
				e = none;
			}
		}
		table = (uint64_t *)(uintptr_t)(e & ADDR);
	}
	return &table[gpa >> 12 & 511];
}

static __attribute__((noinline)) bool floor_change(uint64_t *root, uint64_t gpa, uint64_t clear,
						   uint64_t set)
{
	uint64_t *entry = floor_entry(root, gpa, true);
	uint64_t old = __atomic_load_n(entry, __ATOMIC_ACQUIRE);

	return __atomic_compare_exchange_n(entry, &old, (old & ~clear) | set, false,
					   __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
}

/* Over a range: entry by entry within a table, as a range operation is written. */
static __attribute__((noinline)) uint64_t floor_range(uint64_t *root, uint64_t gpa, uint64_t pages,
						      uint64_t clear)
{
	uint64_t changed = 0;

	while (pages) {
		uint64_t *entry = floor_entry(root, gpa, false);
		uint64_t n = 512 - (gpa >> 12 & 511);

		n = n < pages ? n : pages;
		for (uint64_t i = 0; entry && i < n; i++) {
			uint64_t old = __atomic_load_n(&entry[i], __ATOMIC_ACQUIRE);

			changed += __atomic_compare_exchange_n(&entry[i], &old, old & ~clear, false,
							       __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
		}
		gpa += n * 4096;
		pages -= n;
	}
	return changed;
}

static __attribute__((noinline)) bool floor_walk(const uint64_t *table, uint64_t gpa,
						 uint32_t access, struct s2_xlat *out)
{
	uint64_t e, size = UINT64_C(1) << 39;
	uint32_t level = 4;

	for (unsigned shift = 39;; shift -= 9, level--, size >>= 9) {
		e = __atomic_load_n(&table[gpa >> shift & 511], __ATOMIC_ACQUIRE);
		if (!(e & 7))
			return false;
		if (level == 1 || e & 0x80)
			break;
		table = (const uint64_t *)(uintptr_t)(e & ADDR);
	}
	if (access & ~e)
		return false;
	out->hpa = (e & ADDR) | (gpa & (size - 1));
	out->perm = e & 7;
	out->level = level;
	out->entry = e;
	return true;
}

static __attribute__((noinline)) bool floor_walk_rcu(const uint64_t *table, uint64_t gpa,
						     uint32_t access, struct s2_xlat *out)
{
	bool hit;

	rcu_enter();
	hit = floor_walk(table, gpa, access, out);
	rcu_exit();
	return hit;
}

/* Its tables go, too, as the core's do: whoever maps again needs new ones. */
static uint64_t floor_unmap(uint64_t *root, uint64_t base, uint64_t pages)
{
	uint64_t changed = floor_range(root, base, pages, UINT64_MAX);

	for (uint64_t gpa = base; gpa < base + pages * 4096; gpa += 512 * 4096) {
		uint64_t *table = root;

		for (unsigned shift = 39; shift > 21; shift -= 9)
			table = (uint64_t *)(uintptr_t)(table[gpa >> shift & 511] & ADDR);
		bench_env.free(NULL, (void *)(uintptr_t)(table[gpa >> 21 & 511] & ADDR), 4096);
		table[gpa >> 21 & 511] = 0;
	}
	return changed;
}

static void free_tables(uint64_t *table, unsigned level)
{
	for (unsigned i = 0; level > 1 && i < 512; i++) {
		if (table[i] & 7)
			free_tables((uint64_t *)(uintptr_t)(table[i] & ADDR), level - 1);
	}
	bench_env.free(NULL, table, 4096);
}

static void *floor_create(const struct s2_config *config, uint64_t size)
{
	void *root = bench_env.alloc(NULL, 4096);

	(void)config, (void)size;
	if (!root)
		bench_fail("no memory");
	return root;
}

static void floor_destroy(void *instance)
{
	free_tables(instance, 4);
}

static void *floor_enter(void *instance, uint64_t base, uint64_t pages)
{
	(void)base, (void)pages;
	return instance;
}

static void floor_leave(void *thread)
{
	(void)thread;
}

static volatile uint64_t sink;

static bool floor_run(void *thread, enum side_op op, uint64_t base, uint64_t pages)
{
	struct s2_xlat x = {0};
	uint64_t *root = thread, sum = 0;

	switch (op) {
	case SIDE_MAP:
		for (uint64_t i = 0; i < pages; i++)
			sum += floor_change(root, base + i * 4096, 0,
					    (base + i * 4096) | 6 << 3 | 5);
		break;
	case SIDE_PERMISSION:
	case SIDE_WRITABLE:
		for (uint64_t i = 0; i < pages; i++)
			sum += floor_change(root, base + i * 4096, 0, 2);
		break;
	case SIDE_HIT:
		for (uint64_t i = 0; i < pages; i++)
			sum += floor_walk(root, base + (i & 63) * 4096, S2_R, &x);
		break;
	case SIDE_HIT_SECTION:
		for (uint64_t i = 0; i < pages; i++)
			sum += floor_walk_rcu(root, base + (i & 63) * 4096, S2_R, &x);
		break;
	case SIDE_HARVEST:
	case SIDE_SPLIT:
	case SIDE_COLLAPSE: return false;
	case SIDE_WRITE_PROTECT: sum = floor_range(root, base, pages, 2); break;
	default: sum = floor_unmap(root, base, pages); break;
	}
	sink += x.hpa;
	if (sum != pages)
		bench_fail("the floor lost a page");
	return true;
}

const struct side side_floor = {.scheme = "floor",
				.create = floor_create,
				.destroy = floor_destroy,
				.enter = floor_enter,
				.leave = floor_leave,
				.run = floor_run};
