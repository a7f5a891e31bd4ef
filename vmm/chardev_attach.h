/*
 * The back end of lines that `ferry console` attaches to: a ring of the newest output, a log (if
 * there is one), and any number of viewers, which may come and go. The guest waits for the log, not
 * for viewers: one that reads too slowly misses what the ring has lost, and is told so.
 */
#ifndef VMM_CHARDEV_ATTACH_H
#define VMM_CHARDEV_ATTACH_H

#include "vmm/chardev_stream.h"
#include "vmm/logfile.h"

enum { ATTACH_RING = 65536, ATTACH_VIEWERS_MAX = 16 };

/* Takes the log over (fd -1: none). */
int chardev_attach_create(struct chardev_backend **out, const struct chardev_env *env,
			  struct error *err);
/* A viewer: it gets the newest output, then what follows; what it sends is typed. The descriptor is
 * ours from now on; data: what has come from it already. Loop's thread. */
void chardev_attach_viewer(struct chardev *chr, int fd, const uint8_t *data, size_t len);

#endif
