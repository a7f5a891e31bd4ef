/* The bytes of a link: what comes in, what goes out, and waiting for it, with TLS or without. */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "migration/clock.h"
#include "migration/link_internal.h"
#include "migration/stream_control.h"

enum { IOVS = 64, RECORDS = 1 << 17 /* bytes that are encrypted before they are sent */ };
static const uint64_t second = 1000000000;

int link_fail(struct link *l, int code)
{
	if (!l->broken)
		l->broken = code;
	return l->broken;
}

static int fail_saying(struct link *l, int code, const char *text)
{
	if (!l->broken)
		stream_fail(&l->why, NULL, code, "%s", text);
	return link_fail(l, code);
}

/* ---- what comes in ----------------------------------------------------------------------- */

/* Bytes; 0: none now; -ENODATA: the other side has hung up; -errno. */
static ssize_t receive(struct link *l, uint8_t *to, size_t len)
{
	ssize_t n;

	do
		n = recv(l->fd, to, len, MSG_DONTWAIT);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return errno == EAGAIN ? 0 : link_fail(l, -errno);
	if (!n)
		return -ENODATA; /* what came before it is still to be read */
	l->received += (uint64_t)n;
	l->last_in = clock_now();
	return n;
}

/* One side is with TLS, the other without: it is told so in its own way of speaking, which is that
 * without. */
static int fail_mixed(struct link *l, const char *to_them, const char *to_us)
{
	struct stream_failure failure = {.kind = STREAM_REFUSED};

	tls_session_free(l->tls);
	l->tls = NULL;
	strncpy(failure.text, to_them, sizeof(failure.text) - 1);
	(void)stream_control_write(&l->w, STREAM_FAILURE, 0, &failure);
	return fail_saying(l, -EPROTONOSUPPORT, to_us);
}

static int take_plain(struct link *l)
{
	ssize_t n;

	if (l->in_len == LINK_BUFFER)
		return 0;
	n = receive(l, l->in + l->in_len, LINK_BUFFER - l->in_len);
	if (n <= 0)
		return (int)n;
	l->in_len += (size_t)n;
	/* The first byte of a TLS handshake, and of no frame. */
	if (l->received == (uint64_t)n && l->in[0] == 0x16)
		return fail_mixed(l, "it is not told to use TLS: --tls-psk or --tls-certs",
				  "the other side uses TLS: say --tls-psk or --tls-certs here too");
	return 1;
}

/* ---- TLS -------------------------------------------------------------------------------- */

void link_send_records(struct link *l)
{
	const uint8_t *data;
	size_t len;

	while (data = tls_session_pending(l->tls, &len), len) {
		ssize_t n = send(l->fd, data, len, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno != EAGAIN)
			link_fail(l, -errno);
		if (n < 0)
			return;
		l->sent += (uint64_t)n;
		tls_session_gone(l->tls, (size_t)n);
	}
}

/* The handshake, as far as it goes without waiting. 1: done; 0; -errno. */
static int greet(struct link *l)
{
	int ret = tls_session_greet(l->tls, &l->why);

	if (ret == -EPROTONOSUPPORT)
		return fail_mixed(l, "it uses TLS: say --tls-psk or --tls-certs",
				  "the other side does not use TLS: it is to be told --tls-psk or "
				  "--tls-certs too");
	link_send_records(l);
	if (ret < 0)
		return link_fail(l, ret);
	l->secured = ret;
	return l->broken ? l->broken : ret;
}

static int decrypt(struct link *l)
{
	const size_t before = l->in_len;

	while (l->in_len < LINK_BUFFER && tls_session_has_input(l->tls)) {
		ssize_t n = tls_session_read(l->tls, l->in + l->in_len, LINK_BUFFER - l->in_len,
					     &l->why);

		if (n == -ENODATA && l->in_len == before)
			return -ENODATA;
		if (n < 0 && n != -ENODATA)
			return link_fail(l, (int)n);
		if (n <= 0)
			break;
		l->in_len += (size_t)n;
	}
	return l->in_len > before;
}

static int take_records(struct link *l)
{
	size_t len;
	uint8_t *to = tls_session_space(l->tls, &len);
	ssize_t n = len ? receive(l, to, len) : 0;
	int ret = 0;

	if (n < 0 && n != -ENODATA)
		return (int)n;
	if (n > 0)
		tls_session_came(l->tls, (size_t)n);
	if (!l->secured) {
		ret = greet(l);
		if (ret < 0)
			return ret;
	}
	if (l->secured)
		ret = decrypt(l);
	/* It may want to answer something by itself. */
	if (!ret && n > 0)
		link_send_records(l);
	if (n == -ENODATA && !ret && !l->secured)
		return fail_saying(l, -ECONNRESET,
				   "the other side has hung up in the handshake of TLS: it may not "
				   "use TLS, or not know us");
	return ret || n > 0 ? (ret ? ret : 1) : (int)n;
}

int link_take_rest(struct link *l)
{
	int ret;

	if (!l->tls || !l->secured || !tls_session_has_input(l->tls))
		return 0;
	l->in_at = l->in_len = 0;
	ret = decrypt(l);
	return ret == -ENODATA ? 0 : ret;
}

int link_take_in(struct link *l)
{
	if (l->in_at == l->in_len)
		l->in_at = l->in_len = 0;
	return l->tls ? take_records(l) : take_plain(l);
}

/* ---- waiting ---------------------------------------------------------------------------- */

