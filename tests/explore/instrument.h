/*
 * Included before every file of mmu/ when it is built for the exploration: atomics, locks and RCU
 * become calls of the explorer (explore.h), which decides who goes on and what a load sees. Each
 * file is otherwise the real one.
 */
#ifndef EXPLORE_INSTRUMENT_H
#define EXPLORE_INSTRUMENT_H

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>
#include <unistd.h>

#include "tests/explore/calls.h"

/* Entries and dirty bits. */
#define __atomic_load_n(p, order)     ((__typeof__(*(p) + 0))explore_load((p), sizeof(*(p)), order))
#define __atomic_store_n(p, v, order) explore_store((p), sizeof(*(p)), (v), order)
#define __atomic_compare_exchange_n(p, old, v, weak, ok, fail)                                     \
	({                                                                                         \
		uint64_t old_ = *(old);                                                            \
		bool done_ = explore_cas((p), sizeof(*(p)), &old_, (v), ok);                       \
		*(old) = (__typeof__(*(old)))old_;                                                 \
		done_;                                                                             \
	})
#define __atomic_fetch_or(p, v, order)	explore_or((p), (v), order)
#define __atomic_fetch_and(p, v, order) explore_and((p), (v), order)

/* C11 atomics: lock, TLB clients; relaxed ones are counters. */
#undef atomic_load
#undef atomic_store
#undef atomic_load_explicit
#undef atomic_store_explicit
#undef atomic_fetch_add
#undef atomic_fetch_sub
#undef atomic_fetch_or
#undef atomic_exchange
#undef atomic_compare_exchange_weak
#define atomic_load(p) (explore_sync((p), 2), *(p))
#define atomic_load_explicit(p, order)                                                             \
	((order) != memory_order_relaxed ? explore_sync((p), 0) : (void)0, *(p))
#define atomic_store(p, v)                                                                         \
	do {                                                                                       \
		explore_sync((p), 3);                                                              \
		*(p) = (v);                                                                        \
	} while (0)
#define atomic_store_explicit(p, v, order)                                                         \
	do {                                                                                       \
		if ((order) != memory_order_relaxed)                                               \
			explore_sync((p), 1);                                                      \
		*(p) = (v);                                                                        \
	} while (0)
#define explore_fetch(p, op, v)                                                                    \
	({                                                                                         \
		explore_sync((p), 3);                                                              \
		__typeof__(*(p) + 0) old_ = *(p);                                                  \
		*(p) = old_ op(v);                                                                 \
		old_;                                                                              \
	})
#define atomic_fetch_add(p, v) explore_fetch(p, +, v)
#define atomic_fetch_sub(p, v) explore_fetch(p, -, v)
#define atomic_fetch_or(p, v)  explore_fetch(p, |, v)
#define atomic_exchange(p, v)                                                                      \
	({                                                                                         \
		explore_sync((p), 3);                                                              \
		__typeof__(*(p) + 0) old_ = *(p);                                                  \
		*(p) = (v);                                                                        \
		old_;                                                                              \
	})
#define atomic_compare_exchange_weak(p, old, v)                                                    \
	({                                                                                         \
		explore_sync((p), 3);                                                              \
		bool done_ = *(p) == *(old);                                                       \
		if (done_)                                                                         \
			*(p) = (v);                                                                \
		else                                                                               \
			*(old) = *(p);                                                             \
		done_;                                                                             \
	})

#define pthread_mutex_lock(m)	explore_lock(m)
#define pthread_mutex_unlock(m) explore_unlock(m)
#define sched_yield()		explore_yield()
#define nanosleep(a, b)		explore_yield()
/* membarrier: brlock.c calls no other. */
#define syscall(number, command, ...) ((void)(command), explore_membarrier())

/* Almost everywhere a load of an entry is next to it, which is a point already; not between what a
 * shadow is made of and the lock. */
#define MMU_RACE_POINT()                                                                           \
	(__builtin_strstr(__BASE_FILE__, "shadow_fault.c") ? explore_point("race") : (void)0)

/* Instead of mmu/rcu.h. */
#define MMU_RCU_H
int rcu_init(void);
void rcu_enter(void);
#define rcu_enter_again() rcu_enter()
#define rcu_registered	  true
void rcu_exit(void);
void rcu_synchronize(void);

#endif
