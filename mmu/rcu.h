/*
 * Read-copy-update for table pages: liburcu, memb flavour, in one place. The rest of mmu/ does not
 * know the library. Threads register by themselves in their first read section and leave when they
 * end.
 *
 * liburcu has no annotations for ThreadSanitizer, which then cannot see that a grace period orders
 * the readers' last accesses before a free. rcu_exit and rcu_synchronize say so.
 */
#ifndef MMU_RCU_H
#define MMU_RCU_H

#include <stdbool.h>

#ifdef __SANITIZE_THREAD__
#include <sanitizer/tsan_interface.h>
#else
#define _LGPL_SOURCE /* read sections are inlined: a few instructions, no call */
#endif
#include <urcu/urcu-memb.h>

extern _Thread_local bool rcu_registered; /* the calling thread */
extern char rcu_grace_tag;		  /* stands for "a grace period" towards ThreadSanitizer */

/* Before anything else; may be repeated. 0 or -errno. */
int rcu_init(void);
void rcu_register(void);

/* Waits until every read section that is open now is closed. Outside a read section only. */
void rcu_synchronize(void);

static inline void rcu_enter(void)
{
	if (__builtin_expect(!rcu_registered, 0))
		rcu_register();
	urcu_memb_read_lock();
}

/* Of a thread that is registered. */
static inline void rcu_enter_again(void)
{
	urcu_memb_read_lock();
}

static inline void rcu_exit(void)
{
#ifdef __SANITIZE_THREAD__
	__tsan_release(&rcu_grace_tag);
#endif
	urcu_memb_read_unlock();
}

#endif
