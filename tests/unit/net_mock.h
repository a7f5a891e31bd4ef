/* A network back end that a test turns by hand, and a host for real ones: descriptors are polled
 * when the test says so. */
#ifndef TESTS_UNIT_NET_MOCK_H
#define TESTS_UNIT_NET_MOCK_H

#include <poll.h>
#include <sys/epoll.h>

#include "devices/net/frame.h"
#include "tests/unit/virtio_util.h"

/* ---- a back end ---- */

enum { NM_PACKETS = 32, NM_QUEUES = 4 };

struct nm_packet {
	size_t len;
	uint8_t data[NET_PACKET_MAX];
};

struct net_mock {
	struct net net;
	struct net_client client;
	/* To the guest, by queue: fed, and shown so far. */
	unsigned fed[NM_QUEUES], shown[NM_QUEUES];
	bool wanted[NM_QUEUES];
	/* From the guest. */
	unsigned sent, sent_by[NM_QUEUES], room;
	unsigned offloads, pairs, negotiations;
	unsigned released, acquired;
	uint8_t mac[6];

	struct nm_packet out;
	struct nm_packet in[NM_QUEUES][NM_PACKETS];
};

static inline void nm_attach(struct net *net, const struct net_client *client)
{
	struct net_mock *m = (struct net_mock *)net;

	m->client = client ? *client : (struct net_client){0};
}

static inline int nm_send(struct net *net, unsigned n, const struct iovec *iov, unsigned iovs)
{
	struct net_mock *m = (struct net_mock *)net;

	CHECK(n < net->pairs);
	if (m->sent >= m->room)
		return -EAGAIN;
	m->out.len = frame_gather(m->out.data, sizeof(m->out.data), iov, iovs);
	m->sent++;
	m->sent_by[n]++;
	return 0;
}

static inline size_t nm_peek(struct net *net, unsigned n, const uint8_t **packet)
{
	struct net_mock *m = (struct net_mock *)net;
	const struct nm_packet *p = &m->in[n][m->shown[n] % NM_PACKETS];

	if (m->shown[n] == m->fed[n])
		return 0;
	*packet = p->data;
	return p->len;
}

static inline void nm_taken(struct net *net, unsigned n)
{
	((struct net_mock *)net)->shown[n]++;
}

static inline void nm_want(struct net *net, unsigned n, bool on)
{
	((struct net_mock *)net)->wanted[n] = on;
}

static inline void nm_negotiated(struct net *net, unsigned offloads, unsigned pairs)
{
	struct net_mock *m = (struct net_mock *)net;

	m->offloads = offloads;
	m->pairs = pairs;
	m->negotiations++;
}

static inline int nm_release(struct net *net)
{
	((struct net_mock *)net)->released++;
	return 0;
}

static inline int nm_acquire(struct net *net, const uint8_t mac[6])
{
	struct net_mock *m = (struct net_mock *)net;

	memcpy(m->mac, mac, 6);
	m->acquired++;
	return 0;
}

static inline void nm_init(struct net_mock *m, unsigned pairs, unsigned offloads)
{
	static const struct net_ops ops = {.attach = nm_attach,
					   .send = nm_send,
					   .peek = nm_peek,
					   .taken = nm_taken,
					   .want = nm_want,
					   .negotiated = nm_negotiated,
					   .release = nm_release,
					   .acquire = nm_acquire};

	memset(m, 0, offsetof(struct net_mock, out));
	m->net = (struct net){.ops = &ops,
			      .pairs = pairs,
			      .offloads = offloads,
			      .link = true,
			      .mechanism = "mock"};
	m->room = UINT32_MAX;
}

/* A packet for the guest: a frame to `to` (NULL: everybody), `len` bytes with it, counting up. */
static inline void nm_feed(struct net_mock *m, unsigned n, const uint8_t *to, size_t len)
{
	struct nm_packet *p = &m->in[n][m->fed[n] % NM_PACKETS];

	if (m->fed[n] - m->shown[n] == NM_PACKETS)
		return;
	*p = (struct nm_packet){.len = NET_HEADER + len};
	for (size_t i = 0; i < len; i++)
		p->data[NET_HEADER + i] = (uint8_t)i;
	if (to)
		memcpy(p->data + NET_HEADER, to, 6);
	else
		memset(p->data + NET_HEADER, 0xff, 6);
	m->fed[n]++;
	if (m->wanted[n] && m->client.readable)
		m->client.readable(m->client.opaque, n);
}

