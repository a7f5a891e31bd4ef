/* What the policy and the slots need of ownership; for mmu/ only. */
#ifndef MMU_SHARING_INTERNAL_H
#define MMU_SHARING_INTERNAL_H

#include "mmu/internal.h"
#include "mmu/sharing.h"

/* In a fault, with the lock's read side held, for a slot with SLOT_SHARING. */
bool sharing_none(const struct s2 *s2, const struct slot *slot, uint64_t gpa);
/* The largest level <= `level` whose block around gpa is in one state. */
unsigned sharing_level(const struct geometry *g, const struct slot *slot, uint64_t gpa,
		       unsigned level);

/* A new leaf at gpa, with its state. */
mmu_inline uint64_t sharing_leaf(const struct format *f, const struct s2 *s2,
				 const struct slot *slot, uint64_t gpa, uint64_t leaf)
{
	uint64_t page = (gpa - slot->s.gpa) >> geometry_shift(&s2->pt.geo, 1);

	return field_put(f, &s2->sharing_field, leaf, states_get(&slot->sharing, page));
}

/* No page of it is lent or borrowed. With slots_mutex and sharing_mutex held: until the slot is
 * SLOT_DYING, after which none can be. */
bool sharing_slot_idle(const struct s2 *s2, const struct slot *slot);

/* A slot is being made: an array if pages have states. With slots_mutex held. 0 or -ENOMEM. */
int sharing_slot_add(struct s2 *s2, struct slot *slot);

#endif
