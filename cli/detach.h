/* Going into the background: the parent waits until its child says that the machine runs, or why it
 * does not. */
#ifndef CLI_DETACH_H
#define CLI_DETACH_H

#include "vmm/error.h"

/* Forks. In the parent: waits for the report, prints the name or the error, returns the exit code
 * >= 0. In the child, a session leader's child without a terminal, standard input and output on
 * /dev/null: -1, and *report is for detach_report(). Before threads are made. */
int detach(int *report);
/* The child's: code 0 and the name of the machine that runs, or an exit code and an error's text.
 * Closes *report. */
void detach_report(int *report, int code, const char *text);

#endif
