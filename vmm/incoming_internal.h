/* What the files of incoming machines share. */
#ifndef VMM_INCOMING_INTERNAL_H
#define VMM_INCOMING_INTERNAL_H

#include "migration/destination.h"
#include "migration/save.h"
#include "vmm/boot/boot.h"
#include "vmm/incoming.h"
#include "vmm/loop_call.h"
#include "vmm/vm_internal.h"

struct incoming {
	const struct incoming_config *how;
	struct run_config config; /* what is built: the description, and what was said here */
	struct vm_arrival arrival;
	struct vm *vm; /* once it stands */
	struct migration_file file;
	/* Of one that another ferry sends; its thread. */
	struct destination from;
	struct loop_call call;
	pthread_t thread;
	bool started;
	int wake_fd;
	struct field_buf state; /* to be loaded */
	const struct stream_run *run;
	uint64_t run_ns; /* when that came; CLOCK_MONOTONIC */
	struct error err;
	struct loop_work over_work;
	int code;
	struct stream_error why;
};

/* ---- incoming_sink.c ---- */
extern const struct migration_sink_ops incoming_sink; /* opaque: struct incoming */
/* The machine has the memory that the stream has. */
int incoming_check_memory(struct incoming *in, const struct stream_memory *memory,
			  struct error *err);
void incoming_init(struct incoming *in, const struct incoming_config *how);
void incoming_exit(struct incoming *in);

/* ---- incoming_config.c ---- */
/* Puts what was said here over the description. */
int incoming_override(struct run_config *config, const struct incoming_config *how,
		      struct error *err);

#endif
