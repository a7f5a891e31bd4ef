/*
 * The physical floor: what an emulator without this core would write by hand, for EPT with 4 levels
 * only. Constants, no formats, no slots, no lock, no RCU, no counters: a walk and one
 * compare-and-exchange per page, in the same process and on the same number of threads.
 */
#include <stdlib.h>

#ifndef BENCH_LOCKS
#include "mmu/rcu.h"
#endif
#include "tests/bench/mmu/bench.h"

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

#ifndef BENCH_LOCKS
static __attribute__((noinline)) bool floor_walk_rcu(const uint64_t *table, uint64_t gpa,
						     uint32_t access, struct s2_xlat *out)
{
	bool hit;

	rcu_enter();
	hit = floor_walk(table, gpa, access, out);
	rcu_exit();
	return hit;
}
#else
#define floor_walk_rcu floor_walk
#endif

static uint64_t *shared_root;
static volatile uint64_t sink;

static void body(struct worker *w)
{
	const uint64_t pages = w->b->pages, hits = 1 << 20;
	struct s2_xlat x = {0};
	uint64_t sum = 0;

	bench_begin(w);
	for (uint64_t i = 0; i < pages; i++)
		sum += floor_change(shared_root, w->base + i * 4096, 0,
				    (w->base + i * 4096) | 6 << 3 | 5);
	bench_end(w, "floor-map", (double)pages, "ns");
	bench_begin(w);
	for (uint64_t i = 0; i < pages; i++)
		sum += floor_change(shared_root, w->base + i * 4096, 0, 2);
	bench_end(w, "floor-permission-fault", (double)pages, "ns");
	bench_begin(w);
	sum += floor_range(shared_root, w->base, pages, 2);
	bench_end(w, "floor-write-protect", (double)pages, "ns");
	bench_begin(w);
	for (uint64_t i = 0; i < hits; i++)
		sum += floor_walk(shared_root, w->base + (i & 63) * 4096, S2_R, &x);
	bench_end(w, "floor-hit", (double)hits, "ns");
	bench_begin(w);
	for (uint64_t i = 0; i < hits; i++)
		sum += floor_walk_rcu(shared_root, w->base + (i & 63) * 4096, S2_R, &x);
	bench_end(w, "floor-hit-rcu", (double)hits, "ns");
	bench_begin(w);
	sum += floor_range(shared_root, w->base, pages, UINT64_MAX);
	bench_end(w, "floor-unmap", (double)pages, "ns");
	sink += sum + x.hpa;
}

static void free_tables(uint64_t *table, unsigned level)
{
	for (unsigned i = 0; level > 1 && i < 512; i++) {
		if (table[i] & 7)
			free_tables((uint64_t *)(uintptr_t)(table[i] & ADDR), level - 1);
	}
	bench_env.free(NULL, table, 4096);
}

void bench_floor(struct bench *b)
{
	b->stride = UINT64_C(4) << 30;
	shared_root = bench_env.alloc(NULL, 4096);
	if (!shared_root)
		bench_fail("no memory");
	bench_threads(b, body);
	free_tables(shared_root, 4);
}
