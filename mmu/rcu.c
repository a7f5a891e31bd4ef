#include "mmu/rcu.h"

char rcu_grace_tag;

/* liburcu refuses to register a thread twice. */
static _Thread_local unsigned registrations;

void rcu_thread_register(void)
{
	if (!registrations++)
		urcu_memb_register_thread();
}

void rcu_thread_unregister(void)
{
	if (!--registrations)
		urcu_memb_unregister_thread();
}

void rcu_synchronize(void)
{
	urcu_memb_synchronize_rcu();
#ifdef __SANITIZE_THREAD__
	__tsan_acquire(&rcu_grace_tag);
#endif
}
