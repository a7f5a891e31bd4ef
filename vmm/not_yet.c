/* Stands in for constructors of devices that are being written: weak, so that the real ones replace
 * them as they come. Gone when all are there. */
#include <errno.h>

#include "devices/virtio/devices.h"

#define WEAK __attribute__((weak))

WEAK int virtio_vsock_create(struct device **out, const struct virtio_config *config,
			     const struct virtio_vsock_config *vsock)
{
	(void)out;
	(void)config;
	(void)vsock;
	return -ENOSYS;
}
