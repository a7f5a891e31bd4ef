/* Network device: configuration, commands, state. virtio 1.2, 5.1.4 and 5.1.6.5. */
#include <endian.h>
#include <errno.h>
#include <string.h>

#include "devices/virtio/net.h"

enum { STATUS_LINK_UP = 1, STATUS_ANNOUNCE = 2 };
enum { ACK_OK = 0, ACK_ERROR = 1 };
enum { CLASS_RX = 0, CLASS_MAC = 1, CLASS_ANNOUNCE = 3, CLASS_MQ = 4 };
enum { RX_PROMISC, RX_ALLMULTI, RX_ALLUNI, RX_NOMULTI, RX_NOUNI, RX_NOBCAST, RX_COMMANDS };
enum { MAC_TABLE_SET, MAC_ADDR_SET };
enum { ANNOUNCE_ACK };
enum { MQ_PAIRS_SET };
enum { COMMANDS_MAX = 64 /* in a turn */ };

/* ---- features and configuration ---- */

static const struct {
	unsigned offload;
	uint64_t device, driver; /* the device does it for the driver, the driver for the device */
} offloads[] = {
	{NET_CSUM, VIRTIO_NET_F_CSUM, VIRTIO_NET_F_GUEST_CSUM},
	{NET_TSO4, VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_GUEST_TSO4},
	{NET_TSO6, VIRTIO_NET_F_HOST_TSO6, VIRTIO_NET_F_GUEST_TSO6},
	{NET_TSO_ECN, VIRTIO_NET_F_HOST_ECN, VIRTIO_NET_F_GUEST_ECN},
	{NET_UFO, VIRTIO_NET_F_HOST_UFO, VIRTIO_NET_F_GUEST_UFO},
};

uint64_t vnet_features(const struct net *net)
{
	uint64_t features = VIRTIO_NET_F_MAC | VIRTIO_NET_F_STATUS | VIRTIO_NET_F_MRG_RXBUF |
			    VIRTIO_NET_F_CTRL_VQ | VIRTIO_NET_F_CTRL_RX |
			    VIRTIO_NET_F_CTRL_MAC_ADDR | VIRTIO_NET_F_GUEST_ANNOUNCE;

	if (net->pairs > 1)
		features |= VIRTIO_NET_F_MQ;
	for (unsigned i = 0; i < sizeof(offloads) / sizeof(offloads[0]); i++) {
		if (net->offloads & offloads[i].offload)
			features |= offloads[i].device | offloads[i].driver;
	}
	return features;
}

void vnet_negotiated(struct vnet *n)
{
	unsigned agreed = 0;

	for (unsigned i = 0; i < sizeof(offloads) / sizeof(offloads[0]); i++) {
		if (virtio_has(&n->v, offloads[i].driver))
			agreed |= offloads[i].offload;
	}
	/* 5.1.3.1: all others stand on this one. */
	n->net->ops->negotiated(n->net, agreed & NET_CSUM ? agreed : 0, n->pairs);
}

/* With the lock held. */
uint32_t vnet_config_read(struct virtio *v, unsigned off, unsigned size)
{
	const struct vnet *n = (struct vnet *)v;
	uint8_t image[VNET_CONFIG_SIZE] = {0};
	uint32_t value = 0;

	memcpy(image, n->mac, sizeof(n->mac));
	image[6] = (n->link ? STATUS_LINK_UP : 0) | (n->announce ? STATUS_ANNOUNCE : 0);
	image[8] = (uint8_t)n->net->pairs;
	for (unsigned i = 0; i < size; i++)
		value |= (uint32_t)image[off + i] << 8 * i;
	return value;
}

/* ---- what is received ---- */

bool vnet_wants(const struct vnet *n, const uint8_t *frame)
{
	return (frame[0] & 1) || n->promiscuous || n->all_unicast ||
	       !memcmp(frame, n->mac, sizeof(n->mac));
}

/* ---- commands ---- */

unsigned vnet_control_queue(const struct vnet *n)
{
	return virtio_has(&n->v, VIRTIO_NET_F_MQ) ? 2 * n->net->pairs : 2;
}

/* The command's data: at least `len` bytes behind class and command. */
static bool data(struct vnet *n, void *buf, size_t len)
{
	return n->chain.readable_len >= 2 + len && virtio_read(&n->v, &n->chain, 2, buf, len);
}