/* ---- a host for real back ends ---- */

struct watch {
	int fd;
	uint32_t events;
	void (*fn)(void *arg, uint32_t events);
	void *arg;
	bool used;
};

enum { NH_WATCHES = 16 };
struct net_host {
	struct vt *t;
	struct watch watch[NH_WATCHES];
	struct watch_source watches;
	struct work_source works;
	struct backend_host host;
};

static inline int nh_add(void *opaque, int fd, uint32_t events,
			 void (*fn)(void *arg, uint32_t events), void *arg, struct watch **out)
{
	struct net_host *h = opaque;

	for (unsigned i = 0; i < NH_WATCHES; i++) {
		if (h->watch[i].used)
			continue;
		h->watch[i] = (struct watch){fd, events, fn, arg, true};
		*out = &h->watch[i];
		return 0;
	}
	return -ENOMEM;
}

static inline int nh_mod(struct watch *watch, uint32_t events)
{
	watch->events = events;
	return 0;
}

static inline void nh_del(struct watch *watch)
{
	watch->used = false;
}

/* t: of vt_start(), or zeroes with a world. */
static inline void nh_init(struct net_host *h, struct vt *t)
{
	*h = (struct net_host){.t = t};
	h->watches = (struct watch_source){nh_add, nh_mod, nh_del, h};
	h->works = (struct work_source){vt_work_create, vt_work_post, vt_work_destroy, t};
	h->host = (struct backend_host){&h->watches, &h->works, &t->w.timers, &t->w.clock};
}

/* One look at everything; waits `ms` for descriptors. The number of callbacks. */
static inline unsigned nh_turn(struct net_host *h, int ms)
{
	struct pollfd fds[NH_WATCHES];
	unsigned calls = vt_run(h->t, 20);

	for (unsigned i = 0; i < NH_WATCHES; i++)
		fds[i] = (struct pollfd){h->watch[i].used ? h->watch[i].fd : -1,
					 (short)h->watch[i].events, 0};
	if (poll(fds, NH_WATCHES, calls ? 0 : ms) > 0) {
		for (unsigned i = 0; i < NH_WATCHES; i++) {
			if (!fds[i].revents || !h->watch[i].used)
				continue;
			h->watch[i].fn(h->watch[i].arg, (uint32_t)fds[i].revents);
			calls++;
		}
	}
	return calls + vt_run(h->t, 20);
}

/* ---- what a back end says ---- */

struct nh_client {
	struct net *net;
	unsigned readable, writable, ups, downs;
	struct nm_packet got; /* the last */
	unsigned count;
	bool hold; /* takes none */
};

static inline void nc_readable(void *opaque, unsigned n)
{
	struct nh_client *c = opaque;
	const uint8_t *packet;
	size_t len;

	c->readable++;
	while (!c->hold && (len = c->net->ops->peek(c->net, n, &packet))) {
		CHECK(len <= NET_PACKET_MAX && len >= NET_HEADER + NET_ETHERNET);
		memcpy(c->got.data, packet, len);
		c->got.len = len;
		c->count++;
		c->net->ops->taken(c->net, n);
	}
	if (c->hold)
		c->net->ops->want(c->net, n, false);
}

static inline void nc_writable(void *opaque, unsigned n)
{
	(void)n;
	((struct nh_client *)opaque)->writable++;
}

static inline void nc_link(void *opaque, bool up)
{
	struct nh_client *c = opaque;

	CHECK_EQ(c->net->link, up);
	c->ups += up;
	c->downs += !up;
}

static inline void nc_attach(struct nh_client *c, struct net *net)
{
	const struct net_client client = {nc_readable, nc_writable, nc_link, c};

	memset(c, 0, sizeof(*c));
	c->net = net;
	net->ops->attach(net, &client);
	net->ops->want(net, 0, true);
}

static inline int nc_send(struct nh_client *c, const void *packet, size_t len)
{
	const struct iovec iov = {(void *)(uintptr_t)packet, len};

	return c->net->ops->send(c->net, 0, &iov, 1);
}

#endif
