/*
 * Read-copy-update for table pages: liburcu, memb flavour, in one place. The rest of mmu/ does not
 * know the library.
 *
 * liburcu has no annotations for ThreadSanitizer, which then cannot see that a grace period orders
 * the readers' last accesses before a free. rcu_exit and rcu_synchronize say so.
 */
#ifndef MMU_RCU_H
#define MMU_RCU_H

#ifdef __SANITIZE_THREAD__
#include <sanitizer/tsan_interface.h>
#else
#define _LGPL_SOURCE /* read sections are inlined: a few instructions, no call */
#endif
#include <urcu/urcu-memb.h>

/* Registers the calling thread; counted, so that a thread may register with several instances. */
void rcu_thread_register(void);
void rcu_thread_unregister(void);

/* Waits until every read section that is open now is closed. Outside a read section only. */
void rcu_synchronize(void);

extern char rcu_grace_tag; /* stands for "a grace period" towards ThreadSanitizer */

static inline void rcu_enter(void)
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
