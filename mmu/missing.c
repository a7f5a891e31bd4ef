/* Missing pages: which are, faults that meet them, pages that arrive. */
#include "mmu/missing.h"

#include <errno.h>

#include "mmu/dirty_ring.h"
#include "mmu/missing_internal.h"
#include "mmu/missing_wait.h"
#include "mmu/range.h"

const struct states_rules missing_rules = {
	.from = {
		[S2_PAGE_MISSING] = 1 << S2_PAGE_PRESENT,
		[S2_PAGE_REQUESTED] = 1 << S2_PAGE_MISSING,
		[S2_PAGE_RECEIVED] = 1 << S2_PAGE_MISSING | 1 << S2_PAGE_REQUESTED,
		/* RECEIVED -> PRESENT: the array goes */
	}};

bool missing_valid(const struct s2 *s2, uint64_t gpa, uint64_t pages)
{
	return pages && pages <= UINT64_MAX >> missing_shift(s2) &&
	       range_valid(s2, gpa, gpa + (pages << missing_shift(s2)));
}

/* ---- faults ---- */

bool missing_fault(struct s2_thread *t, struct slot *slot, uint64_t gpa)
{
	uint64_t page = (gpa - slot->s.gpa) >> missing_shift(t->s2);
	unsigned was;

	if (!states_change(&slot->missing, &missing_rules, page, S2_PAGE_REQUESTED, &was))
		return was == S2_PAGE_REQUESTED;
	atomic_fetch_add(&t->s2->missing->requested, 1);
	t->demand = t->s2->missing->ops;
	return true;
}

void missing_demand(struct s2_thread *t, uint64_t gpa)
{
	struct s2_missing_ops ops = t->demand;

	if (!ops.request)
		return;
	t->demand.request = NULL;
	ops.request(ops.opaque, t, gpa & ~(geometry_size(&t->s2->pt.geo, 1) - 1));
}

unsigned missing_level(const struct geometry *g, const struct slot *slot, uint64_t gpa,
		       unsigned level)
{
	for (; level > 1; level--) {
		uint64_t size = geometry_size(g, level), base = gpa & ~(size - 1);

		if (geometry_has_leaf(g, level) &&
		    states_all(&slot->missing, (base - slot->s.gpa) >> geometry_shift(g, 1),
			       size >> geometry_shift(g, 1), ~(unsigned)S2_PAGES_AWAITED))
			break;
	}
	return level;
}

enum s2_page_state s2_page_state(struct s2_thread *t, uint64_t gpa)
{
	enum s2_page_state state = S2_PAGE_PRESENT;
	const struct slot *slot;

	brlock_read_lock(&t->s2->lock, &t->reader);
	slot = slots_find(&t->s2->slots, gpa, &t->slot_hint);
	if (slot)
		state = states_get(&slot->missing, (gpa - slot->s.gpa) >> missing_shift(t->s2));
	brlock_read_unlock(&t->reader);
	return state;
}

/* ---- arrival ---- */

/* One page, with the lock's read side held. 1: filled; 0: it was here; -errno of fill. */
static int receive(struct s2_thread *t, struct slot *slot, uint64_t gpa, s2_fill_fn fill,
		   void *opaque)
{
	struct s2 *s2 = t->s2;
	const uint64_t page = (gpa - slot->s.gpa) >> missing_shift(s2);
	const uint64_t size = geometry_size(&s2->pt.geo, 1);
	struct missing *m = s2->missing;
	struct missing_bucket *bucket;
	int ret = 0;

	if (!m)
		return 0; /* all are here */
	bucket = missing_bucket(m, gpa);
	/* Who fills a page holds its bucket: nobody else brings it meanwhile. */
	pthread_mutex_lock(&bucket->mutex);
	if (S2_PAGES_AWAITED >> states_get(&slot->missing, page) & 1) {
		ret = fill(opaque, gpa, gpa - slot->s.gpa + slot->s.hpa, size);
		if (!ret) {
			if (slot->bitmap)
				dirty_wrote(t, slot, gpa, size);
			states_change(&slot->missing, &missing_rules, page, S2_PAGE_RECEIVED, NULL);
			missing_wake(bucket, gpa, gpa + (size - 1));
			ret = 1;
		}
	}
	pthread_mutex_unlock(&bucket->mutex);
	if (ret > 0) {
		atomic_fetch_add(&m->received, 1);
		atomic_fetch_sub(&m->awaited, 1);
	} else if (!ret) {
		atomic_fetch_add(&m->dropped, 1);
	}
	return ret;
}

int64_t s2_receive(struct s2_thread *t, uint64_t gpa, uint64_t pages, s2_fill_fn fill, void *opaque)
{
	struct s2 *s2 = t->s2;
	int64_t filled = 0;

	if (!missing_valid(s2, gpa, pages))
		return -EINVAL;
	for (; pages; pages--, gpa += geometry_size(&s2->pt.geo, 1)) {
		struct slot *slot;
		int ret = -EINVAL;

		/* Once per page: who changes slots waits for one page at most. */
		brlock_read_lock(&s2->lock, &t->reader);
		slot = slots_find(&s2->slots, gpa, &t->slot_hint);
		if (slot && !(slot->s.flags & SLOT_DYING))
			ret = receive(t, slot, gpa, fill, opaque);
		brlock_read_unlock(&t->reader);
		if (ret < 0)
			return ret;
		filled += ret;
	}
	return filled;
}

