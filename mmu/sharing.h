/*
 * Who a page belongs to, where several instances have slots over the same memory (a guest, its
 * host, another guest). Each page of a slot is, in this instance,
 *
 *	owned	  its own, and nobody else's
 *	shared	  its own, and another one has borrowed it
 *	borrowed  another one's, which has shared it
 *	none	  not there: a fault says S2_EMULATE
 *
 * and a page is owned or shared in at most one instance. Changes name both sides; both are checked
 * for all pages before either is written, and whoever loses a page has it in no table and no TLB
 * before the other one gets it.
 *
 *		  from			 to
 *	share	  owned -> shared	 none -> borrowed
 *	unshare	  shared -> owned	 borrowed -> none
 *	donate	  owned -> none		 none -> owned
 *	reclaim	  none -> owned		 owned -> none
 *
 * A slot with a page that is shared or borrowed is not removed (s2_slot_remove says -EBUSY): it is
 * unshared first, or the other side would be left with it for ever. Pages that are owned go with
 * their slot; whoever adds one says by s2_sharing_start's `first` whose its pages are, and sees to
 *it that there is one owner. The same before s2_destroy, which does not look.
 *
 * The states are kept in a side array of two bits a page. Leaves carry a copy in two software bits,
 * named "sharing", where the format has room (RISC-V: where nobody else has taken its two): in
 * s2_xlat.entry, see s2_sharing_of.
 */
#ifndef MMU_SHARING_H
#define MMU_SHARING_H

#include "mmu/second_stage.h"

enum s2_share_state { S2_OWNED, S2_SHARED, S2_BORROWED, S2_NONE };

/* From here on all pages of all slots, and of those to come, are `first`: owned or none. What is
 * mapped is unmapped. -EALREADY, -EINVAL, -ENOMEM. There is no way back. */
int s2_sharing_start(struct s2_thread *t, enum s2_share_state first);
/* Owned before s2_sharing_start; none where there is no slot. */
enum s2_share_state s2_sharing_state(struct s2_thread *t, uint64_t gpa);
/* The state that a translated leaf carries; owned if leaves carry none. */
enum s2_share_state s2_sharing_of(const struct s2 *s2, const struct s2_xlat *x);

/*
 * `pages` pages (the smallest, alike in both) from from_gpa of `from` and to_gpa of `to`; the
 * threads' instances differ. 0; -EINVAL: misaligned, not started, not in slots (or a slot of the
 * side that was to get them has been removed meanwhile), or not the same memory; -EPERM: a page is
 * in another state on one of the sides. Then nothing was changed. They wait for TLB clients, with
 * no lock held. Those of two threads that want the same page: one gets -EPERM.
 */
int s2_share(struct s2_thread *from, uint64_t from_gpa, struct s2_thread *to, uint64_t to_gpa,
	     uint64_t pages);
int s2_unshare(struct s2_thread *from, uint64_t from_gpa, struct s2_thread *to, uint64_t to_gpa,
	       uint64_t pages);
int s2_donate(struct s2_thread *from, uint64_t from_gpa, struct s2_thread *to, uint64_t to_gpa,
	      uint64_t pages);
int s2_reclaim(struct s2_thread *from, uint64_t from_gpa, struct s2_thread *to, uint64_t to_gpa,
	       uint64_t pages);

#endif
