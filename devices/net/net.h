/*
 * Network back ends: a device gives packets and takes packets. All on the event loop's thread;
 * nothing blocks.
 *
 * A packet is an Ethernet frame behind a struct net_header: what checksum and segmentation still
 * has to be done stands there. A back end that offers no `offloads` is given and gives headers of
 * zeroes only.
 */
#ifndef DEVICES_NET_NET_H
#define DEVICES_NET_NET_H

#include <sys/uio.h>

#include "devices/device.h"

/* struct virtio_net_hdr (virtio 1.2, 5.1.6), little endian. */
struct net_header {
	uint8_t flags, gso_type;
	uint16_t hdr_len, gso_size, csum_start, csum_offset;
	uint16_t num_buffers; /* the device's */
};
enum { NET_HDR_NEEDS_CSUM = 1, NET_HDR_DATA_VALID = 2 };
enum {
	NET_GSO_NONE = 0,
	NET_GSO_TCPV4 = 1,
	NET_GSO_UDP = 3,
	NET_GSO_TCPV6 = 4,
	NET_GSO_ECN = 0x80, /* beside one of TCP */
};
enum {
	NET_HEADER = 12,
	NET_ETHERNET = 14, /* two addresses and a type */
	/* 5.1.6.3.1: what a receiver of segmentation offload has room for, and its header. */
	NET_FRAME_MAX = 65550,
	NET_PACKET_MAX = NET_HEADER + NET_FRAME_MAX,
	NET_QUEUES_MAX = 8,
};

/* What a back end can leave undone: bits of `offloads`, as the device offers them to the driver.
 * All others need CSUM. */
enum {
	NET_CSUM = 1 << 0, /* partial checksums */
	NET_TSO4 = 1 << 1,
	NET_TSO6 = 1 << 2,
	NET_TSO_ECN = 1 << 3,
	NET_UFO = 1 << 4,
};

struct net;
struct net_client {
	/* The back end has packets for queue pair n: call net->ops->peek until it says 0. May come
	 * out of send(). */
	void (*readable)(void *opaque, unsigned n);
	/* After send said -EAGAIN: there is room again. */
	void (*writable)(void *opaque, unsigned n);
	/* net->link has changed. */
	void (*link)(void *opaque, bool up);
	void *opaque;
};
struct net_ops {
	/* NULL: nobody, before the client goes. Link is down until there is somebody. */
	void (*attach)(struct net *net, const struct net_client *client);
	/* Takes one packet, header first, at least NET_HEADER + NET_ETHERNET and at most
	 * NET_PACKET_MAX bytes. 0; -EAGAIN: not now, `writable` follows; else it is lost, as on a
	 * cable (counted in `dropped`). */
	int (*send)(struct net *net, unsigned n, const struct iovec *iov, unsigned iovs);
	/* The next packet for queue pair n, header first: its length, 0: there is none. It stays
	 * the next one, and *packet good, until taken() or discarded by reset(). */
	size_t (*peek)(struct net *net, unsigned n, const uint8_t **packet);
	void (*taken)(struct net *net, unsigned n);
	/* The device wants packets (or, after false, none: it has no buffers; readable is not
	 * called). False at first. On: readable follows if there are packets, not out of this call.
	 */
	void (*want)(struct net *net, unsigned n, bool on);
	/* What the driver has agreed to receive (bits of above), and queue pairs in use. */
	void (*negotiated)(struct net *net, unsigned offloads, unsigned pairs);
	/* Hand-over, see struct device_ops. After acquire on the new side the back end tells the
	 * network where the guest is now (RARP, with `mac`). May be NULL. */
	int (*release)(struct net *net);
	int (*acquire)(struct net *net, const uint8_t mac[6]);
	/* What is its own; the counters below are shown by the device. May be NULL. */
	void (*inspect)(struct net *net, const struct inspector *to);
	void (*destroy)(struct net *net);
};
struct net {
	const struct net_ops *ops;
	unsigned pairs;	   /* queue pairs that it has, at least 1 */
	unsigned offloads; /* both directions */
	bool link;
	char mechanism[96]; /* for people: "user (libslirp 4.7.0), 10.0.2.15", "tap t0, 4 queues" */
	/* As the guest sees it. The device counts packets and bytes, either counts what is lost. */
	uint64_t rx_packets, rx_bytes, tx_packets, tx_bytes, dropped;
};

/* The address of card `index` of the machine `name`: always the same, locally administered. */
void net_mac_from_name(const char *name, unsigned index, uint8_t mac[6]);

/* User mode through libslirp, without any privilege: 10.0.2.0/24, gateway .2, DNS .3, guest .15;
 * fec0::/64 beside it. */
struct net_forward {
	bool udp;
	char host[64];	    /* address to listen at, IPv4 or IPv6; "": 127.0.0.1 */
	uint16_t host_port; /* 0: the host chooses one; ops->inspect tells */
	char guest[64];	    /* "": the guest's, of the same family as `host` */
	uint16_t guest_port;
};
struct net_user_config {
	const struct net_forward *forward;
	unsigned forwards;
	bool restricted; /* no way out: forwards only */
	bool later;	 /* forwards are opened by acquire, not now */
	const char *hostname;
};
int net_user_create(struct net **out, const struct net_user_config *config,
		    const struct backend_host *host, char *why, size_t why_len);
/* Tap descriptors, one for each queue pair, of net_tap_open() (devices/net/open.h); owned
 * afterwards, also on failure. NULL: acquire opens the device, with `count` queues. */
int net_tap_create(struct net **out, const int *fds, unsigned count, const char *name,
		   const struct backend_host *host, char *why, size_t why_len);
/* A connected unix stream socket: each frame behind its length, 32 bits big endian (QEMU's
 * `-netdev stream`, passt). fd is owned afterwards, also on failure. When the other side goes the
 * link is down and `path` is tried again and again; the guest goes on. -1: acquire connects. */
int net_stream_create(struct net **out, int fd, const char *path, const struct backend_host *host,
		      char *why, size_t why_len);

#endif
