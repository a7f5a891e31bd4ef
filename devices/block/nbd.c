/* The connection to an NBD server, with libnbd: its socket is watched, everything happens on the
 * loop's thread. */
#include "devices/block/nbd.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include "devices/block/nbd_internal.h"
#include "migration/clock.h"

enum { CONNECT_MS = 10000 };

bool nbd_is_address(const char *path)
{
	static const char *const schemes[] = {"nbd://", "nbds://", "nbd+unix://", "nbds+unix://"};

	for (unsigned i = 0; i < sizeof(schemes) / sizeof(schemes[0]); i++)
		if (!strncmp(path, schemes[i], strlen(schemes[i])))
			return true;
	return false;
}

static void unwatch(struct nbd *n)
{
	if (n->watch)
		n->host->watches->del(n->watch);
	n->watch = NULL;
}

static void lost(struct nbd *n)
{
	const char *said = nbd_get_error();
	char text[256];

	n->dead = true;
	snprintf(text, sizeof(text), "%s", said ? said : "the server closed it");
	if (n->own_server)
		nbd_server_ended(&n->server, 1000, text, sizeof(text));
	dev_log(n->block.path, "the connection is lost: %s; the disk gives I/O errors from here",
		text);
	snprintf(n->block.mechanism, sizeof(n->block.mechanism), "nbd, connection lost");
	unwatch(n);
}

static void update_watch(struct nbd *n)
{
	const unsigned direction = nbd_aio_get_direction(n->handle);
	const uint32_t events = (direction & LIBNBD_AIO_DIRECTION_READ ? EPOLLIN : 0u) |
				(direction & LIBNBD_AIO_DIRECTION_WRITE ? EPOLLOUT : 0u);

	if (!n->watch || events == n->events)
		return;
	n->events = events;
	(void)n->host->watches->mod(n->watch, events);
}

/* Everything that can be done without the socket. */
static void work(struct nbd *n)
{
	do {
		nbd_send_todo(n);
		if (!n->dead && n->handle &&
		    (nbd_aio_is_dead(n->handle) == 1 || nbd_aio_is_closed(n->handle) == 1))
			lost(n);
		/* Which may bring new ones. */
		block_finish(&n->block, &n->over);
	} while (n->todo.first && n->sent < NBD_IN_FLIGHT_MAX);
	if (!n->dead && n->handle)
		update_watch(n);
}

static void later(void *arg)
{
	work(arg);
}

static void on_socket(void *arg, uint32_t events)
{
	struct nbd *n = arg;
	const unsigned direction = nbd_aio_get_direction(n->handle);

	/* What hangs up is read to its end. */
	if ((events & EPOLLOUT) && (direction & LIBNBD_AIO_DIRECTION_WRITE))
		(void)nbd_aio_notify_write(n->handle);
	else if (direction & LIBNBD_AIO_DIRECTION_READ)
		(void)nbd_aio_notify_read(n->handle);
	work(n);
}

static int fail(const struct nbd *n, int code, const char *what, char *why, size_t why_len)
{
	snprintf(why, why_len, "%s: %s", n->block.path, what);
	return code;
}

static int handshake(struct nbd *n, char *why, size_t why_len)
{
	const int64_t until = clock_now_ms() + CONNECT_MS;
	char text[300];

	while (!nbd_aio_is_ready(n->handle)) {
		const int64_t left = until - clock_now_ms();

		if (left <= 0)
			return fail(n, -ETIMEDOUT, "the NBD server does not answer", why, why_len);
		if (nbd_poll(n->handle, (int)left) >= 0 && !nbd_aio_is_dead(n->handle) &&
		    !nbd_aio_is_closed(n->handle))
			continue;
		snprintf(text, sizeof(text), "%s",
			 nbd_get_error() ? nbd_get_error()
					 : "the NBD server closed the connection");
		if (n->own_server)
			nbd_server_ended(&n->server, 2000, text, sizeof(text));
		return fail(n, -EIO, text, why, why_len);
	}
	return 0;
}

/* What the server offers. */
static int take_properties(struct nbd *n, char *why, size_t why_len)
{
	struct block *b = &n->block;
	const int64_t size = nbd_get_size(n->handle),
		      least = nbd_get_block_size(n->handle, LIBNBD_SIZE_MINIMUM);

	if (size <= 0 || size % 512)
		return fail(n, -EINVAL, "its size is no multiple of 512", why, why_len);
	if (b->size && b->size != (uint64_t)size)
		return fail(n, -EINVAL, "it has another size than before", why, why_len);
	b->size = (uint64_t)size;
	/* Only looked at. */
	if (n->own_server && n->how.unlocked)
		return 0;
	if (least > 512)
		return fail(n, -EINVAL, "the NBD server wants larger sectors than 512 bytes", why,
			    why_len);
	if (nbd_is_read_only(n->handle) == 1 && !b->read_only)
		return fail(n, -EROFS, "the NBD server lets it only be read: add ',ro'", why,
			    why_len);
	n->can_flush = !n->unsafe && nbd_can_flush(n->handle) == 1;
	b->can_discard = !b->read_only && nbd_can_trim(n->handle) == 1;
	b->can_zero = !b->read_only && nbd_can_zero(n->handle) == 1;
	return 0;
}

