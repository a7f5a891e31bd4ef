/*
 * Translation and fault of the second stage, common to all formats (see walker.h on how the
 * compiler specialises it).
 */
#ifndef MMU_STAGE2_FAULT_H
#define MMU_STAGE2_FAULT_H

#include "mmu/dirty.h"
#include "mmu/internal.h"
#include "mmu/missing_internal.h"
#include "mmu/range.h"
#include "mmu/sharing_internal.h"
#include "mmu/stage2_break.h"

mmu_inline void stage2_xlat(const struct format *f, const struct pgtable *pt,
			    const struct walk_entry *w, uint64_t gpa, uint32_t perm,
			    struct s2_xlat *out)
{
	const struct geometry g = format_fold(f, &pt->geo);

	unsigned shift = format_leaf_shift(f, &g, w->value, w->level);

	out->hpa = format_addr(f, &g, w->value) | (gpa & ((UINT64_C(1) << shift) - 1));
	out->perm = perm;
	out->level = w->level;
	out->entry = w->value;
}

/* What keeps a table while it is walked: a read section, the thread's first perhaps; or, since
 * whoever unlinks one waits for all clients of the instance, that this thread is one. */
enum stage2_guard { STAGE2_SECTION_FIRST, STAGE2_SECTION, STAGE2_CLIENT };

/* But with STAGE2_SECTION_FIRST, tables are at their addresses. */
mmu_inline bool stage2_translate(const struct format *f, const struct pgtable *pt, uint64_t gpa,
				 uint32_t access, struct s2_xlat *out, enum stage2_guard guard)
{
	struct walk_entry w;
	uint32_t perm;
	bool hit;

	if (gpa > pt->max)
		return false;
	if (guard == STAGE2_SECTION)
		rcu_enter_again();
	else if (guard == STAGE2_SECTION_FIRST)
		rcu_enter();
	w = guard == STAGE2_SECTION_FIRST ? walk_lookup(f, pt, gpa)
					  : walk_lookup_pointers(f, pt, gpa);
	perm = pgtable_perm(f, pt, w.value);
	/* What is valid at the end is a leaf. Not w.kind: one that hides its permissions is one,
	 * too, and grants nothing; so the compiler needs no look at such. */
	hit = w.value & f->valid && !(access & ~perm);
	/* Inside the read section, so that nothing must be kept across its end (which may call). */
	if (hit)
		stage2_xlat(f, pt, &w, gpa, perm, out);
	if (guard != STAGE2_CLIENT)
		rcu_exit();
	return hit;
}

/* The largest level whose leaf around gpa lies inside the slot, is congruent in gpa and hpa, and is
 * no larger than the pages behind it. While logging: the smallest, so that a bit is a page. */
mmu_inline unsigned stage2_goal(const struct geometry *g, const struct slot *slot, uint64_t gpa)
{
	const struct s2_slot *s = &slot->s;
	unsigned level;

	for (level = s->flags & S2_SLOT_LOG ? 1 : slot->top; level > 1; level--) {
		uint64_t size = geometry_size(g, level), base = gpa & ~(size - 1);

		if (geometry_has_leaf(g, level) && base >= s->gpa &&
		    base + (size - 1) <= s->gpa + (s->size - 1))
			break;
	}
	return level;
}

/* What the states of pages say to a fault: S2_FIXED for going on. */
static inline enum s2_result stage2_states(struct s2_thread *t, struct slot *slot, uint64_t gpa)
{
	if (slot->s.flags & SLOT_SHARING && sharing_none(t->s2, slot, gpa))
		return S2_EMULATE;
	return slot->s.flags & SLOT_MISSING && missing_fault(t, slot, gpa) ? S2_MISSING : S2_FIXED;
}

static inline unsigned stage2_states_goal(const struct geometry *g, const struct slot *slot,
					  uint64_t gpa, unsigned goal)
{
	if (slot->s.flags & SLOT_MISSING)
		goal = missing_level(g, slot, gpa, goal);
	return slot->s.flags & SLOT_SHARING ? sharing_level(g, slot, gpa, goal) : goal;
}

/* What a leaf may grant after this fault. While logging, W is given page by page, on a write; or at
 * once, where D tells. */
mmu_inline uint32_t stage2_grant(const struct s2_slot *s, uint32_t access, bool dbit)
{
	bool write = !(s->flags & S2_SLOT_READONLY) &&
		     (!(s->flags & S2_SLOT_LOG) || access & S2_W || dbit);

	return S2_R | S2_X | (write ? S2_W : 0);
}

/* The leaf as used: it has been for `access`, and as `ad` says. */
mmu_inline uint64_t stage2_set_ad(const struct format *f, const struct s2 *s2, uint64_t leaf,
				  uint32_t ad, uint32_t access)
{
	ad |= FORMAT_A | (access & S2_W ? FORMAT_D : 0);
	return s2->use_ad ? format_set_ad(f, leaf, ad) : leaf;
}