int link_poll(struct link *l, short events, uint64_t until, int bell, bool *rings)
{
	struct pollfd pfd[3] = {{.fd = l->fd, .events = events},
				{.fd = l->wake_fd, .events = POLLIN},
				{.fd = bell, .events = POLLIN}};
	uint64_t now = clock_now();
	int ms = until <= now ? 0 : (int)((until - now + 999999) / 1000000), n;

	n = poll(pfd, 3, ms);
	if (n < 0)
		return errno == EINTR ? 0 : link_fail(l, -errno);
	if (pfd[1].revents)
		return link_fail(l, -ECANCELED);
	if (rings)
		*rings = pfd[2].revents;
	return pfd[0].revents;
}

int link_check_time(struct link *l)
{
	if (l->tls && !l->secured && clock_now() > l->secured_by)
		return fail_saying(l, -ETIMEDOUT, "the handshake of TLS takes too long");
	if (l->deadline && clock_now() > l->deadline)
		return fail_saying(l, -ETIME, l->late);
	return clock_now() - l->last_in > l->silence && link_take_in(l) <= 0
		       ? link_fail(l, -ETIMEDOUT)
		       : 0;
}

/* ---- out -------------------------------------------------------------------------------- */

static int wait_writable(struct link *l)
{
	const short events = l->in_len < LINK_BUFFER ? POLLIN | POLLOUT : POLLOUT;
	const uint64_t turn = clock_now() + second;
	int got = link_poll(l, events, l->deadline && l->deadline < turn ? l->deadline : turn, -1,
			    NULL);

	if (got < 0)
		return got;
	if (got & POLLIN && link_take_in(l) == -ENODATA)
		return link_fail(l, -EPIPE);
	if (got & (POLLERR | POLLHUP) && !(got & POLLIN))
		return link_fail(l, -EPIPE);
	return link_check_time(l);
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

/* Some of it: how many bytes, 0 after having waited for room, or -errno. */
static ssize_t send_some(struct link *l, struct iovec *iov, size_t count)
{
	struct msghdr msg = {.msg_iov = iov, .msg_iovlen = count};
	ssize_t n;

	if (l->broken)
		return l->broken;
	n = sendmsg(l->fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
	if (n < 0 && errno != EAGAIN && errno != EINTR) {
		const int code = -errno;

		/* Who hangs up may have said why. */
		(void)link_take_in(l);
		return link_fail(l, code);
	}
	if (n < 0)
		return wait_writable(l);
	l->sent += (uint64_t)n;
	return n;
}

static int put_plain(struct link *l, const struct iovec *iov, unsigned count)
{
	struct iovec part[IOVS];
	unsigned at = 0;
	size_t done = 0; /* of iov[at] */

	while (at < count) {
		size_t parts = 1;
		ssize_t n;

		part[0] = iov[at];
		for (unsigned i = at + 1; i < count && parts < IOVS; i++)
			part[parts++] = iov[i];
		part[0].iov_base = (uint8_t *)part[0].iov_base + done;
		part[0].iov_len -= done;
		n = send_some(l, part, parts);
		if (n < 0)
			return (int)n;
		for (done += (size_t)n; at < count && done >= iov[at].iov_len; at++)
			done -= iov[at].iov_len;
	}
	return 0;
}

/* Until the records that are pending are no more than `most` bytes. */
static int put_records(struct link *l, size_t most)
{
	for (;;) {
		struct iovec iov;
		ssize_t n;

		if (!l->tls)
			return l->broken;
		/* They move while room is waited for. */
		iov.iov_base = (void *)(uintptr_t)tls_session_pending(l->tls, &iov.iov_len);
		if (iov.iov_len <= most)
			return 0;
		n = send_some(l, &iov, 1);
		if (n < 0)
			return (int)n;
		tls_session_gone(l->tls, (size_t)n);
	}
}

/* Waits for the handshake. */
static int secure(struct link *l)
{
	int ret = l->broken ? l->broken : l->secured ? 1 : greet(l);

	while (!ret) {
		const uint64_t now = clock_now();
		const uint64_t until = now + second < l->secured_by ? now + second : l->secured_by;
		int got = link_poll(l, POLLIN, until, -1, NULL);

		if (got < 0)
			return got;
		if (got && link_take_in(l) == -ENODATA)
			link_fail(l, -ENODATA);
		(void)link_check_time(l);
		ret = l->broken ? l->broken : l->secured;
	}
	return ret < 0 ? ret : 0;
}

static int put_secured(struct link *l, const struct iovec *iov, unsigned count)
{
	int ret = secure(l);

	for (unsigned i = 0; i < count && !ret; i++) {
		const uint8_t *at = iov[i].iov_base;

		for (size_t left = iov[i].iov_len, n; left && !ret; left -= n, at += n) {
			n = left < RECORDS ? left : RECORDS;
			ret = tls_session_write(l->tls, at, n);
			if (ret)
				return link_fail(l, ret);
			ret = put_records(l, RECORDS);
		}
	}
	if (!ret && tls_session_push(l->tls))
		return link_fail(l, -ENOMEM);
	return ret ? ret : put_records(l, 0);
}

int link_put(void *opaque, const struct iovec *iov, unsigned count)
{
	struct link *l = opaque;
	const uint64_t begun = clock_now();
	int ret = l->tls ? put_secured(l, iov, count) : put_plain(l, iov, count);

	if (ret)
		return ret;
	l->last_out = clock_now();
	charge(l, begun, iov, count);
	return 0;
}
