/*
 * Walking and changing a tree of tables, for any format: iterate, look up, install, freeze, thaw.
 * No guest, no lock, no TLB, no statistics: policy is built on top (stage2_*.h).
 *
 * All functions are always-inline over a constant `struct format` and so specialised by the
 * compiler. They change entries by compare-and-exchange and may run concurrently; the caller keeps
 * tables alive (an RCU read section, the read side of the instance's lock, or being alone).
 */
#ifndef MMU_WALKER_H
#define MMU_WALKER_H

#include <errno.h>
#include <stdatomic.h>

#include "mmu/entry.h"
#include "mmu/format.h"
#include "mmu/table_pool.h"

/* Where another thread may come between reading and acting. A test may define it, before it
 * includes this, to lose time there (tests/unit/test_mmu_stress.c). */
#ifndef MMU_RACE_POINT
#define MMU_RACE_POINT() ((void)0)
#endif

struct pgtable {
	struct geometry geo;
	const struct s2_env *env;
	void *root;
	uint64_t root_pa;
	uint64_t max;  /* the last address that goes in */
	bool identity; /* table addresses are pointers */
	/* Of a leaf, for a software TLB: A, if A tells what is used, and D while D tells what is
	 * written. */
	_Atomic uint64_t need;
};

/* What a leaf grants to a software TLB: nothing without A, and W only with D, where these tell
 * something: no walk of hardware sets them on the first use through that TLB. */
mmu_inline uint32_t pgtable_perm(const struct format *f, const struct pgtable *pt, uint64_t leaf)
{
	uint64_t lacks = atomic_load_explicit(&pt->need, memory_order_relaxed) & ~leaf;
	uint32_t perm = f->perm(leaf);

	if (__builtin_expect(lacks != 0, 0))
		perm = lacks & f->accessed ? 0 : perm & ~(uint32_t)FORMAT_W;
	return perm;
}

mmu_inline void *pgtable_at(const struct pgtable *pt, uint64_t pa)
{
	if (__builtin_expect(pt->identity, 1))
		return (void *)(uintptr_t)pa;
	return env_from_pa(pt->env, pa);
}

/* 0; -ENOMEM; -ERANGE, -EINVAL: of the address in pt->root_pa, see table_alloc. */
int pgtable_init(struct pgtable *pt, const struct geometry *geo, const struct s2_env *env);

/* One entry on the way: where it stands and what was read there. */
struct walk_entry {
	void *entry;
	uint64_t value;
	unsigned level;
	enum entry_kind kind;
};

/* Down a tree to the lowest entry that covers addr. load reads entry `index` of the table at
 * `table` (in whatever addresses entries hold) into w->value, says where it was in w->entry, and
 * may look at it: what it returns but 0 ends the walk and is returned. For the instance's own
 * tables, and read-only for a guest's (mmu/guest), which may hold anything: the number of levels
 * bounds it. */
typedef int walk_load_fn(void *opaque, uint64_t table, size_t index, struct walk_entry *w);

mmu_inline int walk_down(const struct format *f, const struct geometry *g, uint64_t root,
			 uint64_t addr, walk_load_fn load, void *opaque, struct walk_entry *w)
{
	bool below = false;
	int err;

	w->level = g->levels;
	err = load(opaque, root, geometry_index(g, g->levels, addr), w);
	if (err)
		return err;
	w->kind = format_kind(f, w->value, w->level);
	/* Unrolled, so that every level below the root is a constant; once below it, the compiler
	 * need not ask any more. */
#pragma GCC unroll 8
	for (unsigned level = MMU_MAX_LEVELS - 1; level; level--) {
		below = below || level < g->levels;
		if (!below)
			continue;
		if (w->kind != ENTRY_TABLE)
			break;
		MMU_RACE_POINT();
		w->level = level;
		err = load(opaque, format_addr(f, g, w->value),
			   (size_t)(addr >> geometry_shift(g, level)) &
				   (((size_t)1 << g->index_bits) - 1),
			   w);
		if (err)
			return err;
		w->kind = format_kind(f, w->value, level);
	}
	return 0;
}

struct walk_source {
	const struct pgtable *pt;
	struct geometry g;
};

mmu_inline int walk_load_own(void *opaque, uint64_t table, size_t index, struct walk_entry *w)
{
	const struct walk_source *source = opaque;

	w->entry = entry_at(&source->g, pgtable_at(source->pt, table), index);
	w->value = entry_load(&source->g, w->entry);
	return 0;
}

/* Of a tree whose table addresses are pointers. */
mmu_inline int walk_load_pointer(void *opaque, uint64_t table, size_t index, struct walk_entry *w)
{
	const struct geometry *g = opaque;

	w->entry = entry_at(g, (void *)(uintptr_t)table, index);
	w->value = entry_load(g, w->entry);
	return 0;
}

