#include "vmm/chardev_attach.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* How long the end waits for viewers that still read. */
#define FLUSH_PATIENCE_MS 500

struct viewer {
	struct attach *attach;
	struct viewer *next;
	int fd;
	struct loop_fd *entry;
	uint32_t events;
	uint64_t sent; /* position in the output */
	bool ended;    /* it sends nothing more */
	char note[80]; /* on what was left out */
	size_t note_len;
};

struct attach {
	struct chardev_backend backend;
	struct chardev_env env;
	struct logfile log;
	struct chardev_client client;
	struct loop_work in_work, out_work;
	struct viewer *viewers, *gone;
	unsigned count;

	uint8_t in[4096];
	size_t in_len;

	pthread_mutex_t lock; /* of what follows */
	uint8_t ring[ATTACH_RING];
	uint64_t head; /* bytes that the guest has sent */
	uint64_t done; /* of them: logged; head - done never exceeds the ring */
	bool starved;  /* a write was short: call `writable` */
};

static void remove_viewer(struct viewer *v);

static struct attach *to_attach(struct chardev *chr)
{
	return (struct attach *)chr->opaque;
}

/* ---- out: device -> log and viewers ----------------------------------------------------- */

static size_t attach_write(struct chardev *chr, const uint8_t *data, size_t len)
{
	struct attach *a = to_attach(chr);
	size_t room, n;

	pthread_mutex_lock(&a->lock);
	room = ATTACH_RING - (size_t)(a->head - a->done);
	n = len < room ? len : room;
	for (size_t i = 0; i < n; i++)
		a->ring[(a->head + i) % ATTACH_RING] = data[i];
	a->head += n;
	if (n < len)
		a->starved = true;
	pthread_mutex_unlock(&a->lock);
	loop_work_post(a->env.loop, &a->out_work);
	return n;
}

/* Copies what there is from `at` on, at most `len` bytes. */
static size_t copy_out(struct attach *a, uint64_t at, uint8_t *buf, size_t len)
{
	pthread_mutex_lock(&a->lock);
	if (len > a->head - at)
		len = (size_t)(a->head - at);
	for (size_t i = 0; i < len; i++)
		buf[i] = a->ring[(at + i) % ATTACH_RING];
	pthread_mutex_unlock(&a->lock);
	return len;
}

/* The guest may overtake a viewer: it goes on with the oldest byte that is left. */
static void catch_up(struct viewer *v)
{
	struct attach *a = v->attach;
	uint64_t lost = 0;

	pthread_mutex_lock(&a->lock);
	if (a->head - v->sent > ATTACH_RING) {
		/* Not the oldest byte of all: it would be gone at once. */
		lost = a->head - v->sent - ATTACH_RING / 2;
		v->sent += lost;
	}
	pthread_mutex_unlock(&a->lock);
	if (lost)
		v->note_len = (size_t)snprintf(v->note, sizeof(v->note),
					       "\r\n[ferry: read too slowly, %llu bytes left "
					       "out]\r\n",
					       (unsigned long long)lost);
}

static void watch(struct viewer *v)
{
	struct attach *a = v->attach;
	uint32_t events;
	bool behind;

	pthread_mutex_lock(&a->lock);
	behind = v->note_len || v->sent != a->head; /* what is newer is posted by the vCPU */
	pthread_mutex_unlock(&a->lock);
	events = (behind ? EPOLLOUT : 0u) | (!v->ended && a->in_len < sizeof(a->in) ? EPOLLIN : 0u);

	if (v->entry && events != v->events)
		loop_fd_mod(v->entry, events);
	v->events = events;
}

