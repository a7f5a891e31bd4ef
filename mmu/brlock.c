#include "mmu/brlock.h"

#include <linux/membarrier.h>
#include <sched.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static long membarrier(int command)
{
	return syscall(__NR_membarrier, command, 0, 0);
}

void brlock_init(struct brlock *lock)
{
	/* Registered once per process; again is harmless. */
	atomic_init(&lock->state,
		    membarrier(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED) ? BRLOCK_FENCED : 0);
	pthread_mutex_init(&lock->mutex, NULL);
	lock->slots = NULL;
}

void brlock_destroy(struct brlock *lock)
{
	pthread_mutex_destroy(&lock->mutex);
}

void brlock_slot_add(struct brlock *lock, struct brlock_slot *slot)
{
	atomic_init(&slot->turn, 0);
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

/* Every thread executes a barrier. */
static void barrier_all(struct brlock *lock)
{
	if (!membarrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED))
		return;
	/* Refused since (by a filter of system calls, or for want of memory). From here on readers
	 * pay; of those who did not know it yet, stores and loads of 10 ms ago are done. */
	atomic_fetch_or(&lock->state, BRLOCK_FENCED);
	nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
}

/* With the mutex held. What was done before is seen by who comes in from now on; then nobody is
 * left of those who came before. */
static void wait_readers(struct brlock *lock)
{
	if (!(atomic_load_explicit(&lock->state, memory_order_relaxed) & BRLOCK_FENCED))
		barrier_all(lock);
	for (struct brlock_slot *slot = lock->slots; slot; slot = slot->next) {
		const unsigned seen = atomic_load(&slot->turn);

		/* A reader is inside for microseconds, unless the host has taken its processor; who
		 * comes in again is not waited for. */
		for (unsigned spins = 0; seen & 1 && atomic_load(&slot->turn) == seen; spins++) {
			if (spins > 100)
				sched_yield();
		}
	}
}

void brlock_write_lock(struct brlock *lock)
{
	pthread_mutex_lock(&lock->mutex);
	atomic_fetch_add(&lock->state, BRLOCK_WRITER);
	wait_readers(lock);
}

void brlock_synchronize(struct brlock *lock)
{
	pthread_mutex_lock(&lock->mutex);
	atomic_fetch_add(&lock->state, 0); /* a full barrier, where there is no membarrier */
	wait_readers(lock);
	pthread_mutex_unlock(&lock->mutex);
}

void brlock_write_unlock(struct brlock *lock)
{
	atomic_fetch_sub(&lock->state, BRLOCK_WRITER);
	pthread_mutex_unlock(&lock->mutex);
}

void brlock_read_slow(struct brlock *lock, struct brlock_slot *slot)
{
	for (;;) {
		/* Sequentially consistent, as the writer's store and load are: at least one of the
		 * two sees the other, also without membarrier. */
		atomic_store(&slot->turn, brlock_next(slot));
		if (!(atomic_load(&lock->state) & BRLOCK_WRITER))
			return;
		brlock_read_unlock(slot);
		pthread_mutex_lock(&lock->mutex);
		pthread_mutex_unlock(&lock->mutex);
	}
}
