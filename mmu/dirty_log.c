/* Dirty tracking on and off, marks, and rates. */
#include <errno.h>
#include <string.h>

#include "mmu/dirty.h"
#include "mmu/range.h"

/* Bitmaps for all slots, in a copy of them. With slots_mutex held. */
static int log_slots(struct s2 *s2, struct slots *copy, uint32_t flags)
{
	int err = slots_grow(&s2->slots, s2->pt.env, copy);

	for (size_t i = 0; !err && i < copy->count; i++) {
		if (!copy->slot[i].bitmap)
			err = dirty_alloc(&copy->slot[i], s2->pt.env);
		copy->slot[i].s.flags |= flags;
	}
	return err;
}

/* Frees only what log_slots has made. */
static void unlog_slots(struct s2 *s2, struct slots *copy)
{
	for (size_t i = 0; i < copy->count; i++) {
		if (s2->slots.slot[i].bitmap)
			copy->slot[i].bitmap = copy->slot[i].summary = NULL;
	}
	slots_free(copy, s2->pt.env);
}

/* With threads_mutex held. */
static int make_rings(struct s2 *s2, uint64_t entries)
{
	int err = 0;

	for (struct s2_thread *t = s2->threads; t && entries && !err; t = t->next)
		err = dirty_ring_make(t, entries);
	for (struct s2_thread *t = s2->threads; t && err; t = t->next)
		dirty_ring_free(t);
	return err;
}

static const char *options_rule(const struct s2 *s2, const struct s2_dirty_options *o)
{
	const unsigned known = S2_DIRTY_EAGER | S2_DIRTY_DBIT | S2_DIRTY_MANUAL | S2_DIRTY_COLLAPSE;

	if (o->flags & ~known)
		return "unknown option of dirty tracking";
	if (o->flags & S2_DIRTY_DBIT && !s2->ops->format->dirty)
		return "arm64: dirty state of stage 2 by hardware (DBM) is not used";
	if (o->flags & S2_DIRTY_DBIT && !s2->use_ad)
		return "dirty bits of hardware need use_ad";
	if (o->flags & S2_DIRTY_DBIT && o->ring_entries)
		return "dirty rings need write-protection: hardware puts nothing into them";
	if (o->ring_entries & (o->ring_entries - 1) || o->ring_entries > DIRTY_RING_MAX ||
	    (o->ring_entries && o->ring_entries < DIRTY_RING_MIN))
		return "a dirty ring has a power of two of entries, 64 to 1048576";
	if (o->ring_soft > o->ring_entries)
		return "a dirty ring is soft-full before it is full";
	return NULL;
}

/* With slots_mutex held: from the end of this on, no fault lets a page be written unseen. All
 * memory is made aside and taken over under the write side. */
static int start(struct s2 *s2, const struct s2_dirty_options *o)
{
	unsigned soft = o->ring_soft ? o->ring_soft : o->ring_entries / 4 * 3;
	struct slots copy = {0}, old;
	int err = log_slots(s2, &copy, S2_SLOT_LOG | (o->ring_entries ? SLOT_RINGS : 0));

	pthread_mutex_lock(&s2->threads_mutex);
	if (!err)
		err = make_rings(s2, o->ring_entries);
	if (!err) {
		brlock_write_lock(&s2->lock);
		old = s2->slots;
		s2->slots = copy;
		atomic_store(&s2->dirty_flags, o->flags);
		if (o->flags & S2_DIRTY_DBIT)
			atomic_fetch_or(&s2->pt.need, s2->ops->format->dirty);
		s2_make_fresh(s2);
		s2->ring_entries = o->ring_entries;
		s2->ring_soft = soft;
		for (struct s2_thread *t = s2->threads; t && o->ring_entries; t = t->next)
			dirty_ring_on(t, soft);
		brlock_write_unlock(&s2->lock);
		s2->logging = true;
	}
	pthread_mutex_unlock(&s2->threads_mutex);
	if (err) {
		unlog_slots(s2, &copy);
		return err;
	}
	old.count = 0; /* its bitmaps live on in the copy */
	slots_free(&old, s2->pt.env);
	return 0;
}

