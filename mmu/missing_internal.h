/* What the policy and the slots need of missing pages; for mmu/ only. */
#ifndef MMU_MISSING_INTERNAL_H
#define MMU_MISSING_INTERNAL_H

#include "mmu/internal.h"

/* Of enum s2_page_state. */
extern const struct states_rules missing_rules;

static inline unsigned missing_shift(const struct s2 *s2)
{
	return geometry_shift(&s2->pt.geo, 1);
}

/* Aligned, not empty, within the input width. */
bool missing_valid(const struct s2 *s2, uint64_t gpa, uint64_t pages);

/* In a fault, with the lock's read side held, for a slot with SLOT_MISSING. true: the page is not
 * here; t->demand says if it is to be asked for. */
bool missing_fault(struct s2_thread *t, struct slot *slot, uint64_t gpa);
/* The largest level <= `level` whose block around gpa is wholly here. */
unsigned missing_level(const struct geometry *g, const struct slot *slot, uint64_t gpa,
		       unsigned level);
/* After a fault that said S2_MISSING, with nothing held. */
void missing_demand(struct s2_thread *t, uint64_t gpa);

/* A slot is being made: an array if pages may be missing. With slots_mutex held. 0 or -ENOMEM. */
int missing_slot_add(struct s2 *s2, struct slot *slot);
/* A slot is dying: nobody waits for its pages any more. */
void missing_slot_dying(struct s2_thread *t, const struct slot *slot);
/* It has gone; with slots_mutex held. */
void missing_slot_gone(struct s2 *s2, struct slot *slot);
/* The instance goes. */
void missing_destroy(struct s2 *s2);

#endif
