/*
 * Other locking for the same core, included before everything else (-include) in place of
 * mmu/brlock.h and mmu/rcu.h:
 *
 *	BENCH_EXCLUSIVE	one mutex for all
 *	BENCH_OLDER	what Linux did before its parallel faults: a read-write lock, whose read
 *side is for permission faults only
 *
 * Tables are freed at once: nobody translates while another unmaps the same range here.
 */
#ifndef BENCH_MMU_LOCKS_H
#define BENCH_MMU_LOCKS_H

#define MMU_BRLOCK_H
#define MMU_RCU_H

#include <pthread.h>
#include <stdbool.h>

struct brlock_slot {
	_Alignas(64) struct brlock *lock;
};

#ifdef BENCH_EXCLUSIVE

struct brlock {
	_Alignas(64) pthread_mutex_t lock;
};
#define LOCK_INIT(l)	pthread_mutex_init(&(l)->lock, NULL)
#define LOCK_DESTROY(l) pthread_mutex_destroy(&(l)->lock)
#define LOCK_READ(l)	pthread_mutex_lock(&(l)->lock)
#define LOCK_WRITE(l)	pthread_mutex_lock(&(l)->lock)
#define LOCK_UNLOCK(l)	pthread_mutex_unlock(&(l)->lock)

#else

extern _Thread_local bool bench_permission;

struct brlock {
	_Alignas(64) pthread_rwlock_t lock;
};
#define LOCK_INIT(l)	pthread_rwlock_init(&(l)->lock, NULL)
#define LOCK_DESTROY(l) pthread_rwlock_destroy(&(l)->lock)
#define LOCK_READ(l)                                                                               \
	(bench_permission ? pthread_rwlock_rdlock(&(l)->lock) : pthread_rwlock_wrlock(&(l)->lock))
#define LOCK_WRITE(l)  pthread_rwlock_wrlock(&(l)->lock)
#define LOCK_UNLOCK(l) pthread_rwlock_unlock(&(l)->lock)

#endif

static inline void brlock_init(struct brlock *lock)
{
	LOCK_INIT(lock);
}

static inline void brlock_destroy(struct brlock *lock)
{
	LOCK_DESTROY(lock);
}

static inline void brlock_slot_add(struct brlock *lock, struct brlock_slot *slot)
{
	slot->lock = lock;
}

static inline void brlock_slot_remove(struct brlock *lock, struct brlock_slot *slot)
{
	(void)lock, (void)slot;
}

static inline void brlock_write_lock(struct brlock *lock)
{
	LOCK_WRITE(lock);
}

static inline void brlock_write_unlock(struct brlock *lock)
{
	LOCK_UNLOCK(lock);
}

static inline void brlock_read_lock(struct brlock *lock, struct brlock_slot *slot)
{
	(void)slot;
	LOCK_READ(lock);
}

static inline bool brlock_read_try(struct brlock *lock, struct brlock_slot *slot)
{
	brlock_read_lock(lock, slot);
	return true;
}

static inline void brlock_synchronize(struct brlock *lock)
{
	(void)lock;
}

static inline void brlock_read_unlock(struct brlock_slot *slot)
{
	LOCK_UNLOCK(slot->lock);
}

static inline int rcu_init(void)
{
	return 0;
}

static const bool rcu_registered = true;

static inline void rcu_enter(void)
{
}

static inline void rcu_enter_again(void)
{
}

static inline void rcu_exit(void)
{
}

static inline void rcu_synchronize(void)
{
}

#endif
