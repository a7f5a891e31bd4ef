/*
 * Splitting a leaf where hardware wants more than one compare-and-exchange (Arm ARM D8.16.1; the
 * instance's level is s2_config.bbm_level). Compiled to nothing for other formats.
 *
 *	level 0: leaf -> frozen -> flush -> table. Whoever meets the frozen entry and wants it gone
 *or protected clears its "comes back" bit: then it becomes empty, and is faulted again. level 1:
 *leaf -> leaf with nT -> flush -> table: it can be used all the time. level 2: leaf -> table,
 *flush.
 *
 * A flush waits for TLB clients, so it is done with nothing held, and what stands there is looked
 *at again: the second round of stage2_fault.
 */
#ifndef MMU_STAGE2_BREAK_H
#define MMU_STAGE2_BREAK_H

#include "mmu/internal.h"
#include "mmu/rcu.h"

struct stage2_break {
	uint64_t old;	   /* the leaf; 0: nothing is broken */
	uint64_t expect;   /* what stands for it until it is split */
	unsigned level;	   /* of both */
	bool frozen;	   /* by way of a frozen entry, and not of nT */
	bool flush;	   /* to be done */
	bool made;	   /* nothing is left to do after it */
	unsigned nx_level; /* more than 1: a block of this level is small because it is executed */
};

/* The first step, with w holding the leaf and room for `tables`. */
mmu_inline enum s2_result stage2_break(const struct format *f, struct s2_thread *t,
				       struct walk_entry *w, unsigned tables,
				       struct stage2_break *brk)
{
	const struct geometry g = format_fold(f, &t->s2->pt.geo);
	uint64_t old = w->value;

	if (t->pool.count < tables)
		return S2_NOMEM;
	/* nT says that this block is in no TLB; of shadow leaves that were made of it, it says
	 * nothing. They go while the entry is frozen, and no new ones are made. */
	brk->frozen = !t->s2->bbm_level || atomic_load(&t->s2->contexts);
	brk->expect = brk->frozen ? format_freeze_back(f, &g, old, w->level, t->owner)
				  : old | f->not_cached;
	if (!walk_replace(f, &t->s2->pt, w, brk->expect))
		return S2_RETRY;
	brk->old = old;
	brk->level = w->level;
	brk->flush = true;
	return S2_RETRY;
}

/* The second round was not what it should be: what is still frozen becomes empty, and what still
 * has nT is a leaf without it, whatever others have made of the rest. Should one of them be
 * breaking it, too, its second round fails, as after any change. */
mmu_inline void stage2_break_undo(const struct format *f, struct s2_thread *t, uint64_t gpa,
				  const struct stage2_break *brk)
{
	const struct pgtable *pt = &t->s2->pt;
	const bool frozen = brk->frozen;
	struct walk_entry w;

	if (!brk->old || brk->made)
		return;
	brlock_read_lock(&t->s2->lock, &t->reader);
	rcu_enter();
	w = walk_lookup(f, pt, gpa);
	while (w.level == brk->level &&
	       (frozen ? w.kind == ENTRY_FROZEN && format_frozen_owner(f, w.value) == t->owner
		       : w.kind == ENTRY_LEAF && w.value & f->not_cached)) {
		if (walk_replace(f, pt, &w, frozen ? 0 : w.value & ~f->not_cached))
			break;
	}
	rcu_exit();
	brlock_read_unlock(&t->reader);
	/* Also if the table around it has gone: there it counted no more as a leaf. */
	if (frozen)
		count(&t->stats.leaves[brk->level], -UINT64_C(1));
}

/* w is frozen; if it would come back, it will not. false: w is something else now. */
mmu_inline bool stage2_gone(const struct format *f, const struct pgtable *pt, struct walk_entry *w)
{
	while (w->kind == ENTRY_FROZEN && w->value & f->frozen_back)
		walk_replace(f, pt, w, format_frozen_gone(f, w->value));
	return w->kind == ENTRY_FROZEN;
}

#endif
