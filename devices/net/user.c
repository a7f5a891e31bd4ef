/*
 * User mode networking: libslirp, a TCP/IP stack in this process that speaks for the guest through
 * ordinary sockets. It lives on the loop's thread.
 *
 * The stack is asked which descriptors it waits for after everything that may have changed that
 * (frames of the guest's in one turn count as one), and only changes reach the kernel.
 */
#include "devices/net/user.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "devices/util.h"

enum { EVENTS = 64 /* of the stack's in a turn */ };
enum { STACK_MTU = 65521 };
/* The stack names a second when it has nothing to wait for, except for an answer to ARP. */
enum { IDLE_MS = 1000, ARP_SECONDS = 3 };

static uint64_t now(const struct user *u)
{
	return u->host.clock->now(u->host.clock->opaque);
}

/* ---- descriptors ---- */

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
	if (timeout >= IDLE_MS && now(u) - u->last_input > ARP_SECONDS * NS_PER_S)
		u->host.timers->set(u->timer, 0);
	else
		u->host.timers->set(u->timer, now(u) + timeout * (NS_PER_S / 1000));
	return r.newest;
}

/* ---- turns ---- */

static void turn(void *opaque)
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

static void ready(void *opaque, uint32_t events)
{
	(void)events;
	turn(opaque);
}

/* ---- what the stack needs ---- */

struct user_timer {
	struct user *u;
	SlirpTimerCb fn;
	void *arg;
	struct vtimer *timer;
};

static void timer_fired(void *opaque)
{
	struct user_timer *t = opaque;
	struct user *u = t->u;

	t->fn(t->arg); /* may free the timer */
	user_notify(u);
}

static void *timer_new(SlirpTimerCb fn, void *arg, void *opaque)
{
	struct user *u = opaque;
	struct user_timer *t = calloc(1, sizeof(*t));

	if (!t)
		return NULL;
	*t = (struct user_timer){u, fn, arg, NULL};
	t->timer = u->host.timers->create(u->host.timers->opaque, timer_fired, t, "user network");
	if (!t->timer) {
		free(t);
		return NULL;
	}
	return t;
}

static void timer_free(void *timer, void *opaque)
{
	struct user_timer *t = timer;
	struct user *u = opaque;

	if (t)
		u->host.timers->destroy(t->timer);
	free(t);
}

static void timer_mod(void *timer, int64_t expire_ms, void *opaque)
{
	struct user_timer *t = timer;
	struct user *u = opaque;

	/* Zero would be "never". */
	if (t)
		u->host.timers->set(t->timer,
				    (uint64_t)(expire_ms < 1 ? 1 : expire_ms) * (NS_PER_S / 1000));
}

static int64_t clock_ns(void *opaque)
{
	return (int64_t)now(opaque);
}

static void guest_error(const char *msg, void *opaque)
{
	(void)opaque;
	dev_log("user network", "%s", msg);
}

static void register_fd(int fd, void *opaque)
{
	(void)fd, (void)opaque; /* the next turn hears of it */
}

static void unregister_fd(int fd, void *opaque)
{
	struct user *u = opaque;

	if (fd >= 0 && fd < u->fds_len && u->fds[fd].events)
		forget(u, fd);
}

static void notify(void *opaque)
{
	struct user *u = opaque;

	u->host.works->post(u->work);
}

static const SlirpCb callbacks = {
	.send_packet = user_output,
	.guest_error = guest_error,
	.clock_get_ns = clock_ns,
	.timer_new = timer_new,
	.timer_free = timer_free,
	.timer_mod = timer_mod,
	.register_poll_fd = register_fd,
	.unregister_poll_fd = unregister_fd,
	.notify = notify,
};

/* ---- the back end ---- */

static void attach(struct net *net, const struct net_client *client)
{
	struct user *u = (struct user *)net;

	u->client = client ? *client : (struct net_client){0};
	u->wanted = false;
}

static int user_send(struct net *net, unsigned n, const struct iovec *iov, unsigned iovs)
{
	struct user *u = (struct user *)net;

	(void)n;
	u->last_input = now(u);
	user_input(u, iov, iovs);
	u->host.works->post(u->work);
	return 0;
}

static size_t user_peek(struct net *net, unsigned n, const uint8_t **packet)
{
	struct user *u = (struct user *)net;

	(void)n;
	if (!u->first)
		return 0;
	*packet = u->first->data;
	return u->first->len;
}

static void user_taken(struct net *net, unsigned n)
{
	struct user *u = (struct user *)net;
	struct user_packet *p = u->first;

	(void)n;
	u->first = p->next;
	if (!u->first)
		u->last = &u->first;
	u->bytes -= p->len;
	u->frames--;
	free(p);
}

static void user_want(struct net *net, unsigned n, bool on)
{
	struct user *u = (struct user *)net;

	(void)n;
	if (on && !u->wanted && u->first)
		u->host.works->post(u->work);
	u->wanted = on;
}

