#include "cli/interrupt.h"

#include <signal.h>
#include <stddef.h>

static volatile sig_atomic_t came;

static void note(int signo)
{
	came = signo;
}

void interrupt_watch(void)
{
	/* Without SA_RESTART: whoever waits is to look. */
	const struct sigaction action = {.sa_handler = note};

	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
}

int interrupt_came(void)
{
	return came;
}
