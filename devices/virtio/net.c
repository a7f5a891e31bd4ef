/*
 * Network device: virtio 1.2, 5.1. Packets go between the driver's buffers and the back end's
 * without a stop in between; what neither side has room for now stays where it is.
 */
#include "devices/virtio/net.h"

#include <endian.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TURN = 256 /* packets of a queue in a turn */ };

/* ---- to the guest ---- */

enum delivery { DELIVERED, UNWANTED, TOO_LARGE, NO_BUFFERS, AGAIN, WRONG };

static void unpop(struct vnet *n, unsigned q, unsigned chains)
{
	while (chains--)
		virtq_unpop(&n->v.queue[q]);
}

/* One packet into as many buffers as it needs, which the driver sees all at once (5.1.6.4). */
static enum delivery deliver(struct vnet *n, unsigned q, const uint8_t *packet, size_t len)
{
	const bool mergeable = virtio_has(&n->v, VIRTIO_NET_F_MRG_RXBUF);
	unsigned chains = 0;
	uint16_t num;

	for (size_t done = 0; done < len; chains++) {
		struct virtq_chain *chain = chains ? &n->chain : &n->first;
		size_t part = len - done;

		/* Not in one, or not in all that there can be. */
		if (chains == (mergeable ? n->v.queue[q].size : 1)) {
			unpop(n, q, chains);
			return TOO_LARGE;
		}
		if (!virtio_pop(&n->v, q, chain)) {
			/* To be told of the first that the driver adds to these. */
			const bool more = virtio_arm(&n->v, q);

			unpop(n, q, chains);
			return more ? AGAIN : NO_BUFFERS;
		}
		if (part > chain->writable_len)
			part = chain->writable_len;
		if (!part) {
			virtio_fail(&n->v, "a receive buffer without room");
			return WRONG;
		}
		if (!virtio_write(&n->v, chain, 0, packet + done, part))
			return WRONG;
		n->used[chains] = (struct virtq_used){chain->head, (uint32_t)part};
		done += part;
	}
	num = htole16((uint16_t)chains);
	if (!virtio_write(&n->v, &n->first, offsetof(struct net_header, num_buffers), &num,
			  sizeof(num)) ||
	    !virtio_push_all(&n->v, q, n->used, chains))
		return WRONG;
	return DELIVERED;
}

static void receive_queue(struct vnet *n, unsigned pair)
{
	const struct net_ops *ops = n->net->ops;
	const unsigned q = 2 * pair;
	unsigned budget = TURN;
	bool any = false, want = true;
	const uint8_t *packet;
	size_t len;

	if (pair >= n->pairs || !n->v.queue[q].enabled)
		return;
	for (; budget && (len = ops->peek(n->net, pair, &packet)); budget--) {
		enum delivery result = UNWANTED;

		if (vnet_wants(n, packet + NET_HEADER))
			result = deliver(n, q, packet, len);
		if (result == AGAIN)
			continue;
		if (result == NO_BUFFERS || result == WRONG) {
			want = false;
			break;
		}
		ops->taken(n->net, pair);
		n->net->dropped += result == TOO_LARGE;
		if (result != DELIVERED)
			continue;
		n->net->rx_packets++;
		n->net->rx_bytes += len - NET_HEADER;
		any = true;
	}
	if (any)
		virtio_signal(&n->v, q);
	if (!budget)
		virtio_kick(&n->v, q);
	ops->want(n->net, pair, want);
}

static void on_link(void *opaque, bool up)
{
	struct vnet *n = opaque;

	pthread_mutex_lock(&n->v.lock);
	n->link = up;
	virtio_config_changed(&n->v);
	pthread_mutex_unlock(&n->v.lock);
}

static void on_readable(void *opaque, unsigned pair)
{
	struct vnet *n = opaque;

	/* In the middle of a turn: it has its packets afterwards. With no driver to take them the
	 * back end is left alone until there is one: the first turn looks at all queues. */
	if (virtio_enter(&n->v)) {
		if (n->started)
			receive_queue(n, pair);
		else
			virtio_kick(&n->v, 2 * pair);
		virtio_leave(&n->v);
		return;
	}
	n->net->ops->want(n->net, pair, false);
	virtio_kick(&n->v, 2 * pair);
}

/* ---- from the guest ---- */

enum sent { SENT, SENT_LATER, SENT_WRONG };

static enum sent send_one(struct vnet *n, unsigned pair)
{
	const uint64_t len = n->chain.readable_len;
	int ret;

	if (len < NET_HEADER + NET_ETHERNET || len > NET_PACKET_MAX) {
		n->net->dropped++;
		return SENT;
	}
	ret = virtio_iov(&n->v, &n->chain, false, 0, len, n->iov, VNET_IOV_MAX);
	if (ret < 0)
		return SENT_WRONG;
	ret = n->net->ops->send(n->net, pair, n->iov, (unsigned)ret);
	if (ret == -EAGAIN)
		return SENT_LATER;
	if (!ret) {
		n->net->tx_packets++;
		n->net->tx_bytes += len - NET_HEADER;
	}
	return SENT;
}