mmu_inline void stage2_count_install(const struct geometry *g, struct counters *c, bool split,
				     unsigned from, unsigned goal)
{
	for (unsigned level = goal; split && level < from; level++)
		count(&c->leaves[level], geometry_entries(g, level) - 1);
	if (split) {
		count(&c->leaves[from], -UINT64_C(1));
		count(&c->splits, 1);
	}
	count(&c->leaves[goal], 1);
	if (from > goal)
		count(&c->tables, from - goal);
}

/* The leaf of `level` around gpa is about to be written. page (a constant): there is no ring. */
mmu_inline void stage2_dirtied(const struct format *f, const struct geometry *g,
			       struct s2_thread *t, const struct slot *slot, uint64_t gpa,
			       unsigned level, bool page)
{
	uint64_t size = geometry_size(g, level), base = gpa & ~(size - 1), n = size >> DIRTY_SHIFT;

	count(&t->stats.dirtied, n);
	if (stage2_dbit(f, t->s2))
		return; /* the leaf has D */
	if (page)
		dirty_set_word(slot, dirty_index(slot, base),
			       ((UINT64_C(1) << n) - 1) << (base >> DIRTY_SHIFT & 63));
	else
		dirty_note(t, slot, base, size);
}

/* Under the lock's read side, which keeps tables alive. w is the entry that was found, and on
 * FIXED and SPURIOUS the leaf that is there now. On RETRY with something to flush in *brk: a second
 * round after it.
 * page (a constant): w is of level 1, and the slot is not SLOT_UNUSUAL. Then the leaf's level is
 * known, nothing is split or installed, and the compiler leaves out all that is about it. */
mmu_inline enum s2_result stage2_fix(const struct format *f, struct s2_thread *t,
				     const struct slot *slot, uint64_t gpa, uint32_t access,
				     struct walk_entry *w, struct stage2_break *brk, bool page)
{
	const struct pgtable *pt = &t->s2->pt;
	const struct geometry g = format_fold(f, &pt->geo);
	const struct s2_slot *s = &slot->s;
	unsigned from = page ? 1 : w->level, whole = page ? 1 : stage2_goal(&g, slot, gpa);
	unsigned goal = whole;
	uint32_t grant = stage2_grant(s, access, stage2_dbit(f, t->s2));
	bool split = w->kind == ENTRY_LEAF;
	uint64_t leaf, young, old = w->value;
	int err;

	if (!page && __builtin_expect(s->flags & SLOT_STATES, 0))
		goal = stage2_states_goal(&g, slot, gpa, goal);
	if (f->break_before_make && brk->old) {
		if (w->value != brk->expect || from != brk->level)
			return S2_RETRY;
		split = true;
		old = brk->old;
	} else if (w->kind == ENTRY_FROZEN) {
		return S2_RETRY;
	}
	young = format_young(f, &g, old);
	if (split) {
		if (!(access & ~pgtable_perm(f, pt, young))) {
			if (young == old)
				return S2_SPURIOUS;
			if (!walk_replace(f, pt, w, young))
				return S2_RETRY;
			count(&t->stats.restored, 1); /* it was aged */
			return S2_FIXED;
		}
		/* Other permissions on the same leaf, unless W is for one page of it only. */
		if (goal > from || !(s->flags & S2_SLOT_LOG))
			goal = from;
	} else if (goal > from) {
		goal = from; /* a table of smaller pages is there already */
	}
	if (t->s2->nx_huge && goal > 1) {
		if (access & S2_X)
			goal = 1;
		else
			grant &= ~(uint32_t)S2_X;
	}

	if (split) {
		uint64_t base = gpa & ~(geometry_size(&g, goal) - 1);
		uint64_t inside = base & (geometry_size(&g, from) - 1);

		leaf = format_relax(f, &g, young, grant);
		if (goal < from)
			leaf = format_resize(f, &g, leaf, format_addr(f, &g, old) | inside, goal);
	} else {
		uint64_t base = gpa & ~(geometry_size(&g, goal) - 1);

		/* s2_slot_add has checked the addresses. */
		leaf = format_make_leaf(f, &g, base - s->gpa + s->hpa, goal, grant);
	}
	if (!leaf)
		return S2_EMULATE; /* cannot be */
	if (!page && __builtin_expect(s->flags & SLOT_SHARING, 0))
		leaf = sharing_leaf(f, t->s2, slot, gpa, leaf);
	leaf = stage2_set_ad(f, t->s2, leaf, split ? format_ad(f, leaf) : 0, access);

