#include "migration/link.h"

#include <errno.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <poll.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { BUFFER = 1 << 18, IOVS = 64 };
static const uint64_t second = 1000000000, alive_every = 2000000000, silence_default = 10000000000;

uint64_t link_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * second + (uint64_t)now.tv_nsec;
}

static int fail(struct link *l, int code)
{
	if (!l->broken)
		l->broken = code;
	return l->broken;
}

static int explain(struct link *l, struct stream_error *err)
{
	switch (l->broken) {
	case -ECANCELED: return stream_fail(err, NULL, l->broken, "called off");
	case -ETIMEDOUT:
		return stream_fail(err, NULL, -ECONNRESET,
				   "the other side has said nothing for %u s",
				   (unsigned)(l->silence / second));
	case -ENODATA: return stream_fail(err, NULL, -ECONNRESET, "the other side has hung up");
	default:
		return stream_fail(err, NULL, -ECONNRESET, "the connection is lost: %s",
				   strerror(-l->broken));
	}
}

/* ---- waiting ---------------------------------------------------------------------------- */

/* What comes in while something else is done stays here: it shows that the other side lives. */
static int take_in(struct link *l)
{
	ssize_t n;

	if (l->in_at == l->in_len)
		l->in_at = l->in_len = 0;
	if (l->in_len == BUFFER)
		return 0;
	do
		n = recv(l->fd, l->in + l->in_len, BUFFER - l->in_len, MSG_DONTWAIT);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return errno == EAGAIN ? 0 : fail(l, -errno);
	if (!n)
		return -ENODATA; /* what came before it is still to be read */
	l->in_len += (size_t)n;
	l->received += (uint64_t)n;
	l->last_in = link_now();
	return 1;
}

/* Waits for events, at most until `until`. The events that are there, 0: none, or -errno. */
static int wait_or_bell(struct link *l, short events, uint64_t until, int bell, bool *rings)
{
	struct pollfd pfd[3] = {{.fd = l->fd, .events = events},
				{.fd = l->wake_fd, .events = POLLIN},
				{.fd = bell, .events = POLLIN}};
	uint64_t now = link_now();
	int ms = until <= now ? 0 : (int)((until - now + 999999) / 1000000), n;

	n = poll(pfd, 3, ms);
	if (n < 0)
		return errno == EINTR ? 0 : fail(l, -errno);
	if (pfd[1].revents)
		return fail(l, -ECANCELED);
	*rings = pfd[2].revents;
	return pfd[0].revents;
}

static int wait_for(struct link *l, short events, uint64_t until)
{
	bool rings;

	return wait_or_bell(l, events, until, -1, &rings);
}

static int check_silence(struct link *l)
{
	return link_now() - l->last_in > l->silence && take_in(l) <= 0 ? fail(l, -ETIMEDOUT) : 0;
}

/* ---- out -------------------------------------------------------------------------------- */

static int wait_writable(struct link *l)
{
	const short events = l->in_len < BUFFER ? POLLIN | POLLOUT : POLLOUT;
	int got = wait_for(l, events, link_now() + second);

	if (got < 0)
		return got;
	if (got & POLLIN && take_in(l) == -ENODATA)
		return fail(l, -EPIPE);
	if (got & (POLLERR | POLLHUP) && !(got & POLLIN))
		return fail(l, -EPIPE);
	return check_silence(l);
}

/* What was sent costs time, at the rate that is allowed. */
static void charge(struct link *l, uint64_t begun, const struct iovec *iov, unsigned count)
{
	uint64_t bytes = 0;

	if (!l->limit)
		return;
	for (unsigned i = 0; i < count; i++)
		bytes += iov[i].iov_len;
	if (l->next < begun)
		l->next = begun;
	l->next += bytes * second / l->limit;
}

