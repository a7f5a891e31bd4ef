/* Harvest of dirty bits, and what makes their pages clean again. */
#include <errno.h>
#include <string.h>

#include "mmu/dirty.h"
#include "mmu/range.h"

/* The leaves of `size` bytes in which those pages are. */
static void flush_add(struct dirty_flush *flush, uint64_t gpa, uint64_t bits, uint64_t size)
{
	uint64_t first = (gpa + ((uint64_t)__builtin_ctzll(bits) << DIRTY_SHIFT)) & ~(size - 1);
	uint64_t last =
		(gpa + ((uint64_t)(63 - __builtin_clzll(bits)) << DIRTY_SHIFT)) | (size - 1);

	if (first < flush->first)
		flush->first = first;
	if (last > flush->last)
		flush->last = last;
}

void dirty_protect(struct s2_thread *t, uint64_t gpa, uint64_t bits, struct dirty_flush *flush)
{
	unsigned level = t->ops->protect_word(t, gpa, bits);

	flush_add(flush, gpa, bits, geometry_size(&t->s2->pt.geo, level));
}

struct harvest {
	struct s2_thread *t;
	uint64_t gpa, last;	/* asked for */
	const uint64_t *chosen; /* NULL: all */
	uint64_t *bitmap;	/* NULL: none is wanted */
	bool clear;
	struct dirty_flush flush;
	int64_t count;
	unsigned budget; /* of the present holding of the lock */
};

/* One word of one slot. Bits first, then W: see docs/mmu-locking.md. */
static void harvest_word(struct harvest *h, const struct slot *slot, uint64_t index)
{
	uint64_t gpa = ((slot->s.gpa >> DIRTY_WORD_SHIFT) + index) << DIRTY_WORD_SHIFT;
	uint64_t rest = (h->last - gpa) >> DIRTY_SHIFT, at = (gpa - h->gpa) >> DIRTY_WORD_SHIFT;
	uint64_t mask = rest < 63 ? (UINT64_C(2) << rest) - 1 : UINT64_MAX, bits;

	if (h->chosen)
		mask &= h->chosen[at];
	bits = h->clear ? dirty_fetch(slot, index, mask) : dirty_peek(slot, index, mask);
	if (!bits)
		return;
	if (h->bitmap)
		h->bitmap[at] |= bits;
	h->count += __builtin_popcountll(bits);
	if (h->clear)
		dirty_protect(h->t, gpa, bits, &h->flush);
	h->budget -= h->budget > 0;
}

/* A slot's part of [gpa, h->last], as far as the budget goes; the first address not done. */
static uint64_t harvest_slot(struct harvest *h, const struct slot *slot, uint64_t gpa)
{
	uint64_t end = slot->s.gpa + (slot->s.size - 1), first, last;

	if (end > h->last)
		end = h->last;
	first = gpa > slot->s.gpa ? dirty_index(slot, gpa) : 0;
	last = dirty_index(slot, end);
	while (first <= last && h->budget) {
		uint64_t base = first & ~UINT64_C(63);
		uint64_t words = dirty_words(slot, first, last, h->clear);

		h->budget--;
		for (; words; words &= words - 1)
			harvest_word(h, slot, base + (uint64_t)__builtin_ctzll(words));
		first = base + 64;
	}
	return first > last ? end + 1
			    : ((slot->s.gpa >> DIRTY_WORD_SHIFT) + first) << DIRTY_WORD_SHIFT;
}

/* Words (of bits, or of their summary) per holding of the lock. */
enum { HARVEST_BUDGET = 256 };

/* The next piece of [gpa, h->last], under the lock; the first address not done. */
static uint64_t harvest_piece(struct harvest *h, uint64_t gpa)
{
	const struct slots *slots = &h->t->s2->slots;

	h->budget = HARVEST_BUDGET;
	for (size_t i = slots_first(slots, gpa); i < slots->count; i++) {
		const struct slot *slot = &slots->slot[i];

		if (slot->s.gpa > h->last)
			break;
		if (!h->budget)
			return gpa;
		if (slot->bitmap)
			gpa = harvest_slot(h, slot, gpa > slot->s.gpa ? gpa : slot->s.gpa);
	}
	return h->budget ? h->last + 1 : gpa;
}

/* Bits that another has fetched meanwhile: he may not have flushed yet. */
static void flush_chosen(struct harvest *h, uint64_t pages)
{
	for (uint64_t at = 0; at < (pages + 63) / 64; at++) {
		uint64_t rest = pages - at * 64, gpa = h->gpa + (at << DIRTY_WORD_SHIFT);
		uint64_t bits =
			h->chosen[at] & (rest < 64 ? (UINT64_C(1) << rest) - 1 : UINT64_MAX);

		if (bits)
			flush_add(&h->flush, gpa, bits, geometry_size(&h->t->s2->pt.geo, 1));
	}
}

static int64_t harvest(struct harvest *h, uint64_t gpa, uint64_t pages)
{
	struct s2 *s2 = h->t->s2;
	uint64_t max_pages = (geometry_max(&s2->pt.geo) >> DIRTY_SHIFT) + 1;

	if (gpa & ((UINT64_C(1) << DIRTY_WORD_SHIFT) - 1) || gpa >> DIRTY_SHIFT > max_pages ||
	    pages > max_pages - (gpa >> DIRTY_SHIFT))
		return -EINVAL;
	if (h->bitmap)
		memset(h->bitmap, 0, (size_t)(pages + 63) / 64 * 8);
	h->gpa = gpa;
	h->last = gpa + (pages << DIRTY_SHIFT) - 1;
	h->flush.first = UINT64_MAX;
	/* D first, then bits: an unmap that takes D away has set the bit before. */
	if (pages && h->bitmap && stage2_dbit(s2->ops->format, s2))
		h->t->ops->gather(h->t, gpa, h->last + 1);
	while (pages && gpa <= h->last) {
		pthread_mutex_lock(&s2->dirty_mutex);
		brlock_read_lock(&s2->lock, &h->t->reader);
		gpa = harvest_piece(h, gpa);
		brlock_read_unlock(&h->t->reader);
		pthread_mutex_unlock(&s2->dirty_mutex);
	}
	if (h->chosen)
		flush_chosen(h, pages);
	if (h->flush.first <= h->flush.last)
		range_flush(h->t, h->flush.first, h->flush.last + 1);
	return h->count;
}

int64_t s2_dirty_harvest(struct s2_thread *t, uint64_t gpa, uint64_t pages, uint64_t *bitmap)
{
	struct harvest h = {
		.t = t,
		.bitmap = bitmap,
		.clear = !(atomic_load(&t->s2->dirty_flags) & S2_DIRTY_MANUAL),
	};

	return harvest(&h, gpa, pages);
}

int64_t s2_dirty_reprotect(struct s2_thread *t, uint64_t gpa, uint64_t pages,
			   const uint64_t *bitmap)
{
	struct harvest h = {.t = t, .chosen = bitmap, .clear = true};

	return harvest(&h, gpa, pages);
}
