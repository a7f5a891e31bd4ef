#include "mmu/brlock.h"

#include <sched.h>

void brlock_init(struct brlock *lock)
{
	atomic_init(&lock->writer, false);
	pthread_mutex_init(&lock->mutex, NULL);
	lock->slots = NULL;
}

void brlock_destroy(struct brlock *lock)
{
	pthread_mutex_destroy(&lock->mutex);
}

void brlock_slot_add(struct brlock *lock, struct brlock_slot *slot)
{
	atomic_init(&slot->inside, false);
	pthread_mutex_lock(&lock->mutex);
	slot->next = lock->slots;
	lock->slots = slot;
	pthread_mutex_unlock(&lock->mutex);
}

void brlock_slot_remove(struct brlock *lock, struct brlock_slot *slot)
{
	struct brlock_slot **link = &lock->slots;

	pthread_mutex_lock(&lock->mutex);
	while (*link != slot)
		link = &(*link)->next;
	*link = slot->next;
	pthread_mutex_unlock(&lock->mutex);
}

void brlock_write_lock(struct brlock *lock)
{
	pthread_mutex_lock(&lock->mutex);
	atomic_store(&lock->writer, true);
	for (struct brlock_slot *slot = lock->slots; slot; slot = slot->next) {
		/* A reader is inside for microseconds, unless the host has taken its processor. */
		for (unsigned spins = 0; atomic_load(&slot->inside); spins++) {
			if (spins > 100)
				sched_yield();
		}
	}
}

void brlock_write_unlock(struct brlock *lock)
{
	atomic_store_explicit(&lock->writer, false, memory_order_release);
	pthread_mutex_unlock(&lock->mutex);
}

void brlock_wait_writer(struct brlock *lock)
{
	pthread_mutex_lock(&lock->mutex);
	pthread_mutex_unlock(&lock->mutex);
}
