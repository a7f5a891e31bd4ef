/* Between the two halves of the network device: packets (net.c), and what the driver reads and
 * sets (net_control.c). Nothing of this is for others. */
#ifndef DEVICES_VIRTIO_NET_H
#define DEVICES_VIRTIO_NET_H

#include "devices/virtio/devices.h"

/* virtio 1.2, 5.1.3 */
#define VIRTIO_NET_F_CSUM	    (1ULL << 0)
#define VIRTIO_NET_F_GUEST_CSUM	    (1ULL << 1)
#define VIRTIO_NET_F_MAC	    (1ULL << 5)
#define VIRTIO_NET_F_GUEST_TSO4	    (1ULL << 7)
#define VIRTIO_NET_F_GUEST_TSO6	    (1ULL << 8)
#define VIRTIO_NET_F_GUEST_ECN	    (1ULL << 9)
#define VIRTIO_NET_F_GUEST_UFO	    (1ULL << 10)
#define VIRTIO_NET_F_HOST_TSO4	    (1ULL << 11)
#define VIRTIO_NET_F_HOST_TSO6	    (1ULL << 12)
#define VIRTIO_NET_F_HOST_ECN	    (1ULL << 13)
#define VIRTIO_NET_F_HOST_UFO	    (1ULL << 14)
#define VIRTIO_NET_F_MRG_RXBUF	    (1ULL << 15)
#define VIRTIO_NET_F_STATUS	    (1ULL << 16)
#define VIRTIO_NET_F_CTRL_VQ	    (1ULL << 17)
#define VIRTIO_NET_F_CTRL_RX	    (1ULL << 18)
#define VIRTIO_NET_F_GUEST_ANNOUNCE (1ULL << 21)
#define VIRTIO_NET_F_MQ		    (1ULL << 22)
#define VIRTIO_NET_F_CTRL_MAC_ADDR  (1ULL << 23)

enum { VNET_QUEUE_SIZE = 256, VNET_CONFIG_SIZE = 12 };
/* More pieces than a chain has segments: one may cross a page. */
enum { VNET_IOV_MAX = VIRTQ_CHAIN_MAX + NET_PACKET_MAX / 4096 + 2 };

struct vnet {
	struct virtio v;
	struct virtio_model model;
	struct net *net;
	uint8_t permanent[6]; /* the card's own address */

	/* The loop thread's, in a turn. */
	bool started; /* the back end knows what was negotiated; cleared by a reset */
	struct virtq_chain chain, first;
	struct virtq_used used[VNET_QUEUE_SIZE];
	struct iovec iov[VNET_IOV_MAX];

	/* The driver's. Written by the loop's thread with v.lock held: vCPUs read them. */
	uint8_t mac[6];
	bool link;
	bool announce;	/* the driver is asked to make itself known (5.1.6.5.4) */
	uint16_t pairs; /* in use */
	/* What it wants to receive besides its own address (5.1.6.5.1). */
	bool promiscuous, all_unicast;
};
extern const struct state_desc vnet_state;

uint64_t vnet_features(const struct net *net);
/* The queue of commands; they are where the last pair ends that the driver knows of (5.1.2). */
unsigned vnet_control_queue(const struct vnet *n);
void vnet_control(struct vnet *n);
/* Tells the back end what the driver takes. */
void vnet_negotiated(struct vnet *n);
uint32_t vnet_config_read(struct virtio *v, unsigned off, unsigned size);
void vnet_reset(struct virtio *v);
int vnet_post_load(struct virtio *v, const char **why);
/* Whether the driver wants a frame with this destination. */
bool vnet_wants(const struct vnet *n, const uint8_t *frame);

#endif
