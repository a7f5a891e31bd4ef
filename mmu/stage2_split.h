/*
 * Splitting large leaves of a range, common to all formats. In chunks of as many blocks as the
 * thread's cache holds tables: it is filled, and arm64 flushes, between chunks and with nothing
 * held. Where a block is broken first (bbm_level 0 and 1), the whole chunk is: one flush for all.
 */
#ifndef MMU_STAGE2_SPLIT_H
#define MMU_STAGE2_SPLIT_H

#include "mmu/stage2_fault.h"
#include "mmu/stage2_range.h"

struct stage2_chunk {
	unsigned broken; /* so many wait for their table */
	struct {
		uint64_t gpa;
		struct stage2_break brk;
	} block[TABLE_POOL_MAX];
	uint64_t first, last; /* to be flushed, if first < last */
};

/* `old`, which w holds or held before it was broken, becomes a table of leaves of the next lower
 * level. 0 or what walk_install says. */
mmu_inline int stage2_split_block(const struct format *f, struct s2_thread *t, struct walk_entry *w,
				  uint64_t gpa, uint64_t old)
{
	const struct geometry g = format_fold(f, &t->s2->pt.geo);
	unsigned from = w->level;
	uint64_t inside = gpa & (geometry_size(&g, from) - 1) & ~(geometry_size(&g, from - 1) - 1);
	uint64_t leaf = format_resize(f, &g, old, format_addr(f, &g, old) | inside, from - 1);
	int err = walk_install(f, &t->s2->pt, &t->pool, w, gpa, from - 1, leaf, old);

	if (!err) {
		stage2_count_install(&g, &t->stats, true, from, from - 1);
		trace_event(&t->trace, S2_TRACE_SPLIT, gpa, old, w->value, from);
	}
	return err;
}

mmu_inline void stage2_chunk_flush(struct stage2_chunk *c, const struct geometry *g, uint64_t gpa,
				   unsigned level)
{
	uint64_t mask = geometry_size(g, level) - 1;

	if ((gpa & ~mask) < c->first)
		c->first = gpa & ~mask;
	if ((gpa | mask) > c->last)
		c->last = gpa | mask;
}

/* The entry at which the iterator stands, a leaf: split, or broken. -ENOMEM: the chunk is full. */
mmu_inline int stage2_split_entry(const struct format *f, struct s2_thread *t, struct walk_iter *it,
				  struct stage2_chunk *c)
{
	const struct geometry g = format_fold(f, &t->s2->pt.geo);
	unsigned level = it->at.level;
	int err;

	if (t->pool.count <= c->broken)
		return -ENOMEM;
	if (f->break_before_make)
		stage2_chunk_flush(c, &g, it->gpa, level);
	if (!f->break_before_make || t->s2->bbm_level == 2) {
		err = stage2_split_block(f, t, &it->at, it->gpa, it->at.value);
	} else {
		struct stage2_break *brk = &c->block[c->broken].brk;

		*brk = (struct stage2_break){0};
		stage2_break(f, t, &it->at, 1, brk);
		c->block[c->broken].gpa = it->gpa;
		c->broken += brk->old != 0;
		err = brk->old ? 0 : -EAGAIN;
	}
	if (err)
		count(&t->stats.retries, 1);
	return err;
}

/* After the flush. */
mmu_inline void stage2_split_broken(const struct format *f, struct s2_thread *t,
				    struct stage2_chunk *c)
{
	struct stage2_loop loop = {.t = t};

	for (unsigned i = 0; i < c->broken; i++) {
		struct stage2_break *brk = &c->block[i].brk;
		struct walk_entry w;

		stage2_enter(&loop);
		w = walk_lookup(f, &t->s2->pt, c->block[i].gpa);
		brk->made = w.value == brk->expect && w.level == brk->level &&
			    !stage2_split_block(f, t, &w, c->block[i].gpa, brk->old);
		stage2_exit(&loop);
		stage2_break_undo(f, t, c->block[i].gpa, brk);
	}
}

mmu_inline int stage2_split(const struct format *f, struct s2_thread *t, uint64_t start,
			    uint64_t end, unsigned level)
{
	struct stage2_loop loop = {.t = t};
	struct walk_iter it;
	bool more = true;
	int err = 0;

	walk_begin(&it, &t->s2->pt, start, end, level);
	while (more) {
		struct stage2_chunk c = {.first = UINT64_MAX};

		if (err == -ENOMEM && !table_pool_fill(&t->pool, TABLE_POOL_MAX) && !t->pool.count)
			return err;
		err = 0;
		stage2_enter(&loop);
		walk_restart(&it);
		while (err != -ENOMEM && (more = stage2_next(f, &loop, &it))) {
			/* After a lost race it holds what is there now. */
			do
				err = it.at.kind == ENTRY_LEAF && it.at.level > level
					      ? stage2_split_entry(f, t, &it, &c)
					      : 0;
			while (err == -EAGAIN);
		}
		stage2_exit(&loop);
		if (f->break_before_make && c.first < c.last)
			range_flush(t, c.first, c.last + 1);
		if (f->break_before_make && c.broken) {
			stage2_split_broken(f, t, &c);
			/* and down into what stands there now */
			it.gpa = c.block[0].gpa;
			more = true;
		}
	}
	return 0;
}

#endif
