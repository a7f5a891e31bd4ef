/* A qemu-nbd of our own: serves one image to one connection and ends with it, or with ferry. */
#ifndef DEVICES_BLOCK_NBD_SERVER_H
#define DEVICES_BLOCK_NBD_SERVER_H

#include <stddef.h>
#include <sys/types.h>

#include "devices/block/open.h"

struct nbd_server {
	pid_t pid; /* 0: none */
	int messages_fd;
};

/* Starts it: a connected socket, or -errno with a text. how->unlocked: only to look at an image,
 * which another process may have. The main thread's: it dies when the thread
 * that has started it ends. */
int nbd_server_start(struct nbd_server *s, const struct block_open *how, char *why, size_t why_len);
/* After the connection was closed: waits for its end, which may take as long as the disk does. */
void nbd_server_stop(struct nbd_server *s);
/* How it ended and what it said last; waits up to that long. False: it still runs. */
bool nbd_server_ended(struct nbd_server *s, int wait_ms, char *text, size_t len);

#endif
