/* The exit codes of vmm/exit_codes.h in words; help and man pages print the table. */
#ifndef CLI_EXIT_CODES_H
#define CLI_EXIT_CODES_H

#include "vmm/exit_codes.h"

struct exit_text {
	const char *code; /* "4", "128+N"; NULL ends the table */
	const char *text;
};
extern const struct exit_text exit_texts[];
extern const char exit_overlap[]; /* a sentence on what debug-exit can be mistaken for */

#endif
