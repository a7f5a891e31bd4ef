/* What the files of outgoing machines share. */
#ifndef VMM_OUTGOING_INTERNAL_H
#define VMM_OUTGOING_INTERNAL_H

#include "migration/machine.h"
#include "vmm/outgoing.h"
#include "vmm/vm_internal.h"

struct outgoing {
	struct vm *vm;
	struct migration_source source;
	struct run_config description;
	struct s2_thread *s2; /* the thread's registration */
	pthread_t thread;
	bool started;
	struct control_request *request;
	char *path; /* of the file */

	/* Calls to the loop's thread, one at a time. */
	pthread_mutex_t lock;
	pthread_cond_t changed;
	struct loop_work work;
	void (*call)(struct outgoing *o);
	bool done, ended; /* ended: nobody answers any more */
	int result;
	struct error err;
	struct field_buf *state;

	/* The thread's. */
	bool stopped, released, tracked;
	uint64_t stopped_ns; /* CLOCK_MONOTONIC */

	/* How it ended; the loop's thread acts on it. */
	struct loop_work over_work;
	int code;
	struct stream_error why;
};

/* ---- outgoing_source.c ---- */
/* Fills in source, from the machine. */
int outgoing_source_init(struct outgoing *o, struct error *err);
void outgoing_source_exit(struct outgoing *o);
/* Answers whoever waits in a call with -ECANCELED, now and from now on. */
void outgoing_source_end(struct outgoing *o);

/* ---- outgoing.c ---- */
uint64_t outgoing_now(void); /* CLOCK_MONOTONIC, ns */

#endif
