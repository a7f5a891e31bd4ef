/*
 * A machine that comes from elsewhere: out of a file, or from another ferry. What it is stands in
 * the stream; what belongs to this host can be said here.
 */
#ifndef VMM_INCOMING_H
#define VMM_INCOMING_H

#include "vmm/config.h"
#include "vmm/tls_config.h"
#include "vmm/vm.h"

struct incoming_config {
	char *from; /* file, or where to listen */
	char *name;
	/* Instead of all those of the description, if there are any. */
	struct serial_config serial[CONFIG_MAX_SERIAL];
	uint32_t serial_count;
	struct serial_config console[CONFIG_MAX_SERIAL];
	uint32_t console_count;
	char *disk[CONFIG_MAX_DISKS]; /* "N=FILE": the N-th is there; N from 1, or vda... */
	uint32_t disk_count;
	struct net_config net[CONFIG_MAX_NETS];
	uint32_t net_count;
	struct vsock_config vsock[1];
	uint32_t vsock_count;
	bool shared, hugepages, overcommit, detach, quiet, insecure, eager;
	uint32_t engine;
	char *pidfile, *stats;
	struct tls_config tls;
};
extern const struct config_field incoming_fields[];

/* Waits at how->from for a machine that another ferry sends. As vm_run(); one that does not come is
 * an error, or ends with VM_END_ABSENT. */
int vm_receive(const struct incoming_config *how, const struct vm_observer *observer,
	       struct vm_result *result, struct error *err);

/* The machine in a file, from where it was stopped. As vm_run(). */
int vm_restore(const struct incoming_config *how, const struct vm_observer *observer,
	       struct vm_result *result, struct error *err);

#endif
