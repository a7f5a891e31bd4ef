/* Registration of threads. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "mmu/internal.h"

/* With threads_mutex held. */
static int owner_take(struct s2 *s2, unsigned *owner)
{
	for (unsigned i = 0; i < 1u << s2->ops->format->owner_bits; i++) {
		uint64_t bit = UINT64_C(1) << (i % 64);

		if (s2->owners[i / 64] & bit)
			continue;
		s2->owners[i / 64] |= bit;
		*owner = i;
		return 0;
	}
	return -EUSERS;
}

int s2_thread_init(struct s2_thread **out, struct s2 *s2, const char *name)
{
	struct s2_thread *t = aligned_alloc(_Alignof(struct s2_thread), sizeof(*t));
	int err;

	if (!t)
		return -ENOMEM;
	memset(t, 0, sizeof(*t));
	t->s2 = s2;
	t->ops = s2->ops;
	t->translate = s2->pt.identity ? s2->ops->translate : s2->ops->translate_other;
	t->translate_shadow = t->translate;
	s2_thread_choose(t);
	t->name = name;
	t->pool = (struct table_pool){.env = s2->pt.env,
				      .bytes = geometry_table_bytes(&s2->pt.geo, 1),
				      .output_bits = s2->pt.geo.output_bits};
	pthread_mutex_lock(&s2->threads_mutex);
	err = s2->ring_entries ? dirty_ring_make(t, s2->ring_entries) : 0;
	if (!err)
		err = owner_take(s2, &t->owner);
	if (!err) {
		if (s2->ring_entries)
			dirty_ring_on(t, s2->ring_soft);
		t->next = s2->threads;
		s2->threads = t;
		trace_thread_init(t);
	}
	pthread_mutex_unlock(&s2->threads_mutex);
	if (err) {
		dirty_ring_free(t);
		free(t);
		return err;
	}
	brlock_slot_add(&s2->lock, &t->reader);
	*out = t;
	return 0;
}

void s2_thread_exit(struct s2_thread *t)
{
	struct s2 *s2 = t->s2;
	struct s2_thread **link = &s2->threads;

	table_pool_trim(&t->pool, 0);
	pthread_mutex_lock(&s2->threads_mutex);
	dirty_ring_spill(t);
	dirty_ring_free(t);
	while (*link != t)
		link = &(*link)->next;
	*link = t->next;
	s2->owners[t->owner / 64] &= ~(UINT64_C(1) << (t->owner % 64));
	counters_sum(&s2->gone, &t->stats);
	trace_thread_exit(t);
	pthread_mutex_unlock(&s2->threads_mutex);
	brlock_slot_remove(&s2->lock, &t->reader);
	free(t);
}