/* ---- beginning and end ---- */

static void free_arrays(struct slots *slots, const struct s2_env *env)
{
	for (size_t i = 0; i < slots->count; i++)
		states_free(&slots->slot[i].missing, env);
}

/* The arrays are made in a copy of the slots, which takes over under the write side. */
static int make_arrays(struct s2 *s2, struct missing *m)
{
	const struct s2_env *env = s2->pt.env;
	struct slots copy = {0}, old;
	int err = slots_grow(&s2->slots, env, &copy);

	for (size_t i = 0; !err && i < copy.count; i++) {
		struct slot *slot = &copy.slot[i];

		err = states_alloc(&slot->missing, slot->s.size >> missing_shift(s2), env);
		slot->s.flags |= SLOT_MISSING;
	}
	if (!err) {
		brlock_write_lock(&s2->lock);
		old = s2->slots;
		s2->slots = copy;
		s2->missing = m;
		brlock_write_unlock(&s2->lock);
		copy = old;
	} else {
		free_arrays(&copy, env);
	}
	copy.count = 0; /* what its slots own stays with the others */
	slots_free(&copy, env);
	return err;
}

int s2_missing_start(struct s2_thread *t, const struct s2_missing_ops *ops)
{
	struct s2 *s2 = t->s2;
	struct missing *m;
	int err = -EALREADY;

	pthread_mutex_lock(&s2->slots_mutex);
	if (!s2->missing) {
		m = missing_create(s2->pt.env, ops, missing_shift(s2));
		err = m ? make_arrays(s2, m) : -ENOMEM;
		if (err && m)
			missing_free(m, s2->pt.env);
	}
	pthread_mutex_unlock(&s2->slots_mutex);
	return err;
}

int s2_missing_stop(struct s2_thread *t)
{
	struct s2 *s2 = t->s2;
	struct missing *m;
	int err = 0;

	pthread_mutex_lock(&s2->slots_mutex);
	m = s2->missing;
	if (!m)
		err = -ENOENT;
	else if (atomic_load(&m->awaited))
		err = -EBUSY;
	if (!err) {
		brlock_write_lock(&s2->lock);
		s2->missing = NULL;
		for (size_t i = 0; i < s2->slots.count; i++)
			s2->slots.slot[i].s.flags &= ~(uint32_t)SLOT_MISSING;
		brlock_write_unlock(&s2->lock);
		/* Without the flag nobody looks at them, but those who ask for states. */
		for (size_t i = 0; i < s2->slots.count; i++) {
			struct states gone = s2->slots.slot[i].missing;

			brlock_write_lock(&s2->lock);
			s2->slots.slot[i].missing = (struct states){0};
			brlock_write_unlock(&s2->lock);
			states_free(&gone, s2->pt.env);
		}
		missing_free(m, s2->pt.env);
	}
	pthread_mutex_unlock(&s2->slots_mutex);
	return err;
}

int missing_slot_add(struct s2 *s2, struct slot *slot)
{
	if (!s2->missing)
		return 0;
	slot->s.flags |= SLOT_MISSING;
	return states_alloc(&slot->missing, slot->s.size >> missing_shift(s2), s2->pt.env);
}

void missing_slot_gone(struct s2 *s2, struct slot *slot)
{
	uint64_t pages = slot->s.size >> missing_shift(s2);
	uint64_t awaited = 0;

	if (s2->missing) {
		for (uint64_t page = 0; page < pages; page += STATES_WORD) {
			uint32_t found = states_match(&slot->missing, page, S2_PAGES_AWAITED);

			awaited += (unsigned)__builtin_popcount(found);
		}
		atomic_fetch_sub(&s2->missing->awaited, awaited);
	}
	states_free(&slot->missing, s2->pt.env);
}

void missing_destroy(struct s2 *s2)
{
	free_arrays(&s2->slots, s2->pt.env);
	for (size_t i = 0; i < s2->slots.count; i++)
		states_free(&s2->slots.slot[i].sharing, s2->pt.env);
	if (s2->missing)
		missing_free(s2->missing, s2->pt.env);
}

void s2_missing_stats(struct s2_thread *t, struct s2_missing_stats *stats)
{
	const struct missing *m;

	*stats = (struct s2_missing_stats){0};
	brlock_read_lock(&t->s2->lock, &t->reader);
	m = t->s2->missing;
	if (m)
		*stats = (struct s2_missing_stats){.awaited = atomic_load(&m->awaited),
						   .requested = atomic_load(&m->requested),
						   .received = atomic_load(&m->received),
						   .dropped = atomic_load(&m->dropped),
						   .waits = atomic_load(&m->waits)};
	brlock_read_unlock(&t->reader);
}