/* False: nothing more goes out now. */
static bool send_some(struct viewer *v)
{
	uint8_t buf[8192];
	const bool note = v->note_len != 0;
	size_t len;
	ssize_t n;

	if (!note)
		catch_up(v);
	len = v->note_len ? v->note_len : copy_out(v->attach, v->sent, buf, sizeof(buf));
	if (!len)
		return false;
	n = send(v->fd, v->note_len ? (void *)v->note : (void *)buf, len,
		 MSG_DONTWAIT | MSG_NOSIGNAL);
	if (n < 0 && errno == EINTR)
		return true;
	if (n < 0 && errno == EAGAIN)
		return false;
	if (n <= 0) {
		remove_viewer(v);
		return false;
	}
	if (v->note_len) {
		v->note_len -= (size_t)n;
		memmove(v->note, v->note + n, v->note_len);
	} else {
		v->sent += (uint64_t)n;
	}
	return true;
}

static void show(struct viewer *v)
{
	/* Bounded: a guest that never stops must not keep the loop here. */
	for (unsigned i = 0; i < 16 && v->fd >= 0 && send_some(v); i++)
		;
	if (v->fd >= 0)
		watch(v);
}

static void flush_output(void *arg)
{
	struct attach *a = arg;
	struct viewer *next;
	uint8_t buf[8192];
	size_t len, total = 0;
	bool starved;

	/* Only this thread moves `done`. Bounded: a guest that sends for ever waits for its turn.
	 */
	while (total < ATTACH_RING && (len = copy_out(a, a->done, buf, sizeof(buf)))) {
		logfile_write(&a->log, buf, len);
		pthread_mutex_lock(&a->lock);
		a->done += len;
		pthread_mutex_unlock(&a->lock);
		total += len;
	}
	if (total >= ATTACH_RING)
		loop_work_post(a->env.loop, &a->out_work);
	for (struct viewer *v = a->viewers; v; v = next) {
		next = v->next;
		show(v);
	}
	pthread_mutex_lock(&a->lock);
	starved = a->starved;
	a->starved = false;
	pthread_mutex_unlock(&a->lock);
	if (starved && a->client.writable)
		a->client.writable(a->client.opaque);
}

/* ---- in: viewers -> device -------------------------------------------------------------- */

static void deliver(struct attach *a)
{
	while (a->in_len && a->client.receive) {
		size_t n = a->backend.held ? 0 : a->client.can_receive(a->client.opaque);

		if (!n)
			return;
		if (n > a->in_len)
			n = a->in_len;
		a->client.receive(a->client.opaque, a->in, n);
		a->in_len -= n;
		memmove(a->in, a->in + n, a->in_len);
	}
}

static void pump_input(void *arg)
{
	struct attach *a = arg;

	deliver(a);
	for (struct viewer *v = a->viewers; v; v = v->next)
		watch(v);
	while (a->gone) {
		struct viewer *v = a->gone;

		a->gone = v->next;
		free(v);
	}
}

static void typed(struct attach *a, const uint8_t *data, size_t len)
{
	size_t room = sizeof(a->in) - a->in_len;

	/* Only what comes together with the attaching can be too much; it is lost. */
	if (len > room)
		len = room;
	if (len)
		memcpy(a->in + a->in_len, data, len);
	a->in_len += len;
	loop_work_post(a->env.loop, &a->in_work);
}

static void on_viewer(void *arg, uint32_t events)
{
	struct viewer *v = arg;
	struct attach *a = v->attach;
	uint8_t buf[sizeof(a->in)];
	ssize_t n;

	if (events & v->events & EPOLLIN && a->in_len < sizeof(a->in)) {
		n = recv(v->fd, buf, sizeof(a->in) - a->in_len, MSG_DONTWAIT);
		if (n > 0)
			typed(a, buf, (size_t)n);
		else if (!n || (errno != EAGAIN && errno != EINTR))
			v->ended = true;
	} else if (events & (EPOLLHUP | EPOLLERR)) {
		remove_viewer(v);
		return;
	}
	show(v);
}

static void attach_kick_receive(struct chardev *chr)
{
	struct attach *a = to_attach(chr);

	loop_work_post(a->env.loop, &a->in_work);
}

