/*
 * A tap device of the host's: packets with the kernel's own offload header, segments up to 64 KiB.
 *
 * The kernel does not say how long the next packet is, so it is read here first, into the place
 * that its queue has for one.
 */
#include <endian.h>
#include <errno.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "devices/net/frame.h"
#include "devices/net/net.h"
#include "devices/net/open.h"
#include "devices/util.h"

struct tap;
struct tap_queue {
	struct tap *tap;
	unsigned n;
	int fd; /* -1: given up, or not taken yet */
	struct watch *watch;
	uint32_t events;
	bool wanted, full, detached;
	size_t len; /* of the packet that was read and is not taken; 0: none */
	uint8_t packet[NET_PACKET_MAX];
};

struct tap {
	struct net net;
	struct net_client client;
	struct backend_host host;
	char name[32];
	unsigned agreed, used; /* what the driver has agreed to: offloads, queue pairs */
	unsigned announced;    /* how often (RFC 5227 calls it a good habit) */
	uint8_t mac[6];
	struct vtimer *timer;
	struct work *work; /* to look at packets that were read already */
	struct tap_queue *queue[NET_QUEUES_MAX];
};
/* After so many ms each: a bridge's port may need a moment to open. */
static const uint16_t announcements[] = {0, 50, 100, 200, 400};
enum { ANNOUNCEMENTS = sizeof(announcements) / sizeof(announcements[0]) };

/* ---- events ---- */

static void set_events(struct tap_queue *q)
{
	const uint32_t events = (q->wanted ? EPOLLIN : 0) | (q->full ? EPOLLOUT : 0);

	if (!q->watch || events == q->events)
		return;
	q->events = events;
	(void)q->tap->host.watches->mod(q->watch, events);
}

static void set_link(struct tap *t, bool up)
{
	if (t->net.link == up)
		return;
	t->net.link = up;
	if (t->client.link)
		t->client.link(t->client.opaque, up);
}

static void unwatch(struct tap_queue *q)
{
	if (q->watch)
		q->tap->host.watches->del(q->watch);
	q->watch = NULL;
}

/* The device has been deleted. */
static void gone(struct tap *t)
{
	if (!t->net.link)
		return;
	dev_log("tap", "%s is gone: the link is down", t->name);
	for (unsigned i = 0; i < t->net.pairs; i++)
		unwatch(t->queue[i]);
	set_link(t, false);
}

static void ready(void *opaque, uint32_t events)
{
	struct tap_queue *q = opaque;
	struct tap *t = q->tap;

	if (events & (EPOLLERR | EPOLLHUP)) {
		gone(t);
		return;
	}
	if ((events & EPOLLOUT) && q->full) {
		q->full = false;
		if (t->client.writable)
			t->client.writable(t->client.opaque, q->n);
	}
	if ((events & EPOLLIN) && q->wanted && t->client.readable)
		t->client.readable(t->client.opaque, q->n);
	set_events(q);
}

/* ---- packets ---- */

static int tap_send(struct net *net, unsigned n, const struct iovec *iov, unsigned iovs)
{
	struct tap_queue *q = ((struct tap *)net)->queue[n];

	if (writev(q->fd, iov, (int)iovs) >= 0)
		return 0;
	if (errno == EAGAIN) {
		q->full = true;
		set_events(q);
		return -EAGAIN;
	}
	net->dropped++; /* the interface is down, or the guest's header makes no sense */
	return -errno;
}

static size_t tap_peek(struct net *net, unsigned n, const uint8_t **packet)
{
	struct tap_queue *q = ((struct tap *)net)->queue[n];
	ssize_t len;

	*packet = q->packet;
	while (!q->len) {
		len = read(q->fd, q->packet, sizeof(q->packet));
		if (len < 0)
			break;
		if (len >= NET_HEADER + NET_ETHERNET)
			q->len = (size_t)len;
	}
	return q->len;
}

static void tap_taken(struct net *net, unsigned n)
{
	((struct tap *)net)->queue[n]->len = 0;
}

