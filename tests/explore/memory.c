/* What a load may see, by views (explore.h); locks and barriers, which pass them on. */
#include <stdio.h>
#include <string.h>

#include "tests/explore/explore_internal.h"

enum {
	PLACES = 255, /* atomic locations */
	VALUES = 48,  /* of one of them, in a run */
};

/* The oldest value of each place that may still be seen, and the blocks whose filling was. */
struct view {
	uint64_t blocks;
	uint8_t oldest[PLACES];
};

struct value {
	uint64_t value;
	bool released;
	struct view view;
};

struct place {
	const volatile void *at;
	unsigned values; /* 0: only sequentially consistent or a lock: view */
	struct value value[VALUES];
	struct view view;
	struct view before; /* what those had done who read it, not knowing of a later store */
	unsigned owner;	    /* of a lock, + 1 */
};

/* What a thread has done and seen. */
struct known {
	unsigned spins;
	const volatile void *spinning;
	struct view view;
	struct view before;  /* its last sequentially consistent store */
	struct view ordered; /* seen after its next sequentially consistent load */
};

static struct known threads[EXPLORE_THREADS + 1];
static unsigned stale;
static struct place places[PLACES];
static unsigned nr_places;
static struct view grace; /* before the grace periods so far */

static struct view *my_view(void)
{
	return &threads[current.self].view;
}

static void join(struct view *to, const struct view *from)
{
	to->blocks |= from->blocks;
	for (unsigned i = 0; i < nr_places; i++) {
		if (from->oldest[i] > to->oldest[i])
			to->oldest[i] = from->oldest[i];
	}
}

static struct place *place_of(const volatile void *at, bool make)
{
	for (unsigned i = 0; i < nr_places; i++) {
		if (places[i].at == at)
			return &places[i];
	}
	if (!make)
		return NULL;
	if (nr_places == PLACES)
		explore_fail("more atomic places than room");
	places[nr_places].at = at;
	places[nr_places].values = 0;
	places[nr_places].owner = 0;
	memset(&places[nr_places].view, 0, sizeof(struct view));
	memset(&places[nr_places].before, 0, sizeof(struct view));
	return &places[nr_places++];
}

static uint64_t peek(const volatile void *at, unsigned bytes)
{
	uint64_t value = 0;

	memcpy(&value, (const void *)at, bytes);
	return value;
}

static bool acquires(int order)
{
	return order == __ATOMIC_ACQUIRE || order == __ATOMIC_ACQ_REL || order == __ATOMIC_SEQ_CST;
}

static bool releases(int order)
{
	return order == __ATOMIC_RELEASE || order == __ATOMIC_ACQ_REL || order == __ATOMIC_SEQ_CST;
}

static void trace(const char *what, const volatile void *at, uint64_t value)
{
	int block = heap_block(at);

	if (!current.tracing)
		return;
	if (block >= 0)
		fprintf(stderr, "  thread %u: %s block %d + %#lx: %#llx\n", current.self, what,
			block, (unsigned long)((const char *)at - heap_blocks[block]),
			(unsigned long long)value);
	else
		fprintf(stderr, "  thread %u: %s %p: %#llx\n", current.self, what, (void *)at,
			(unsigned long long)value);
}

uint64_t explore_load(const void *at, unsigned bytes, int order)
{
	int block = heap_block(at);
	struct place *place;
	uint64_t value;

	heap_check(at);
	if (heap_beyond_window(at)) {
		current.steps++;
		return peek(at, bytes);
	}
	explore_point("load");
	heap_check(at);
	value = peek(at, bytes);
	/* What was there before the owner filled it, in an earlier life of the memory: in every
	 * format a leaf that grants much and has been used. */
	if (block >= 0 && !(my_view()->blocks >> block & 1) && stale < current.config->stale &&
	    explore_choose(2)) {
		stale++;
		value = UINT64_C(0xe7e7e7e7e7e7e7e7) >> (64 - 8 * bytes);
		trace("loads garbage", at, value);
		return value;
	}
	place = place_of(at, false);
	if (place && place->values) {
		unsigned i = (unsigned)(place - places), newest = place->values - 1;
		unsigned oldest = my_view()->oldest[i], back = 0;

		if (stale < current.config->stale && newest > oldest && order != __ATOMIC_SEQ_CST)
			back = explore_choose(newest - oldest + 1);
		stale += back != 0;
		value = place->value[newest - back].value;
		my_view()->oldest[i] = (uint8_t)(newest - back);
		if (acquires(order) && place->value[newest - back].released)
			join(my_view(), &place->value[newest - back].view);
		if (back)
			trace("loads an older value", at, value);
	}
	trace("loads", at, value);
	return value;
}

/* What was there first is no change of this thread's. */
static struct place *history(const volatile void *at, unsigned bytes)
{
	struct place *place = place_of(at, true);

	if (!place->values) {
		place->value[0].value = peek(at, bytes);
		place->value[0].released = false;
		place->values = 1;
	}
	if (place->values == VALUES)
		explore_fail("more values than room");
	return place;
}

static void append(struct place *place, void *at, unsigned bytes, uint64_t value, int order,
		   bool rmw)
{
	struct value *v = &place->value[place->values], *before = v - 1;
	unsigned i = (unsigned)(place - places);

	my_view()->oldest[i] = (uint8_t)place->values++;
	v->value = value;
	v->released = releases(order);
	if (v->released)
		v->view = *my_view();
	else if (rmw)
		memset(&v->view, 0, sizeof(v->view));
	/* A read-modify-write goes on with the release that it has read. */
	if (rmw && before->released) {
		join(&v->view, &before->view);
		v->released = true;
	}
	memcpy(at, &value, bytes);
}

