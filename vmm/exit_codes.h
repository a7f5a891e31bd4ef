/*
 * How `ferry run` and the commands for running machines end. Ours are even, beside "could not
 * start": debug-exit's (value << 1) | 1 is odd, so that only value 0 and signals can be mistaken
 * for it. The words for people are in cli/exit_codes.c.
 */
#ifndef VMM_EXIT_CODES_H
#define VMM_EXIT_CODES_H

#include <stddef.h>

#include "vmm/vm.h"

enum exit_code {
	EXIT_POWEROFF = 0,    /* the guest switched itself off, or was moved */
	EXIT_START = 1,	      /* the machine could not be started; the command failed */
	EXIT_USAGE = 2,	      /* the command line is wrong */
	EXIT_RESET_LIMIT = 4, /* one reset more than --reset-limit allows */
	EXIT_PANIC = 6,	      /* the guest said that it has crashed (pvpanic) */
	EXIT_KILLED = 8,      /* its user ended it: C-a x, ferry kill */
	EXIT_ENGINE = 10,     /* the engine or a device gave up: a bug in ferry or on the host */
	EXIT_LOST = 12,	      /* wait: the process was gone without saying how */
	EXIT_HARD = 14,	      /* stop: the guest did not switch itself off, and was ended */
	EXIT_STREAM_DAMAGED = 16, /* stream: damaged or cut off */
	EXIT_STREAM_NEWER = 18,	  /* stream: only a newer ferry understands it */
	EXIT_REFUSED = 20,   /* migrate: the destination does not take it; nothing was stopped */
	EXIT_FAILED = 22,    /* migrate: it failed; the guest is where it was */
	EXIT_CANCELLED = 24, /* migrate: called off; the guest is where it was */
	EXIT_DOUBT = 26,     /* migrate: it is not known where the guest is, or it is lost */
	EXIT_SPOOLED = 28,   /* migrate: the guest runs there, what it lacks is in a file */
	EXIT_SIGNAL = 128,   /* + the signal's number */
};

static inline int exit_code_debug(unsigned value)
{
	return (int)((value << 1 | 1) & 0xff);
}

/* What a run that has ended comes to: the code, and why in words without a full stop. */
int exit_code_of(const struct vm_result *result);
void exit_reason(const struct vm_result *result, char *buf, size_t len);

#endif
