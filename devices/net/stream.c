/*
 * Frames over a unix stream socket, each behind its length (32 bits, big endian): what QEMU calls
 * `-netdev stream` and passt speaks.
 *
 * The other side may send in any pieces and may go and come back: the link is down meanwhile. It
 * takes no offload header, so segmentation is left to the guest; checksums are finished here, and
 * those that come are checked here, which costs less than in a guest.
 */
#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "devices/net/frame.h"
#include "devices/net/net.h"
#include "devices/net/open.h"
#include "devices/util.h"

enum { LENGTH = 4, SOCKET_BUFFER = 1 << 20, IN_SIZE = 1 << 17 };
enum { RETRY_FIRST_S = 1, RETRY_LAST_S = 8 };

struct stream {
	struct net net;
	struct net_client client;
	struct backend_host host;
	char path[128];
	int fd; /* -1: gone */
	struct watch *watch;
	struct vtimer *timer; /* to connect again */
	struct work *work;    /* to look at what came already */
	unsigned retry_s;
	bool said; /* that it has gone */
	uint32_t events;
	bool wanted, full;
	bool csum; /* the driver leaves checking to us */

	/* What came: frames from `in_start` on, room for a header before the first. */
	uint8_t in[NET_HEADER + IN_SIZE];
	size_t in_start, in_end;
	size_t in_frame; /* length of the one that was shown */

	/* The rest of what the socket did not take at once. */
	uint8_t out[NET_PACKET_MAX];
	size_t out_start, out_end;
};

/* ---- the connection ---- */

static void set_events(struct stream *s)
{
	/* Without any too: that the other side has gone comes unasked. */
	const uint32_t events = (s->wanted ? EPOLLIN : 0) | (s->full ? EPOLLOUT : 0);

	if (!s->watch || events == s->events)
		return;
	s->events = events;
	(void)s->host.watches->mod(s->watch, events);
}

static void set_link(struct stream *s, bool up)
{
	if (s->net.link == up)
		return;
	s->net.link = up;
	if (s->client.link)
		s->client.link(s->client.opaque, up);
}

static void disconnect(struct stream *s)
{
	if (s->watch)
		s->host.watches->del(s->watch);
	s->watch = NULL;
	if (s->fd >= 0)
		close(s->fd);
	s->fd = -1;
	s->in_start = s->in_end = NET_HEADER;
	s->in_frame = 0;
	s->out_start = s->out_end = 0;
}

static void retry_later(struct stream *s)
{
	s->host.timers->set(s->timer,
			    s->host.clock->now(s->host.clock->opaque) + s->retry_s * NS_PER_S);
	s->retry_s = 2 * s->retry_s < RETRY_LAST_S ? 2 * s->retry_s : RETRY_LAST_S;
}

static void hang_up(struct stream *s, const char *why)
{
	const bool was_full = s->full;

	disconnect(s);
	s->full = false;
	if (!s->said)
		dev_log("stream", "%s: %s; the link is down until it is back", s->path, why);
	s->said = true;
	set_link(s, false);
	retry_later(s);
	/* What the device has kept back is lost now, as on a cable. */
	if (was_full && s->client.writable)
		s->client.writable(s->client.opaque, 0);
}

/* ---- to the other side ---- */

/* -EAGAIN: some of it is left. */
static int flush(struct stream *s)
{
	while (s->out_start < s->out_end) {
		ssize_t n =
			send(s->fd, s->out + s->out_start, s->out_end - s->out_start, MSG_NOSIGNAL);

		if (n < 0 && errno == EAGAIN)
			return -EAGAIN;
		if (n < 0) {
			hang_up(s, strerror(errno));
			return -EPIPE;
		}
		s->out_start += (size_t)n;
	}
	return 0;
}

