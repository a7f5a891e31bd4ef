#include "vmm/terminal.h"

#include <errno.h>
#include <signal.h>
#include <unistd.h>

#include "vmm/cleanup.h"
#include "vmm/message.h"

static bool foreground(int fd)
{
	pid_t group = tcgetpgrp(fd);

	/* Not our controlling terminal: nobody else's job control is in the way. */
	return group < 0 || group == getpgrp();
}

static void take(struct terminal *t)
{
	struct termios modes;

	if (t->raw)
		return;
	/* Only once: a shell that continues a job puts the modes that the job had, our own raw
	 * ones. */
	if (!t->have_saved && tcgetattr(t->fd, &t->saved))
		return;
	t->have_saved = true;
	modes = t->saved;
	cfmakeraw(&modes);
	modes.c_cc[VMIN] = 1;
	modes.c_cc[VTIME] = 0;
	t->cleanup = cleanup_add_terminal(t->fd, &t->saved);
	/* TCSADRAIN: what was typed ahead is for the guest. */
	if (tcsetattr(t->fd, TCSADRAIN, &modes)) {
		cleanup_drop(t->cleanup);
		return;
	}
	t->raw = true;
	message_set_raw(true);
}

static void give_back(struct terminal *t)
{
	if (!t->raw)
		return;
	/* In the background the shell has long put its own modes. */
	if (foreground(t->fd))
		tcsetattr(t->fd, TCSADRAIN, &t->saved);
	cleanup_drop(t->cleanup);
	t->raw = false;
	message_set_raw(false);
}

bool terminal_ours(struct terminal *t)
{
	if (!foreground(t->fd))
		return false;
	take(t);
	return t->raw;
}

static void on_signal(void *arg, int signo)
{
	struct terminal *t = arg;

	if (signo == SIGTSTP) {
		give_back(t); /* before the loop stops the process */
	} else if (signo == SIGCONT) {
		/* After SIGSTOP, which nobody sees coming, the shell has changed the modes. */
		if (t->raw) {
			cleanup_drop(t->cleanup);
			t->raw = false;
			message_set_raw(false);
		}
		if (foreground(t->fd))
			take(t);
		if (t->continued)
			t->continued(t->arg);
	}
}

int terminal_open(struct terminal *t, struct loop *loop, int fd, void (*continued)(void *arg),
		  void *arg)
{
	/* The last two are only blocked: reading in the background is then an error, not a stop of
	 * the guest, and `stty tostop` does not stop it either. */
	static const int signals[] = {SIGTSTP, SIGCONT, SIGTTIN, SIGTTOU};

	*t = (struct terminal){
		.fd = fd, .cleanup = -1, .loop = loop, .continued = continued, .arg = arg};
	for (unsigned i = 0; i < sizeof(signals) / sizeof(signals[0]); i++) {
		int code = loop_signal_add(loop, signals[i], on_signal, t);

		if (code)
			return code;
	}
	if (foreground(fd))
		take(t);
	return 0;
}

void terminal_close(struct terminal *t)
{
	give_back(t);
	loop_signal_del(t->loop, on_signal, t);
}
