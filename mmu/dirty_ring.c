#include "mmu/dirty_ring.h"

#include <errno.h>

#include "mmu/dirty.h"
#include "mmu/internal.h"
#include "mmu/range.h"

/* false: full. */
static bool ring_put(struct dirty_ring *ring, uint64_t page)
{
	uint64_t head = atomic_load_explicit(&ring->head, memory_order_relaxed);

	/* Acquire: reset has read the entry. */
	if (head - atomic_load_explicit(&ring->tail, memory_order_acquire) == ring->entries)
		return false;
	__atomic_store_n(&ring->entry[head & (ring->entries - 1)], page, __ATOMIC_RELAXED);
	atomic_store_explicit(&ring->head, head + 1, memory_order_release);
	return true;
}

void dirty_note(struct s2_thread *t, const struct slot *slot, uint64_t gpa, uint64_t size)
{
	if (!t->ring.entry || size != geometry_size(&t->s2->pt.geo, 1) || !ring_put(&t->ring, gpa))
		dirty_set(slot, gpa, size);
}

/* Atomic, though tail keeps the owner from an entry that is being read: who breaks that rule is
 * found by the exploration. */
static uint64_t ring_at(const struct dirty_ring *ring, uint64_t at)
{
	return __atomic_load_n(&ring->entry[at & (ring->entries - 1)], __ATOMIC_RELAXED);
}

/* The last page put in, if it has not been harvested: who harvests it later copies what has been
 * written until now. (Both change the same word: if this is before the harvest's change, what was
 * written before this is seen after that.) */
static bool ring_again(struct dirty_ring *ring, uint64_t page)
{
	uint64_t head = atomic_load_explicit(&ring->head, memory_order_relaxed);

	return head && ring_at(ring, head - 1) == page &&
	       atomic_fetch_add(&ring->harvested, 0) < head;
}

void dirty_wrote(struct s2_thread *t, const struct slot *slot, uint64_t gpa, uint64_t len)
{
	uint64_t size = geometry_size(&t->s2->pt.geo, 1), page = gpa & ~(size - 1);
	uint64_t last = slot->s.gpa + (slot->s.size - 1);

	if (last - gpa > len - 1)
		last = gpa + (len - 1);
	if (!t->ring.entry) {
		count(&t->stats.dirtied, (last >> DIRTY_SHIFT) - (gpa >> DIRTY_SHIFT) + 1);
		dirty_set(slot, gpa, last - gpa + 1);
		return;
	}
	for (;; page += size) {
		if (!ring_again(&t->ring, page)) {
			count(&t->stats.dirtied, size >> DIRTY_SHIFT);
			if (!ring_put(&t->ring, page))
				dirty_set(slot, page, size);
		}
		if (last - page < size)
			return;
	}
}

int dirty_ring_make(struct s2_thread *t, uint64_t entries)
{
	const struct s2_env *env = t->s2->pt.env;
	struct dirty_ring *ring = &t->ring;

	ring->bytes = 4096;
	while (ring->bytes / sizeof(uint64_t) < entries)
		ring->bytes *= 2;
	ring->made = env->alloc(env->opaque, ring->bytes);
	ring->entries = entries;
	return ring->made ? 0 : -ENOMEM;
}

void dirty_ring_on(struct s2_thread *t, uint64_t soft)
{
	atomic_store(&t->ring.head, 0);
	atomic_store(&t->ring.harvested, 0);
	atomic_store(&t->ring.tail, 0);
	atomic_store(&t->ring.soft, soft);
	t->ring.entry = t->ring.made;
}

void dirty_ring_off(struct s2_thread *t)
{
	atomic_store(&t->ring.soft, 0);
	t->ring.entry = NULL;
}

void dirty_ring_free(struct s2_thread *t)
{
	const struct s2_env *env = t->s2->pt.env;

	if (t->ring.made)
		env->free(env->opaque, t->ring.made, t->ring.bytes);
	t->ring.made = NULL;
}

