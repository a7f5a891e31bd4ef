/* What the verbs that run a machine in this process share. */
#ifndef CLI_HERE_H
#define CLI_HERE_H

#include <stdbool.h>

#include "vmm/vm.h"

/* vm_run() and the like, of a configuration that the verb knows. */
typedef int run_here_fn(const void *config, const struct vm_observer *observer,
			struct vm_result *result, struct error *err);

/* Runs a machine to its end, in the background if that is wanted: returns there, and in the process
 * that the user has started, the exit code. Errors, and an end that its user would not expect, are
 * said. Before threads are made. */
int run_here(run_here_fn *start, const void *config, bool background);

#endif
