/*
 * Ageing of a range, common to all formats: looks which leaves have been used, and makes them
 * unused: A is cleared, or, where hardware knows no A, the permissions are hidden (format_old). In
 * parallel with everything else; nothing but that changes.
 */
#ifndef MMU_STAGE2_AGE_H
#define MMU_STAGE2_AGE_H

#include "mmu/stage2_range.h"

mmu_inline void stage2_age(const struct format *f, struct s2_thread *t, struct age *age)
{
	const struct pgtable *pt = &t->s2->pt;
	const struct geometry g = format_fold(f, &pt->geo);
	struct stage2_loop loop = {.t = t};
	uint64_t flush_end = age->end;
	struct walk_iter it;

	age->flush = age->start;
	stage2_enter(&loop);
	walk_begin(&it, pt, age->start, age->end, 1);
	while (stage2_next(f, &loop, &it)) {
		bool used = false;

		while (it.at.kind == ENTRY_LEAF && !used) {
			uint64_t before = it.at.value, old = format_old(f, &g, before);

			if (old == before)
				break;
			used = age->test || walk_replace(f, pt, &it.at, old);
			if (used && !age->test)
				trace_event(&t->trace, S2_TRACE_AGE, it.gpa, before, old,
					    it.at.level);
			count(&t->stats.retries, !used);
		}
		if (used)
			age_used(age, it.gpa, it.gpa | (geometry_size(&g, it.at.level) - 1));
		/* Old already, or frozen: who made it so may not have flushed yet. */
		if (it.at.kind == ENTRY_LEAF || it.at.kind == ENTRY_FROZEN) {
			age->met = true;
			stage2_widen(&g, &it, &age->flush, &flush_end);
		}
	}
	stage2_exit(&loop);
	age->flush_end = flush_end;
}

#endif
