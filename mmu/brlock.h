/*
 * Big-reader lock: a reader touches only its own slot, so that faults on many threads share no
 * cache line; a writer visits all slots. Readers never sleep inside, so writers wait briefly.
 * Not recursive. A waiting writer keeps new readers out.
 *
 * Readers pay no barrier: the writer makes every thread of the process execute one
 * (membarrier(2), private expedited). So the lock orders readers and writers, and nothing between
 * one reader and another. Where the kernel refuses, readers do pay.
 *
 * The read side keeps table pages alive, too, as an RCU read section does: who frees one waits for
 * both (brlock_synchronize).
 */
#ifndef MMU_BRLOCK_H
#define MMU_BRLOCK_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

/* One per reading thread; alone on its cache line. */
struct brlock_slot {
	_Alignas(64) atomic_uint turn; /* odd: inside; its owner's to write */
	struct brlock_slot *next;
};

enum {
	BRLOCK_WRITER = 1, /* inside, or waiting for readers to leave */
	BRLOCK_FENCED = 2, /* there is no membarrier: set at creation */
};

struct brlock {
	_Alignas(64) atomic_uint state;
	pthread_mutex_t mutex; /* held by the writer; guards the list of slots */
	struct brlock_slot *slots;
};

void brlock_init(struct brlock *lock);
void brlock_destroy(struct brlock *lock);
void brlock_slot_add(struct brlock *lock, struct brlock_slot *slot);
void brlock_slot_remove(struct brlock *lock, struct brlock_slot *slot);

void brlock_write_lock(struct brlock *lock);
void brlock_write_unlock(struct brlock *lock);
/* Waits until every reader that is inside now has left; new ones may come in, and the same again.
 * Not for a reader. */
void brlock_synchronize(struct brlock *lock);
/* brlock_read_lock where there is a writer, or no membarrier. */
void brlock_read_slow(struct brlock *lock, struct brlock_slot *slot);

/* What the owner's next turn is. */
static inline unsigned brlock_next(const struct brlock_slot *slot)
{
	return atomic_load_explicit(&slot->turn, memory_order_relaxed) + 1;
}

static inline void brlock_read_unlock(struct brlock_slot *slot)
{
	atomic_store_explicit(&slot->turn, brlock_next(slot), memory_order_release);
}

/* false: not inside; there is a writer, or no membarrier. */
static inline bool brlock_read_try(struct brlock *lock, struct brlock_slot *slot)
{
	atomic_store_explicit(&slot->turn, brlock_next(slot), memory_order_relaxed);
	/* Against the compiler; for the processor the writer's membarrier stands here: it sees us
	 * inside, or we see it. */
	atomic_signal_fence(memory_order_seq_cst);
	if (__builtin_expect(!atomic_load_explicit(&lock->state, memory_order_acquire), 1))
		return true;
	brlock_read_unlock(slot);
	return false;
}

static inline void brlock_read_lock(struct brlock *lock, struct brlock_slot *slot)
{
	if (__builtin_expect(!brlock_read_try(lock, slot), 0))
		brlock_read_slow(lock, slot);
}

#endif
