/*
 * Big-reader lock: a reader touches only its own slot, so that faults on many threads share no
 * cache line; a writer visits all slots. Readers never sleep inside, so writers wait briefly.
 * Not recursive. A waiting writer keeps new readers out.
 */
#ifndef MMU_BRLOCK_H
#define MMU_BRLOCK_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

/* One per reading thread; alone on its cache line. */
struct brlock_slot {
	_Alignas(64) atomic_bool inside;
	struct brlock_slot *next;
};

struct brlock {
	_Alignas(64) atomic_bool writer;
	pthread_mutex_t mutex; /* held by the writer; guards the list of slots */
	struct brlock_slot *slots;
};

void brlock_init(struct brlock *lock);
void brlock_destroy(struct brlock *lock);
void brlock_slot_add(struct brlock *lock, struct brlock_slot *slot);
void brlock_slot_remove(struct brlock *lock, struct brlock_slot *slot);

void brlock_write_lock(struct brlock *lock);
void brlock_write_unlock(struct brlock *lock);
void brlock_wait_writer(struct brlock *lock);

static inline void brlock_read_lock(struct brlock *lock, struct brlock_slot *slot)
{
	for (;;) {
		/* Sequentially consistent, as the writer's store and load are: at least one of the
		 * two sees the other. */
		atomic_store(&slot->inside, true);
		if (__builtin_expect(!atomic_load(&lock->writer), 1))
			return;
		atomic_store_explicit(&slot->inside, false, memory_order_release);
		brlock_wait_writer(lock);
	}
}

static inline void brlock_read_unlock(struct brlock_slot *slot)
{
	atomic_store_explicit(&slot->inside, false, memory_order_release);
}

#endif
