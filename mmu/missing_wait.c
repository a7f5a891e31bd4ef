#include "mmu/missing_wait.h"

#include "mmu/missing_internal.h"

static size_t bytes(void)
{
	size_t size = 4096;

	while (size < sizeof(struct missing))
		size *= 2;
	return size;
}

struct missing *missing_create(const struct s2_env *env, const struct s2_missing_ops *ops,
			       unsigned shift)
{
	struct missing *m = env->alloc(env->opaque, bytes());

	if (!m)
		return NULL;
	m->ops = *ops;
	m->shift = shift;
	for (unsigned i = 0; i < MISSING_BUCKETS; i++)
		pthread_mutex_init(&m->bucket[i].mutex, NULL);
	return m;
}

void missing_free(struct missing *m, const struct s2_env *env)
{
	for (unsigned i = 0; i < MISSING_BUCKETS; i++)
		pthread_mutex_destroy(&m->bucket[i].mutex);
	env->free(env->opaque, m, bytes());
}

void missing_wake(struct missing_bucket *bucket, uint64_t first, uint64_t last)
{
	struct s2_page_waiter **link = &bucket->waiters, *waiter;

	while ((waiter = *link)) {
		if (waiter->gpa < first || waiter->gpa > last) {
			link = &waiter->next;
			continue;
		}
		*link = waiter->next;
		waiter->queued = false;
		waiter->wake(waiter);
	}
}

bool s2_page_wait(struct s2_thread *t, uint64_t gpa, struct s2_page_waiter *waiter)
{
	struct s2 *s2 = t->s2;
	struct missing_bucket *bucket;
	struct slot *slot;
	bool queued = false;

	waiter->gpa = gpa;
	waiter->queued = false;
	waiter->next = NULL;
	brlock_read_lock(&s2->lock, &t->reader);
	slot = slots_find(&s2->slots, gpa, &t->slot_hint);
	if (s2->missing && slot && !(slot->s.flags & SLOT_DYING)) {
		uint64_t page = (gpa - slot->s.gpa) >> s2->missing->shift;

		bucket = missing_bucket(s2->missing, gpa);
		pthread_mutex_lock(&bucket->mutex);
		/* Whoever receives it changes its state under the mutex. */
		if (S2_PAGES_AWAITED >> states_get(&slot->missing, page) & 1) {
			waiter->queued = queued = true;
			waiter->next = bucket->waiters;
			bucket->waiters = waiter;
			atomic_fetch_add(&s2->missing->waits, 1);
		}
		pthread_mutex_unlock(&bucket->mutex);
	}
	brlock_read_unlock(&t->reader);
	return queued;
}

void s2_page_wait_end(struct s2_thread *t, struct s2_page_waiter *waiter)
{
	struct s2 *s2 = t->s2;

	brlock_read_lock(&s2->lock, &t->reader);
	/* Without it all pages are here, and all who waited have been woken. */
	if (s2->missing) {
		struct missing_bucket *bucket = missing_bucket(s2->missing, waiter->gpa);

		pthread_mutex_lock(&bucket->mutex);
		if (waiter->queued) {
			struct s2_page_waiter **link = &bucket->waiters;

			while (*link != waiter)
				link = &(*link)->next;
			*link = waiter->next;
			waiter->queued = false;
		}
		pthread_mutex_unlock(&bucket->mutex);
	}
	brlock_read_unlock(&t->reader);
}

void missing_slot_dying(struct s2_thread *t, const struct slot *slot)
{
	struct s2 *s2 = t->s2;

	brlock_read_lock(&s2->lock, &t->reader);
	for (unsigned i = 0; s2->missing && i < MISSING_BUCKETS; i++) {
		struct missing_bucket *bucket = &s2->missing->bucket[i];

		pthread_mutex_lock(&bucket->mutex);
		missing_wake(bucket, slot->s.gpa, slot->s.gpa + (slot->s.size - 1));
		pthread_mutex_unlock(&bucket->mutex);
	}
	brlock_read_unlock(&t->reader);
}
