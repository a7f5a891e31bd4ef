/*
 * Dirty bits of one slot: one bit per 4 KiB page, set by whoever wrote and fetched-and-cleared by
 * the harvest, both atomically. Words lie on absolute boundaries of 64 pages, so that a harvest of
 * a whole word never shifts; the first and last word may reach beyond the slot (bits there are 0).
 *
 * A summary has one bit per word: set if the word is not 0, and perhaps if it is. Bits are fetched
 * by one thread at a time (dirty_mutex), set by any.
 */
#ifndef MMU_DIRTY_H
#define MMU_DIRTY_H

#include <stdint.h>

#include "mmu/slots.h"

enum {
	DIRTY_SHIFT = 12,
	DIRTY_WORD_SHIFT = DIRTY_SHIFT + 6,	    /* bytes of guest memory per word */
	DIRTY_SUMMARY_SHIFT = DIRTY_WORD_SHIFT + 6, /* and per word of the summary */
};

/* The number of the word that holds gpa: the slot's first is 0. */
static inline uint64_t dirty_index(const struct slot *slot, uint64_t gpa)
{
	return (gpa >> DIRTY_WORD_SHIFT) - (slot->s.gpa >> DIRTY_WORD_SHIFT);
}

/* Allocates slot->bitmap and summary, all clean. 0 or -ENOMEM. */
int dirty_alloc(struct slot *slot, const struct s2_env *env);
/* Gives both back, if they are there. */
void dirty_free(struct slot *slot, const struct s2_env *env);
static inline void dirty_set_summary(const struct slot *slot, uint64_t index)
{
	uint64_t *word = &slot->summary[index / 64], bit = UINT64_C(1) << (index % 64);

	/* The bit of the page was set before, and the harvest clears this one before it looks
	 * there; all four in one order, so either we see it cleared, or it sees the page. */
	if (!(__atomic_load_n(word, __ATOMIC_SEQ_CST) & bit))
		__atomic_fetch_or(word, bit, __ATOMIC_SEQ_CST);
}

static inline void dirty_set_word(const struct slot *slot, uint64_t index, uint64_t bits)
{
	/* Release: whoever fetches the bit sees the data that was written before. Not skipped when
	 * the bits look set: without a barrier the look may be older than a harvest that has just
	 * cleared them. */
	__atomic_fetch_or(&slot->bitmap[index], bits, __ATOMIC_SEQ_CST);
	dirty_set_summary(slot, index);
}

/* Sets the bits of every page that [gpa, gpa + len) touches, clipped to the slot. */
void dirty_set(const struct slot *slot, uint64_t gpa, uint64_t len);
/* The words from `index` to `last` that may hold bits, among those that share a word of the summary
 * with `index`: bit n of the result is the word (index & ~63) + n. With `clear`: they are searched
 * with dirty_fetch now. */
uint64_t dirty_words(const struct slot *slot, uint64_t index, uint64_t last, bool clear);
/* Fetches the bits of the word, those in `mask` only; dirty_fetch also clears them. */
uint64_t dirty_peek(const struct slot *slot, uint64_t index, uint64_t mask);
uint64_t dirty_fetch(const struct slot *slot, uint64_t index, uint64_t mask);

/* What is to be flushed: from first to last, both included. */
struct dirty_flush {
	uint64_t first, last;
};
/* Under the lock's read side: takes back what lets the pages of these bits be written unseen; gpa:
 * of bit 0, a multiple of 64 pages. *flush is widened to them, and to all of a larger leaf: also
 * when nothing was there to take, since who took it may not have flushed yet. */
void dirty_protect(struct s2_thread *t, uint64_t gpa, uint64_t bits, struct dirty_flush *flush);

#endif