/* walk_lookup where table addresses are pointers (pt->identity), for where time counts. f is a
 * constant. */
mmu_inline struct walk_entry walk_lookup_pointers(const struct format *f, const struct pgtable *pt,
						  uint64_t gpa)
{
	struct geometry g = format_fold(f, &pt->geo);
	const size_t mask = ((size_t)1 << g.index_bits) - 1;
	struct walk_entry w = {0};
	uint64_t table = pt->root_pa;
	bool below = false;

	/* Unrolled, as in walk_down. gpa is not wider than the root: its index needs no mask. */
#pragma GCC unroll 8
	for (unsigned level = MMU_MAX_LEVELS; level; level--) {
		size_t index;

		if (!below && level != g.levels)
			continue;
		index = (size_t)(gpa >> geometry_shift(&g, level));
		w.entry = entry_at(&g, (void *)(uintptr_t)table, below ? index & mask : index);
		w.value = entry_load(&g, w.entry);
		w.level = level;
		if (level == 1 || !format_points(f, &g, w.value, &table))
			break;
		below = true;
		MMU_RACE_POINT();
	}
	w.kind = format_kind(f, w.value, w.level);
	return w;
}

/* The lowest entry that covers gpa: a leaf, nothing, or a frozen one. gpa is within the input
 * width. Whether addresses are pointers is asked once and not at every level. */
mmu_inline struct walk_entry walk_lookup(const struct format *f, const struct pgtable *pt,
					 uint64_t gpa)
{
	struct walk_source source = {.pt = pt, .g = format_fold(f, &pt->geo)};
	struct walk_entry w;

	if (__builtin_expect(pt->identity, 1))
		walk_down(f, &source.g, pt->root_pa, gpa, walk_load_pointer, &source.g, &w);
	else
		walk_down(f, &source.g, pt->root_pa, gpa, walk_load_own, &source, &w);
	return w;
}

/*
 * Iterator over the entries that cover [start, end), in address order, a table's entry before what
 * is below it. Explicit state: a loop may stop anywhere, leave its read section and go on after
 * walk_restart.
 *
 *	for (walk_begin(&it, pt, start, end, min_level); walk_next(f, &it);)
 *
 * `at` is up to date after it.at.value is replaced by a successful change: the walk goes down into
 * what now stands there (and not below min_level). end 0 means the end of the input space.
 */
struct walk_iter {
	const struct pgtable *pt;
	uint64_t gpa;  /* first address in [start, end) that the entry covers */
	uint64_t last; /* last address of the range */
	unsigned min_level;
	bool fresh; /* begin again at the root, for gpa */
	struct walk_entry at;
	void *table[MMU_MAX_LEVELS + 1];
};

mmu_inline void walk_begin(struct walk_iter *it, const struct pgtable *pt, uint64_t start,
			   uint64_t end, unsigned min_level)
{
	it->pt = pt;
	it->gpa = start;
	it->last = end - 1;
	if (it->last > geometry_max(&pt->geo))
		it->last = geometry_max(&pt->geo);
	it->min_level = min_level;
	it->fresh = true;
	it->at = (struct walk_entry){0}; /* compilers at -O1 do not see that `fresh` says so */
}

/* The tables may have changed or gone: the present entry is looked up again, from the root. */
mmu_inline void walk_restart(struct walk_iter *it)
{
	it->fresh = true;
}

mmu_inline bool walk_load(const struct format *f, const struct geometry *g, struct walk_iter *it)
{
	unsigned level = it->at.level;

	it->at.entry = entry_at(g, it->table[level], geometry_index(g, level, it->gpa));
	it->at.value = entry_load(g, it->at.entry);
	it->at.kind = format_kind(f, it->at.value, level);
	return true;
}

/* Steps over the present entry and all below it. */
mmu_inline bool walk_skip(const struct format *f, struct walk_iter *it)
{
	const struct geometry g = format_fold(f, &it->pt->geo);
	uint64_t size = geometry_size(&g, it->at.level);
	uint64_t covered = it->gpa | (size - 1);

	if (covered >= it->last)
		return false;
	it->gpa = covered + 1;
	while (it->at.level < g.levels && geometry_index(&g, it->at.level, it->gpa) == 0)
		it->at.level++;
	return walk_load(f, &g, it);
}

mmu_inline bool walk_next(const struct format *f, struct walk_iter *it)
{
	const struct geometry g = format_fold(f, &it->pt->geo);

	if (it->fresh) {
		if (it->gpa > it->last)
			return false;
		it->fresh = false;
		it->at.level = g.levels;
		it->table[g.levels] = it->pt->root;
		return walk_load(f, &g, it);
	}
	if (it->at.kind == ENTRY_TABLE && it->at.level > it->min_level) {
		unsigned level = --it->at.level;

		MMU_RACE_POINT();
		it->table[level] = pgtable_at(it->pt, format_addr(f, &g, it->at.value));
		return walk_load(f, &g, it);
	}
	return walk_skip(f, it);
}

