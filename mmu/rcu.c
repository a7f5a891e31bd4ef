#include "mmu/rcu.h"

#include <pthread.h>

_Thread_local bool rcu_registered;
char rcu_grace_tag;

static pthread_key_t key; /* its destructor runs when a registered thread ends */
static pthread_once_t once = PTHREAD_ONCE_INIT;
static int key_error;

static void unregister(void *unused)
{
	(void)unused;
	urcu_memb_unregister_thread();
	rcu_registered = false;
}

static void make_key(void)
{
	key_error = pthread_key_create(&key, unregister);
}

int rcu_init(void)
{
	pthread_once(&once, make_key);
	return -key_error;
}

void rcu_register(void)
{
	urcu_memb_register_thread();
	/* Cannot fail for one of a process's first 32 keys: their values are in the thread's
	 * descriptor. */
	pthread_setspecific(key, &rcu_registered);
	rcu_registered = true;
}

void rcu_synchronize(void)
{
	urcu_memb_synchronize_rcu();
#ifdef __SANITIZE_THREAD__
	__tsan_acquire(&rcu_grace_tag);
#endif
}
