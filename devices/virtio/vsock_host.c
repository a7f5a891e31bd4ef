/* The host's side of guest sockets: unix sockets, as Firecracker has them. */
#include "devices/virtio/vsock.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { GREETING_MAX = 32, LISTEN_AGAIN_NS = 100000000 };

/* ---- bytes ---- */

/* 0: not now, or (VSOCK_NO_RCV is set then) never again. */
static uint32_t send_some(struct vsock_conn *c, const uint8_t *data, uint32_t len)
{
	ssize_t n = send(c->fd, data, len, MSG_NOSIGNAL | MSG_DONTWAIT);

	if (n < 0 && errno != EAGAIN && errno != EINTR)
		vsock_conn_host_closed(c, VSOCK_NO_RCV);
	if (n <= 0)
		return 0;
	c->vs->from_guest += (uint64_t)n;
	vsock_conn_forwarded(c, (uint32_t)n);
	return (uint32_t)n;
}

static bool keep(struct vsock_conn *c, const uint8_t *data, uint32_t len)
{
	const uint32_t tail = (c->out_head + c->out_len) % VSOCK_BUFFER;
	const uint32_t first = len < VSOCK_BUFFER - tail ? len : VSOCK_BUFFER - tail;

	if (!c->out)
		c->out = malloc(VSOCK_BUFFER);
	if (!c->out)
		return false;
	memcpy(c->out + tail, data, first);
	memcpy(c->out, data + first, len - first);
	c->out_len += len;
	return true;
}

bool vsock_host_write(struct vsock_conn *c, const uint8_t *data, uint32_t len)
{
	uint32_t n = 0;

	if (!c->out_len && !(c->host_closed & VSOCK_NO_RCV))
		n = send_some(c, data, len);
	/* Nobody reads it; the guest has been told, and what is under way already is lost. */
	if (c->host_closed & VSOCK_NO_RCV)
		vsock_conn_forwarded(c, len - n);
	else if (n < len)
		return keep(c, data + n, len - n);
	return true;
}

void vsock_host_flush(struct vsock_conn *c)
{
	while (c->out_len) {
		const uint32_t piece = VSOCK_BUFFER - c->out_head;
		uint32_t n =
			send_some(c, c->out + c->out_head, c->out_len < piece ? c->out_len : piece);

		if (c->hup || (c->host_closed & VSOCK_NO_RCV))
			vsock_conn_forwarded(c, n = c->out_len);
		else if (!n)
			return; /* EPOLLOUT comes */
		c->out_head = (c->out_head + n) % VSOCK_BUFFER;
		c->out_len -= n;
	}
	free(c->out);
	c->out = NULL;
	c->out_head = 0;
	/* Once: it is an event of its own. */
	if ((c->guest_closed & VSOCK_NO_SEND) && !c->out_ended)
		shutdown(c->fd, SHUT_WR);
	c->out_ended = c->guest_closed & VSOCK_NO_SEND;
	if (c->state == VSOCK_DRAINING)
		vsock_conn_free(c);
}

uint32_t vsock_host_read(struct vsock_conn *c, uint8_t *data, uint32_t len)
{
	ssize_t n = recv(c->fd, data, len, MSG_DONTWAIT);

	if (n > 0)
		return (uint32_t)n;
	if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
		c->readable = errno == EINTR;
		return 0;
	}
	c->eof = true;
	c->hup |= n < 0;
	vsock_conn_host_closed(c, c->hup ? VSOCK_CLOSED : VSOCK_NO_SEND);
	return 0;
}

/* ---- a host program calls the guest ---- */

static bool parse(const char *line, uint32_t *port)
{
	static const char word[] = "CONNECT ";
	unsigned long value;
	char *end;

	if (strncmp(line, word, sizeof(word) - 1) != 0 || line[sizeof(word) - 1] < '0' ||
	    line[sizeof(word) - 1] > '9')
		return false;
	value = strtoul(line + sizeof(word) - 1, &end, 10);
	*port = (uint32_t)value;
	return !*end && value < UINT32_MAX; /* the last one is "any" */
}

static void greet(struct vsock_conn *c, uint32_t events)
{
	char line[GREETING_MAX + 1];
	ssize_t n = recv(c->fd, line, GREETING_MAX, MSG_PEEK | MSG_DONTWAIT);
	char *end = n > 0 ? memchr(line, '\n', (size_t)n) : NULL;
	uint32_t port;

	if (!end) {
		const bool over = n == 0 || n == GREETING_MAX || (n < 0 && errno != EAGAIN) ||
				  (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR));

		if (over)
			vsock_conn_free(c);
		return;
	}
	/* What follows the line is for the guest. */
	n = recv(c->fd, line, (size_t)(end - line) + 1, MSG_DONTWAIT);
	*end = 0;
	if (n != end - line + 1 || !parse(line, &port)) {
		vsock_conn_free(c);
		return;
	}
	c->state = VSOCK_REQUESTED;
	vsock_conn_publish(c, port, vsock_conn_port(c->vs, port));
	c->pending = VSOCK_SEND_REQUEST;
	vsock_conn_wake(c);
}

int vsock_host_accepted(struct vsock_conn *c)
{
	char line[24];
	const int len = snprintf(line, sizeof(line), "OK %u\n", c->host_port);

	/* The first bytes on this socket: there is room. */
	return send(c->fd, line, (size_t)len, MSG_NOSIGNAL | MSG_DONTWAIT) == len ? 0 : -EPIPE;
}

