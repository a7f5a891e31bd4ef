/*
 * What a network back end needs of the host, opened in one place: before the machine runs, and
 * before whatever takes privileges away. 0 or -errno with a line in `why` that names the remedy.
 */
#ifndef DEVICES_NET_OPEN_H
#define DEVICES_NET_OPEN_H

#include <stddef.h>

/* Opens `want` (1..NET_QUEUES_MAX) queues of the tap device `name` with IFF_VNET_HDR: *count of
 * them, one if it was not made for several. All close-on-exec and non-blocking. */
int net_tap_open(const char *name, unsigned want, int *fds, unsigned *count, char *why,
		 size_t why_len);
/* The same for a device that another ferry may still have: looks at it and leaves it alone. -ENODEV
 * without a text: there is no such interface yet. */
int net_tap_look(const char *name, unsigned want, unsigned *count, char *why, size_t why_len);
/* Connects to a unix stream socket; fd NULL: looks whether there is one. */
int net_stream_open(const char *path, int *fd, char *why, size_t why_len);
/* The same without words; non-blocking: -EAGAIN: its backlog is full. */
int net_stream_connect(const char *path, int *fd);

#endif
