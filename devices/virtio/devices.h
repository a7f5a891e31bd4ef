/* The virtio devices: constructors. Each returns 0 or -errno and a device that ops->destroy frees.
 */
#ifndef DEVICES_VIRTIO_DEVICES_H
#define DEVICES_VIRTIO_DEVICES_H

#include "devices/virtio/virtio.h"

/* Entropy (virtio 1.2, 5.4) from the host's getrandom(2). */
int virtio_rng_create(struct device **out, const struct virtio_config *config);

/* Console (5.3), one port, without a size. */
int virtio_console_create(struct device **out, const struct virtio_config *config,
			  struct chardev *chr);

#endif
