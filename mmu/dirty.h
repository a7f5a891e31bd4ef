/*
 * Dirty bits of one slot: one bit per 4 KiB page, set by whoever wrote and fetched-and-cleared by
 * the harvest, both atomically. Words lie on absolute boundaries of 64 pages, so that a harvest of
 * a whole word never shifts; the first and last word may reach beyond the slot (bits there are 0).
 */
#ifndef MMU_DIRTY_H
#define MMU_DIRTY_H

#include <stdint.h>

#include "mmu/slots.h"

enum { DIRTY_SHIFT = 12, DIRTY_WORD_SHIFT = DIRTY_SHIFT + 6 };

/* The word that holds gpa, relative to the slot's first. */
static inline uint64_t *dirty_word(const struct slot *slot, uint64_t gpa)
{
	return &slot->bitmap[(gpa >> DIRTY_WORD_SHIFT) - (slot->s.gpa >> DIRTY_WORD_SHIFT)];
}

/* Allocates slot->bitmap, all clean. 0 or -ENOMEM. */
int dirty_alloc(struct slot *slot, const struct s2_env *env);
/* Sets the bits of every page that [gpa, gpa + len) touches, clipped to the slot. */
void dirty_set(const struct slot *slot, uint64_t gpa, uint64_t len);
/* Fetches and clears the bits of the word at gpa (a multiple of 64 pages), those in `mask` only. */
uint64_t dirty_fetch(const struct slot *slot, uint64_t gpa, uint64_t mask);

#endif