static void announce(void *opaque)
{
	struct tap *t = opaque;
	uint8_t packet[NET_HEADER + FRAME_RARP_LEN] = {0};
	const struct iovec iov = {packet, sizeof(packet)};

	frame_rarp(packet + NET_HEADER, t->mac);
	(void)tap_send(&t->net, 0, &iov, 1);
	if (++t->announced < ANNOUNCEMENTS)
		t->host.timers->set(t->timer,
				    t->host.clock->now(t->host.clock->opaque) +
					    announcements[t->announced] * (NS_PER_S / 1000));
}

/* ---- the back end ---- */

static void tap_attach(struct net *net, const struct net_client *client)
{
	struct tap *t = (struct tap *)net;

	t->client = client ? *client : (struct net_client){0};
	for (unsigned i = 0; i < net->pairs; i++) {
		t->queue[i]->wanted = false;
		set_events(t->queue[i]);
	}
}

static void tap_want(struct net *net, unsigned n, bool on)
{
	struct tap_queue *q = ((struct tap *)net)->queue[n];

	/* A packet that was read already is no event of the descriptor's. */
	if (on && !q->wanted && q->len)
		q->tap->host.works->post(q->tap->work);
	q->wanted = on;
	set_events(q);
}

static void look_again(void *opaque)
{
	struct tap *t = opaque;

	for (unsigned i = 0; i < t->net.pairs; i++) {
		if (t->queue[i]->len && t->queue[i]->wanted && t->client.readable)
			t->client.readable(t->client.opaque, i);
	}
}

/* Tells the kernel what the driver has agreed to. */
static void apply(struct tap *t)
{
	static const struct {
		unsigned offload, flag;
	} flags[] = {{NET_CSUM, TUN_F_CSUM},
		     {NET_TSO4, TUN_F_TSO4},
		     {NET_TSO6, TUN_F_TSO6},
		     {NET_TSO_ECN, TUN_F_TSO_ECN},
		     {NET_UFO, TUN_F_UFO}};
	unsigned value = 0;

	for (unsigned i = 0; i < sizeof(flags) / sizeof(flags[0]); i++) {
		if (t->agreed & flags[i].offload)
			value |= flags[i].flag;
	}
	if (!(value & (TUN_F_TSO4 | TUN_F_TSO6)))
		value &= ~(unsigned)TUN_F_TSO_ECN;
	(void)ioctl(t->queue[0]->fd, TUNSETOFFLOAD, value);
	/* A queue that nobody reads must not be given packets. */
	for (unsigned i = 1; i < t->net.pairs; i++) {
		struct tap_queue *q = t->queue[i];
		const bool detach = i >= t->used;
		struct ifreq ifr = {.ifr_flags = detach ? IFF_DETACH_QUEUE : IFF_ATTACH_QUEUE};

		if (detach != q->detached && !ioctl(q->fd, TUNSETQUEUE, &ifr))
			q->detached = detach;
	}
}

static void tap_negotiated(struct net *net, unsigned offloads, unsigned pairs)
{
	struct tap *t = (struct tap *)net;

	t->agreed = offloads;
	t->used = pairs;
	if (t->queue[0]->fd >= 0)
		apply(t);
}

/* ---- hand-over ---- */

static void close_queue(struct tap_queue *q)
{
	unwatch(q);
	if (q->fd >= 0)
		close(q->fd);
	q->fd = -1;
	q->detached = false;
}

/* What was read and not taken stays: it is given to the guest if that comes back. */
static int tap_release(struct net *net)
{
	struct tap *t = (struct tap *)net;

	for (unsigned i = 0; i < net->pairs; i++)
		close_queue(t->queue[i]);
	return 0;
}

static int watch(struct tap_queue *q)
{
	const struct watch_source *watches = q->tap->host.watches;

	q->events = 0;
	return watches->add(watches->opaque, q->fd, 0, ready, q, &q->watch);
}

static int open_again(struct tap *t)
{
	int fds[NET_QUEUES_MAX], ret;
	unsigned count;
	char why[300];

	ret = net_tap_open(t->name, t->net.pairs, fds, &count, why, sizeof(why));
	if (ret) {
		dev_log("tap", "%s", why);
		return ret;
	}
	for (unsigned i = 0; i < count; i++) {
		t->queue[i]->fd = fds[i];
		ret = ret ?: watch(t->queue[i]);
	}
	if (count < t->net.pairs) {
		dev_log("tap", "%s has %u of the %u queues that the guest's card has", t->name,
			count, t->net.pairs);
		ret = -EINVAL;
	}
	if (ret) {
		tap_release(&t->net);
		return ret;
	}
	apply(t);
	for (unsigned i = 0; i < count; i++)
		set_events(t->queue[i]);
	set_link(t, true);
	return 0;
}

