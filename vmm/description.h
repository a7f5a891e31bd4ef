/*
 * A machine's configuration as the migration stream carries it: the rows of run_config_fields as
 * names and values. What belongs to one host (engine, kind of memory, pid file...) is not sent.
 * A value other than the default must be understood by the reader; one that is the default may be
 * skipped, so that a ferry without the field still takes the machine. Beside the fields the sizes
 * of disks are sent (disk[].size, which may be skipped).
 */
#ifndef VMM_DESCRIPTION_H
#define VMM_DESCRIPTION_H

#include "migration/stream.h"
#include "vmm/config.h"

/* What is sent of a running machine: a copy in which everything that another ferry could choose
 * differently is said (name, CPU model, addresses of cards), and paths begin at the root. To be
 * freed with config_free() in any case. 0 or -ENOMEM. */
int description_of(struct run_config *out, const struct run_config *config, const char *name,
		   const char *cpu_model);

/* Writes DESCRIPTION. Paths go as they are. 0 or -errno with a text. */
int description_write(struct stream_writer *w, const struct run_config *config, struct error *err);

/* Fills in config, which is initialised and may have been given host-side values, from a
 * DESCRIPTION frame. Hostile input: every value passes its field's checks; config_check() is left
 * to the caller, after what the user overrides. -EBADMSG, -EINVAL (a value that cannot be here),
 * -ENOTSUP (a field that is not known here and matters). The config is to be freed in any case. */
int description_read(const struct stream_frame *frame, struct run_config *config,
		     struct error *err);

#endif