int s2_dirty_start_with(struct s2_thread *t, const struct s2_dirty_options *options,
			const char **why)
{
	const char *rule = options_rule(t->s2, options);
	uint64_t first = 0, end = geometry_max(&t->s2->pt.geo) + 1;
	struct s2 *s2 = t->s2;
	int err = -EALREADY;

	if (rule) {
		if (why)
			*why = rule;
		return -EINVAL;
	}
	pthread_mutex_lock(&s2->slots_mutex);
	if (!s2->logging)
		err = start(s2, options);
	pthread_mutex_unlock(&s2->slots_mutex);
	if (err)
		return err;
	if (options->flags & S2_DIRTY_EAGER)
		s2_split(t, 0, 0, 1); /* what memory is too short for, faults will split */
	/* Now take back what was given before. */
	if (t->ops->protect(t, &first, &end, true))
		range_flush(t, first, end);
	return 0;
}

int s2_dirty_start(struct s2_thread *t)
{
	return s2_dirty_start_with(t, &(struct s2_dirty_options){0}, NULL);
}

/* With slots_mutex held. */
static void stop(struct s2 *s2)
{
	s2->logging = false;
	pthread_mutex_lock(&s2->threads_mutex);
	brlock_write_lock(&s2->lock);
	atomic_fetch_and(&s2->pt.need, ~s2->ops->format->dirty);
	s2_make_fresh(s2);
	atomic_store(&s2->dirty_flags, 0);
	s2->ring_entries = 0;
	for (struct s2_thread *t = s2->threads; t; t = t->next)
		dirty_ring_off(t);
	brlock_write_unlock(&s2->lock);
	for (struct s2_thread *t = s2->threads; t; t = t->next)
		dirty_ring_free(t);
	pthread_mutex_unlock(&s2->threads_mutex);
	for (size_t i = 0; i < s2->slots.count; i++) {
		struct slot *slot = &s2->slots.slot[i], gone;

		brlock_write_lock(&s2->lock);
		gone = *slot;
		slot->bitmap = slot->summary = NULL;
		slot->s.flags &= ~(S2_SLOT_LOG | SLOT_RINGS);
		brlock_write_unlock(&s2->lock);
		dirty_free(&gone, s2->pt.env);
	}
}

int s2_dirty_stop(struct s2_thread *t)
{
	struct s2 *s2 = t->s2;
	unsigned flags = 0;
	int err = -EALREADY;

	pthread_mutex_lock(&s2->slots_mutex);
	if (s2->logging) {
		flags = atomic_load(&s2->dirty_flags);
		stop(s2);
		err = 0;
	}
	pthread_mutex_unlock(&s2->slots_mutex);
	if (flags & S2_DIRTY_COLLAPSE)
		s2_collapse(t, 0, 0);
	return err;
}

void s2_dirty_mark(struct s2_thread *t, uint64_t gpa, uint64_t len)
{
	struct s2 *s2 = t->s2;
	uint64_t last = gpa + (len - 1);

	if (!len || last < gpa)
		return;
	/* A tracking whose bitmap this does not see yet starts later: it takes the lock's write
	 * side after this, and copies the data. */
	brlock_read_lock(&s2->lock, &t->reader);
	for (size_t i = slots_first(&s2->slots, gpa); i < s2->slots.count; i++) {
		const struct slot *slot = &s2->slots.slot[i];
		uint64_t first = gpa < slot->s.gpa ? slot->s.gpa : gpa;

		if (slot->s.gpa > last)
			break;
		if (slot->bitmap)
			dirty_wrote(t, slot, first, last - first + 1);
	}
	brlock_read_unlock(&t->reader);
}

uint64_t s2_dirtied(const struct s2_thread *t)
{
	return atomic_load_explicit(&t->stats.dirtied, memory_order_relaxed);
}

uint64_t s2_dirty_rate(const struct s2_thread *t, struct s2_dirty_rate *state, uint64_t now_ns)
{
	uint64_t pages = s2_dirtied(t), ns = now_ns - state->ns;

	if (state->ns && ns < 1000000)
		return state->rate;
	/* Fewer than 2^64 / 10^9 pages in one window: 70 TiB. */
	state->rate = state->ns ? (pages - state->pages) * 1000000000 / ns : 0;
	state->pages = pages;
	state->ns = now_ns;
	return state->rate;
}
