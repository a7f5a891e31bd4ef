/* What the files of incoming machines share. */
#ifndef VMM_INCOMING_INTERNAL_H
#define VMM_INCOMING_INTERNAL_H

#include "migration/save.h"
#include "vmm/boot/boot.h"
#include "vmm/incoming.h"
#include "vmm/vm_internal.h"

struct incoming {
	const struct incoming_config *how;
	struct run_config config; /* what is built: the description, and what was said here */
	struct vm_arrival arrival;
	struct vm *vm; /* once it stands */
	struct migration_file file;
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
