/*
 * What other processes see of a machine: its name, its pidfile, and, of a detached one, its logs
 * and its end (vmm/runtime.h).
 */
#ifndef VMM_PRESENCE_H
#define VMM_PRESENCE_H

#include "vmm/logfile.h"
#include "vmm/runtime.h"

struct presence {
	struct runtime runtime;
	struct runtime_name name;
	struct pidfile pidfile;
	bool detached, logging;
	struct logfile log; /* standard error goes there */
};

/* Takes the name (NULL: one is made) and writes the pidfile (NULL: none). Detached: standard error
 * is the log from then on, for good. Before threads are made. 0 or -errno; presence_end() in both
 * cases. */
int presence_begin(struct presence *presence, const char *name, const char *pidfile, bool detached,
		   struct error *err);
/* What it waits for, for those who look; then it has come, and brings its name (NULL: it keeps the
 * one that it has): 0, or -EEXIST and the like: all is as it was. */
void presence_waits(struct presence *presence, const char *address);
int presence_arrived(struct presence *presence, const char *name, struct error *err);
/* end: how the machine ended, its pid and time are filled in; NULL: it has never run, and leaves
 * nothing. What has ended is let be. */
void presence_end(struct presence *presence, struct runtime_end *end);
/* A log beside the others, for the output of a line ("serial0"). 0 or -errno; not detached: the log
 * is closed (fd -1). */
int presence_line_log(const struct presence *presence, const char *line, struct logfile *log,
		      struct error *err);

#endif
