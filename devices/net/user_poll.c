/*
 * The stack's descriptors and timers. It is asked which it waits for after everything that may have
 * changed that (frames of the guest's in one turn count as one), and only changes reach the kernel.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include "devices/net/user.h"
#include "devices/util.h"

enum { EVENTS = 64 /* of the stack's in a turn */ };
/* The stack names a second when it has nothing to wait for, except for an answer to ARP. */
enum { IDLE_MS = 1000, ARP_SECONDS = 3 };

static const struct {
	int slirp;
	uint32_t epoll;
} event_bits[] = {{SLIRP_POLL_IN, EPOLLIN},
		  {SLIRP_POLL_OUT, EPOLLOUT},
		  {SLIRP_POLL_PRI, EPOLLPRI},
		  {SLIRP_POLL_ERR, EPOLLERR},
		  {SLIRP_POLL_HUP, EPOLLHUP}};
enum { EVENT_BITS = sizeof(event_bits) / sizeof(event_bits[0]) };

static struct user_fd *entry(struct user *u, int fd)
{
	if (fd >= u->fds_len) {
		const int len = (fd | 63) + 1;
		struct user_fd *fds = realloc(u->fds, (size_t)len * sizeof(*fds));

		if (!fds)
			return NULL;
		memset(fds + u->fds_len, 0, (size_t)(len - u->fds_len) * sizeof(*fds));
		u->fds = fds;
		u->fds_len = len;
	}
	return &u->fds[fd];
}

static void forget(struct user *u, int fd)
{
	struct user_fd *f = &u->fds[fd];
	const int other = u->active[--u->active_len];

	u->active[f->active] = other;
	u->fds[other].active = f->active;
	*f = (struct user_fd){0};
	/* Closed already, perhaps. */
	(void)epoll_ctl(u->epoll_fd, EPOLL_CTL_DEL, fd, NULL);
}

void user_forget(struct user *u, int fd)
{
	if (fd >= 0 && fd < u->fds_len && u->fds[fd].events)
		forget(u, fd);
}

static bool remember(struct user *u, int fd)
{
	if (u->active_len == u->active_cap) {
		const unsigned cap = u->active_cap ? 2 * u->active_cap : 64;
		int *active = realloc(u->active, cap * sizeof(*active));

		if (!active)
			return false;
		u->active = active;
		u->active_cap = cap;
	}
	u->fds[fd].active = u->active_len;
	u->active[u->active_len++] = fd;
	return true;
}

/* A number can stand for another descriptor than it did: closed and opened again. */
static bool set_events(struct user *u, int fd, uint32_t events)
{
	struct epoll_event event = {.events = events, .data.fd = fd};

	return !epoll_ctl(u->epoll_fd, EPOLL_CTL_MOD, fd, &event) ||
	       (errno == ENOENT && !epoll_ctl(u->epoll_fd, EPOLL_CTL_ADD, fd, &event));
}

struct refill {
	struct user *u;
	int newest;
};

static int add_poll(int fd, int events, void *opaque)
{
	struct refill *r = opaque;
	struct user *u = r->u;
	struct user_fd *f = entry(u, fd);
	uint32_t wanted = 0;

	for (unsigned i = 0; i < EVENT_BITS; i++) {
		if (events & event_bits[i].slirp)
			wanted |= event_bits[i].epoll;
	}
	if (!f || !wanted)
		return -1;
	if (f->events != wanted) {
		if (!f->events) {
			if (!remember(u, fd))
				return -1;
			r->newest = fd;
		}
		f->events = wanted;
		if (!set_events(u, fd, wanted)) {
			forget(u, fd);
			return -1;
		}
	}
	f->round = u->round;
	return fd;
}

static int get_events(int fd, void *opaque)
{
	const struct user *u = opaque;
	int events = 0;

	if (fd < 0 || fd >= u->fds_len)
		return 0;
	for (unsigned i = 0; i < EVENT_BITS; i++) {
		if (u->fds[fd].happened & event_bits[i].epoll)
			events |= event_bits[i].slirp;
	}
	return events;
}

int user_refill(struct user *u)
{
	struct refill r = {u, -1};
	uint32_t timeout = UINT32_MAX;

	u->round++;
	slirp_pollfds_fill(u->slirp, &timeout, add_poll, &r);
	for (unsigned i = u->active_len; i--;) {
		if (u->fds[u->active[i]].round != u->round)
			forget(u, u->active[i]);
	}
	if (timeout >= IDLE_MS && user_now(u) - u->last_input > ARP_SECONDS * NS_PER_S)
		u->host.timers->set(u->timer, 0);
	else
		u->host.timers->set(u->timer, user_now(u) + timeout * (NS_PER_S / 1000));
	return r.newest;
}

void user_turn(void *opaque)
{
	struct user *u = opaque;
	struct epoll_event events[EVENTS];
	int n = epoll_wait(u->epoll_fd, events, EVENTS, 0);

	for (int i = 0; i < n; i++)
		u->fds[events[i].data.fd].happened = events[i].events;
	slirp_pollfds_poll(u->slirp, n < 0, get_events, u);
	for (int i = 0; i < n; i++)
		u->fds[events[i].data.fd].happened = 0;
	user_refill(u);
	user_notify(u);
}
