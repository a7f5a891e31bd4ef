/* Between the two halves of NBD disks: the connection (nbd.c) and its commands (nbd_command.c). */
#ifndef DEVICES_BLOCK_NBD_INTERNAL_H
#define DEVICES_BLOCK_NBD_INTERNAL_H

#include <libnbd.h>

#include "devices/block/backend.h"
#include "devices/block/nbd_server.h"

enum { NBD_IN_FLIGHT_MAX = 64 };

struct nbd {
	struct block block;
	const struct backend_host *host;
	struct nbd_handle *handle; /* NULL: released */
	struct nbd_server server;
	struct watch *watch;
	uint32_t events;
	struct work *later;
	struct block_list todo; /* to begin or to go on */
	struct block_list over;
	unsigned sent;
	bool dead, unsafe, can_flush;
	/* To connect again. */
	struct block_open how;
	bool own_server;
};

/* Sends the next command of each request in `todo`, as many as may be in flight; what ends at once
 * goes to `over`. */
void nbd_send_todo(struct nbd *n);

#endif
