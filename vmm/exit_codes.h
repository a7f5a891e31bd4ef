/*
 * How `ferry run` ends: what vm_run() returns and the process exits with. Ours are even, beside
 * "could not start": debug-exit's (value << 1) | 1 is odd, so that only value 0 and signals can be
 * mistaken for it. The words for people are in cli/exit_codes.c.
 */
#ifndef VMM_EXIT_CODES_H
#define VMM_EXIT_CODES_H

enum exit_code {
	EXIT_POWEROFF = 0,    /* the guest switched itself off */
	EXIT_START = 1,	      /* the machine could not be started */
	EXIT_USAGE = 2,	      /* the command line is wrong */
	EXIT_RESET_LIMIT = 4, /* one reset more than --reset-limit allows */
	EXIT_PANIC = 6,	      /* the guest said that it has crashed (pvpanic) */
	EXIT_KILLED = 8,      /* its user ended it: C-a x */
	EXIT_ENGINE = 10,     /* the engine or a device gave up: a bug in ferry or on the host */
	EXIT_SIGNAL = 128,    /* + the signal's number */
};

static inline int exit_code_debug(unsigned value)
{
	return (int)((value << 1 | 1) & 0xff);
}

#endif
