/* What the verbs that run a machine in this process share. */
#ifndef CLI_ENDING_H
#define CLI_ENDING_H

#include "vmm/vm.h"

/* The exit code of a machine that has run here (ret is vm_run()'s), with what its user should
 * know of the end. report: of detach(), -1: none. */
int ending(int ret, const struct vm_result *result, bool detach, int *report, struct error *err);
/* A vm_observer's `running`; opaque: the report. */
void ending_running(void *opaque, const char *name);

#endif
