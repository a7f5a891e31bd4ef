/* Disks behind an NBD server, through libnbd; and a qemu-nbd of our own that serves an image. */
#ifndef DEVICES_BLOCK_NBD_H
#define DEVICES_BLOCK_NBD_H

#include "devices/block/open.h"

bool nbd_is_address(const char *path);

/* Both: 0, or -errno with a text that names the path. */
int nbd_open_address(struct block **out, const struct block_open *how,
		     const struct backend_host *host, char *why, size_t why_len);
/* how->format is that of the image. */
int nbd_open_image(struct block **out, const struct block_open *how,
		   const struct backend_host *host, char *why, size_t why_len);

#endif