void dirty_ring_spill(struct s2_thread *t)
{
	struct dirty_ring *ring = &t->ring;
	struct s2 *s2 = t->s2;
	size_t hint = 0;

	brlock_read_lock(&s2->lock, &t->reader);
	for (uint64_t i = atomic_load(&ring->tail); ring->entry && i != atomic_load(&ring->head);
	     i++) {
		uint64_t page = ring_at(ring, i);
		const struct slot *slot = slots_find(&s2->slots, page, &hint);

		if (slot && slot->bitmap)
			dirty_set(slot, page, geometry_size(&s2->pt.geo, 1));
	}
	brlock_read_unlock(&t->reader);
}

bool s2_ring_full(const struct s2_thread *t)
{
	uint64_t soft = atomic_load_explicit(&t->ring.soft, memory_order_relaxed);

	return soft && atomic_load_explicit(&t->ring.head, memory_order_relaxed) -
				       atomic_load_explicit(&t->ring.tail, memory_order_acquire) >=
			       soft;
}

/* Up to `max` of one ring; threads_mutex keeps it there, and off or on. */
static size_t ring_harvest(struct dirty_ring *ring, uint64_t *gpa, size_t max)
{
	uint64_t at = atomic_load(&ring->harvested);
	uint64_t n = atomic_load(&ring->head) - at;

	if (!ring->entry)
		return 0;
	if (n > max)
		n = max;
	for (uint64_t i = 0; i < n; i++, at++)
		gpa[i] = ring_at(ring, at);
	atomic_fetch_add(&ring->harvested, n);
	return n;
}

int64_t s2_ring_harvest(struct s2_thread *t, uint64_t *gpa, size_t max)
{
	struct s2 *s2 = t->s2;
	size_t n = 0;

	pthread_mutex_lock(&s2->threads_mutex);
	for (struct s2_thread *of = s2->threads; of && n < max; of = of->next)
		n += ring_harvest(&of->ring, gpa + n, max - n);
	pthread_mutex_unlock(&s2->threads_mutex);
	return (int64_t)n;
}

/* Entries per holding of the lock. */
enum { RESET_ENTRIES = 2048 };

/* Protects what is harvested, neighbours together, and frees it; how much it was. */
static uint64_t ring_reset(struct s2_thread *t, struct dirty_ring *ring, struct dirty_flush *flush)
{
	uint64_t first = atomic_load(&ring->tail), end = atomic_load(&ring->harvested), i = first;

	while (ring->entry && i != end) {
		uint64_t stop = end - i > RESET_ENTRIES ? i + RESET_ENTRIES : end;

		brlock_read_lock(&t->s2->lock, &t->reader);
		while (i != stop) {
			uint64_t page = ring_at(ring, i), word = page >> DIRTY_WORD_SHIFT, bits = 0;

			while (page >> DIRTY_WORD_SHIFT == word) {
				bits |= UINT64_C(1) << (page >> DIRTY_SHIFT & 63);
				if (++i == stop)
					break;
				page = ring_at(ring, i);
			}
			dirty_protect(t, word << DIRTY_WORD_SHIFT, bits, flush);
		}
		brlock_read_unlock(&t->reader);
		atomic_store_explicit(&ring->tail, i, memory_order_release);
	}
	return i - first;
}

int64_t s2_ring_reset(struct s2_thread *t)
{
	struct dirty_flush flush = {.first = UINT64_MAX};
	struct s2 *s2 = t->s2;
	uint64_t n = 0, generation;

	pthread_mutex_lock(&s2->threads_mutex);
	for (struct s2_thread *of = s2->threads; of; of = of->next)
		n += ring_reset(t, &of->ring, &flush);
	if (n)
		s2->ring_generation = range_post(t, flush.first, flush.last + 1);
	generation = s2->ring_generation;
	pthread_mutex_unlock(&s2->threads_mutex);
	/* What we have harvested another may have reset, who still waits for the clients. */
	tlb_wait(&s2->tlb, generation);
	return (int64_t)n;
}
