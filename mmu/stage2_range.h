/*
 * Range operations of the second stage, common to all formats: they change tables only; flushing,
 * waiting and what comes after is in range.c. None of them allocates: a leaf that reaches beyond
 * the range is treated as a whole, which costs a fault and is never wrong.
 */
#ifndef MMU_STAGE2_RANGE_H
#define MMU_STAGE2_RANGE_H

#include "mmu/dirty.h"
#include "mmu/stage2_break.h"

/* Entries visited before the lock and the read section are left for a moment, so that slot changes
 * and grace periods do not wait for a long range. */
enum { STAGE2_BUDGET = 2048 };

struct stage2_loop {
	struct s2_thread *t;
	unsigned left;
};

mmu_inline void stage2_enter(struct stage2_loop *loop)
{
	brlock_read_lock(&loop->t->s2->lock, &loop->t->reader);
	rcu_enter();
	loop->left = STAGE2_BUDGET;
}

mmu_inline void stage2_exit(struct stage2_loop *loop)
{
	rcu_exit();
	brlock_read_unlock(&loop->t->reader);
}

/* Out and in again. No part of the loops: it would cost them their registers. */
static __attribute__((noinline, cold)) void stage2_pause(struct s2_thread *t)
{
	struct stage2_loop loop = {.t = t};

	stage2_exit(&loop);
	stage2_enter(&loop);
}

/* walk_next with a budget: the entry at which it is used up is looked up again. */
mmu_inline bool stage2_next(const struct format *f, struct stage2_loop *loop, struct walk_iter *it)
{
	while (walk_next(f, it)) {
		if (__builtin_expect(--loop->left, 1))
			return true;
		stage2_pause(loop->t);
		loop->left = STAGE2_BUDGET;
		walk_restart(it);
	}
	return false;
}

mmu_inline void stage2_widen(const struct geometry *g, const struct walk_iter *it, uint64_t *start,
			     uint64_t *end)
{
	uint64_t mask = geometry_size(g, it->at.level) - 1;

	if ((it->gpa & ~mask) < *start)
		*start = it->gpa & ~mask;
	if ((it->gpa | mask) > *end - 1)
		*end = (it->gpa | mask) + 1;
}

/* A table is frozen as a whole up to this level of its entry: freeing one is then bounded work
 * (with 4 KiB pages: the 513 tables below 1 GiB; with larger ones a table of leaves). None while
 * dirty bits of hardware track: those in its leaves would go with it. */
mmu_inline unsigned stage2_freeze_level(const struct format *f, const struct s2 *s2,
					const struct geometry *g)
{
	return stage2_dbit(f, s2) ? 0 : g->index_bits > 10 ? 2 : 3;
}

/* All bits of a leaf with D are set. */
mmu_inline void stage2_gather_leaf(const struct format *f, struct s2_thread *t,
				   const struct walk_iter *it)
{
	uint64_t size = geometry_size(&t->s2->pt.geo, it->at.level), base = it->gpa & ~(size - 1);
	struct slot *slot;

	if (it->at.kind != ENTRY_LEAF || !(it->at.value & f->dirty))
		return;
	slot = slots_find(&t->s2->slots, it->gpa, &t->slot_hint);
	if (slot && slot->bitmap)
		dirty_set(slot, base < slot->s.gpa ? slot->s.gpa : base, size);
}

mmu_inline void stage2_gather(const struct format *f, struct s2_thread *t, uint64_t start,
			      uint64_t end)
{
	struct stage2_loop loop = {.t = t};
	struct walk_iter it;

	stage2_enter(&loop);
	walk_begin(&it, &t->s2->pt, start, end, 1);
	while (stage2_next(f, &loop, &it))
		stage2_gather_leaf(f, t, &it);
	stage2_exit(&loop);
}

