/*
 * Mapping and unmapping exact ranges of a tree that only the caller uses, over mmu/walker.h: for
 * tests of the walker, and for the images that real decoders read. Same rules as walker.h, but
 * tables are freed at once and the pool is filled as needed, so env->alloc and env->free are
 * called.
 */
#ifndef TEST_WALK_RANGE_H
#define TEST_WALK_RANGE_H

#include "mmu/walker.h"

/* The largest level <= max_level with leaves, for which gpa and addr are aligned and which ends by
 * `last`. */
mmu_inline unsigned walk_largest(const struct geometry *g, uint64_t gpa, uint64_t last,
				 uint64_t addr, unsigned max_level)
{
	unsigned level = max_level < g->levels ? max_level : g->levels;

	for (; level > 1; level--) {
		uint64_t mask = geometry_size(g, level) - 1;

		if (geometry_has_leaf(g, level) && !((gpa | addr) & mask) && (gpa | mask) <= last)
			break;
	}
	return level;
}

/*
 * Maps [start, end) to addr with perm, in leaves as large as fit, up to max_level. *done (may be
 * NULL) is the first address that was not mapped. 0; -EEXIST (something is there: it stays);
 * -EINVAL (the format cannot encode it); -ENOMEM.
 */
mmu_inline int walk_map(const struct format *f, const struct pgtable *pt, struct table_pool *pool,
			uint64_t start, uint64_t end, uint64_t addr, uint32_t perm,
			unsigned max_level, uint64_t *done)
{
	const struct geometry g = format_fold(f, &pt->geo);
	const uint64_t last = end - 1;
	uint64_t gpa = start;
	int err = 0;

	while (!err && gpa <= last) {
		struct walk_entry w = walk_lookup(f, pt, gpa);
		unsigned level = walk_largest(&g, gpa, last, addr, max_level);
		uint64_t leaf;

		if (level > w.level)
			level = w.level;
		leaf = format_make_leaf(f, &g, addr, level, perm);
		if (w.kind != ENTRY_NONE) {
			err = -EEXIST;
		} else if (!leaf) {
			err = -EINVAL;
		} else {
			table_pool_fill(pool, w.level - level);
			err = walk_install(f, pt, pool, &w, gpa, level, leaf, 0);
		}
		if (!err) {
			gpa += geometry_size(&g, level);
			addr += geometry_size(&g, level);
		}
	}
	if (done)
		*done = gpa;
	return err;
}

/*
 * Unmaps exactly [start, end); larger leaves at its ends are split. Tables that lie inside go with
 * it. Adds to *gone what went: leaves and tables. 0 or -ENOMEM (the range is partly unmapped then,
 * and nothing outside it).
 */
mmu_inline int walk_unmap(const struct format *f, const struct pgtable *pt, struct table_pool *pool,
			  uint64_t start, uint64_t end, struct walk_count *gone)
{
	const struct geometry g = format_fold(f, &pt->geo);
	struct walk_iter it;

	for (walk_begin(&it, pt, start, end, 1); walk_next(f, &it);) {
		unsigned level = it.at.level;
		uint64_t old = it.at.value;

		if (it.at.kind == ENTRY_NONE || it.at.kind == ENTRY_FROZEN)
			continue;
		if (walk_covers(f, &it)) {
			bool table = it.at.kind == ENTRY_TABLE;

			walk_replace(f, pt, &it.at, 0);
			if (table)
				walk_free_tree(f, pt, pgtable_at(pt, format_addr(f, &g, old)),
					       level - 1, gone);
			else
				gone->leaves[level]++;
		} else if (it.at.kind == ENTRY_LEAF) {
			uint64_t size = geometry_size(&g, level - 1);
			uint64_t inside = it.gpa & (geometry_size(&g, level) - 1) & ~(size - 1);

			if (!table_pool_fill(pool, 1))
				return -ENOMEM;
			/* The walk goes down into the table that stands there now. */
			walk_install(f, pt, pool, &it.at, it.gpa, level - 1,
				     format_resize(f, &g, old, format_addr(f, &g, old) | inside,
						   level - 1),
				     old);
		}
	}
	return 0;
}

#endif
