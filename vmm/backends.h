/*
 * What a machine has of its host beside memory and terminals: disks, networks, sockets. All of it
 * is opened here, before a guest runs and before anything that takes rights away could be set up.
 */
#ifndef VMM_BACKENDS_H
#define VMM_BACKENDS_H

#include "devices/virtio/devices.h"
#include "vmm/config.h"
#include "vmm/error.h"

struct backends {
	struct backend_host host;
	/* Of a machine that comes from elsewhere: what another process may still hold (locks,
	 * ports) is taken by the devices' acquire. */
	bool later;
	void (*disk_full)(void *opaque, struct device *dev);
	void *opaque;
	struct block *block[CONFIG_MAX_DISKS];
	struct net *net[CONFIG_MAX_NETS];
	/* What the board makes devices of. */
	struct virtio_blk_config disk[CONFIG_MAX_DISKS];
	struct virtio_net_config card[CONFIG_MAX_NETS];
	struct virtio_vsock_config vsock;
	unsigned disks, cards, vsocks;
	int vsock_dir; /* -1: none */
	char *vsock_name;
	bool vsock_listens; /* the name in that folder is ours */
};

/* name: the machine's (addresses of cards follow from it). `host`, disk_full and
 * opaque were filled by the caller. The
 * main thread's. 0 or -errno with a text; in both cases backends_close() is due. */
int backends_open(struct backends *b, const struct run_config *config, const char *name,
		  struct error *err);
/* After the devices are gone. */
void backends_close(struct backends *b);

#endif
