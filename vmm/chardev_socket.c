#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "vmm/chardev_stream.h"
#include "vmm/cleanup.h"
#include "vmm/message.h"
#include "vmm/unix_socket.h"

struct socket_backend {
	struct stream stream;
	int dir_fd, listen_fd, client_fd;
	struct loop_fd *listen_entry;
	int cleanup;
	char *name; /* in dir_fd */
};

static struct socket_backend *to_socket(struct stream *stream)
{
	return (struct socket_backend *)stream;
}

/* One client at a time: the next one waits in the backlog until this one has gone. */
static void accept_client(void *arg, uint32_t events)
{
	struct socket_backend *sock = arg;
	int fd;

	(void)events;
	if (sock->client_fd >= 0)
		return;
	fd = accept4(sock->listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	if (fd < 0)
		return;
	sock->client_fd = fd;
	loop_fd_mod(sock->listen_entry, 0);
	if (stream_connect(&sock->stream, fd, fd)) {
		sock->client_fd = -1;
		close(fd);
		loop_fd_mod(sock->listen_entry, EPOLLIN);
	}
}

static void client_gone(struct socket_backend *sock)
{
	stream_disconnect(&sock->stream);
	close(sock->client_fd);
	sock->client_fd = -1;
	loop_fd_mod(sock->listen_entry, EPOLLIN);
}

static bool input_ended(struct stream *stream, int code)
{
	struct socket_backend *sock = to_socket(stream);
	struct pollfd pfd = {.fd = sock->client_fd};

	/* A client may close its sending side only (nc -N) and still read. */
	if (code || stream->out_fd < 0 || (poll(&pfd, 1, 0) > 0 && pfd.revents & POLLHUP))
		client_gone(sock);
	return false;
}

static void output_failed(struct stream *stream, int code)
{
	(void)code;
	/* What the client sent before it went is still to be read. */
	if (stream->in_ended)
		client_gone(to_socket(stream));
	else
		stream_stop_output(stream);
}

static void destroy(struct stream *stream)
{
	struct socket_backend *sock = to_socket(stream);

	loop_fd_del(sock->listen_entry);
	if (sock->client_fd >= 0)
		close(sock->client_fd);
	if (sock->listen_fd >= 0) {
		unlinkat(sock->dir_fd, sock->name, 0);
		close(sock->listen_fd);
	}
	cleanup_drop(sock->cleanup);
	if (sock->dir_fd >= 0)
		close(sock->dir_fd);
	free(sock->name);
	free(sock);
}

static int open_socket(struct socket_backend *sock, const char *path, struct error *err)
{
	const char *name;
	int code;

	sock->dir_fd = path_open_dir(path, &name, err);
	if (sock->dir_fd < 0)
		return sock->dir_fd;
	sock->name = strdup(name);
	if (!sock->name)
		return error_set(err, -ENOMEM, "out of memory");
	sock->listen_fd = unix_listen(sock->dir_fd, name, 8, err);
	if (sock->listen_fd < 0)
		return sock->listen_fd;
	sock->cleanup = cleanup_add_file(sock->dir_fd, name);
	code = loop_fd_add(sock->stream.env.loop, sock->listen_fd, EPOLLIN, accept_client, sock,
			   &sock->listen_entry);
	return code ? error_set(err, code, "%s", strerror(-code)) : 0;
}

int chardev_socket_create(struct chardev_backend **out, const char *path,
			  const struct chardev_env *env, struct error *err)
{
	static const struct stream_hooks hooks = {
		.input_ended = input_ended, .output_failed = output_failed, .destroy = destroy};
	struct socket_backend *sock = calloc(1, sizeof(*sock));
	int code;

	if (!sock)
		return error_set(err, -ENOMEM, "%s: out of memory", env->name);
	sock->dir_fd = sock->listen_fd = sock->client_fd = sock->cleanup = -1;
	stream_init(&sock->stream, &hooks, env);
	code = open_socket(sock, path, err);
	if (code) {
		sock->stream.backend.destroy(&sock->stream.backend);
		return error_prefix(err, code, "%s: socket", env->name);
	}
	if (!env->quiet)
		message("%s listens on %s", env->name, path);
	*out = &sock->stream.backend;
	return 0;
}
