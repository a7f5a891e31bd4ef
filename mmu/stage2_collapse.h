/*
 * Tables whose leaves continue each other become one leaf, common to all formats.
 *
 * A table cannot be judged while others change what is in it. So the entry of one that looks right
 * is frozen first (with the bit that says that something comes back: whoever unmaps or protects
 * there clears it), and judged again when the TLBs are flushed and everybody who was inside has
 * left: then it is ours alone. It becomes a leaf, or what it was, or empty if somebody wanted that.
 * One flush and one grace period serve many tables. Break-before-make, where a format wants it, is
 * in it.
 */
#ifndef MMU_STAGE2_COLLAPSE_H
#define MMU_STAGE2_COLLAPSE_H

#include "mmu/stage2_fault.h"
#include "mmu/stage2_range.h"

/* Tables per flush. */
enum { STAGE2_COLLAPSE = 64 };

/* The leaf of `level` for the table below it that maps gpa, or 0. *frozen: an entry in it is being
 * changed; NULL: the caller does not want to know, the first obstacle ends the search. */
mmu_inline uint64_t stage2_collapsed(const struct format *f, struct s2_thread *t, void *table,
				     uint64_t gpa, unsigned level, bool *frozen)
{
	const struct geometry g = format_fold(f, &t->s2->pt.geo);
	const struct slot *slot = slots_find(&t->s2->slots, gpa, &t->slot_hint);
	/* address and size are compared, too */
	const uint64_t free_bits = f->accessed | f->dirty | f->perm_bits;
	uint64_t first = format_young(f, &g, entry_load(&g, table)),
		 addr = format_addr(f, &g, first);
	uint32_t write = S2_W, ad = 0, rx = f->perm(first) & ~(uint32_t)S2_W;
	bool used = false;
	bool good = slot && !(slot->s.flags & SLOT_DYING) &&
		    stage2_states_goal(&g, slot, gpa, stage2_goal(&g, slot, gpa)) >= level &&
		    !(addr & (geometry_size(&g, level) - 1)) && !(first & f->napot) &&
		    !(t->s2->nx_huge && rx & S2_X);

	for (size_t i = 0; (good || frozen) && i < geometry_entries(&g, level - 1); i++) {
		uint64_t entry = entry_load(&g, entry_at(&g, table, i)),
			 e = format_young(f, &g, entry);
		enum entry_kind kind = format_kind(f, entry, level - 1);
		uint64_t want = format_resize(f, &g, first, addr + i * geometry_size(&g, level - 1),
					      level - 1);

		if (frozen && kind == ENTRY_FROZEN)
			*frozen = true;
		good = good && kind == ENTRY_LEAF && !((e ^ want) & ~free_bits) &&
		       (f->perm(e) & ~(uint32_t)S2_W) == rx;
		write &= f->perm(e);
		ad |= format_ad(f, e);
		used |= e == entry;
	}
	if (!good)
		return 0;
	first = format_set_perm(f, &g, format_resize(f, &g, first, addr, level), rx | write);
	first = format_set_ad(f, first, ad);
	return used ? first : format_old(f, &g, first);
}

/* The second round for the entry that we have frozen at gpa. true: there is a leaf now. */
mmu_inline bool stage2_collapse_frozen(const struct format *f, struct s2_thread *t, uint64_t gpa,
				       unsigned level)
{
	const struct pgtable *pt = &t->s2->pt;
	const struct geometry g = format_fold(f, &pt->geo);
	struct stage2_loop loop = {.t = t};
	bool ours, leaf = false, table = false;
	struct walk_entry w;
	uint64_t pa = 0;

	stage2_enter(&loop);
	w = walk_lookup(f, pt, gpa);
	/* Else a table around it has gone, and whoever frees that frees ours. */
	while ((ours = w.kind == ENTRY_FROZEN && w.level == level &&
		       format_frozen_owner(f, w.value) == t->owner &&
		       format_frozen_table(f, &g, w.value, &pa))) {
		bool frozen = false;
		uint64_t value = 0;

		if (w.value & f->frozen_back)
			value = stage2_collapsed(f, t, pgtable_at(pt, pa), gpa, level, &frozen);
		leaf = value;
		/* An entry that is frozen in it stays nobody's if its owner has come meanwhile. */
		table = !leaf && !frozen && w.value & f->frozen_back;
		if (table)
			value = format_make_table(f, &g, pa);
		if (walk_replace(f, pt, &w, value))
			break;
	}
	stage2_exit(&loop);
	if (!ours || table)
		return false;
	stage2_free(f, t, pa, level - 1);
	count(&t->stats.leaves[level], leaf);
	count(&t->stats.collapses, leaf);
	trace_event(&t->trace, S2_TRACE_COLLAPSE, gpa, pa, w.value, level);
	return leaf;
}

mmu_inline int64_t stage2_collapse_level(const struct format *f, struct s2_thread *t,
					 uint64_t start, uint64_t end, unsigned level)
{
	const struct pgtable *pt = &t->s2->pt;
	const struct geometry g = format_fold(f, &pt->geo);
	struct stage2_loop loop = {.t = t};
	uint64_t gpa[STAGE2_COLLAPSE];
	struct walk_iter it;
	bool more = true;
	int64_t made = 0;

	walk_begin(&it, pt, start, end, level);
	while (more) {
		unsigned n = 0;

		stage2_enter(&loop);
		walk_restart(&it);
		while (n < STAGE2_COLLAPSE && (more = stage2_next(f, &loop, &it))) {
			void *table;

			if (it.at.kind != ENTRY_TABLE || it.at.level != level ||
			    !walk_covers(f, &it))
				continue;
			table = pgtable_at(pt, format_addr(f, &g, it.at.value));
			if (stage2_collapsed(f, t, table, it.gpa, level, NULL) &&
			    walk_replace(f, pt, &it.at,
					 format_freeze_back(f, &g, it.at.value, level, t->owner)))
				gpa[n++] = it.gpa;
		}
		stage2_exit(&loop);
		if (!n)
			continue;
		range_flush(t, gpa[0], gpa[n - 1] + geometry_size(&g, level));
		s2_synchronize(t->s2);
		for (unsigned i = 0; i < n; i++)
			made += stage2_collapse_frozen(f, t, gpa[i], level);
	}
	return made;
}

mmu_inline int64_t stage2_collapse(const struct format *f, struct s2_thread *t, uint64_t start,
				   uint64_t end)
{
	const struct geometry *g = &t->s2->pt.geo;
	int64_t made = 0;

	for (unsigned level = 2; level <= g->levels; level++) {
		if (geometry_has_leaf(g, level))
			made += stage2_collapse_level(f, t, start, end, level);
	}
	return made;
}

#endif