static uint8_t set_rx(struct vnet *n, uint8_t command)
{
	uint8_t on;

	if (command >= RX_COMMANDS || !data(n, &on, 1))
		return ACK_ERROR;
	/* Multicast and broadcast always come: what the driver does not want it drops. */
	if (command == RX_PROMISC)
		n->promiscuous = on != 0;
	return ACK_OK;
}

static uint8_t set_mac(struct vnet *n, uint8_t command)
{
	uint8_t mac[6];
	uint32_t entries;

	if (command == MAC_TABLE_SET && data(n, &entries, sizeof(entries))) {
		/* More addresses than its own: all of them, the driver looks closer. */
		n->all_unicast = entries != 0;
		return ACK_OK;
	}
	if (command != MAC_ADDR_SET || !data(n, mac, sizeof(mac)))
		return ACK_ERROR;
	pthread_mutex_lock(&n->v.lock);
	memcpy(n->mac, mac, sizeof(mac));
	pthread_mutex_unlock(&n->v.lock);
	return ACK_OK;
}

static uint8_t set_pairs(struct vnet *n, uint8_t command)
{
	uint16_t pairs;

	if (command != MQ_PAIRS_SET || !virtio_has(&n->v, VIRTIO_NET_F_MQ) ||
	    !data(n, &pairs, sizeof(pairs)))
		return ACK_ERROR;
	pairs = le16toh(pairs);
	if (!pairs || pairs > n->net->pairs)
		return ACK_ERROR;
	n->pairs = pairs;
	vnet_negotiated(n);
	for (unsigned i = 0; i < pairs; i++)
		virtio_kick(&n->v, 2 * i);
	return ACK_OK;
}

static uint8_t announced(struct vnet *n, uint8_t command)
{
	if (command != ANNOUNCE_ACK)
		return ACK_ERROR;
	pthread_mutex_lock(&n->v.lock);
	n->announce = false;
	pthread_mutex_unlock(&n->v.lock);
	return ACK_OK;
}

static uint8_t obey(struct vnet *n)
{
	uint8_t head[2];

	if (n->chain.readable_len < sizeof(head) ||
	    !virtio_read(&n->v, &n->chain, 0, head, sizeof(head)))
		return ACK_ERROR;
	switch (head[0]) {
	case CLASS_RX: return set_rx(n, head[1]);
	case CLASS_MAC: return set_mac(n, head[1]);
	case CLASS_ANNOUNCE: return announced(n, head[1]);
	case CLASS_MQ: return set_pairs(n, head[1]);
	default: return ACK_ERROR;
	}
}

void vnet_control(struct vnet *n)
{
	const unsigned q = vnet_control_queue(n);
	unsigned budget = COMMANDS_MAX;
	bool any = false;

	for (; budget; budget--) {
		uint8_t ack;

		if (!virtio_pop(&n->v, q, &n->chain)) {
			if (virtio_arm(&n->v, q))
				continue;
			break;
		}
		ack = obey(n);
		if (!virtio_write(&n->v, &n->chain, 0, &ack, 1) ||
		    !virtio_push(&n->v, q, n->chain.head, 1))
			break;
		any = true;
	}
	if (any)
		virtio_signal(&n->v, q);
	if (!budget)
		virtio_kick(&n->v, q);
}

/* ---- state ---- */

void vnet_reset(struct virtio *v)
{
	struct vnet *n = (struct vnet *)v;

	memcpy(n->mac, n->permanent, sizeof(n->mac));
	n->started = n->announce = n->all_unicast = false;
	n->promiscuous = true; /* until the driver says what it wants */
	n->pairs = 1;
}

int vnet_post_load(struct virtio *v, const char **why)
{
	struct vnet *n = (struct vnet *)v;

	n->started = false;
	if (n->pairs && n->pairs <= n->net->pairs)
		return 0;
	*why = "more queue pairs in use than there are";
	return -EINVAL;
}

static const struct field vnet_fields[] = {
	FIELD_BLOB(struct vnet, mac, 1),
	FIELD_SCALAR(struct vnet, announce, FIELD_BOOL, 1),
	FIELD_SCALAR(struct vnet, pairs, FIELD_U16, 1),
	FIELD_SCALAR(struct vnet, promiscuous, FIELD_BOOL, 1),
	FIELD_SCALAR(struct vnet, all_unicast, FIELD_BOOL, 1),
	FIELD_END,
};
const struct state_desc vnet_state = {.name = "net", .version = 1, .fields = vnet_fields};
