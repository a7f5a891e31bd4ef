#include "cli/exit_codes.h"

#include <stddef.h>

const struct exit_text exit_texts[] = {
	{"0", "the guest switched itself off, or was moved or saved"},
	{"1", "the machine could not be started; another command could not do it"},
	{"2", "the command line is wrong"},
	{"4", "reset limit: the guest reset once more than --reset-limit allows"},
	{"6", "the guest said that it has crashed (pvpanic)"},
	{"8", "ended by its user: C-a x, ferry kill"},
	{"10", "the engine or a device gave up: a fault of ferry or of the host"},
	{"12", "ferry wait: the process was gone without saying how: killed, or crashed"},
	{"14", "ferry stop: the guest did not switch itself off in time, and was ended"},
	{"16", "ferry stream: the stream is damaged or cut off"},
	{"18", "ferry stream: only a newer ferry understands the stream"},
	{"20", "ferry migrate: the destination refuses; nothing was stopped"},
	{"22", "ferry migrate: it failed; the guest is where it was"},
	{"24", "ferry migrate: called off; the guest is where it was"},
	{"26",
	 "ferry migrate: it is not known whether the guest runs there; or the machine here has "
	 "ended, and the guest with it"},
	{"28",
	 "ferry migrate: the guest runs there; the pages that it lacks are in the --spool file"},
	{"128+N",
	 "ended by signal N: 130 for SIGINT, 143 for SIGTERM, 129 for SIGHUP (the terminal "
	 "was closed)"},
	{"2V+1",
	 "the guest wrote V to the --debug-exit port (as QEMU's isa-debug-exit; modulo 256)"},
	{NULL, NULL},
};

const char exit_overlap[] =
	"ferry's own codes are even, so only V = 0 (1, could not start) and V >= 64 (odd signals) "
	"of "
	"--debug-exit can be mistaken for something else: tests do well to choose V from 1 to 63.";
