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

static void listen_for_more(struct socket_backend *sock, bool on)
{
	if (sock->listen_entry)
		loop_fd_mod(sock->listen_entry, on ? EPOLLIN : 0);
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
	listen_for_more(sock, false);
	if (stream_connect(&sock->stream, fd, fd)) {
		sock->client_fd = -1;
		close(fd);
		listen_for_more(sock, true);
	}
}

static void client_gone(struct socket_backend *sock)
{
	stream_disconnect(&sock->stream);
	close(sock->client_fd);
	sock->client_fd = -1;
	listen_for_more(sock, true);
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

static void give_up(struct chardev_backend *backend)
{
	struct socket_backend *sock = (struct socket_backend *)backend;

	loop_fd_del(sock->listen_entry);
	sock->listen_entry = NULL;
	if (sock->listen_fd >= 0) {
		unlinkat(sock->dir_fd, sock->name, 0);
		close(sock->listen_fd);
	}
	sock->listen_fd = -1;
	cleanup_drop(sock->cleanup);
	sock->cleanup = -1;
}

static int take(struct chardev_backend *backend, struct error *err)
{
	struct socket_backend *sock = (struct socket_backend *)backend;
	const struct chardev_env *env = &sock->stream.env;
	int code;

	if (sock->listen_fd >= 0)
		return 0;
	sock->listen_fd = unix_listen(sock->dir_fd, sock->name, 8, err);
	if (sock->listen_fd < 0)
		return error_prefix(err, sock->listen_fd, "%s: socket", env->name);
	sock->cleanup = cleanup_add_file(sock->dir_fd, sock->name);
	code = loop_fd_add(env->loop, sock->listen_fd, EPOLLIN, accept_client, sock,
			   &sock->listen_entry);
	if (code) {
		give_up(backend);
		return error_set(err, code, "%s: socket: %s", env->name, strerror(-code));
	}
	listen_for_more(sock, sock->client_fd < 0);
	return 0;
}

static void destroy(struct stream *stream)
{
	struct socket_backend *sock = to_socket(stream);

	if (sock->client_fd >= 0)
		close(sock->client_fd);
	give_up(&stream->backend);
	if (sock->dir_fd >= 0)
		close(sock->dir_fd);
	free(sock->name);
	free(sock);
}

static int find_folder(struct socket_backend *sock, const char *path, struct error *err)
{
	const char *name;

	sock->dir_fd = path_open_dir(path, &name, err);
	if (sock->dir_fd < 0)
		return error_prefix(err, sock->dir_fd, "%s: socket", sock->stream.env.name);
	sock->name = strdup(name);
	return sock->name ? 0 : error_set(err, -ENOMEM, "out of memory");
}

int chardev_socket_create(struct chardev_backend **out, const char *path,
			  const struct chardev_env *env, struct error *err)
{
	static const struct stream_hooks hooks = {
		.input_ended = input_ended, .output_failed = output_failed, .destroy = destroy};
	struct socket_backend *sock = calloc(1, sizeof(*sock));
	struct chardev_backend *backend;
	int code;

	if (!sock)
		return error_set(err, -ENOMEM, "%s: out of memory", env->name);
	sock->dir_fd = sock->listen_fd = sock->client_fd = sock->cleanup = -1;
	stream_init(&sock->stream, &hooks, env);
	backend = &sock->stream.backend;
	backend->acquire = take;
	backend->release = give_up;
	code = find_folder(sock, path, err);
	if (!code && !env->later)
		code = take(backend, err);
	if (code) {
		backend->destroy(backend);
		return code;
	}
	if (!env->quiet)
		message("%s listens on %s", env->name, path);
	*out = backend;
	return 0;
}