void vsock_host_event(void *arg, uint32_t events)
{
	struct vsock_conn *c = arg;

	if (vsock_settle(c->vs))
		return;
	if (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR))
		c->readable = true;
	if (events & (EPOLLHUP | EPOLLERR))
		c->hup = true;
	switch (c->state) {
	case VSOCK_GREETING: greet(c, events); break;
	case VSOCK_REQUESTED:
		if (c->hup)
			vsock_conn_reset(c);
		break;
	case VSOCK_OPEN:
		if (c->hup && c->eof)
			vsock_conn_host_closed(c, VSOCK_CLOSED);
		vsock_conn_wake(c);
		vsock_host_flush(c);
		break;
	case VSOCK_DRAINING: vsock_host_flush(c); break;
	}
}

static void accept_one(void *arg, uint32_t events)
{
	struct vsock *vs = arg;
	int fd;

	(void)events;
	vsock_settle(vs);
	if (!vsock_conn_room(vs)) {
		vsock_host_listen(vs, false); /* until one has gone */
		return;
	}
	fd = accept4(vs->listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	if (fd < 0 && errno != EAGAIN && errno != ECONNABORTED && errno != EINTR) {
		/* No descriptors: the loop must not spin until there are. */
		vsock_host_listen(vs, false);
		vs->host.timers->set(vs->listen_timer,
				     vs->host.clock->now(vs->host.clock->opaque) + LISTEN_AGAIN_NS);
	}
	if (fd < 0)
		return;
	if (vsock_driver_runs(vs))
		vsock_conn_new(vs, fd, VSOCK_GREETING);
	else
		close(fd);
}

static void listen_again(void *arg)
{
	vsock_host_listen(arg, true);
}

void vsock_host_listen(struct vsock *vs, bool on)
{
	if (!vs->listen_watch || on == !vs->listen_paused)
		return;
	vs->listen_paused = !on;
	vs->host.watches->mod(vs->listen_watch, on ? EPOLLIN : 0);
}

/* ---- the guest calls a host program ---- */

/* Through a descriptor of the folder: a path has room for more than an address of a socket. Never
 * waits: a full backlog is -EAGAIN. */
int vsock_host_connect(struct vsock *vs, uint32_t port)
{
	struct sockaddr_un sun = {.sun_family = AF_UNIX};
	int len = snprintf(sun.sun_path, sizeof(sun.sun_path), "/proc/self/fd/%d/%s_%u", vs->dir_fd,
			   vs->name, port);
	int fd, ret;

	if (len < 0 || (size_t)len >= sizeof(sun.sun_path))
		return -ENAMETOOLONG;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	if (!connect(fd, (struct sockaddr *)&sun, sizeof(sun)))
		return fd;
	ret = -errno;
	close(fd);
	return ret;
}

/* ---- hand-over ---- */

static int watch_listener(struct vsock *vs)
{
	const struct watch_source *w = vs->host.watches;

	vs->listen_paused = false;
	return w->add(w->opaque, vs->listen_fd, EPOLLIN, accept_one, vs, &vs->listen_watch);
}

int vsock_host_acquire(struct vsock *vs)
{
	int fd, ret;

	if (!vs->listen || vs->listen_fd >= 0)
		return 0;
	fd = vs->listen(vs->opaque);
	if (fd < 0)
		return fd;
	vs->listen_fd = fd;
	ret = watch_listener(vs);
	if (ret)
		vsock_host_release(vs);
	return ret;
}

void vsock_host_release(struct vsock *vs)
{
	if (!vs->unlisten || vs->listen_fd < 0)
		return;
	if (vs->listen_watch)
		vs->host.watches->del(vs->listen_watch);
	vs->listen_watch = NULL;
	close(vs->listen_fd);
	vs->listen_fd = -1;
	vs->unlisten(vs->opaque);
}

/* ---- life ---- */

static int open_folder(const char *path, const char **name)
{
	const char *slash = strrchr(path, '/');
	char folder[PATH_MAX] = ".";
	int fd;

	*name = slash ? slash + 1 : path;
	if (slash && snprintf(folder, sizeof(folder), "%.*s", (int)(slash - path + 1), path) >=
			     (int)sizeof(folder))
		return -ENAMETOOLONG;
	fd = open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

int vsock_host_init(struct vsock *vs, const struct virtio_vsock_config *config)
{
	const struct timer_source *t = config->host->timers;

	vs->host = *config->host;
	vs->path = strdup(config->path);
	if (!vs->path)
		return -ENOMEM;
	vs->dir_fd = open_folder(vs->path, &vs->name);
	if (vs->dir_fd < 0)
		return vs->dir_fd;
	vs->listen_timer = t->create(t->opaque, listen_again, vs, "vsock");
	if (!vs->listen_timer)
		return -ENOMEM;
	return vs->listen_fd < 0 ? 0 : watch_listener(vs);
}

void vsock_host_exit(struct vsock *vs)
{
	if (vs->listen_watch)
		vs->host.watches->del(vs->listen_watch);
	if (vs->listen_timer)
		vs->host.timers->destroy(vs->listen_timer);
	if (vs->dir_fd >= 0)
		close(vs->dir_fd);
	free(vs->path);
}
