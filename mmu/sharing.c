/* Ownership of pages between instances. */
#include "mmu/sharing.h"

#include <errno.h>

#include "mmu/range.h"
#include "mmu/sharing_internal.h"

static const struct states_rules rules = {.from = {
						  [S2_OWNED] = 1 << S2_SHARED | 1 << S2_NONE,
						  [S2_SHARED] = 1 << S2_OWNED,
						  [S2_BORROWED] = 1 << S2_NONE,
						  [S2_NONE] = 1 << S2_OWNED | 1 << S2_BORROWED,
					  }};

static unsigned page_shift(const struct s2 *s2)
{
	return geometry_shift(&s2->pt.geo, 1);
}

static uint64_t page_in(const struct s2 *s2, const struct slot *slot, uint64_t gpa)
{
	return (gpa - slot->s.gpa) >> page_shift(s2);
}

/* ---- beginning ---- */

static int make(struct s2 *s2, struct slot *slot, enum s2_share_state first)
{
	const struct states_rules any = {{15, 15, 15, 15}};
	uint64_t pages = slot->s.size >> page_shift(s2);
	int err = states_alloc(&slot->sharing, pages, s2->pt.env);

	slot->s.flags |= SLOT_SHARING;
	for (uint64_t page = 0; !err && first && page < pages; page += STATES_WORD)
		states_change_word(&slot->sharing, &any, page, UINT32_MAX, first);
	return err;
}

int sharing_slot_add(struct s2 *s2, struct slot *slot)
{
	return s2->sharing ? make(s2, slot, s2->sharing_first) : 0;
}

/* As missing pages: in a copy of the slots. With slots_mutex held. */
static int make_all(struct s2 *s2, enum s2_share_state first)
{
	const struct s2_env *env = s2->pt.env;
	struct slots copy = {0};
	int err = slots_grow(&s2->slots, env, &copy);

	for (size_t i = 0; !err && i < copy.count; i++)
		err = make(s2, &copy.slot[i], first);
	if (!err)
		err = field_reserve(&s2->fields, s2->ops->format, FIELD_CANONICAL, "sharing",
				    STATES_BITS, FIELD_ANYWHERE, true, &s2->sharing_field);
	if (err) {
		for (size_t i = 0; i < copy.count; i++)
			states_free(&copy.slot[i].sharing, env);
	} else {
		struct slots old;

		brlock_write_lock(&s2->lock);
		old = s2->slots;
		s2->slots = copy;
		s2->sharing = true;
		s2->sharing_first = (uint8_t)first;
		brlock_write_unlock(&s2->lock);
		copy = old;
	}
	copy.count = 0; /* what its slots own stays with the others */
	slots_free(&copy, env);
	return err;
}

int s2_sharing_start(struct s2_thread *t, enum s2_share_state first)
{
	struct s2 *s2 = t->s2;
	int err;

	if (first != S2_OWNED && first != S2_NONE)
		return -EINVAL;
	pthread_mutex_lock(&s2->slots_mutex);
	err = s2->sharing ? -EALREADY : make_all(s2, first);
	pthread_mutex_unlock(&s2->slots_mutex);
	return err ? err : s2_unmap(t, 0, 0);
}

/* ---- reading ---- */

enum s2_share_state s2_sharing_state(struct s2_thread *t, uint64_t gpa)
{
	enum s2_share_state state;
	const struct slot *slot;

	brlock_read_lock(&t->s2->lock, &t->reader);
	state = t->s2->sharing ? S2_NONE : S2_OWNED;
	slot = slots_find(&t->s2->slots, gpa, &t->slot_hint);
	if (slot)
		state = states_get(&slot->sharing, page_in(t->s2, slot, gpa));
	brlock_read_unlock(&t->reader);
	return state;
}

enum s2_share_state s2_sharing_of(const struct s2 *s2, const struct s2_xlat *x)
{
	return field_get(s2->ops->format, &s2->sharing_field, x->entry);
}

bool sharing_none(const struct s2 *s2, const struct slot *slot, uint64_t gpa)
{
	return states_get(&slot->sharing, page_in(s2, slot, gpa)) == S2_NONE;
}

unsigned sharing_level(const struct geometry *g, const struct slot *slot, uint64_t gpa,
		       unsigned level)
{
	uint64_t page = (gpa - slot->s.gpa) >> geometry_shift(g, 1);
	unsigned state = states_get(&slot->sharing, page);

	for (; level > 1; level--) {
		uint64_t size = geometry_size(g, level);

		page = ((gpa & ~(size - 1)) - slot->s.gpa) >> geometry_shift(g, 1);
		if (geometry_has_leaf(g, level) &&
		    states_all(&slot->sharing, page, size >> geometry_shift(g, 1), 1u << state))
			break;
	}
	return level;
}

bool sharing_slot_idle(const struct s2 *s2, const struct slot *slot)
{
	return states_all(&slot->sharing, 0, slot->s.size >> page_shift(s2),
			  1 << S2_OWNED | 1 << S2_NONE);
}

/* ---- changes ---- */

struct side {
	struct s2_thread *t;
	uint64_t gpa;
	unsigned was, is;
};

/* Both instances' mutexes, in the order of their addresses. */
static void lock_both(struct s2 *a, struct s2 *b, bool lock)
{
	struct s2 *first = (uintptr_t)a < (uintptr_t)b ? a : b;
	struct s2 *second = first == a ? b : a;

	if (lock) {
		pthread_mutex_lock(&first->sharing_mutex);
		pthread_mutex_lock(&second->sharing_mutex);
	} else {
		pthread_mutex_unlock(&second->sharing_mutex);
		pthread_mutex_unlock(&first->sharing_mutex);
	}
}