static int stream_send(struct net *net, unsigned n, const struct iovec *iov, unsigned iovs)
{
	struct stream *s = (struct stream *)net;
	uint8_t *frame = s->out + NET_HEADER;
	struct net_header header;
	uint32_t length;
	size_t len;

	(void)n;
	if (s->full)
		return -EAGAIN;
	len = frame_gather(s->out, sizeof(s->out), iov, iovs) - NET_HEADER;
	memcpy(&header, s->out, sizeof(header));
	if (s->fd < 0 || header.gso_type ||
	    ((header.flags & NET_HDR_NEEDS_CSUM) &&
	     !frame_finish_checksum(frame, len, le16toh(header.csum_start),
				    le16toh(header.csum_offset)))) {
		net->dropped++;
		return -EIO;
	}
	length = htonl((uint32_t)len);
	memcpy(frame - LENGTH, &length, LENGTH);
	s->out_start = NET_HEADER - LENGTH;
	s->out_end = NET_HEADER + len;
	/* Taken in any case: what is left of it goes before the next. */
	s->full = flush(s) == -EAGAIN;
	set_events(s);
	return 0;
}

/* ---- from the other side ---- */

/* False: nothing more now. */
static bool fill(struct stream *s)
{
	ssize_t n;

	if (s->in_start != NET_HEADER) {
		memmove(s->in + NET_HEADER, s->in + s->in_start, s->in_end - s->in_start);
		s->in_end -= s->in_start - NET_HEADER;
		s->in_start = NET_HEADER;
	}
	n = recv(s->fd, s->in + s->in_end, sizeof(s->in) - s->in_end, 0);
	if (n > 0) {
		s->in_end += (size_t)n;
		s->said = false;
		s->retry_s = RETRY_FIRST_S;
		return true;
	}
	if (!n || errno != EAGAIN)
		hang_up(s, n ? strerror(errno) : "the other side has gone");
	return false;
}

/* Puts the header before the frame, over its length and what was before that. */
static void show(struct stream *s, size_t len)
{
	uint8_t *frame = s->in + s->in_start + LENGTH;
	struct net_header header = {0};
	struct frame_layout at;

	if (s->csum && frame_layout(frame, len, &at) &&
	    frame_sum(frame + at.l4, at.end - at.l4, frame_pseudo_sum(frame, &at)) == 0xffff)
		header.flags = NET_HDR_DATA_VALID;
	memcpy(frame - NET_HEADER, &header, NET_HEADER);
	s->in_frame = len;
}

static void skip(struct stream *s, size_t len)
{
	s->in_start += LENGTH + len;
	s->in_frame = 0;
}

static size_t stream_peek(struct net *net, unsigned n, const uint8_t **packet)
{
	struct stream *s = (struct stream *)net;

	(void)n;
	while (!s->in_frame && s->fd >= 0) {
		const size_t have = s->in_end - s->in_start;
		uint32_t len = 0;

		if (have >= LENGTH) {
			memcpy(&len, s->in + s->in_start, LENGTH);
			len = ntohl(len);
		}
		if (len > NET_FRAME_MAX) {
			hang_up(s, "it has sent a frame of impossible length");
		} else if (have < LENGTH || have - LENGTH < len) {
			if (!fill(s))
				break;
		} else if (len < NET_ETHERNET) {
			skip(s, len);
		} else {
			show(s, len);
		}
	}
	*packet = s->in + s->in_start + LENGTH - NET_HEADER;
	return s->in_frame ? NET_HEADER + s->in_frame : 0;
}

static void stream_taken(struct net *net, unsigned n)
{
	struct stream *s = (struct stream *)net;

	(void)n;
	skip(s, s->in_frame);
}

/* ---- events ---- */

static void ready(void *opaque, uint32_t events)
{
	struct stream *s = opaque;

	if (s->full && (events & EPOLLOUT) && flush(s) != -EAGAIN && s->full) {
		s->full = false;
		if (s->client.writable)
			s->client.writable(s->client.opaque, 0);
	}
	if ((events & EPOLLIN) && s->wanted && s->client.readable)
		s->client.readable(s->client.opaque, 0);
	else if ((events & (EPOLLHUP | EPOLLERR)) && s->fd >= 0)
		hang_up(s, "the other side has gone");
	set_events(s);
}