/* ---- viewers ---------------------------------------------------------------------------- */

static void remove_viewer(struct viewer *v)
{
	struct attach *a = v->attach;
	struct viewer **at = &a->viewers;

	while (*at && *at != v)
		at = &(*at)->next;
	if (!*at)
		return;
	*at = v->next;
	a->count--;
	loop_fd_del(v->entry);
	v->entry = NULL;
	close(v->fd);
	v->fd = -1;
	v->next = a->gone; /* whoever walks the list is on it */
	a->gone = v;
	loop_work_post(a->env.loop, &a->in_work);
}

void chardev_attach_viewer(struct chardev *chr, int fd, const uint8_t *data, size_t len)
{
	struct attach *a = to_attach(chr);
	struct viewer *v = a->count < ATTACH_VIEWERS_MAX ? calloc(1, sizeof(*v)) : NULL;

	if (v)
		*v = (struct viewer){.attach = a, .fd = fd, .events = EPOLLIN};
	if (!v || loop_fd_add(a->env.loop, fd, EPOLLIN, on_viewer, v, &v->entry)) {
		static const char full[] = "\r\n[ferry: too many are attached to this line]\r\n";

		(void)!send(fd, full, sizeof(full) - 1, MSG_DONTWAIT | MSG_NOSIGNAL);
		close(fd);
		free(v);
		return;
	}
	pthread_mutex_lock(&a->lock);
	v->sent = a->head > ATTACH_RING ? a->head - ATTACH_RING : 0;
	pthread_mutex_unlock(&a->lock);
	v->next = a->viewers;
	a->viewers = v;
	a->count++;
	if (len)
		typed(a, data, len);
	show(v);
}

/* ---- life ------------------------------------------------------------------------------- */

static void attach_attach(struct chardev *chr, const struct chardev_client *client)
{
	struct attach *a = to_attach(chr);

	a->client = client ? *client : (struct chardev_client){0};
	loop_work_post(a->env.loop, &a->in_work);
}

static void flush_at_end(struct attach *a)
{
	struct viewer *next;

	for (struct viewer *v = a->viewers; v; v = next) {
		struct pollfd pfd = {.fd = v->fd, .events = POLLOUT};

		next = v->next;
		show(v);
		while (v->fd >= 0 && v->sent != a->head && poll(&pfd, 1, FLUSH_PATIENCE_MS) > 0)
			show(v);
	}
}

static size_t attach_ahead(const struct chardev_backend *backend)
{
	return ((const struct attach *)backend)->in_len;
}

static void attach_destroy(struct chardev_backend *backend)
{
	struct attach *a = to_attach(&backend->chr);

	a->client = (struct chardev_client){0};
	flush_output(a);
	flush_at_end(a);
	while (a->viewers)
		remove_viewer(a->viewers);
	pump_input(a);
	loop_work_cancel(a->env.loop, &a->in_work);
	loop_work_cancel(a->env.loop, &a->out_work);
	logfile_close(&a->log);
	pthread_mutex_destroy(&a->lock);
	free(a);
}

int chardev_attach_create(struct chardev_backend **out, const struct chardev_env *env,
			  struct error *err)
{
	static const struct chardev_ops ops = {attach_attach, attach_write, attach_kick_receive};
	struct attach *a = calloc(1, sizeof(*a));

	if (!a)
		return error_set(err, -ENOMEM, "%s: out of memory", env->name);
	a->backend = (struct chardev_backend){
		.chr = {&ops, a}, .destroy = attach_destroy, .ahead = attach_ahead};
	a->env = *env;
	a->in_work = (struct loop_work){.fn = pump_input, .arg = a};
	a->out_work = (struct loop_work){.fn = flush_output, .arg = a};
	a->log = env->log ? *env->log : (struct logfile){.fd = -1};
	pthread_mutex_init(&a->lock, NULL);
	*out = &a->backend;
	return 0;
}