static void transmit_queue(struct vnet *n, unsigned pair)
{
	const unsigned q = 2 * pair + 1;
	unsigned budget = TURN;
	bool any = false;

	for (; budget; budget--) {
		enum sent sent;

		if (!virtio_pop(&n->v, q, &n->chain)) {
			if (virtio_arm(&n->v, q))
				continue;
			break;
		}
		sent = send_one(n, pair);
		if (sent == SENT_LATER)
			virtq_unpop(&n->v.queue[q]);
		if (sent != SENT || !virtio_push(&n->v, q, n->chain.head, 0))
			break;
		any = true;
	}
	if (any)
		virtio_signal(&n->v, q);
	if (!budget)
		virtio_kick(&n->v, q);
}

static void on_writable(void *opaque, unsigned pair)
{
	struct vnet *n = opaque;

	virtio_kick(&n->v, 2 * pair + 1);
}

static void vnet_queue(struct virtio *v, unsigned q)
{
	struct vnet *n = (struct vnet *)v;
	const unsigned control = vnet_control_queue(n);

	if (!n->started) {
		n->started = true;
		vnet_negotiated(n);
	}
	if (q == control)
		vnet_control(n);
	else if (q > control)
		return;
	else if (q % 2)
		transmit_queue(n, q / 2);
	else
		receive_queue(n, q / 2);
}

/* ---- life ---- */

static int vnet_release(struct virtio *v)
{
	const struct vnet *n = (struct vnet *)v;

	return n->net->ops->release ? n->net->ops->release(n->net) : 0;
}

static int vnet_acquire(struct virtio *v)
{
	struct vnet *n = (struct vnet *)v;
	int ret = n->net->ops->acquire ? n->net->ops->acquire(n->net, n->mac) : 0;

	if (ret)
		return ret;
	/* The guest may be elsewhere than before: it tells its neighbours itself if it can. */
	pthread_mutex_lock(&v->lock);
	n->announce = (v->status & VIRTIO_DRIVER_OK) && virtio_has(v, VIRTIO_NET_F_GUEST_ANNOUNCE);
	if (n->announce)
		virtio_config_changed(v);
	pthread_mutex_unlock(&v->lock);
	return 0;
}

static void vnet_inspect(struct virtio *v, const struct inspector *to)
{
	const struct vnet *n = (struct vnet *)v;
	const struct net *net = n->net;
	char mac[18];

	snprintf(mac, sizeof(mac), "%02x:%02x:%02x:%02x:%02x:%02x", n->mac[0], n->mac[1], n->mac[2],
		 n->mac[3], n->mac[4], n->mac[5]);
	to->text(to->opaque, "mechanism", net->mechanism);
	to->text(to->opaque, "mac", mac);
	to->text(to->opaque, "link", net->link ? "up" : "down");
	if (net->ops->inspect)
		net->ops->inspect(n->net, to);
	to->counter(to->opaque, "rx_packets", net->rx_packets);
	to->counter(to->opaque, "rx_bytes", net->rx_bytes);
	to->counter(to->opaque, "tx_packets", net->tx_packets);
	to->counter(to->opaque, "tx_bytes", net->tx_bytes);
	to->counter(to->opaque, "dropped", net->dropped);
}

static void vnet_destroy(struct device *dev)
{
	struct vnet *n = (struct vnet *)dev;

	n->net->ops->attach(n->net, NULL);
	virtio_exit(&n->v);
	free(n);
}

static const struct virtio_ops vnet_ops = {.queue = vnet_queue,
					   .config_read = vnet_config_read,
					   .reset = vnet_reset,
					   .post_load = vnet_post_load,
					   .release = vnet_release,
					   .acquire = vnet_acquire,
					   .inspect = vnet_inspect,
					   .destroy = vnet_destroy};

int virtio_net_create(struct device **out, const struct virtio_config *config,
		      const struct virtio_net_config *net)
{
	struct vnet *n = calloc(1, sizeof(*n));
	struct net_client client;
	int ret;

	if (!n)
		return -ENOMEM;
	n->net = net->net;
	n->link = n->net->link;
	memcpy(n->permanent, net->mac, sizeof(n->permanent));
	n->model = (struct virtio_model){.state_name = "virtio-net",
					 .id = VIRTIO_NET,
					 .class_code = 0x020000,
					 .features = vnet_features(n->net),
					 .queues = 2 * n->net->pairs + 1,
					 .queue_size = VNET_QUEUE_SIZE,
					 .config_size = VNET_CONFIG_SIZE,
					 .ops = &vnet_ops,
					 .state = &vnet_state,
					 .object_size = sizeof(*n)};
	ret = virtio_init(&n->v, &n->model, config);
	if (ret) {
		free(n);
		return ret;
	}
	client = (struct net_client){on_readable, on_writable, on_link, n};
	n->net->ops->attach(n->net, &client);
	*out = &n->v.dev;
	return 0;
}