/* 0 and where the page lies; -EINVAL; -EPERM. */
static int check_page(const struct side *side, uint64_t offset, uint64_t *hpa)
{
	struct s2_thread *t = side->t;
	const struct slot *slot;
	int err = -EINVAL;

	brlock_read_lock(&t->s2->lock, &t->reader);
	slot = slots_find(&t->s2->slots, side->gpa + offset, &t->slot_hint);
	if (slot && (slot->s.flags & (SLOT_SHARING | SLOT_DYING)) == SLOT_SHARING) {
		*hpa = side->gpa + offset - slot->s.gpa + slot->s.hpa;
		err = states_get(&slot->sharing, page_in(t->s2, slot, side->gpa + offset)) ==
				      side->was
			      ? 0
			      : -EPERM;
	}
	brlock_read_unlock(&t->reader);
	return err;
}

static int check(const struct side *a, const struct side *b, uint64_t pages)
{
	uint64_t size = geometry_size(&a->t->s2->pt.geo, 1), hpa[2];

	for (uint64_t offset = 0; offset < pages * size; offset += size) {
		int err = check_page(a, offset, &hpa[0]), other = check_page(b, offset, &hpa[1]);

		if (err == -EINVAL || other == -EINVAL || hpa[0] != hpa[1])
			return -EINVAL;
		if (err || other)
			return -EPERM;
	}
	return 0;
}

/* No slot of this side has gone, or is going, since check. */
static bool stays(const struct side *side, uint64_t pages)
{
	uint64_t size = geometry_size(&side->t->s2->pt.geo, 1), hpa;

	for (uint64_t i = 0; i < pages; i++) {
		if (check_page(side, i * size, &hpa))
			return false;
	}
	return true;
}

static void put(const struct side *side, uint64_t pages)
{
	struct s2_thread *t = side->t;
	uint64_t size = geometry_size(&t->s2->pt.geo, 1);

	for (uint64_t i = 0; i < pages; i++) {
		uint64_t gpa = side->gpa + i * size;
		struct slot *slot;

		brlock_read_lock(&t->s2->lock, &t->reader);
		slot = slots_find(&t->s2->slots, gpa, &t->slot_hint);
		if (slot && slot->s.flags & SLOT_SHARING)
			states_change(&slot->sharing, &rules, page_in(t->s2, slot, gpa), side->is,
				      NULL);
		brlock_read_unlock(&t->reader);
	}
}

/* What is mapped may be of the state before, until those who read the lock now have left: then it
 * goes. Later faults see the new one. */
static void settle(const struct side *side, uint64_t pages)
{
	struct s2_thread *t = side->t;

	brlock_synchronize(&t->s2->lock);
	range_unmap(t, side->gpa, side->gpa + pages * geometry_size(&t->s2->pt.geo, 1));
}

static bool valid(const struct side *side, uint64_t pages)
{
	const struct s2 *s2 = side->t->s2;

	return pages && pages <= UINT64_MAX >> page_shift(s2) &&
	       range_valid(s2, side->gpa, side->gpa + (pages << page_shift(s2)));
}

/* `first` is who loses the page, or what it may do with it alone. */
static int change(const struct side *first, const struct side *second, uint64_t pages)
{
	struct s2 *a = first->t->s2, *b = second->t->s2;
	int err;

	if (a == b || page_shift(a) != page_shift(b) || !valid(first, pages) ||
	    !valid(second, pages))
		return -EINVAL;
	lock_both(a, b, true);
	err = check(first, second, pages);
	if (!err)
		put(first, pages);
	lock_both(a, b, false);
	if (err)
		return err;
	/* Between the two nobody else can want the page: what is needed of the one side or of the
	 * other is not there. So the wait for TLB clients needs no lock. */
	settle(first, pages);
	lock_both(a, b, true);
	if (stays(second, pages))
		put(second, pages);
	else
		err = -EINVAL;
	if (err)
		put(&(struct side){first->t, first->gpa, first->is, first->was}, pages);
	lock_both(a, b, false);
	settle(err ? first : second, pages);
	return err;
}

int s2_share(struct s2_thread *from, uint64_t from_gpa, struct s2_thread *to, uint64_t to_gpa,
	     uint64_t pages)
{
	return change(&(struct side){from, from_gpa, S2_OWNED, S2_SHARED},
		      &(struct side){to, to_gpa, S2_NONE, S2_BORROWED}, pages);
}

int s2_unshare(struct s2_thread *from, uint64_t from_gpa, struct s2_thread *to, uint64_t to_gpa,
	       uint64_t pages)
{
	return change(&(struct side){to, to_gpa, S2_BORROWED, S2_NONE},
		      &(struct side){from, from_gpa, S2_SHARED, S2_OWNED}, pages);
}

int s2_donate(struct s2_thread *from, uint64_t from_gpa, struct s2_thread *to, uint64_t to_gpa,
	      uint64_t pages)
{
	return change(&(struct side){from, from_gpa, S2_OWNED, S2_NONE},
		      &(struct side){to, to_gpa, S2_NONE, S2_OWNED}, pages);
}

int s2_reclaim(struct s2_thread *from, uint64_t from_gpa, struct s2_thread *to, uint64_t to_gpa,
	       uint64_t pages)
{
	return change(&(struct side){to, to_gpa, S2_OWNED, S2_NONE},
		      &(struct side){from, from_gpa, S2_NONE, S2_OWNED}, pages);
}
