#include "migration/thread.h"

#include <signal.h>

int thread_start(pthread_t *thread, void *(*fn)(void *arg), void *arg)
{
	static const int crash[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGSYS};
	sigset_t others, old;
	int ret;

	sigfillset(&others);
	for (unsigned i = 0; i < sizeof(crash) / sizeof(crash[0]); i++)
		sigdelset(&others, crash[i]);
	pthread_sigmask(SIG_SETMASK, &others, &old);
	ret = pthread_create(thread, NULL, fn, arg);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return -ret;
}