/* A table that nobody else sees yet has no history. */
void explore_store(void *at, unsigned bytes, uint64_t value, int order)
{
	struct place *place;

	heap_check(at);
	if (heap_beyond_window(at)) {
		memcpy(at, &value, bytes);
		return;
	}
	if (heap_watched(at))
		explore_point("store");
	place = heap_watched(at) ? history(at, bytes) : place_of(at, false);
	if (place && place->values)
		append(place, at, bytes, value, order, false);
	else
		memcpy(at, &value, bytes);
	trace("stores", at, value);
}

static uint64_t newest(struct place *place, int order)
{
	struct value *v = &place->value[place->values - 1];

	my_view()->oldest[place - places] = (uint8_t)(place->values - 1);
	if (acquires(order) && v->released)
		join(my_view(), &v->view);
	return v->value;
}

bool explore_cas(void *at, unsigned bytes, uint64_t *old, uint64_t value, int order)
{
	struct place *place;
	uint64_t now;

	heap_check(at);
	if (heap_beyond_window(at)) {
		bool same = peek(at, bytes) == *old;

		if (same)
			memcpy(at, &value, bytes);
		else
			*old = peek(at, bytes);
		return same;
	}
	explore_point("compare-and-exchange");
	heap_check(at);
	place = history(at, bytes);
	now = newest(place, order);
	if (now != *old) {
		trace("fails to exchange, finds", at, now);
		*old = now;
		return false;
	}
	append(place, at, bytes, value, order, true);
	trace("exchanges, now", at, value);
	return true;
}

static uint64_t fetch(void *at, uint64_t keep, uint64_t bits, int order)
{
	struct place *place;
	uint64_t now;

	explore_point("fetch");
	heap_check(at);
	place = history(at, 8);
	now = newest(place, order);
	append(place, at, 8, (now & keep) | bits, order, true);
	trace("fetches, now", at, (now & keep) | bits);
	return now;
}

uint64_t explore_or(void *at, uint64_t bits, int order)
{
	return fetch(at, UINT64_MAX, bits, order);
}

uint64_t explore_and(void *at, uint64_t bits, int order)
{
	return fetch(at, bits, 0, order);
}

uint64_t explore_read(const uint64_t *at)
{
	history(at, 8);
	return explore_load(at, 8, __ATOMIC_RELAXED);
}

void explore_write(uint64_t *at, uint64_t value)
{
	explore_point("write");
	append(history(at, 8), at, 8, value, __ATOMIC_RELAXED, false);
	trace("writes", at, value);
}

/* No point of its own, unless it is watched: the entries around it have theirs. Whoever looks at
 * the same again and again waits. */
void explore_sync(const volatile void *at, unsigned how)
{
	bool write = how & 1, consistent = how & 2;
	struct known *t = &threads[current.self];
	struct place *place;

	heap_check(at);
	if (heap_beyond_window(at))
		return;
	if (heap_watched(at))
		explore_point(write ? "changes a watched place" : "reads a watched place");
	place = place_of(at, true);
	heap_check(at);
	if (!write && t->spinning == at && t->spins++ > 2)
		explore_yield();
	if (write || t->spinning != at)
		t->spins = 0;
	t->spinning = write ? NULL : at;
	join(my_view(), &place->view);
	/* Store, load; another: store, load, of the same two. One of the loads sees the other's
	 * store; or else what came before the first store is seen after the second load. */
	if (consistent && write) {
		join(&t->ordered, &place->before);
		t->before = *my_view();
	} else if (consistent) {
		join(&place->before, &t->before);
		join(my_view(), &t->ordered);
	}
	if (write)
		join(&place->view, my_view());
}

void explore_lock(const void *mutex)
{
	struct place *place = place_of(mutex, true);

	if (heap_watched(mutex))
		explore_point("locks");
	while (place->owner)
		explore_yield();
	place->owner = current.self + 1;
	join(my_view(), &place->view);
}

void explore_unlock(const void *mutex)
{
	struct place *place = place_of(mutex, true);

	if (place->owner != current.self + 1)
		explore_fail("unlocks what it does not hold");
	place->owner = 0;
	join(&place->view, my_view());
}

long explore_membarrier(void)
{
	for (unsigned i = 0; i < current.threads; i++)
		join(my_view(), &threads[i].view);
	for (unsigned i = 0; i < current.threads; i++)
		join(&threads[i].view, my_view());
	return 0;
}

void memory_fills(unsigned first, unsigned n)
{
	for (unsigned i = first; i < first + n; i++)
		my_view()->blocks |= UINT64_C(1) << i;
}

void memory_gives_grace(void)
{
	join(&grace, my_view());
}

void memory_takes_grace(void)
{
	join(my_view(), &grace);
}

void memory_sees(unsigned thread)
{
	join(my_view(), &threads[thread].view);
}

void memory_begins(void)
{
	stale = nr_places = 0;
	memset(&grace, 0, sizeof(grace));
	memset(threads, 0, sizeof(threads));
}

void memory_starts_threads(void)
{
	for (unsigned i = 0; i < current.threads; i++)
		join(&threads[i].view, &threads[EXPLORE_MAIN].view);
}

void memory_ends_threads(void)
{
	for (unsigned i = 0; i < current.threads; i++)
		join(&threads[EXPLORE_MAIN].view, &threads[i].view);
}
