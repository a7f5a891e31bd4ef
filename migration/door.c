#include "migration/door.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "migration/address.h"

enum { CALLERS = 8, WAITING = 4, PATIENCE_MS = 5000, TURN_MS = 500 };

struct caller {
	struct link *link;
	struct stream_hello hello;
	uint64_t since;
};

struct door {
	char address[300];
	int listen_fd, stop_fd, ready_fd;
	pthread_t thread;
	/* The thread's: who has not said HELLO yet. */
	struct caller caller[CALLERS];
	unsigned callers;
	/* Who has. */
	pthread_mutex_t lock;
	struct caller waiting[WAITING];
	unsigned count;
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

/* True: he is no caller any more. */
static bool listen_to(struct door *d, struct caller *c)
{
	struct stream_frame frame;
	struct stream_error err;
	int ret = link_receive(c->link, 0, &frame, &err);

	if (!ret && link_now() - c->since < (uint64_t)PATIENCE_MS * 1000000)
		return false;
	if (ret > 0 && frame.type == STREAM_HELLO && !stream_hello_read(&frame, &c->hello, &err) &&
	    c->hello.role == STREAM_SOURCE)
		let_in(d, c);
	else
		link_close(c->link);
	return true;
}

static void answer_bell(struct door *d)
{
	int fd = accept4(d->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	struct caller *c = &d->caller[d->callers];

	if (fd < 0)
		return;
	/* The one that has been silent the longest makes room. */
	if (d->callers == CALLERS) {
		link_close(d->caller[0].link);
		memmove(d->caller, d->caller + 1, (CALLERS - 1) * sizeof(*c));
		c = &d->caller[--d->callers];
	}
	*c = (struct caller){.since = link_now()};
	if (!link_open(&c->link, fd, 0, -1))
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

int door_open(struct door **out, const char *address, bool open, struct stream_error *err)
{
	struct door *d = calloc(1, sizeof(*d));
	sigset_t all, old;
	int ret;

	*out = NULL;
	if (!d)
		return stream_fail(err, NULL, -ENOMEM, "no memory");
	d->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	d->ready_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK | EFD_SEMAPHORE);
	pthread_mutex_init(&d->lock, NULL);
	d->listen_fd = address_listen(address, open, d->address, sizeof(d->address), err);
	ret = d->listen_fd < 0 ? d->listen_fd : 0;
	if (!ret) {
		sigfillset(&all);
		pthread_sigmask(SIG_BLOCK, &all, &old);
		ret = -pthread_create(&d->thread, NULL, door_main, d);
		pthread_sigmask(SIG_SETMASK, &old, NULL);
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

int door_fd(const struct door *d)
{
	return d->ready_fd;
}

int door_next(struct door *d, int timeout_ms, int wake_fd, struct link **link,
	      struct stream_hello *hello)
{
	struct pollfd pfd[2] = {{.fd = d->ready_fd, .events = POLLIN},
				{.fd = wake_fd, .events = POLLIN}};
	uint64_t one;
	int n;

	do
		n = poll(pfd, 2, timeout_ms);
	while (n < 0 && errno == EINTR);
	if (n > 0 && pfd[1].revents)
		return -ECANCELED;
	if (n <= 0 || read(d->ready_fd, &one, sizeof(one)) != sizeof(one))
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