static int watch(struct stream *s)
{
	const int size = SOCKET_BUFFER;

	(void)setsockopt(s->fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
	s->events = 0;
	return s->host.watches->add(s->host.watches->opaque, s->fd, 0, ready, s, &s->watch);
}

static int connect_again(struct stream *s)
{
	int ret = net_stream_connect(s->path, &s->fd);

	if (ret) {
		s->fd = -1;
		return ret;
	}
	ret = watch(s);
	if (ret)
		disconnect(s);
	else
		set_events(s);
	return ret;
}

static void retry(void *opaque)
{
	struct stream *s = opaque;

	if (s->fd >= 0)
		return;
	if (connect_again(s))
		retry_later(s);
	else
		set_link(s, true);
}

/* ---- the back end ---- */

static void stream_attach(struct net *net, const struct net_client *client)
{
	struct stream *s = (struct stream *)net;

	s->client = client ? *client : (struct net_client){0};
	s->wanted = false;
	set_events(s);
}

static void stream_want(struct net *net, unsigned n, bool on)
{
	struct stream *s = (struct stream *)net;

	(void)n;
	/* Frames that were read already are no event of the descriptor's. */
	if (on && !s->wanted && s->in_end != s->in_start)
		s->host.works->post(s->work);
	s->wanted = on;
	set_events(s);
}

static void look_again(void *opaque)
{
	struct stream *s = opaque;

	if (s->wanted && s->client.readable)
		s->client.readable(s->client.opaque, 0);
}

static void stream_negotiated(struct net *net, unsigned offloads, unsigned pairs)
{
	(void)pairs;
	((struct stream *)net)->csum = offloads & NET_CSUM;
}

/* The other side may have room for one of us only. */
static int stream_release(struct net *net)
{
	disconnect((struct stream *)net);
	return 0;
}

static int stream_acquire(struct net *net, const uint8_t mac[6])
{
	struct stream *s = (struct stream *)net;
	uint8_t packet[NET_HEADER + FRAME_RARP_LEN] = {0};
	const struct iovec iov = {packet, sizeof(packet)};

	if (s->fd < 0 && connect_again(s)) {
		hang_up(s, "nobody listens");
		return 0;
	}
	frame_rarp(packet + NET_HEADER, mac);
	(void)stream_send(net, 0, &iov, 1);
	return 0;
}

static void stream_destroy(struct net *net)
{
	struct stream *s = (struct stream *)net;

	disconnect(s);
	if (s->timer)
		s->host.timers->destroy(s->timer);
	if (s->work)
		s->host.works->destroy(s->work);
	free(s);
}

static const struct net_ops stream_ops = {
	.attach = stream_attach,
	.send = stream_send,
	.peek = stream_peek,
	.taken = stream_taken,
	.want = stream_want,
	.negotiated = stream_negotiated,
	.release = stream_release,
	.acquire = stream_acquire,
	.destroy = stream_destroy,
};

int net_stream_create(struct net **out, int fd, const char *path, const struct backend_host *host,
		      char *why, size_t why_len)
{
	struct stream *s = calloc(1, sizeof(*s));
	int ret = -ENOMEM;

	if (s) {
		s->net = (struct net){
			.ops = &stream_ops, .pairs = 1, .offloads = NET_CSUM, .link = true};
		snprintf(s->net.mechanism, sizeof(s->net.mechanism), "stream unix:%s", path);
		snprintf(s->path, sizeof(s->path), "%s", path);
		s->host = *host;
		s->fd = fd;
		s->in_start = s->in_end = NET_HEADER;
		s->retry_s = RETRY_FIRST_S;
		s->timer = host->timers->create(host->timers->opaque, retry, s, "stream");
		s->work = host->works->create(host->works->opaque, look_again, s);
		ret = s->timer && s->work ? 0 : -ENOMEM;
		if (!ret && fd >= 0)
			ret = watch(s);
	}
	if (!ret) {
		*out = &s->net;
		return 0;
	}
	snprintf(why, why_len, "stream=unix:%s: %s", path, strerror(-ret));
	if (s)
		stream_destroy(&s->net);
	else if (fd >= 0)
		close(fd);
	return ret;
}
