/*
 * The usual fault: of a small page whose table is there, in the slot of the thread's last one,
 * where table addresses are pointers and nothing is traced. The lock's read side keeps tables
 * alive, as everywhere; a read section is not needed. stage2_fault_page finds the entry, and leaves
 * the rest to one of three functions, to which it jumps with all they need in registers: so none is
 * saved on the way, and the two usual ones are short since each knows what it is about. The third
 * is stage2_fault, for all else.
 */
#ifndef MMU_STAGE2_USUAL_H
#define MMU_STAGE2_USUAL_H

#include "mmu/stage2_fault.h"

typedef enum s2_result stage2_fault_fn(struct s2_thread *t, uint64_t gpa, uint32_t access,
				       struct s2_xlat *out);
typedef enum s2_result stage2_found_fn(struct s2_thread *t, uint64_t gpa, uint32_t access,
				       struct s2_xlat *out, const struct slot *slot, void *entry);

/* Something was there: a leaf, or what its owner is changing. */
mmu_inline enum s2_result stage2_fault_leaf(const struct format *f, struct s2_thread *t,
					    uint64_t gpa, uint32_t access, struct s2_xlat *out,
					    const struct slot *slot, void *entry)
{
	const struct geometry g = format_fold(f, &t->s2->pt.geo);
	struct walk_entry w = {.entry = entry, .value = entry_load(&g, entry), .level = 1};
	struct stage2_break brk = {0};
	enum s2_result result = S2_RETRY;

	w.kind = format_kind(f, w.value, 1);
	if (__builtin_expect(w.kind == ENTRY_LEAF, 1))
		result = stage2_fix(f, t, slot, gpa, access, &w, &brk, true);
	brlock_read_unlock(&t->reader);
	stage2_fault_end(f, t, gpa, access, &w, true, result, out);
	return result;
}

/* Nothing was there. What its leaf is made of is ready. */
mmu_inline enum s2_result stage2_fault_none(const struct format *f, struct s2_thread *t,
					    uint64_t gpa, uint32_t access, struct s2_xlat *out,
					    const struct slot *slot, void *entry)
{
	const struct pgtable *pt = &t->s2->pt;
	const struct geometry g = format_fold(f, &pt->geo);
	struct s2_xlat made = t->s2->fresh[(slot->s.flags & S2_SLOT_LOG) | (access & S2_W) / S2_W];
	struct walk_entry w = {.entry = entry, .level = 1, .kind = ENTRY_NONE};

	made.hpa = gpa - slot->s.gpa + slot->s.hpa;
	made.entry |= f->pack(&g, made.hpa & ~(geometry_size(&g, 1) - 1));
	if (__builtin_expect(!walk_replace(f, pt, &w, made.entry), 0)) {
		brlock_read_unlock(&t->reader);
		stage2_fault_end(f, t, gpa, access, &w, false, S2_RETRY, out);
		return S2_RETRY;
	}
	if (access & S2_W && slot->bitmap)
		stage2_dirtied(f, &g, t, slot, gpa, 1, true);
	brlock_read_unlock(&t->reader);
	count(&t->stats.mapped[access & 7], 1);
	if (out)
		*out = made;
	return S2_FIXED;
}

mmu_inline enum s2_result stage2_fault_page(const struct format *f, struct s2_thread *t,
					    uint64_t gpa, uint32_t access, struct s2_xlat *out,
					    stage2_found_fn *none, stage2_found_fn *leaf,
					    stage2_fault_fn *other)
{
	struct s2 *s2 = t->s2;
	const struct slot *slot;
	struct walk_entry w;

	if (__builtin_expect(!brlock_read_try(&s2->lock, &t->reader), 0))
		return other(t, gpa, access, out);
	slot = slots_hinted(&s2->slots, gpa, t->slot_hint);
	if (__builtin_expect(slot && !(slot->s.flags & SLOT_UNUSUAL), 1)) {
		w = walk_lookup_pointers(f, &s2->pt, gpa);
		if (w.level == 1)
			return w.value ? leaf(t, gpa, access, out, slot, w.entry)
				       : none(t, gpa, access, out, slot, w.entry);
	}
	brlock_read_unlock(&t->reader);
	return other(t, gpa, access, out);
}

#endif