static int begin_connect(struct nbd *n, char *why, size_t why_len)
{
	int fd, ret;

	if (!n->own_server) {
		ret = nbd_aio_connect_uri(n->handle, n->block.path);
		return ret ? fail(n, -EIO, nbd_get_error(), why, why_len) : 0;
	}
	fd = nbd_server_start(&n->server, &n->how, why, why_len);
	if (fd < 0)
		return fd;
	ret = nbd_aio_connect_socket(n->handle, fd);
	return ret ? fail(n, -EIO, nbd_get_error(), why, why_len) : 0;
}

static void disconnect(struct nbd *n)
{
	unwatch(n);
	if (n->handle && !n->dead && nbd_aio_is_ready(n->handle) == 1)
		(void)nbd_shutdown(n->handle, 0);
	nbd_close(n->handle);
	n->handle = NULL;
	nbd_server_stop(&n->server);
}

static int do_connect(struct nbd *n, char *why, size_t why_len)
{
	int ret;

	n->dead = false;
	n->events = EPOLLIN;
	n->handle = nbd_create();
	if (!n->handle)
		return fail(n, -ENOMEM, nbd_get_error(), why, why_len);
	/* Of a read that fails nobody looks at the buffer. */
	(void)nbd_set_pread_initialize(n->handle, false);
	ret = begin_connect(n, why, why_len);
	if (!ret)
		ret = handshake(n, why, why_len);
	if (!ret)
		ret = take_properties(n, why, why_len);
	if (!ret) {
		ret = n->host->watches->add(n->host->watches->opaque, nbd_aio_get_fd(n->handle),
					    n->events, on_socket, n, &n->watch);
		if (ret)
			fail(n, ret, strerror(-ret), why, why_len);
	}
	if (ret)
		disconnect(n);
	else
		update_watch(n);
	return ret;
}

/* ---- life -------------------------------------------------------------------------------- */

static void nbd_submit(struct block *b, struct block_request *r)
{
	struct nbd *n = (struct nbd *)b;

	r->done_bytes = 0;
	r->bounce = NULL;
	r->phase = r->tries = 0;
	r->on = b;
	b->in_flight++;
	block_list_add(&n->todo, r);
}

static void nbd_commit(struct block *b)
{
	struct nbd *n = (struct nbd *)b;

	nbd_send_todo(n);
	/* At once, before another descriptor has the number of the one that libnbd has closed. */
	if (n->handle && nbd_aio_is_dead(n->handle) == 1)
		unwatch(n);
	/* Not from here: what has ended already, or the end of the connection. */
	if (n->over.first || !n->watch)
		n->host->works->post(n->later);
	else
		update_watch(n);
}

/* An image's lock is its server's. */
static int nbd_release(struct block *b)
{
	struct nbd *n = (struct nbd *)b;

	if (n->own_server)
		disconnect(n);
	return 0;
}

static int nbd_acquire(struct block *b)
{
	struct nbd *n = (struct nbd *)b;
	char why[400];
	int ret;

	if (n->handle)
		return 0;
	ret = do_connect(n, why, sizeof(why));
	if (ret)
		dev_log(n->block.path, "%s", why);
	return ret;
}

static void nbd_destroy(struct block *b)
{
	struct nbd *n = (struct nbd *)b;

	disconnect(n);
	if (n->later)
		n->host->works->destroy(n->later);
	free(b->path);
	free(n);
}

static int nbd_create_disk(struct block **out, const struct block_open *how, bool own_server,
			   const struct backend_host *host, char *why, size_t why_len)
{
	static const struct block_ops ops = {.submit = nbd_submit,
					     .commit = nbd_commit,
					     .release = nbd_release,
					     .acquire = nbd_acquire,
					     .destroy = nbd_destroy};
	struct nbd *n = calloc(1, sizeof(*n));
	int ret;

	if (!n) {
		snprintf(why, why_len, "%s: out of memory", how->path);
		return -ENOMEM;
	}
	*n = (struct nbd){.host = host,
			  .how = *how,
			  .own_server = own_server,
			  .unsafe = how->cache == BLOCK_CACHE_UNSAFE,
			  .server = {.messages_fd = -1},
			  .block = {.ops = &ops,
				    .block_size = 4096,
				    .memory_align = 1,
				    .read_only = how->read_only,
				    .path = strdup(how->path)}};
	block_list_init(&n->todo);
	block_list_init(&n->over);
	n->how.path = n->block.path;
	n->later = host->works->create(host->works->opaque, later, n);
	if (!n->later || !n->block.path) {
		snprintf(why, why_len, "%s: out of memory", how->path);
		ret = -ENOMEM;
	} else {
		ret = do_connect(n, why, why_len);
	}
	/* Its size is known; the image is another ferry's until acquire. */
	if (!ret && own_server && how->unlocked) {
		disconnect(n);
		n->how.unlocked = false;
	}
	if (ret) {
		nbd_destroy(&n->block);
		return ret;
	}
	snprintf(n->block.mechanism, sizeof(n->block.mechanism), "nbd%s",
		 own_server ? ", qemu-nbd" : "");
	*out = &n->block;
	return 0;
}

int nbd_open_address(struct block **out, const struct block_open *how,
		     const struct backend_host *host, char *why, size_t why_len)
{
	if (how->format == BLOCK_FORMAT_AUTO || how->format == BLOCK_FORMAT_RAW)
		return nbd_create_disk(out, how, false, host, why, why_len);
	snprintf(why, why_len, "%s is a disk already: leave out format=", how->path);
	return -EINVAL;
}

int nbd_open_image(struct block **out, const struct block_open *how,
		   const struct backend_host *host, char *why, size_t why_len)
{
	return nbd_create_disk(out, how, true, host, why, why_len);
}
