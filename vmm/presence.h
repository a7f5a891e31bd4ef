/*
 * What other processes see of a machine: its name, its pidfile, and, of a detached one, its logs
 * and its end (vmm/runtime.h).
 */
#ifndef VMM_PRESENCE_H
#define VMM_PRESENCE_H

#include "vmm/config.h"
#include "vmm/logfile.h"
#include "vmm/runtime.h"

struct presence {
	struct runtime runtime;
	struct runtime_name name;
	struct pidfile pidfile;
	bool detached, logging;
	struct logfile log; /* standard error goes there */
};

/* Takes the name and writes the pidfile. Detached: standard error is the log from then on. 0 or
 * -errno; presence_end() in both cases. */
int presence_begin(struct presence *presence, const struct run_config *config, struct error *err);
/* end: how the machine ended, its pid and time are filled in; NULL: it has never run, and leaves
 * nothing. */
void presence_end(struct presence *presence, struct runtime_end *end);
/* A log beside the others, for the output of a line ("serial0"). 0 or -errno; not detached: the log
 * is closed (fd -1). */
int presence_line_log(const struct presence *presence, const char *line, struct logfile *log,
		      struct error *err);

#endif