	if (f->break_before_make && split && goal < from && !brk->old) {
		if (t->s2->bbm_level < 2)
			return stage2_break(f, t, w, from - goal, brk);
		brk->level = from;
		brk->flush = true;
	}
	if (goal == from)
		err = walk_replace(f, pt, w, leaf) ? 0 : -EAGAIN;
	else
		err = walk_install(f, pt, &t->pool, w, gpa, goal, leaf, split ? old : 0);
	if (err)
		return err == -ENOMEM ? S2_NOMEM : S2_RETRY;
	if (goal < from || !split)
		stage2_count_install(&g, &t->stats, split, from, goal);
	if (goal < from && split)
		trace_event(&t->trace, S2_TRACE_SPLIT, gpa, old, leaf, from);

	/* W first, then the bit: a harvest between the two leaves W, and the next one finds the
	 * bit. The other way round it would take the bit and W would follow: a lost write. */
	if (slot->bitmap && access & S2_W)
		stage2_dirtied(f, &g, t, slot, gpa, goal, page);
	brk->made = true;
	if (t->s2->nx_huge && access & S2_X && goal < from)
		brk->nx_level = whole < from && !split ? whole : from;
	w->value = leaf;
	w->level = goal;
	w->kind = ENTRY_LEAF;
	return S2_FIXED;
}

/* What every fault ends with. w: what is there now; permission: there was a leaf. */
mmu_inline void stage2_fault_end(const struct format *f, struct s2_thread *t, uint64_t gpa,
				 uint32_t access, const struct walk_entry *w, bool permission,
				 enum s2_result result, struct s2_xlat *out)
{
	const struct pgtable *pt = &t->s2->pt;

	if (out && (result == S2_FIXED || result == S2_SPURIOUS))
		stage2_xlat(f, pt, w, gpa, pgtable_perm(f, pt, w->value), out);
	if (result == S2_RETRY)
		count(&t->stats.retries, 1);
	count_fault(&t->stats, access, permission, result);
}

mmu_inline enum s2_result stage2_fault(const struct format *f, struct s2_thread *t, uint64_t gpa,
				       uint32_t access, struct s2_xlat *out)
{
	struct s2 *s2 = t->s2;
	const struct pgtable *pt = &s2->pt;
	struct stage2_break brk = {0};
	enum s2_result result;
	bool permission = false;
	struct walk_entry w = {0};
	uint64_t found = 0;
	struct slot *slot;

	if (gpa > pt->max) {
		count_fault(&t->stats, access, false, S2_INVALID);
		trace_fault(&t->trace, gpa, 0, 0, 0, access, S2_INVALID);
		return S2_INVALID;
	}
	if (__builtin_expect(atomic_load_explicit(&s2->aged, memory_order_relaxed), 0) &&
	    t->ops->restore(t, gpa, access, &w, &found)) {
		permission = true;
		result = S2_FIXED;
		goto out;
	}
again:
	/* Best effort: most faults need fewer tables, or none. */
	if (t->pool.count < pt->geo.levels - 1u)
		table_pool_fill(&t->pool, pt->geo.levels - 1u);

	result = S2_EMULATE;
	brlock_read_lock(&s2->lock, &t->reader);
	slot = slots_find(&s2->slots, gpa, &t->slot_hint);
	if (slot && access & S2_W && slot->s.flags & S2_SLOT_READONLY) {
		permission = true;
	} else if (slot && !(slot->s.flags & SLOT_DYING)) {
		result = S2_FIXED;
		if (__builtin_expect(slot->s.flags & SLOT_STATES, 0))
			result = stage2_states(t, slot, gpa);
		if (__builtin_expect(result == S2_FIXED, 1)) {
			rcu_enter();
			w = walk_lookup(f, pt, gpa);
			permission |= w.kind == ENTRY_LEAF;
			found = w.value;
			result = stage2_fix(f, t, slot, gpa, access, &w, &brk, false);
			rcu_exit();
		}
	}
	brlock_read_unlock(&t->reader);
	if (f->break_before_make && brk.flush) {
		uint64_t size = geometry_size(&pt->geo, brk.level), base = gpa & ~(size - 1);

		brk.flush = false;
		range_flush(t, base, base + size);
		/* Also what is made already: a processor serves its queue while it waits, and may
		 * have acknowledged that this goes again. */
		goto again;
	}
	if (f->break_before_make && brk.made && result == S2_SPURIOUS)
		result = S2_FIXED;
	if (f->break_before_make)
		stage2_break_undo(f, t, gpa, &brk);
	if (__builtin_expect(brk.nx_level > 1, 0))
		nx_add(&s2->nx, pt->env, gpa & ~(geometry_size(&pt->geo, brk.nx_level) - 1),
		       brk.nx_level);

out:
	stage2_fault_end(f, t, gpa, access, &w, permission, result, out);
	trace_fault(&t->trace, gpa, found, result == S2_FIXED ? w.value : found, w.level, access,
		    result);
	if (__builtin_expect(result == S2_MISSING, 0))
		missing_demand(t, gpa);
	return result;
}

#endif
