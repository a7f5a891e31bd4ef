/* Dirty tracking by write-protection, with bitmap harvest. */
#include <errno.h>
#include <string.h>

#include "mmu/dirty.h"
#include "mmu/range.h"

static void set_logging(struct slot *slot, uint64_t *bitmap, size_t bytes)
{
	slot->bitmap = bitmap;
	slot->bitmap_bytes = bytes;
	if (bitmap)
		slot->s.flags |= S2_SLOT_LOG;
	else
		slot->s.flags &= ~(uint32_t)S2_SLOT_LOG;
}

/* With slots_mutex held. The bitmaps are made in a copy of the slots, and the copy takes over under
 * the write side: no allocation there. */
static int log_slots(struct s2 *s2)
{
	struct slots copy = {0}, old;
	int err = slots_grow(&s2->slots, s2->pt.env, &copy);

	for (size_t i = 0; !err && i < copy.count; i++) {
		struct slot *slot = &copy.slot[i];

		if (slot->bitmap)
			continue;
		err = dirty_alloc(slot, s2->pt.env);
		if (!err)
			slot->s.flags |= S2_SLOT_LOG;
	}
	if (err && copy.slot) {
		/* Free only what was made here. */
		for (size_t i = 0; i < copy.count; i++) {
			if (s2->slots.slot[i].bitmap)
				copy.slot[i].bitmap = NULL;
		}
		slots_free(&copy, s2->pt.env);
	}
	if (err)
		return err;
	brlock_write_lock(&s2->lock);
	old = s2->slots;
	s2->slots = copy;
	brlock_write_unlock(&s2->lock);
	old.count = 0; /* its bitmaps live on in the copy */
	slots_free(&old, s2->pt.env);
	return 0;
}

int s2_dirty_start(struct s2_thread *t)
{
	struct s2 *s2 = t->s2;
	int err = -EALREADY;

	pthread_mutex_lock(&s2->slots_mutex);
	if (!s2->logging) {
		err = log_slots(s2);
		s2->logging = !err;
	}
	pthread_mutex_unlock(&s2->slots_mutex);
	/* From here on no fault gives W without its bit; now take back what was given before. */
	return err ? err : s2_write_protect(t, 0, 0);
}

int s2_dirty_stop(struct s2_thread *t)
{
	struct s2 *s2 = t->s2;
	int err = -EALREADY;

	pthread_mutex_lock(&s2->slots_mutex);
	if (s2->logging) {
		s2->logging = false;
		err = 0;
		for (size_t i = 0; i < s2->slots.count; i++) {
			struct slot *slot = &s2->slots.slot[i];
			uint64_t *bitmap = slot->bitmap;
			size_t bytes = slot->bitmap_bytes;

			brlock_write_lock(&s2->lock);
			set_logging(slot, NULL, 0);
			brlock_write_unlock(&s2->lock);
			if (bitmap)
				s2->pt.env->free(s2->pt.env->opaque, bitmap, bytes);
		}
	}
	pthread_mutex_unlock(&s2->slots_mutex);
	return err;
}

struct harvest {
	struct s2_thread *t;
	uint64_t gpa, last; /* asked for */
	uint64_t *bitmap;
	uint64_t dirty_first, dirty_last; /* what to flush */
	int64_t count;
};

/* One word of one slot. Bits first, then W: see stage2_fix. */
static void harvest_word(struct harvest *h, const struct slot *slot, uint64_t word)
{
	const struct geometry *g = &h->t->s2->pt.geo;
	uint64_t rest = (h->last - word) >> DIRTY_SHIFT;
	uint64_t mask = rest < 63 ? (UINT64_C(2) << rest) - 1 : UINT64_MAX;
	uint64_t bits = dirty_fetch(slot, word, mask), first, last, size;

	if (!bits)
		return;
	h->bitmap[(word - h->gpa) >> DIRTY_WORD_SHIFT] |= bits;
	h->count += __builtin_popcountll(bits);
	size = geometry_size(g, h->t->ops->protect_word(h->t, word, bits));
	first = (word + ((uint64_t)__builtin_ctzll(bits) << DIRTY_SHIFT)) & ~(size - 1);
	last = (word + ((uint64_t)(63 - __builtin_clzll(bits)) << DIRTY_SHIFT)) | (size - 1);
	if (first < h->dirty_first)
		h->dirty_first = first;
	if (last > h->dirty_last)
		h->dirty_last = last;
}