/* With the present entry of level 1: how many entries of its table follow each other from it on in
 * the range (at most `most`), itself included, to be visited without the iterator: entry_at(g,
 * it->at.entry, i). walk_run_done says that n of them have been: the walk goes on behind. */
mmu_inline size_t walk_run(const struct format *f, const struct walk_iter *it, size_t most)
{
	const struct geometry g = format_fold(f, &it->pt->geo);
	size_t left = geometry_entries(&g, 1) - geometry_index(&g, 1, it->gpa);
	uint64_t pages = (it->last >> geometry_shift(&g, 1)) - (it->gpa >> geometry_shift(&g, 1));

	if (pages < left)
		left = (size_t)pages + 1;
	return left < most ? left : most;
}

mmu_inline void walk_run_done(const struct format *f, struct walk_iter *it, size_t n)
{
	const struct geometry g = format_fold(f, &it->pt->geo);

	it->gpa += (uint64_t)(n - 1) << geometry_shift(&g, 1);
}

/* The part of the range that the present entry covers lies wholly inside it. */
mmu_inline bool walk_covers(const struct format *f, const struct walk_iter *it)
{
	const struct geometry g = format_fold(f, &it->pt->geo);
	uint64_t size = geometry_size(&g, it->at.level);

	return !(it->gpa & (size - 1)) && (it->gpa | (size - 1)) <= it->last;
}

/* Replaces w's value; on failure w holds what stands there now. */
mmu_inline bool walk_replace(const struct format *f, const struct pgtable *pt, struct walk_entry *w,
			     uint64_t value)
{
	const struct geometry g = format_fold(f, &pt->geo);
	/* Of its own: what has its address taken for the exchange is kept in memory. */
	uint64_t now = w->value;
	bool done;

	MMU_RACE_POINT();
	done = entry_cas(&g, w->entry, &now, value);
	w->value = done ? value : now;
	w->kind = format_kind(f, w->value, w->level);
	return done;
}

/*
 * Puts `leaf`, an entry of level `goal`, where w stands (level >= goal), with the tables between.
 * They are built aside and appear with one compare-and-exchange: all or nothing. If `old` is a
 * larger leaf (which w holds, or held before it was frozen), it is split on the way and the rest of
 * it stays mapped as it was; 0: there was none.
 * 0; -EAGAIN (lost a race: w is fresh); -ENOMEM (the pool holds fewer than w->level - goal).
 */
mmu_inline int walk_install(const struct format *f, const struct pgtable *pt,
			    struct table_pool *pool, struct walk_entry *w, uint64_t gpa,
			    unsigned goal, uint64_t leaf, uint64_t old)
{
	const struct geometry g = format_fold(f, &pt->geo);
	void *table[MMU_MAX_LEVELS + 1];
	uint64_t value = leaf;

	if (pool->count < w->level - goal)
		return -ENOMEM;
	for (unsigned level = goal; level < w->level; level++) {
		uint64_t base = format_addr(f, &g, old) | (gpa & (geometry_size(&g, w->level) - 1) &
							   ~(geometry_size(&g, level + 1) - 1));

		table[level] = table_pool_get(pool);
		for (size_t i = 0; old && i < geometry_entries(&g, level); i++)
			entry_store(&g, entry_at(&g, table[level], i),
				    format_resize(f, &g, old, base + i * geometry_size(&g, level),
						  level));
		entry_store(&g, entry_at(&g, table[level], geometry_index(&g, level, gpa)), value);
		value = format_make_table(f, &g, env_to_pa(pt->env, table[level]));
	}
	if (value && walk_replace(f, pt, w, value))
		return 0;
	for (unsigned level = goal; level < w->level; level++)
		table_pool_put(pool, table[level]);
	return -EAGAIN;
}

/* Freezes w for owner. false: lost a race, w is fresh. */
mmu_inline bool walk_freeze(const struct format *f, const struct pgtable *pt, struct walk_entry *w,
			    unsigned owner)
{
	const struct geometry g = format_fold(f, &pt->geo);

	return walk_replace(f, pt, w, format_freeze(f, &g, w->value, w->level, owner));
}

/* What was below an entry, per kind. */
struct walk_count {
	uint64_t leaves[MMU_MAX_LEVELS + 1];
	uint64_t tables;
};

/* Gives back `table` (whose entries are of `level`) and every table below, frozen ones included.
 * Nobody else sees them any more. Calls env->free; adds what was there to *count. */
void walk_free_tree(const struct format *f, const struct pgtable *pt, void *table, unsigned level,
		    struct walk_count *count);

#endif