mmu_inline bool stage2_freeze(const struct format *f, struct s2_thread *t, uint64_t *start,
			      uint64_t *end, uint64_t *tables)
{
	const struct pgtable *pt = &t->s2->pt;
	const struct geometry g = format_fold(f, &pt->geo);
	struct stage2_loop loop = {.t = t};
	struct walk_iter it;
	bool met = false;

	stage2_enter(&loop);
	walk_begin(&it, pt, *start, *end, 1);
	while (stage2_next(f, &loop, &it)) {
		for (;;) {
			unsigned level = it.at.level;
			enum entry_kind kind;
			uint64_t before;

			if (it.at.kind == ENTRY_FROZEN && stage2_gone(f, pt, &it.at))
				met = true; /* another's work: our flush covers it */
			kind = it.at.kind;
			if (kind != ENTRY_LEAF &&
			    !(kind == ENTRY_TABLE && level <= stage2_freeze_level(f, t->s2, &g) &&
			      walk_covers(f, &it)))
				break;
			/* Before D goes: if it changes meanwhile, the freezing fails. */
			if (stage2_dbit(f, t->s2))
				stage2_gather_leaf(f, t, &it);
			before = it.at.value;
			if (!walk_freeze(f, pt, &it.at, t->owner)) {
				count(&t->stats.retries, 1);
				continue;
			}
			trace_event(&t->trace, S2_TRACE_UNMAP, it.gpa, before, it.at.value, level);
			met = true;
			if (kind == ENTRY_LEAF) {
				count(&t->stats.leaves[level], -UINT64_C(1));
				stage2_widen(&g, &it, start, end);
			} else {
				++*tables;
			}
			break;
		}
	}
	stage2_exit(&loop);
	return met;
}

/* A table, of `level`, that was unlinked, flushed, and a grace period ago: it is ours alone.
 * Freeing is a callback: nothing is held. */
mmu_inline void stage2_free(const struct format *f, struct s2_thread *t, uint64_t pa,
			    unsigned level)
{
	struct walk_count found = {0};

	walk_free_tree(f, &t->s2->pt, pgtable_at(&t->s2->pt, pa), level, &found);
	for (; level; level--)
		count(&t->stats.leaves[level], -found.leaves[level]);
	count(&t->stats.tables, -found.tables);
	count(&t->stats.deferred_frees, found.tables);
}

mmu_inline void stage2_thaw(const struct format *f, struct s2_thread *t, uint64_t start,
			    uint64_t end)
{
	const struct pgtable *pt = &t->s2->pt;
	const struct geometry g = format_fold(f, &pt->geo);
	struct stage2_loop loop = {.t = t};
	struct walk_iter it;

	stage2_enter(&loop);
	walk_begin(&it, pt, start, end, 1);
	while (stage2_next(f, &loop, &it)) {
		unsigned level = it.at.level;
		bool table;
		uint64_t pa;

		if (it.at.kind != ENTRY_FROZEN || format_frozen_owner(f, it.at.value) != t->owner)
			continue;
		table = format_frozen_table(f, &g, it.at.value, &pa);
		/* Nobody else changes our frozen entry; should it happen, the tree below is lost
		 * rather than freed twice. */
		if (!walk_replace(f, pt, &it.at, 0) || !table)
			continue;

		stage2_exit(&loop);
		stage2_free(f, t, pa, level - 1);
		trace_event(&t->trace, S2_TRACE_FREE, it.gpa, pa, 0, level);
		stage2_enter(&loop);
		walk_restart(&it);
	}
	stage2_exit(&loop);
}

/* A leaf without W. For dirty tracking where dirty bits of hardware tell (dbit): without D, and W
 * stays in the smallest leaves. */
mmu_inline uint64_t stage2_protected(const struct format *f, const struct geometry *g,
				     uint64_t leaf, unsigned level, bool dbit)
{
	if (dbit)
		leaf &= ~f->dirty;
	return dbit && level == 1 ? leaf : format_forbid(f, g, leaf, S2_W);
}

mmu_inline void stage2_protect_entry(const struct format *f, struct s2_thread *t, uint64_t gpa,
				     struct walk_entry *w, bool dbit)
{
	const struct geometry g = format_fold(f, &t->s2->pt.geo);

	while (w->kind == ENTRY_LEAF) {
		uint64_t before = w->value;
		uint64_t value = stage2_protected(f, &g, before, w->level, dbit);

		if (value == before)
			return;
		if (walk_replace(f, &t->s2->pt, w, value)) {
			trace_event(&t->trace, S2_TRACE_PROTECT, gpa, before, value, w->level);
			return;
		}
		count(&t->stats.retries, 1);
		/* Broken to be split meanwhile: with W, if it comes back. */
		stage2_gone(f, &t->s2->pt, w);
	}
}

