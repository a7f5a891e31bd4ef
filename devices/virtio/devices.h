/* The virtio devices: constructors. Each returns 0 or -errno and a device that ops->destroy frees.
 */
#ifndef DEVICES_VIRTIO_DEVICES_H
#define DEVICES_VIRTIO_DEVICES_H

#include "devices/block/block.h"
#include "devices/net/net.h"
#include "devices/virtio/virtio.h"

/* Entropy (virtio 1.2, 5.4) from the host's getrandom(2). */
int virtio_rng_create(struct device **out, const struct virtio_config *config);

/* Console (5.3), one port, without a size. */
int virtio_console_create(struct device **out, const struct virtio_config *config,
			  struct chardev *chr);

/* Block device (5.2). The back end stays the caller's, and outlives the device. */
struct virtio_blk_config {
	struct block *block;
	const char *serial; /* at most 20 bytes; may be NULL */
	bool write_cache;   /* false: each write is on stable storage when it is done */
	unsigned queues;    /* 1..8 */
	/* The host has no space (ENOSPC): NULL: an I/O error for the guest; else the request is
	 * kept, this is called (loop's thread), and virtio_blk_retry() starts it again. */
	void (*full)(void *opaque, struct device *dev);
	void *opaque;
};
int virtio_blk_create(struct device **out, const struct virtio_config *config,
		      const struct virtio_blk_config *blk);
void virtio_blk_retry(struct device *dev);

/* Network device (5.1). The back end stays the caller's, and outlives the device. */
struct virtio_net_config {
	struct net *net;
	uint8_t mac[6];
};
int virtio_net_create(struct device **out, const struct virtio_config *config,
		      const struct virtio_net_config *net);

/* Memory balloon (5.5), with free page reporting and statistics. */
struct virtio_balloon_config {
	/* Gives the pages of these ranges (256 at most) back to the host; they read as zeroes
	 * afterwards. -EFAULT: one of them is not RAM, and nothing was done. It may wait for vCPUs,
	 * once. The loop's thread. */
	int (*discard)(void *opaque, const struct gpa_range *range, unsigned count);
	/* The guest has given up another amount (in bytes) than before; the loop's thread. May be
	 * NULL. */
	void (*changed)(void *opaque, uint64_t bytes);
	void *opaque;
};
int virtio_balloon_create(struct device **out, const struct virtio_config *config,
			  const struct virtio_balloon_config *balloon);
/* How much the guest shall give up, in bytes; the loop's thread. It may give up less, or later. */
void virtio_balloon_set(struct device *dev, uint64_t bytes);
/* How much it has given up. Any thread. */
uint64_t virtio_balloon_actual(struct device *dev);
/* The guest's own figures, as it told them last (5.5.6.3); each call also asks for new ones. The
 * loop's thread. */
enum {
	BALLOON_SWAP_IN,
	BALLOON_SWAP_OUT,
	BALLOON_MAJOR_FAULTS,
	BALLOON_MINOR_FAULTS,
	BALLOON_FREE,
	BALLOON_TOTAL,
	BALLOON_AVAILABLE,
	BALLOON_CACHES,
	BALLOON_HTLB_ALLOCATIONS,
	BALLOON_HTLB_FAILURES,
	BALLOON_STATS,
};
struct virtio_balloon_stats {
	uint32_t known; /* bit per figure that it told */
	uint64_t value[BALLOON_STATS];
};
extern const char *const virtio_balloon_stat_names[BALLOON_STATS];
void virtio_balloon_get_stats(struct device *dev, struct virtio_balloon_stats *stats);

/* Sockets between guest and host (5.10) in front of unix sockets, as Firecracker has them: a host
 * program connects to `path` and says "CONNECT PORT\n"; a guest that connects to port P of the host
 * reaches the unix socket path_P. docs/vsock.md. listen_fd: listens at `path`; owned if 0 is
 * returned. -1: acquire() listens. */
struct virtio_vsock_config {
	uint64_t cid; /* 3.. */
	const char *path;
	int listen_fd;
	const struct backend_host *host;
	/* For the device's acquire and release: a socket that listens at `path`, or -errno; the
	 * path is given up, the socket closed already. The loop's thread. NULL: it stays. */
	int (*listen)(void *opaque);
	void (*unlisten)(void *opaque);
	void *opaque;
};
int virtio_vsock_create(struct device **out, const struct virtio_config *config,
			const struct virtio_vsock_config *vsock);

#endif