static void user_negotiated(struct net *net, unsigned offloads, unsigned pairs)
{
	struct user *u = (struct user *)net;

	(void)pairs;
	/* What waits was made for another driver. */
	if (u->accepts & ~offloads)
		user_drop_all(u);
	u->accepts = offloads;
}

static int user_release(struct net *net)
{
	user_forwards_close((struct user *)net);
	return 0;
}

static int user_acquire(struct net *net, const uint8_t mac[6])
{
	char why[256];
	int ret = user_forwards_open((struct user *)net, why, sizeof(why));

	(void)mac;
	if (ret)
		dev_log("user network", "%s", why);
	return ret;
}

static void user_inspect(struct net *net, const struct inspector *to)
{
	user_forwards_inspect((struct user *)net, to);
}

static void user_destroy(struct net *net)
{
	struct user *u = (struct user *)net;

	if (u->slirp)
		slirp_cleanup(u->slirp);
	if (u->watch)
		u->host.watches->del(u->watch);
	if (u->epoll_fd >= 0)
		close(u->epoll_fd);
	if (u->work)
		u->host.works->destroy(u->work);
	if (u->timer)
		u->host.timers->destroy(u->timer);
	user_drop_all(u);
	free(u->forward);
	free(u->active);
	free(u->fds);
	free(u);
}

static const struct net_ops user_ops = {
	.attach = attach,
	.send = user_send,
	.peek = user_peek,
	.taken = user_taken,
	.want = user_want,
	.negotiated = user_negotiated,
	.release = user_release,
	.acquire = user_acquire,
	.inspect = user_inspect,
	.destroy = user_destroy,
};

static int start_stack(struct user *u, const struct net_user_config *config)
{
	/* All addresses are what QEMU's users know. */
	const SlirpConfig slirp = {
		.version = 1,
		.restricted = config->restricted,
		.in_enabled = true,
		.vnetwork.s_addr = htonl(0x0a000200),
		.vnetmask.s_addr = htonl(0xffffff00),
		.vhost.s_addr = htonl(0x0a000202),
		.vdhcp_start.s_addr = htonl(0x0a00020f),
		.vnameserver.s_addr = htonl(0x0a000203),
		.in6_enabled = true,
		.vprefix_addr6.s6_addr = {USER_PREFIX6},
		.vprefix_len = 64,
		.vhost6.s6_addr = {USER_PREFIX6, [15] = 2},
		.vnameserver6.s6_addr = {USER_PREFIX6, [15] = 3},
		.vhostname = config->hostname,
		/* As large as it takes, larger than the guest's network: see user_frame.c. */
		.if_mtu = STACK_MTU,
		.if_mru = STACK_MTU,
	};

	u->slirp = slirp_new(&slirp, &callbacks, u);
	return u->slirp ? 0 : -ENOMEM;
}

static int start(struct user *u, const struct net_user_config *config)
{
	u->work = u->host.works->create(u->host.works->opaque, turn, u);
	u->timer = u->host.timers->create(u->host.timers->opaque, turn, u, "user network");
	if (!u->work || !u->timer)
		return -ENOMEM;
	u->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (u->epoll_fd < 0)
		return -errno;
	if (u->host.watches->add(u->host.watches->opaque, u->epoll_fd, EPOLLIN, ready, u,
				 &u->watch))
		return -ENOMEM;
	return start_stack(u, config);
}

int net_user_create(struct net **out, const struct net_user_config *config,
		    const struct backend_host *host, char *why, size_t why_len)
{
	struct user *u = calloc(1, sizeof(*u));
	int ret = -ENOMEM;

	if (u) {
		u->net = (struct net){.ops = &user_ops,
				      .pairs = 1,
				      .offloads = NET_CSUM | NET_TSO4 | NET_TSO6,
				      .link = true};
		snprintf(u->net.mechanism, sizeof(u->net.mechanism),
			 "user (libslirp %s), 10.0.2.15%s", slirp_version_string(),
			 config->restricted ? ", restricted" : "");
		u->host = *host;
		u->epoll_fd = -1;
		u->last = &u->first;
		u->guest6 = (struct in6_addr){.s6_addr = {USER_PREFIX6, [15] = 15}};
		ret = start(u, config);
	}
	if (ret) {
		snprintf(why, why_len, "cannot start the user mode network: %s", strerror(-ret));
	} else {
		u->forward = calloc(config->forwards + 1, sizeof(*u->forward));
		u->forwards = u->forward ? config->forwards : 0;
		for (unsigned i = 0; i < u->forwards; i++) {
			const struct net_forward *f = &config->forward[i];

			u->forward[i].what = *f;
			u->forwards6 |= strchr(f->host, ':') && !*f->guest;
		}
		ret = user_forwards_open(u, why, why_len);
	}
	if (ret && u)
		user_destroy(&u->net);
	if (!ret)
		*out = &u->net;
	return ret;
}
