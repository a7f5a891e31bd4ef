#include "migration/door.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "migration/address.h"
#include "migration/await.h"
#include "migration/clock.h"
#include "migration/stream_control.h"
#include "migration/thread.h"

enum { CALLERS = 8, WAITING = 4, PATIENCE_MS = 10000, TURN_MS = 500, GOODBYE_MS = 1000 };

struct caller {
	struct link *link;
	struct stream_hello hello;
	uint64_t since;
	bool leaves; /* nothing of it is looked at any more */
};

struct door {
	char address[PATH_MAX + 8];
	const struct tls *tls;
	int listen_fd, stop_fd, ready_fd;
	pthread_t thread;
	/* The thread's: who has not said HELLO yet. */
	struct caller caller[CALLERS];
	unsigned callers;
	/* Who has. */
	pthread_mutex_t lock;
	struct caller waiting[WAITING];
	unsigned count;
	/* Told of those who are turned away. */
	void (*watch)(void *opaque, const char *why);
	void *opaque;
	uint64_t told; /* when, last */
};

/* In line for door_next(); of too many the newest is let go. */
static void let_in(struct door *d, const struct caller *caller)
{
	const uint64_t one = 1;

	pthread_mutex_lock(&d->lock);
	if (d->count < WAITING) {
		d->waiting[d->count++] = *caller;
		(void)!write(d->ready_fd, &one, sizeof(one));
		pthread_mutex_unlock(&d->lock);
		return;
	}
	pthread_mutex_unlock(&d->lock);
	link_close(caller->link);
}

static bool is_late(const struct caller *c, unsigned ms)
{
	return clock_now() - c->since >= (uint64_t)ms * 1000000;
}

static void turn_away(struct door *d, struct caller *c, const struct stream_error *why)
{
	struct stream_failure failure = {.kind = STREAM_REFUSED};
	const uint64_t now = clock_now();

	pthread_mutex_lock(&d->lock);
	if (d->watch && (d->tls || c->link->broken == -EPROTONOSUPPORT) &&
	    (!d->told || now - d->told > 1000000000)) {
		d->told = now;
		d->watch(d->opaque, why->text);
	}
	pthread_mutex_unlock(&d->lock);
	/* What came was damaged, or is too new: he is told. */
	if (c->link->broken && link_may_speak(c->link)) {
		snprintf(failure.text, sizeof(failure.text), "%.199s", why->text);
		(void)stream_control_write(&c->link->w, STREAM_FAILURE, 0, &failure);
	}
	link_finish(c->link);
	c->leaves = true;
	c->since = now;
}

/* What was said to him is lost if the connection is closed with something of his unread. True: he
 * has hung up, or has had enough time. */
static bool see_off(struct caller *c)
{
	char waste[4096];
	ssize_t n;

	do
		n = recv(c->link->fd, waste, sizeof(waste), MSG_DONTWAIT);
	while (n > 0 && !is_late(c, GOODBYE_MS));
	if (n < 0 && errno == EAGAIN && !is_late(c, GOODBYE_MS))
		return false;
	link_close(c->link);
	return true;
}

/* True: he is no caller any more. */
static bool listen_to(struct door *d, struct caller *c)
{
	struct stream_error err;
	struct stream_frame frame;
	int ret;

	if (c->leaves)
		return see_off(c);
	ret = link_receive(c->link, 0, &frame, &err);
	if (!ret && !is_late(c, PATIENCE_MS))
		return false;
	if (!ret)
		ret = stream_fail(&err, NULL, -ETIMEDOUT, "somebody who says nothing");
	else if (ret > 0)
		ret = stream_hello_read(&frame, &c->hello, &err);
	if (!ret && c->hello.role != STREAM_SOURCE)
		ret = stream_fail(&err, NULL, -EPROTO, "one that is no source");
	if (!ret) {
		let_in(d, c);
		return true;
	}
	turn_away(d, c, &err);
	return see_off(c);
}

