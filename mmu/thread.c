/* Registration of threads, and the sums of their counters. */
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
	t->name = name;
	t->pool = (struct table_pool){.env = s2->pt.env,
				      .bytes = geometry_table_bytes(&s2->pt.geo, 1),
				      .output_bits = s2->pt.geo.output_bits};
	pthread_mutex_lock(&s2->threads_mutex);
	err = owner_take(s2, &t->owner);
	if (!err) {
		t->next = s2->threads;
		s2->threads = t;
	}
	pthread_mutex_unlock(&s2->threads_mutex);
	if (err) {
		free(t);
		return err;
	}
	brlock_slot_add(&s2->lock, &t->reader);
	*out = t;
	return 0;
}

/* The counters are an array of words, whatever their names. */
static void counters_sum(struct counters *sum, struct counters *c)
{
	_Atomic uint64_t *to = (_Atomic uint64_t *)sum, *from = (_Atomic uint64_t *)c;

	for (size_t i = 0; i < sizeof(*sum) / sizeof(*to); i++)
		count(&to[i], atomic_load_explicit(&from[i], memory_order_relaxed));
}

void s2_thread_exit(struct s2_thread *t)
{
	struct s2 *s2 = t->s2;
	struct s2_thread **link = &s2->threads;

	brlock_slot_remove(&s2->lock, &t->reader);
	table_pool_drain(&t->pool);
	pthread_mutex_lock(&s2->threads_mutex);
	while (*link != t)
		link = &(*link)->next;
	*link = t->next;
	s2->owners[t->owner / 64] &= ~(UINT64_C(1) << (t->owner % 64));
	counters_sum(&s2->gone, &t->stats);
	pthread_mutex_unlock(&s2->threads_mutex);
	free(t);
}

void s2_get_stats(struct s2 *s2, struct s2_stats *stats)
{
	struct counters sum = {0};

	pthread_mutex_lock(&s2->threads_mutex);
	counters_sum(&sum, &s2->gone);
	for (struct s2_thread *t = s2->threads; t; t = t->next)
		counters_sum(&sum, &t->stats);
	pthread_mutex_unlock(&s2->threads_mutex);

	memset(stats, 0, sizeof(*stats));
	for (unsigned i = 0; i < S2_NR_RESULTS; i++)
		stats->faults[i] = sum.faults[i];
	for (unsigned level = 1; level < sizeof(stats->pages) / sizeof(*stats->pages); level++)
		stats->pages[level] = sum.leaves[level];
	stats->tables = sum.tables + 1; /* the root */
	stats->splits = sum.splits;
	stats->collapses = sum.collapses;
	stats->invalidations = sum.invalidations;
	stats->retries = sum.retries;
	stats->deferred_frees = sum.deferred_frees;
}
