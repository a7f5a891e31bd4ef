#include "vmm/chardev_stream.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

/* How long the end waits for a reader that takes nothing. */
#define FLUSH_PATIENCE_MS 2000

static struct stream *to_stream(struct chardev *chr)
{
	return (struct stream *)chr->opaque;
}

/* ---- out: device -> world --------------------------------------------------------------- */

static size_t stream_write(struct chardev *chr, const uint8_t *data, size_t len)
{
	struct stream *s = to_stream(chr);
	size_t n = len;

	pthread_mutex_lock(&s->lock);
	if (!s->out_open) {
		pthread_mutex_unlock(&s->lock);
		return len;
	}
	if (n > sizeof(s->out) - s->out_len)
		n = sizeof(s->out) - s->out_len;
	for (size_t done = 0, chunk; done < n; done += chunk) {
		size_t tail = (s->out_head + s->out_len) % sizeof(s->out);

		chunk = n - done < sizeof(s->out) - tail ? n - done : sizeof(s->out) - tail;
		memcpy(s->out + tail, data + done, chunk);
		s->out_len += chunk;
	}
	if (n < len)
		s->starved = true;
	pthread_mutex_unlock(&s->lock);
	loop_work_post(s->env.loop, &s->out_work);
	return n;
}

/* Takes n bytes off the buffer; says whether the device waits for room. */
static bool consume(struct stream *s, size_t n)
{
	bool starved;

	pthread_mutex_lock(&s->lock);
	s->out_head = (s->out_head + n) % sizeof(s->out);
	s->out_len -= n;
	starved = s->starved && s->out_len <= sizeof(s->out) / 2;
	if (starved)
		s->starved = false;
	pthread_mutex_unlock(&s->lock);
	return starved;
}

static void tell_writable(struct stream *s)
{
	if (s->client.writable)
		s->client.writable(s->client.opaque);
}

static void drop_output(struct stream *s)
{
	bool starved;

	pthread_mutex_lock(&s->lock);
	s->out_len = 0;
	starved = s->starved;
	s->starved = false;
	pthread_mutex_unlock(&s->lock);
	if (starved)
		tell_writable(s);
}

/* One write; sockets need MSG_DONTWAIT where the description is shared, and MSG_NOSIGNAL always. */
static ssize_t write_some(struct stream *s, const uint8_t *data, size_t len)
{
	ssize_t n = s->out_socket ? send(s->out_fd, data, len, MSG_DONTWAIT | MSG_NOSIGNAL)
				  : write(s->out_fd, data, len);

	return n < 0 ? -errno : n;
}

static void flush_output(void *arg)
{
	struct stream *s = arg;

	for (;;) {
		size_t head, len;
		ssize_t n;

		pthread_mutex_lock(&s->lock);
		head = s->out_head;
		len = s->out_len;
		pthread_mutex_unlock(&s->lock);
		if (!len || s->out_fd < 0)
			return;
		if (s->hooks->may_write && !s->hooks->may_write(s)) {
			drop_output(s);
			return;
		}
		/* Only this thread takes bytes away: the range stays as it is without the lock. */
		if (len > sizeof(s->out) - head)
			len = sizeof(s->out) - head;
		n = write_some(s, s->out + head, len);
		if (n == -EAGAIN)
			return; /* EPOLLOUT, edge-triggered, comes when there is room */
		if (n == -EINTR)
			continue;
		if (n < 0) {
			if (s->hooks->output_failed)
				s->hooks->output_failed(s, (int)n);
			else
				stream_stop_output(s);
			return;
		}
		if (consume(s, (size_t)n))
			tell_writable(s);
	}
}

static void flush_at_end(struct stream *s)
{
	struct pollfd pfd = {.fd = s->out_fd, .events = POLLOUT};

	while (s->out_len && s->out_fd >= 0) {
		size_t before = s->out_len;

		flush_output(s);
		if (s->out_len < before)
			continue;
		if (poll(&pfd, 1, FLUSH_PATIENCE_MS) <= 0)
			return;
	}
}

/* ---- in: world -> device ---------------------------------------------------------------- */

static void deliver(struct stream *s)
{
	while (s->in_len && s->client.receive && !s->backend.held) {
		size_t n = s->client.can_receive(s->client.opaque);

		if (!n)
			return;
		if (n > s->in_len)
			n = s->in_len;
		s->client.receive(s->client.opaque, s->in, n);
		s->in_len -= n;
		memmove(s->in, s->in + n, s->in_len);
	}
}

static size_t room(const struct stream *s)
{
	size_t n = sizeof(s->in) - s->in_len, takes = 0;

	if (s->hooks->filter || s->hung_up)
		return n;
	if (s->client.receive && !s->backend.held)
		takes = s->client.can_receive(s->client.opaque);
	return n < takes ? n : takes;
}

static void end_input(struct stream *s, int code)
{
	s->in_ended = true;
	if (s->hooks->input_ended && s->hooks->input_ended(s, code)) {
		s->in_ended = false;
	} else if (s->in_fd != s->out_fd) {
		loop_fd_del(s->in_entry);
		s->in_entry = NULL;
	}
}

static ssize_t read_some(struct stream *s, uint8_t *data, size_t len)
{
	ssize_t n =
		s->in_socket ? recv(s->in_fd, data, len, MSG_DONTWAIT) : read(s->in_fd, data, len);

	return n < 0 ? -errno : n;
}

