/*
 * What the stage-1 walkers share: one walk down through a struct format, with a look at each entry
 * before it is followed. For mmu/guest only.
 */
#ifndef MMU_GUEST_STAGE1_WALK_H
#define MMU_GUEST_STAGE1_WALK_H

#include "mmu/guest/stage1.h"
#include "mmu/walker.h"

struct stage1;

/* A way to translate: the shape, and what is to be known of an entry. */
struct stage1 {
	/* valid, is_leaf, unpack, napot, accessed and dirty of it are used; the shape is geo's */
	const struct format *f;
	struct geometry geo; /* output_bits: the guest's physical width */
	uint64_t root;
	/* Of a valid entry: what the manual forbids, or GUEST_MAPPED; takes permissions from
	 * out->perm and out->user (all set at first). May rewrite w->value as f reads it, where
	 * the same bit means something else at another level. */
	enum guest_fault (*entry)(const struct stage1 *s, struct walk_entry *w,
				  struct guest_xlat *out);
	bool nx, pse; /* x86: EFER.NXE, CR4.PSE */
};

enum guest_fault stage1_walk(const struct stage1 *s, const struct guest_reader *memory, uint64_t va,
			     struct guest_xlat *out);

enum guest_fault stage1_x86(const struct guest_paging *paging, const struct guest_reader *memory,
			    uint64_t va, struct guest_xlat *out);
enum guest_fault stage1_arm(const struct guest_paging *paging, const struct guest_reader *memory,
			    uint64_t va, struct guest_xlat *out);
enum guest_fault stage1_riscv(const struct guest_paging *paging, const struct guest_reader *memory,
			      uint64_t va, struct guest_xlat *out);

#endif
