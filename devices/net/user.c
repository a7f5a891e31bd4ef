/*
 * User mode networking: libslirp, a TCP/IP stack in this process that speaks for the guest through
 * ordinary sockets. It lives on the loop's thread.
 */
#include "devices/net/user.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "devices/util.h"

enum { STACK_MTU = 65521 };
/* ---- turns ---- */

static void ready(void *opaque, uint32_t events)
{
	(void)events;
	user_turn(opaque);
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
	return (int64_t)user_now(opaque);
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
	user_forget(opaque, fd);
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
	u->last_input = user_now(u);
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
	user_reassemble_free(u);
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
	u->work = u->host.works->create(u->host.works->opaque, user_turn, u);
	u->timer = u->host.timers->create(u->host.timers->opaque, user_turn, u, "user network");
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
		ret = config->later ? 0 : user_forwards_open(u, why, why_len);
	}
	if (ret && u)
		user_destroy(&u->net);
	if (!ret)
		*out = &u->net;
	return ret;
}
