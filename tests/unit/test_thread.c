/* A thread of ferry's sees a crash of its own, and no other signal. */
#include <signal.h>
#include <stdio.h>

#include "migration/thread.h"

static void *look(void *arg)
{
	pthread_sigmask(SIG_SETMASK, NULL, arg);
	return NULL;
}

int main(void)
{
	static const int crash[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGSYS};
	static const int others[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGALRM, SIGCHLD, SIGUSR1};
	sigset_t before, after, theirs;
	pthread_t thread;
	int wrong = 0;

	/* Also one that its starter has blocked. */
	sigemptyset(&before);
	sigaddset(&before, SIGBUS);
	sigaddset(&before, SIGUSR2);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (thread_start(&thread, look, &theirs))
		return 1;
	pthread_join(thread, NULL);
	pthread_sigmask(SIG_SETMASK, NULL, &after);
	for (unsigned i = 0; i < sizeof(crash) / sizeof(crash[0]); i++)
		wrong += sigismember(&theirs, crash[i]);
	for (unsigned i = 0; i < sizeof(others) / sizeof(others[0]); i++)
		wrong += !sigismember(&theirs, others[i]);
	for (int i = 1; i < 32; i++)
		wrong += sigismember(&after, i) != sigismember(&before, i);
	printf("%d wrong\n", wrong);
	return wrong != 0;
}