static void pump_input(void *arg)
{
	struct stream *s = arg;

	/* Bounded, so that a fast writer does not keep the loop from its other work. */
	for (unsigned rounds = 0; rounds < 16; rounds++) {
		size_t len;
		ssize_t n;

		deliver(s);
		len = room(s);
		if (s->in_ended || s->in_fd < 0 || !len ||
		    (s->hooks->may_read && !s->hooks->may_read(s)))
			return;
		n = read_some(s, s->in + s->in_len, len);
		if (n == -EAGAIN) {
			s->hung_up = false;
			return;
		}
		if (n == -EINTR)
			continue;
		if (n <= 0) {
			end_input(s, (int)n);
			return;
		}
		if (s->hooks->filter)
			n = (ssize_t)s->hooks->filter(s, s->in + s->in_len, (size_t)n);
		s->in_len += (size_t)n;
	}
	loop_work_post(s->env.loop, &s->in_work);
}

static void stream_kick_receive(struct chardev *chr)
{
	struct stream *s = to_stream(chr);

	loop_work_post(s->env.loop, &s->in_work);
}

static void stream_attach(struct chardev *chr, const struct chardev_client *client)
{
	struct stream *s = to_stream(chr);

	s->client = client ? *client : (struct chardev_client){0};
	stream_poke(s);
}

/* ---- life ------------------------------------------------------------------------------- */

static void in_event(void *arg, uint32_t events)
{
	struct stream *s = arg;

	s->hung_up |= (events & (EPOLLHUP | EPOLLRDHUP)) != 0;
	pump_input(s);
}

static void out_event(void *arg, uint32_t events)
{
	(void)events;
	flush_output(arg);
}

static void both_event(void *arg, uint32_t events)
{
	struct stream *s = arg;

	/* Input first: what a client sent before it went is not lost. */
	in_event(s, events);
	if (events & (EPOLLOUT | EPOLLHUP | EPOLLERR))
		flush_output(s);
	if (events & EPOLLHUP && s->in_ended && s->out_fd >= 0 && s->hooks->output_failed)
		s->hooks->output_failed(s, -EPIPE);
}

void stream_poke(struct stream *s)
{
	loop_work_post(s->env.loop, &s->in_work);
	loop_work_post(s->env.loop, &s->out_work);
}

/* Edge-triggered: what cannot be used now is tried again by the event, by kick_receive or by poke,
 * and a pty without reader (always EPOLLHUP) does not spin. Regular files have no events (-EPERM)
 * and are always ready. */
static int watch(struct stream *s, int fd, uint32_t events, void (*fn)(void *arg, uint32_t events),
		 struct loop_fd **out)
{
	int code = loop_fd_add(s->env.loop, fd, events | EPOLLET, fn, s, out);

	return code == -EPERM ? 0 : code;
}

static bool is_socket(int fd)
{
	struct stat st;

	return fd >= 0 && !fstat(fd, &st) && S_ISSOCK(st.st_mode);
}

int stream_connect(struct stream *s, int in_fd, int out_fd)
{
	int code = 0;

	s->in_fd = in_fd;
	s->out_fd = out_fd;
	s->in_socket = is_socket(in_fd);
	s->out_socket = is_socket(out_fd);
	s->in_ended = in_fd < 0;
	s->hung_up = false;
	if (in_fd >= 0 && in_fd == out_fd)
		code = watch(s, in_fd, EPOLLIN | EPOLLRDHUP | EPOLLOUT, both_event, &s->in_entry);
	else if (in_fd >= 0)
		code = watch(s, in_fd, EPOLLIN | EPOLLRDHUP, in_event, &s->in_entry);
	if (!code && out_fd >= 0 && in_fd != out_fd)
		code = watch(s, out_fd, EPOLLOUT, out_event, &s->out_entry);
	if (code) {
		stream_disconnect(s);
		return code;
	}
	pthread_mutex_lock(&s->lock);
	s->out_open = out_fd >= 0;
	pthread_mutex_unlock(&s->lock);
	stream_poke(s);
	return 0;
}

void stream_stop_output(struct stream *s)
{
	pthread_mutex_lock(&s->lock);
	s->out_open = false;
	pthread_mutex_unlock(&s->lock);
	loop_fd_del(s->out_entry);
	s->out_entry = NULL;
	s->out_fd = -1;
	drop_output(s);
}

void stream_disconnect(struct stream *s)
{
	loop_fd_del(s->in_entry);
	s->in_entry = NULL;
	s->in_fd = -1;
	s->in_ended = true;
	stream_stop_output(s);
}

static size_t stream_ahead(const struct chardev_backend *backend)
{
	return ((const struct stream *)backend)->in_len;
}

static void stream_destroy(struct chardev_backend *backend)
{
	struct stream *s = to_stream(&backend->chr);

	s->client = (struct chardev_client){0};
	flush_at_end(s);
	stream_disconnect(s);
	loop_work_cancel(s->env.loop, &s->in_work);
	loop_work_cancel(s->env.loop, &s->out_work);
	pthread_mutex_destroy(&s->lock);
	s->hooks->destroy(s);
}

void stream_init(struct stream *s, const struct stream_hooks *hooks, const struct chardev_env *env)
{
	static const struct chardev_ops ops = {stream_attach, stream_write, stream_kick_receive};

	s->backend = (struct chardev_backend){
		.chr = {&ops, s}, .destroy = stream_destroy, .ahead = stream_ahead};
	s->env = *env;
	s->hooks = hooks;
	s->in_fd = s->out_fd = -1;
	s->in_ended = true;
	s->in_work = (struct loop_work){.fn = pump_input, .arg = s};
	s->out_work = (struct loop_work){.fn = flush_output, .arg = s};
	pthread_mutex_init(&s->lock, NULL);
}
