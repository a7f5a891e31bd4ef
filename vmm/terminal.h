/*
 * The user's terminal: raw while the guest has it, as it was on every way out (vmm/cleanup.h).
 *
 * Job control is respected: a job in the background does not touch the terminal, a stopped one
 * gives it back, one that is continued in the foreground takes it again.
 */
#ifndef VMM_TERMINAL_H
#define VMM_TERMINAL_H

#include <stdbool.h>
#include <termios.h>

#include "vmm/loop.h"

struct terminal {
	int fd;
	struct termios saved;
	bool have_saved, raw;
	int cleanup;
	struct loop *loop;
	void (*continued)(void *arg); /* after SIGCONT; may be NULL */
	void *arg;
};

/* fd: a terminal; the loop has loop_stop_on_signals(). Takes it if this process is in the
 * foreground. Blocks SIGTSTP, SIGCONT, SIGTTIN and SIGTTOU: before other threads are made. 0 or
 * -errno. */
int terminal_open(struct terminal *terminal, struct loop *loop, int fd,
		  void (*continued)(void *arg), void *arg);
void terminal_close(struct terminal *terminal);
/* In the foreground, and raw (made so if it was not). */
bool terminal_ours(struct terminal *terminal);

#endif
