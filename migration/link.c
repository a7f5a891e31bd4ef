#include "migration/link.h"

#include <errno.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <poll.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "migration/clock.h"
#include "migration/link_internal.h"

static const uint64_t second = 1000000000;
static uint64_t silence_default = 10000000000, alive_every = 2000000000;
static const uint64_t handshake_time = 10000000000;
enum { QUEUE_MIN = 64 << 10, QUEUE_MAX = 64 << 20, QUEUE_MS = 2 };

void link_set_silence(uint64_t ns)
{
	silence_default = ns;
	alive_every = ns / 5;
}

static int explain(struct link *l, struct stream_error *err)
{
	if (l->why.text[0])
		return stream_fail(err, NULL, l->broken, "%s", l->why.text);
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

/* ---- out -------------------------------------------------------------------------------- */

int link_alive(struct link *l)
{
	/* The first frame is HELLO, however late. */
	if (l->broken || !l->w.sequence || clock_now() - l->last_out < alive_every)
		return l->broken;
	return stream_write(&l->w, STREAM_ALIVE, 0, NULL, 0);
}

uint64_t link_wait(struct link *l)
{
	const uint64_t now = clock_now();

	if (!l->limit || l->next <= now)
		return 0;
	l->held = true;
	return l->next - now;
}

int link_pace(struct link *l)
{
	uint64_t now = clock_now();

	while (l->limit && now < l->next && !l->broken) {
		uint64_t until = l->next - now < second ? l->next : now + second;
		int got;

		l->held = true;
		got = link_poll(l, l->in_len < LINK_BUFFER ? POLLIN : 0, until, -1, NULL);

		if (got < 0)
			return got;
		if (got & POLLIN && link_take_in(l) == -ENODATA)
			return link_fail(l, -EPIPE);
		if (link_check_time(l) || link_alive(l))
			return l->broken;
		now = clock_now();
	}
	return l->broken;
}

uint64_t link_unsent(const struct link *l)
{
	int bytes = 0;

	return ioctl(l->fd, SIOCOUTQ, &bytes) || bytes < 0 ? 0 : (uint64_t)bytes;
}

/* What a user may ask for; the kernel cuts off silently. */
static uint64_t read_queue_max(void)
{
	FILE *f = fopen("/proc/sys/net/core/wmem_max", "re");
	char text[32] = "";

	if (!f)
		return 1;
	(void)!fgets(text, sizeof(text), f);
	fclose(f);
	return strtoul(text, NULL, 10) ?: 1;
}

/* Bytes that the connection carries in two round trips. */
static uint64_t two_trips(const struct link *l)
{
	struct tcp_info info = {0};
	socklen_t len = sizeof(info);

	if (getsockopt(l->fd, IPPROTO_TCP, TCP_INFO, &info, &len) ||
	    len < offsetof(struct tcp_info, tcpi_delivery_rate) + sizeof(info.tcpi_delivery_rate))
		return 0;
	return (uint64_t)((double)info.tcpi_delivery_rate * info.tcpi_min_rtt * 2e-6);
}

void link_bound(struct link *l, uint64_t rate)
{
	const int unlocked = 0;
	uint64_t bytes = QUEUE_MIN + rate / 1000 * QUEUE_MS + two_trips(l);
	int half;

	bytes = bytes < QUEUE_MAX ? bytes : QUEUE_MAX;
	half = (int)(bytes / 2); /* the kernel doubles it, for its own use */
	if (!l->queue_max)
		l->queue_max = read_queue_max();
	/* Less than it needs would make it slow. */
	if (bytes / 2 > l->queue_max)
		(void)setsockopt(l->fd, SOL_SOCKET, SO_BUF_LOCK, &unlocked, sizeof(unlocked));
	else
		(void)setsockopt(l->fd, SOL_SOCKET, SO_SNDBUF, &half, sizeof(half));
}

static bool spare(void *opaque, size_t len)
{
	struct link *l = opaque;
	const bool held = l->held;

	l->held = false;
	return held || link_wait(l) || link_unsent(l) >= len;
}

void link_compress(struct link *l)
{
	l->w.level = 1;
	l->w.spare = spare;
}

void link_finish(struct link *l)
{
	if (l->tls && l->secured) {
		tls_session_bye(l->tls);
		link_send_records(l);
	}
	(void)shutdown(l->fd, SHUT_WR);
}

void link_goodbye(struct link *l)
{
	const uint64_t end = clock_now() + 2 * second;
	char waste[4096];

	link_finish(l);
	for (;;) {
		struct pollfd pfd = {.fd = l->fd, .events = POLLIN};
		const uint64_t now = clock_now();
		ssize_t n;

		if (now >= end || poll(&pfd, 1, (int)((end - now) / 1000000) + 1) <= 0)
			return;
		n = recv(l->fd, waste, sizeof(waste), MSG_DONTWAIT);
		if (!n || (n < 0 && errno != EAGAIN && errno != EINTR))
			return;
	}
}

bool link_may_speak(struct link *l)
{
	if (l->broken == -EBADMSG || l->broken == -EPROTO || l->broken == -ENOTSUP ||
	    l->broken == -ECANCELED)
		l->broken = 0;
	return !l->broken;
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
			link_fail(l, ret);
		if (ret > 0 && frame->type == STREAM_ALIVE)
			ret = 0;
	}
	return ret;
}

int link_receive(struct link *l, int timeout_ms, struct stream_frame *frame,
		 struct stream_error *err)
{
	const uint64_t end = clock_now() + (uint64_t)timeout_ms * 1000000;
	bool over = false;

	for (;;) {
		int ret = parse(l, frame, err), got;
		uint64_t now = clock_now(), until;

		if (ret)
			return ret;
		/* Who has hung up while we spoke may have said why. */
		if ((l->broken == -EPIPE || l->broken == -ECONNRESET) && link_take_in(l) > 0)
			continue;
		if (l->broken)
			return explain(l, err);
		/* There was no room for it before. */
		ret = link_take_rest(l);
		if (ret > 0)
			continue;
		if (ret < 0)
			return explain(l, err);
		/* Who only says that he lives moves neither. */
		if (l->deadline && link_check_time(l))
			return explain(l, err);
		if (over)
			return 0;
		until = timeout_ms >= 0 && end < now + second ? end : now + second;
		got = link_poll(l, POLLIN, until, l->bell_fd, &over);
		if (got < 0)
			return explain(l, err);
		over |= timeout_ms >= 0 && clock_now() >= end;
		if (got) {
			ret = link_take_in(l);
			if (ret == -ENODATA)
				link_fail(l, -ENODATA);
			if (ret < 0)
				return explain(l, err);
			continue;
		}
		if (link_check_time(l) || link_alive(l))
			return explain(l, err);
	}
}

/* ---- life ------------------------------------------------------------------------------- */

int link_open(struct link **out, int fd, uint16_t channel, int wake_fd, const struct tls *tls)
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
				   .in = malloc(LINK_BUFFER),
				   .silence = silence_default,
				   .last_in = clock_now(),
				   .last_out = clock_now(),
				   .secured_by = clock_now() + handshake_time,
				   .tls = tls ? tls_session_new(tls) : NULL};
		stream_writer_init(&l->w, channel, link_put, l);
		if (l->parser && l->in && (l->tls || !tls)) {
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
	tls_session_free(l->tls);
	stream_parser_free(l->parser);
	stream_writer_free(&l->w);
	free(l->in);
	close(l->fd);
	free(l);
}
