/*
 * Network back ends: a device gives packets and takes packets. All on the event loop's thread;
 * nothing blocks.
 *
 * A packet is an Ethernet frame behind a struct virtio_net_hdr (virtio 1.2, 5.1.6; 12 bytes): what
 * checksum and segmentation still has to be done stands there. A back end that offers no `offloads`
 * is given and gives headers of zeroes only.
 */
#ifndef DEVICES_NET_NET_H
#define DEVICES_NET_NET_H

#include <sys/uio.h>

#include "devices/device.h"

enum { NET_HEADER = 12, NET_FRAME_MAX = 65562 + NET_HEADER, NET_QUEUES_MAX = 8 };

/* What a back end can leave undone: bits of `offloads`, as the device offers them to the driver. */
enum {
	NET_CSUM = 1 << 0, /* partial checksums */
	NET_TSO4 = 1 << 1,
	NET_TSO6 = 1 << 2,
	NET_TSO_ECN = 1 << 3,
	NET_UFO = 1 << 4,
};

struct net;
struct net_client {
	/* The back end has packets for queue pair n: call net->ops->receive until it says 0. */
	void (*readable)(void *opaque, unsigned n);
	/* After send said -EAGAIN: there is room again. */
	void (*writable)(void *opaque, unsigned n);
	void (*link)(void *opaque, bool up);
	void *opaque;
};
struct net_ops {
	void (*attach)(struct net *net, const struct net_client *client);
	/* Takes one packet, header first. 0; -EAGAIN: not now, `writable` follows; else it is lost,
	 * as on a cable (the back end counts it). */
	int (*send)(struct net *net, unsigned n, const struct iovec *iov, unsigned iovs);
	/* Puts one packet into the buffers: its length; 0: there is none; -EMSGSIZE: it was larger
	 * than the buffers and is lost. */
	int (*receive)(struct net *net, unsigned n, const struct iovec *iov, unsigned iovs);
	/* The device wants packets (or, after false, none: it has no buffers; readable is not
	 * called). */
	void (*want)(struct net *net, unsigned n, bool on);
	/* What the driver has agreed to receive (bits of above), and queue pairs in use. */
	void (*negotiated)(struct net *net, unsigned offloads, unsigned pairs);
	/* Hand-over, see struct device_ops. After acquire on the new side the back end tells the
	 * network where the guest is now (RARP, with `mac`). May be NULL. */
	int (*release)(struct net *net);
	int (*acquire)(struct net *net, const uint8_t mac[6]);
	void (*inspect)(struct net *net, const struct inspector *to);
	void (*destroy)(struct net *net);
};
struct net {
	const struct net_ops *ops;
	unsigned pairs;	   /* queue pairs that it has, at least 1 */
	unsigned offloads; /* both directions */
	bool link;
	char mechanism[96]; /* for people: "user (libslirp 4.7.0), 10.0.2.15", "tap t0, 4 queues" */
	uint64_t rx_packets, rx_bytes, tx_packets, tx_bytes, dropped;
};

/* User mode through libslirp, without any privilege: 10.0.2.0/24, gateway .2, DNS .3, guest .15;
 * fec0::/64 beside it. */
struct net_forward {
	bool udp;
	char host[64]; /* address to listen at, IPv4 or IPv6; "": 127.0.0.1 */
	uint16_t host_port;
	char guest[64]; /* "": the guest's */
	uint16_t guest_port;
};
struct net_user_config {
	const struct net_forward *forward;
	unsigned forwards;
	bool restricted; /* no way out: forwards only */
	const char *hostname;
};
int net_user_create(struct net **out, const struct net_user_config *config,
		    const struct backend_host *host, char *why, size_t why_len);
/* Tap descriptors, one for each queue pair, opened with IFF_VNET_HDR (devices/net/open.h); owned
 * afterwards. */
int net_tap_create(struct net **out, const int *fds, unsigned count, const char *name,
		   const struct backend_host *host, char *why, size_t why_len);
/* A connected unix stream socket: each frame behind its length, 32 bits big endian (QEMU's
 * `-netdev stream`, passt). fd is owned afterwards. When the other side goes the link is down; the
 * guest goes on. */
int net_stream_create(struct net **out, int fd, const char *path, const struct backend_host *host,
		      char *why, size_t why_len);

#endif
