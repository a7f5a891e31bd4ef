/* Stands in for constructors of devices that are being written: weak, so that the real ones replace
 * them as they come. Gone when all are there. */
#include <errno.h>
#include <stdio.h>

#include "devices/net/open.h"
#include "devices/virtio/devices.h"

#define WEAK __attribute__((weak))

static int not_yet(char *why, size_t len)
{
	snprintf(why, len, "it is not there yet");
	return -ENOSYS;
}

WEAK int net_tap_open(const char *name, unsigned want, int *fds, unsigned *count, char *why,
		      size_t why_len)
{
	(void)name;
	(void)want;
	(void)fds;
	(void)count;
	return not_yet(why, why_len);
}

WEAK int net_tap_create(struct net **out, const int *fds, unsigned count, const char *name,
			const struct backend_host *host, char *why, size_t why_len)
{
	(void)out;
	(void)fds;
	(void)count;
	(void)name;
	(void)host;
	return not_yet(why, why_len);
}

WEAK int net_stream_open(const char *path, int *fd, char *why, size_t why_len)
{
	(void)path;
	(void)fd;
	return not_yet(why, why_len);
}

WEAK int net_stream_create(struct net **out, int fd, const char *path,
			   const struct backend_host *host, char *why, size_t why_len)
{
	(void)out;
	(void)fd;
	(void)path;
	(void)host;
	return not_yet(why, why_len);
}

WEAK int virtio_vsock_create(struct device **out, const struct virtio_config *config,
			     const struct virtio_vsock_config *vsock)
{
	(void)out;
	(void)config;
	(void)vsock;
	return -ENOSYS;
}
