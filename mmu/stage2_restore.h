/*
 * A leaf that was aged is used again: a fault that needs neither the lock nor a slot, since the
 * leaf gets back what it had and nothing else. If it has been changed meanwhile, or unmapped, the
 * exchange fails; if a table around it has gone, nobody gets there any more.
 */
#ifndef MMU_STAGE2_RESTORE_H
#define MMU_STAGE2_RESTORE_H

#include "mmu/internal.h"
#include "mmu/rcu.h"

/* true: done, w is the leaf now and *found what it was. false: it is another kind of fault. */
mmu_inline bool stage2_restore(const struct format *f, struct s2_thread *t, uint64_t gpa,
			       uint32_t access, struct walk_entry *w, uint64_t *found)
{
	const struct pgtable *pt = &t->s2->pt;
	const struct geometry g = format_fold(f, &pt->geo);
	bool done = false;

	rcu_enter();
	*w = walk_lookup(f, pt, gpa);
	while (!done && w->kind == ENTRY_LEAF) {
		uint64_t young = format_young(f, &g, w->value);

		if (young == w->value || access & ~pgtable_perm(f, pt, young))
			break;
		*found = w->value;
		done = walk_replace(f, pt, w, young);
	}
	rcu_exit();
	if (done)
		count(&t->stats.restored, 1);
	return done;
}

#endif