static int tap_acquire(struct net *net, const uint8_t mac[6])
{
	struct tap *t = (struct tap *)net;
	int ret = t->queue[0]->fd < 0 ? open_again(t) : 0;

	if (ret)
		return ret;
	memcpy(t->mac, mac, sizeof(t->mac));
	t->announced = 0;
	announce(t);
	return 0;
}

static void tap_destroy(struct net *net)
{
	struct tap *t = (struct tap *)net;

	for (unsigned i = 0; i < net->pairs; i++) {
		if (!t->queue[i])
			continue;
		unwatch(t->queue[i]);
		free(t->queue[i]);
	}
	if (t->timer)
		t->host.timers->destroy(t->timer);
	if (t->work)
		t->host.works->destroy(t->work);
	free(t);
}

static void tap_close(struct net *net)
{
	tap_release(net);
	tap_destroy(net);
}

static const struct net_ops tap_ops = {
	.attach = tap_attach,
	.send = tap_send,
	.peek = tap_peek,
	.taken = tap_taken,
	.want = tap_want,
	.negotiated = tap_negotiated,
	.release = tap_release,
	.acquire = tap_acquire,
	.destroy = tap_close,
};

static int add_queue(struct tap *t, unsigned n, int fd)
{
	struct tap_queue *q = calloc(1, sizeof(*q));

	if (!q)
		return -ENOMEM;
	t->queue[n] = q;
	q->tap = t;
	q->n = n;
	q->fd = fd;
	return fd < 0 ? 0 : watch(q);
}

/* What this kernel can leave undone: all, or all but what some have dropped (4.13). Of a device
 * that is taken later (-1): all; what a guest has not been offered it has not agreed to. */
static unsigned offloads_of(int fd)
{
	const unsigned most = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN;
	unsigned offloads = 0;

	if (fd < 0 || !ioctl(fd, TUNSETOFFLOAD, most | TUN_F_UFO))
		offloads = NET_CSUM | NET_TSO4 | NET_TSO6 | NET_TSO_ECN | NET_UFO;
	else if (!ioctl(fd, TUNSETOFFLOAD, most))
		offloads = NET_CSUM | NET_TSO4 | NET_TSO6 | NET_TSO_ECN;
	if (fd >= 0)
		(void)ioctl(fd, TUNSETOFFLOAD, 0);
	return offloads;
}

static int start(struct tap *t, const int *fds, unsigned count)
{
	int ret = 0;

	t->timer = t->host.timers->create(t->host.timers->opaque, announce, t, "tap");
	t->work = t->host.works->create(t->host.works->opaque, look_again, t);
	if (!t->timer || !t->work)
		return -ENOMEM;
	for (unsigned i = 0; i < count && !ret; i++)
		ret = add_queue(t, i, fds ? fds[i] : -1);
	return ret;
}

int net_tap_create(struct net **out, const int *fds, unsigned count, const char *name,
		   const struct backend_host *host, char *why, size_t why_len)
{
	struct tap *t = calloc(1, sizeof(*t));
	int ret = -ENOMEM;

	if (t) {
		t->net = (struct net){.ops = &tap_ops,
				      .pairs = count,
				      .offloads = offloads_of(fds ? fds[0] : -1),
				      .link = true};
		t->used = count;
		t->host = *host;
		snprintf(t->name, sizeof(t->name), "%s", name);
		snprintf(t->net.mechanism, sizeof(t->net.mechanism), "tap %s, %u queue%s", name,
			 count, count == 1 ? "" : "s");
		ret = start(t, fds, count);
	}
	if (!ret) {
		*out = &t->net;
		return 0;
	}
	snprintf(why, why_len, "tap=%s: %s", name, strerror(-ret));
	if (t)
		tap_destroy(&t->net);
	for (unsigned i = 0; i < count && fds; i++)
		close(fds[i]);
	return ret;
}
