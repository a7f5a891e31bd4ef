#include <errno.h>
#include <stdlib.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "vmm/loop_internal.h"

struct signal_handler {
	int signo; /* 0: deleted */
	void (*fn)(void *arg, int signo);
	void *arg;
	struct signal_handler *next;
};

int loop_signals_init(struct loop_signals *signals)
{
	sigemptyset(&signals->handled);
	pthread_sigmask(SIG_BLOCK, NULL, &signals->old_mask);
	signals->fd = signalfd(-1, &signals->handled, SFD_NONBLOCK | SFD_CLOEXEC);
	return signals->fd < 0 ? -errno : 0;
}

void loop_signals_free(struct loop_signals *signals)
{
	struct signalfd_siginfo info;
	struct signal_handler *handler;

	if (signals->fd < 0)
		return;
	/* A second Ctrl-C during the shutdown must not kill the process when the mask is taken
	 * back. */
	while (read(signals->fd, &info, sizeof(info)) > 0)
		;
	while ((handler = signals->handlers)) {
		signals->handlers = handler->next;
		free(handler);
	}
	close(signals->fd);
	pthread_sigmask(SIG_SETMASK, &signals->old_mask, NULL);
}

void loop_signals_run(struct loop_signals *signals)
{
	struct signalfd_siginfo info;

	while (read(signals->fd, &info, sizeof(info)) == sizeof(info)) {
		for (struct signal_handler *h = signals->handlers; h; h = h->next) {
			if (h->signo == (int)info.ssi_signo)
				h->fn(h->arg, h->signo);
		}
	}
}

int loop_signals_add(struct loop_signals *signals, int signo, void (*fn)(void *arg, int signo),
		     void *arg)
{
	struct signal_handler *handler = calloc(1, sizeof(*handler));

	if (!handler)
		return -ENOMEM;
	*handler = (struct signal_handler){signo, fn, arg, signals->handlers};
	sigaddset(&signals->handled, signo);
	if (signalfd(signals->fd, &signals->handled, 0) < 0) {
		int code = -errno;

		free(handler);
		return code;
	}
	signals->handlers = handler;
	pthread_sigmask(SIG_BLOCK, &signals->handled, NULL);
	return 0;
}

void loop_signals_del(struct loop_signals *signals, void (*fn)(void *arg, int signo), void *arg)
{
	/* The signal stays blocked: other threads have inherited the mask. */
	for (struct signal_handler *h = signals->handlers; h; h = h->next) {
		if (h->fn == fn && h->arg == arg)
			h->signo = 0;
	}
}