/* An entry of level 1, whatever it is. false: nothing is there. */
static __attribute__((noinline, cold)) bool stage2_protect_any(const struct format *f,
							       struct s2_thread *t, uint64_t gpa,
							       void *entry, bool dbit)
{
	const struct geometry g = format_fold(f, &t->s2->pt.geo);
	struct walk_entry w = {.entry = entry, .value = entry_load(&g, entry), .level = 1};

	w.kind = format_kind(f, w.value, 1);
	if (w.kind == ENTRY_FROZEN)
		stage2_gone(f, &t->s2->pt, &w);
	if (w.kind == ENTRY_NONE)
		return false;
	stage2_protect_entry(f, t, gpa, &w, dbit);
	return true;
}

/* What protection takes from a valid leaf of level 1: see stage2_protected. */
mmu_inline uint64_t stage2_taken(const struct format *f, bool dbit)
{
	return dbit ? f->dirty : format_write_bits(f);
}

/* The same, short for what is usual: a valid leaf, or 0. Of the few instructions between two
 * exchanges none but those of the page itself: a second thread on the same core wants them. */
mmu_inline bool stage2_protect_page(const struct format *f, const struct geometry *g,
				    struct s2_thread *t, uint64_t gpa, void *entry, bool dbit)
{
	uint64_t value = entry_load(g, entry), other = value & ~stage2_taken(f, dbit);

	if (value & f->valid && !trace_on(&t->trace)) {
		if (other == value)
			return true;
		MMU_RACE_POINT();
		if (entry_cas(g, entry, &value, other))
			return true;
		count(&t->stats.retries, 1);
	}
	return value && stage2_protect_any(f, t, gpa, entry, dbit);
}

/* track: for dirty tracking. */
mmu_inline bool stage2_protect(const struct format *f, struct s2_thread *t, uint64_t *start,
			       uint64_t *end, bool track)
{
	const struct pgtable *pt = &t->s2->pt;
	const struct geometry g = format_fold(f, &pt->geo);
	struct stage2_loop loop = {.t = t};
	struct walk_iter it;
	bool met = false;

	stage2_enter(&loop);
	walk_begin(&it, pt, *start, *end, 1);
	while (stage2_next(f, &loop, &it)) {
		const bool dbit = track && stage2_dbit(f, t->s2);

		if (it.at.level == 1) {
			/* The rest of its table in a loop of its own. */
			size_t n = walk_run(f, &it, loop.left);

			for (size_t i = 0; i < n; i++)
				met |= stage2_protect_page(f, &g, t,
							   it.gpa + (i << geometry_shift(&g, 1)),
							   entry_at(&g, it.at.entry, i), dbit);
			walk_run_done(f, &it, n);
			loop.left -= (unsigned)n - 1;
			continue;
		}
		if (it.at.kind == ENTRY_FROZEN)
			stage2_gone(f, pt, &it.at);
		if (it.at.kind == ENTRY_NONE || it.at.kind == ENTRY_TABLE)
			continue;
		/* Read-only already, or frozen: who made it so may not have flushed yet. */
		met = true;
		if (it.at.kind == ENTRY_FROZEN)
			continue;
		stage2_widen(&g, &it, start, end);
		stage2_protect_entry(f, t, it.gpa, &it.at, dbit);
	}
	stage2_exit(&loop);
	return met;
}

/* The 64 pages of a dirty word lie in one table, or under one leaf: one walk serves them. Returns
 * the level of what was met: the flush must cover all of a larger leaf. */
mmu_inline unsigned stage2_protect_word(const struct format *f, struct s2_thread *t, uint64_t gpa,
					uint64_t bits)
{
	const struct pgtable *pt = &t->s2->pt;
	const struct geometry g = format_fold(f, &pt->geo);
	unsigned shift = geometry_shift(&g, 1);
	struct walk_entry w;
	bool dbit;

	rcu_enter();
	dbit = stage2_dbit(f, t->s2);
	do {
		w = walk_lookup(f, pt, gpa);
		if (w.level > 1 && !stage2_gone(f, pt, &w))
			stage2_protect_entry(f, t, gpa, &w, dbit);
	} while (w.kind == ENTRY_TABLE); /* split meanwhile */
	for (; w.level == 1 && bits; bits &= bits - 1) {
		uint64_t page = gpa + ((uint64_t)__builtin_ctzll(bits) << 12);

		stage2_protect_page(f, &g, t, page,
				    entry_at(&g, w.entry, (page >> shift) - (gpa >> shift)), dbit);
	}
	rcu_exit();
	return w.level;
}

#endif
