/*
 * Dirty rings, one in each thread's registration (see second_stage.h). The owner puts pages in,
 * under the lock's read side; harvest and reset run one at a time (threads_mutex). No entry has a
 * state of its own: three counts, which never go down, cut the ring into free, dirty and harvested.
 */
#ifndef MMU_DIRTY_RING_H
#define MMU_DIRTY_RING_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mmu/second_stage.h"

struct slot;

enum { DIRTY_RING_MIN = 64, DIRTY_RING_MAX = 1 << 20 };

struct dirty_ring {
	uint64_t *entry; /* addresses of pages; NULL: off */
	uint64_t *made;	 /* the same, from make to free */
	size_t bytes;
	uint64_t entries;
	_Atomic uint64_t soft; /* 0: off */
	_Atomic uint64_t head; /* put in so far */
	/* Written by others: on a cache line of their own. */
	_Alignas(64) _Atomic uint64_t harvested; /* of those before head */
	_Atomic uint64_t tail;			 /* reset, of those before harvested */
};

/* A thread makes [gpa, gpa + size) dirty: the page goes into its ring, or the bitmap. size: a
 * smallest page, or more if a larger leaf can be written. */
void dirty_note(struct s2_thread *t, const struct slot *slot, uint64_t gpa, uint64_t size);
/* The same for [gpa, gpa + len) of a slot that has been written already. */
void dirty_wrote(struct s2_thread *t, const struct slot *slot, uint64_t gpa, uint64_t len);

/* All with threads_mutex held. make: -ENOMEM. The ring is used from on to off, both under the
 * lock's write side (or for a thread that nobody knows yet). */
int dirty_ring_make(struct s2_thread *t, uint64_t entries);
void dirty_ring_on(struct s2_thread *t, uint64_t soft);
void dirty_ring_off(struct s2_thread *t);
void dirty_ring_free(struct s2_thread *t);
/* What is in the ring goes into the bitmaps. */
void dirty_ring_spill(struct s2_thread *t);

#endif