static void answer_bell(struct door *d)
{
	int fd = accept4(d->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	struct caller *c = &d->caller[d->callers];

	if (fd < 0) {
		/* Without descriptors it rings on. */
		if (errno != EAGAIN && errno != ECONNABORTED && errno != EINTR)
			usleep(TURN_MS * 1000);
		return;
	}
	/* The one that has been silent the longest makes room. */
	if (d->callers == CALLERS) {
		link_close(d->caller[0].link);
		memmove(d->caller, d->caller + 1, (CALLERS - 1) * sizeof(*c));
		c = &d->caller[--d->callers];
	}
	*c = (struct caller){.since = clock_now()};
	if (!link_open(&c->link, fd, 0, -1, d->tls))
		d->callers++;
}

static void *door_main(void *arg)
{
	struct door *d = arg;

	for (;;) {
		struct pollfd pfd[CALLERS + 2] = {{.fd = d->stop_fd, .events = POLLIN},
						  {.fd = d->listen_fd, .events = POLLIN}};
		unsigned kept = 0;

		for (unsigned i = 0; i < d->callers; i++)
			pfd[i + 2] = (struct pollfd){.fd = d->caller[i].link->fd, .events = POLLIN};
		if (poll(pfd, d->callers + 2, TURN_MS) < 0 && errno != EINTR)
			break;
		if (pfd[0].revents)
			break;
		for (unsigned i = 0; i < d->callers; i++)
			if (!listen_to(d, &d->caller[i]))
				d->caller[kept++] = d->caller[i];
		d->callers = kept;
		if (pfd[1].revents)
			answer_bell(d);
	}
	return NULL;
}

int door_open(struct door **out, const char *address, bool open, const struct tls *tls,
	      struct stream_error *err)
{
	struct door *d = calloc(1, sizeof(*d));
	int ret;

	*out = NULL;
	if (!d)
		return stream_fail(err, NULL, -ENOMEM, "no memory");
	d->tls = tls;
	d->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	d->ready_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK | EFD_SEMAPHORE);
	pthread_mutex_init(&d->lock, NULL);
	d->listen_fd = address_listen(address, open, d->address, sizeof(d->address), err);
	ret = d->listen_fd < 0 ? d->listen_fd : 0;
	if (!ret) {
		ret = thread_start(&d->thread, door_main, d);
		if (ret) {
			address_unlisten(d->address, d->listen_fd);
			stream_fail(err, NULL, ret, "cannot start a thread: %s", strerror(-ret));
		}
	}
	if (!ret) {
		*out = d;
		return 0;
	}
	close(d->stop_fd);
	close(d->ready_fd);
	free(d);
	return ret;
}

const char *door_address(const struct door *d)
{
	return d->address;
}

void door_watch(struct door *d, void (*fn)(void *opaque, const char *why), void *opaque)
{
	pthread_mutex_lock(&d->lock);
	d->watch = fn;
	d->opaque = opaque;
	pthread_mutex_unlock(&d->lock);
}

int door_fd(const struct door *d)
{
	return d->ready_fd;
}

int door_next(struct door *d, int timeout_ms, int wake_fd, struct link **link,
	      struct stream_hello *hello)
{
	const int ret = await_fd(d->ready_fd, POLLIN, timeout_ms, wake_fd);
	uint64_t one;

	if (ret == -ECANCELED)
		return ret;
	if (ret || read(d->ready_fd, &one, sizeof(one)) != sizeof(one))
		return 0;
	pthread_mutex_lock(&d->lock);
	*link = d->waiting[0].link;
	*hello = d->waiting[0].hello;
	d->count--;
	memmove(d->waiting, d->waiting + 1, d->count * sizeof(d->waiting[0]));
	pthread_mutex_unlock(&d->lock);
	return 1;
}

void door_close(struct door *d)
{
	const uint64_t one = 1;

	if (!d)
		return;
	(void)!write(d->stop_fd, &one, sizeof(one));
	pthread_join(d->thread, NULL);
	for (unsigned i = 0; i < d->callers; i++)
		link_close(d->caller[i].link);
	for (unsigned i = 0; i < d->count; i++)
		link_close(d->waiting[i].link);
	address_unlisten(d->address, d->listen_fd);
	close(d->stop_fd);
	close(d->ready_fd);
	pthread_mutex_destroy(&d->lock);
	free(d);
}