/* Words per holding of the lock: 32 MiB of guest memory. */
enum { HARVEST_WORDS = 128 };

/* A piece of the range, under the lock; returns the first address that is not done. */
static uint64_t harvest_piece(struct harvest *h, uint64_t gpa)
{
	const uint64_t step = UINT64_C(1) << DIRTY_WORD_SHIFT;
	const struct slots *slots = &h->t->s2->slots;
	uint64_t last = gpa + HARVEST_WORDS * step - 1, next;
	size_t i = slots_first(slots, gpa);

	if (last > h->last)
		last = h->last;
	if (i == slots->count)
		return h->last + 1;
	/* Nothing is skipped that a slot which begins in the middle of a word might share. */
	for (; i < slots->count && slots->slot[i].s.gpa <= last; i++) {
		const struct slot *slot = &slots->slot[i];
		uint64_t slot_last = slot->s.gpa + (slot->s.size - 1);
		uint64_t word = slot->s.gpa & ~(step - 1);

		if (!slot->bitmap)
			continue;
		for (word = word < gpa ? gpa : word; word <= last && word <= slot_last;
		     word += step)
			harvest_word(h, slot, word);
	}
	next = i < slots->count ? slots->slot[i].s.gpa & ~(step - 1) : h->last + 1;
	return next > last + 1 && slots_first(slots, last + 1) == i ? next : last + 1;
}

int64_t s2_dirty_harvest(struct s2_thread *t, uint64_t gpa, uint64_t pages, uint64_t *bitmap)
{
	struct s2 *s2 = t->s2;
	struct harvest h = {.t = t, .gpa = gpa, .bitmap = bitmap, .dirty_first = UINT64_MAX};
	uint64_t max_pages = (geometry_max(&s2->pt.geo) >> DIRTY_SHIFT) + 1;

	if (gpa & ((UINT64_C(1) << DIRTY_WORD_SHIFT) - 1) || gpa >> DIRTY_SHIFT > max_pages ||
	    pages > max_pages - (gpa >> DIRTY_SHIFT))
		return -EINVAL;
	memset(bitmap, 0, (size_t)(pages + 63) / 64 * 8);
	h.last = gpa + (pages << DIRTY_SHIFT) - 1;
	while (pages && gpa <= h.last) {
		brlock_read_lock(&s2->lock, &t->reader);
		gpa = harvest_piece(&h, gpa);
		brlock_read_unlock(&t->reader);
	}
	/* Also when no W was found: who took it away may not have flushed yet. */
	if (h.count)
		range_flush(t, h.dirty_first, h.dirty_last + 1);
	return h.count;
}

void s2_dirty_mark(struct s2_thread *t, uint64_t gpa, uint64_t len)
{
	struct s2 *s2 = t->s2;
	uint64_t last = gpa + (len - 1);

	if (!len || last < gpa)
		return;
	/* The lock is a full barrier between the caller's data and the look at the bitmap: a
	 * tracking that starts later copies the data. */
	brlock_read_lock(&s2->lock, &t->reader);
	for (size_t i = slots_first(&s2->slots, gpa); i < s2->slots.count; i++) {
		const struct slot *slot = &s2->slots.slot[i];
		uint64_t first = gpa < slot->s.gpa ? slot->s.gpa : gpa;

		if (slot->s.gpa > last)
			break;
		if (slot->bitmap)
			dirty_set(slot, first, last - first + 1);
	}
	brlock_read_unlock(&t->reader);
}