/* stream_put: all of it, or the connection is over. */
static int put(void *opaque, const struct iovec *iov, unsigned count)
{
	struct link *l = opaque;
	struct iovec part[IOVS];
	unsigned at = 0;
	size_t done = 0; /* of iov[at] */
	const uint64_t begun = link_now();

	while (at < count) {
		struct msghdr msg = {.msg_iov = part};
		ssize_t n;
		int ret;

		if (l->broken)
			return l->broken;
		for (unsigned i = at; i < count && msg.msg_iovlen < IOVS; i++)
			part[msg.msg_iovlen++] = iov[i];
		part[0].iov_base = (uint8_t *)part[0].iov_base + done;
		part[0].iov_len -= done;
		n = sendmsg(l->fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (n < 0 && errno != EAGAIN && errno != EINTR)
			return fail(l, -errno);
		if (n < 0) {
			ret = wait_writable(l);
			if (ret)
				return ret;
			continue;
		}
		l->sent += (uint64_t)n;
		for (done += (size_t)n; at < count && done >= iov[at].iov_len; at++)
			done -= iov[at].iov_len;
	}
	l->last_out = link_now();
	charge(l, begun, iov, count);
	return 0;
}

int link_alive(struct link *l)
{
	/* The first frame is HELLO, however late. */
	if (l->broken || !l->w.sequence || link_now() - l->last_out < alive_every)
		return l->broken;
	return stream_write(&l->w, STREAM_ALIVE, 0, NULL, 0);
}

uint64_t link_wait(const struct link *l)
{
	const uint64_t now = link_now();

	return l->limit && l->next > now ? l->next - now : 0;
}

int link_pace(struct link *l)
{
	uint64_t now = link_now();

	while (l->limit && now < l->next && !l->broken) {
		uint64_t until = l->next - now < second ? l->next : now + second;
		int got = wait_for(l, l->in_len < BUFFER ? POLLIN : 0, until);

		if (got < 0)
			return got;
		if (got & POLLIN && take_in(l) == -ENODATA)
			return fail(l, -EPIPE);
		if (link_alive(l))
			return l->broken;
		now = link_now();
	}
	return l->broken;
}

uint64_t link_unsent(const struct link *l)
{
	int bytes = 0;

	return ioctl(l->fd, SIOCOUTQ, &bytes) || bytes < 0 ? 0 : (uint64_t)bytes;
}

void link_bound(struct link *l)
{
	struct tcp_info info = {0};
	socklen_t len = sizeof(info);
	uint64_t bytes = 64 << 10, more;
	int half;

	if (!getsockopt(l->fd, IPPROTO_TCP, TCP_INFO, &info, &len) &&
	    len >= offsetof(struct tcp_info, tcpi_delivery_rate) +
			    sizeof(info.tcpi_delivery_rate)) {
		more = (uint64_t)((double)info.tcpi_delivery_rate * info.tcpi_min_rtt * 2e-6);
		bytes += more < 16 << 20 ? more : 16 << 20;
	}
	half = (int)(bytes / 2); /* the kernel doubles it, for its own use */
	(void)setsockopt(l->fd, SOL_SOCKET, SO_SNDBUF, &half, sizeof(half));
}

void link_finish(struct link *l)
{
	(void)shutdown(l->fd, SHUT_WR);
}

/* ---- in --------------------------------------------------------------------------------- */

static int parse(struct link *l, struct stream_frame *frame, struct stream_error *err)
{
	int ret = 0;

	while (!ret && l->in_at < l->in_len) {
		size_t used;

		ret = stream_parse(l->parser, l->in + l->in_at, l->in_len - l->in_at, &used, frame,
				   err);
		l->in_at += used;
		if (ret < 0)
			fail(l, ret);
		if (ret > 0 && frame->type == STREAM_ALIVE)
			ret = 0;
	}
	return ret;
}

int link_receive(struct link *l, int timeout_ms, struct stream_frame *frame,
		 struct stream_error *err)
{
	const uint64_t end = link_now() + (uint64_t)timeout_ms * 1000000;

	for (;;) {
		int ret = parse(l, frame, err), got;
		uint64_t now = link_now(), until;
		bool rings = false;

		if (ret)
			return ret;
		if (l->broken)
			return explain(l, err);
		until = timeout_ms >= 0 && end < now + second ? end : now + second;
		got = wait_or_bell(l, POLLIN, until, l->bell_fd, &rings);
		if (got < 0)
			return explain(l, err);
		if (got) {
			ret = take_in(l);
			if (ret == -ENODATA)
				fail(l, -ENODATA);
			if (ret < 0)
				return explain(l, err);
			continue;
		}
		if (check_silence(l) || link_alive(l))
			return explain(l, err);
		if (rings || (timeout_ms >= 0 && link_now() >= end))
			return 0;
	}
}

/* ---- life ------------------------------------------------------------------------------- */

int link_open(struct link **out, int fd, uint16_t channel, int wake_fd)
{
	struct link *l = calloc(1, sizeof(*l));
	const int one = 1;

	/* Requests are short, and somebody waits. On other sockets it fails. */
	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	if (l) {
		*l = (struct link){.fd = fd,
				   .wake_fd = wake_fd,
				   .bell_fd = -1,
				   .parser = stream_parser_new(),
				   .in = malloc(BUFFER),
				   .silence = silence_default,
				   .last_in = link_now(),
				   .last_out = link_now()};
		stream_writer_init(&l->w, channel, put, l);
		if (l->parser && l->in) {
			*out = l;
			return 0;
		}
		link_close(l);
	} else {
		close(fd);
	}
	*out = NULL;
	return -ENOMEM;
}

void link_close(struct link *l)
{
	if (!l)
		return;
	stream_parser_free(l->parser);
	stream_writer_free(&l->w);
	free(l->in);
	close(l->fd);
	free(l);
}
