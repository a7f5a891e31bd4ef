/*
 * Roots: what a tree of tables is for, and how long it lives. One rule for all of them, the
 * instance's own (canonical) and the shadows beside it:
 *
 * A root begins with one reference, of whoever keeps it findable. Whoever wants to use it takes one
 * more, unless there is none left: then it is being taken down, and is not there any more for those
 * who search. Whoever gives back the last one takes the tree down, after a grace period, if anybody
 * may still be inside without a reference.
 */
#ifndef MMU_ROOTS_H
#define MMU_ROOTS_H

#include <stdatomic.h>

#include "mmu/walker.h"

enum root_kind { ROOT_CANONICAL, ROOT_SHADOW };

struct role {
	uint8_t format; /* enum s2_format */
	uint8_t input_bits;
	/* What goes in comes from this address space, or (shadow) what comes out of the guest's
	 * stage goes into it: range operations on it visit these roots and no others. */
	uint8_t address_space;
	uint8_t kind; /* enum root_kind */
};

struct root {
	struct pgtable pt; /* first: struct s2 names it, too */
	struct role role;
	_Atomic uint32_t refs;
};

/* As pgtable_init. The role's input_bits are geo's. */
int root_init(struct root *root, const struct role *role, const struct geometry *geo,
	      const struct s2_env *env);
/* Nobody else sees it any more: gives back all tables. */
void root_free(struct root *root, const struct format *f, struct walk_count *found);

static inline bool root_get(struct root *root)
{
	uint32_t refs = atomic_load(&root->refs);

	while (refs && !atomic_compare_exchange_weak(&root->refs, &refs, refs + 1))
		;
	return refs;
}

/* true: it was the last one. */
static inline bool root_put(struct root *root)
{
	return atomic_fetch_sub(&root->refs, 1) == 1;
}

/* Takes the last reference away if only the first one is left: true: the root is the caller's, to
 * take down. */
static inline bool root_retire(struct root *root)
{
	uint32_t one = 1;

	return atomic_compare_exchange_strong(&root->refs, &one, 0);
}

#endif
