/* Ports of the host that lead to ports of the guest. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "devices/net/frame.h"
#include "devices/net/user.h"

enum { BACKLOG = 128, TEXT = 192 };

union address {
	struct sockaddr sa;
	struct sockaddr_in in;
	struct sockaddr_in6 in6;
};

static socklen_t length(const union address *a)
{
	return a->sa.sa_family == AF_INET6 ? sizeof(a->in6) : sizeof(a->in);
}

/* "" is `family`'s unspecified address. */
static bool parse(const char *text, int family, uint16_t port, union address *out)
{
	*out = (union address){0};
	if (inet_pton(AF_INET, text, &out->in.sin_addr) == 1 || (!*text && family == AF_INET)) {
		out->in.sin_family = AF_INET;
		out->in.sin_port = htons(port);
		return true;
	}
	if (inet_pton(AF_INET6, text, &out->in6.sin6_addr) == 1 || (!*text && family == AF_INET6)) {
		out->in6.sin6_family = AF_INET6;
		out->in6.sin6_port = htons(port);
		return true;
	}
	return false;
}

static const char *host_address(const struct net_forward *f)
{
	return *f->host ? f->host : "127.0.0.1";
}

static void describe(const struct net_forward *f, char *buf, size_t len)
{
	const bool host6 = strchr(f->host, ':'), guest6 = strchr(f->guest, ':');

	snprintf(buf, len, "%s:%s%s%s:%u-%s%s%s:%u", f->udp ? "udp" : "tcp", host6 ? "[" : "",
		 host_address(f), host6 ? "]" : "", f->host_port, guest6 ? "[" : "", f->guest,
		 guest6 ? "]" : "", f->guest_port);
}

static int addresses(const struct user *u, const struct net_forward *f, union address *host,
		     union address *guest)
{
	if (!parse(host_address(f), AF_INET, f->host_port, host) ||
	    !parse(f->guest, host->sa.sa_family, f->guest_port, guest))
		return -EINVAL;
	/* IPv4's is known to the stack. What it thinks of IPv6's is the link-local one. */
	if (!*f->guest && guest->sa.sa_family == AF_INET6)
		guest->in6.sin6_addr = u->guest6;
	return host->sa.sa_family == guest->sa.sa_family ? 0 : -EAFNOSUPPORT;
}

static int flags(const struct net_forward *f)
{
	/* [::] and 0.0.0.0 are two. */
	return (f->udp ? SLIRP_HOSTFWD_UDP : 0) | SLIRP_HOSTFWD_V6ONLY;
}

static const char *remedy(int error)
{
	switch (error) {
	case EADDRINUSE: return "another program has this port; choose another one, or 0";
	case EACCES:
		return "ports this low need privileges (sysctl "
		       "net.ipv4.ip_unprivileged_port_start); "
		       "choose one from 1024 on";
	case EADDRNOTAVAIL:
		return "this host has no such address; 0.0.0.0 and [::] are all of them";
	case EAFNOSUPPORT: return "both addresses must be IPv4 or both IPv6";
	case EINVAL: return "an address is neither IPv4 nor IPv6";
	default: return strerror(error);
	}
}

/* The stack keeps one connection waiting and does not tell which port it was given. */
static void look(struct user *u, struct net_forward *f)
{
	union address bound = {0};
	socklen_t len = sizeof(bound);
	int fd = user_refill(u);

	if (fd < 0 || getsockname(fd, &bound.sa, &len))
		return;
	if (!f->udp)
		(void)listen(fd, BACKLOG);
	f->host_port =
		ntohs(bound.sa.sa_family == AF_INET6 ? bound.in6.sin6_port : bound.in.sin_port);
}

static int open_one(struct user *u, struct user_forward *forward, char *why, size_t why_len)
{
	struct net_forward *f = &forward->what;
	union address host, guest;
	char text[TEXT];
	int ret = addresses(u, f, &host, &guest);

	if (!ret && slirp_add_hostxfwd(u->slirp, &host.sa, length(&host), &guest.sa, length(&guest),
				       flags(f)))
		ret = errno ? -errno : -EINVAL;
	if (ret) {
		describe(f, text, sizeof(text));
		snprintf(why, why_len, "hostfwd=%s: %s", text, remedy(-ret));
		return ret;
	}
	forward->open = true;
	look(u, f);
	return 0;
}

int user_forwards_open(struct user *u, char *why, size_t why_len)
{
	int ret = 0;

	user_refill(u); /* so that what is new afterwards is the forward's */
	for (unsigned i = 0; i < u->forwards && !ret; i++) {
		if (!u->forward[i].open)
			ret = open_one(u, &u->forward[i], why, why_len);
	}
	if (ret)
		user_forwards_close(u);
	return ret;
}

static void close_one(struct user *u, struct user_forward *forward)
{
	const struct net_forward *f = &forward->what;
	union address host, guest;

	if (forward->open && !addresses(u, f, &host, &guest))
		(void)slirp_remove_hostxfwd(u->slirp, &host.sa, length(&host), flags(f));
	forward->open = false;
}

void user_forwards_close(struct user *u)
{
	for (unsigned i = 0; i < u->forwards; i++)
		close_one(u, &u->forward[i]);
}

/* An IPv6 address of the guest's own: of the source, or of what it asks for before it takes it
 * (RFC 4862, 5.4); NULL: none in there. */
static const uint8_t *own_address(const struct user *u, const uint8_t *frame, size_t len)
{
	enum { SOURCE = 8, NEXT_HEADER = 6, ICMP6 = 58, SOLICITATION = 135, TARGET = 48 };
	static const uint8_t prefix[8] = {USER_PREFIX6}, none[16];
	const uint8_t *ip = frame + NET_ETHERNET, *address = ip + SOURCE;

	if (len < NET_ETHERNET + TARGET + 16 || frame_get16(frame + 12) != 0x86dd)
		return NULL;
	if (!memcmp(address, none, sizeof(none)) && ip[NEXT_HEADER] == ICMP6 &&
	    ip[40] == SOLICITATION)
		address = ip + TARGET;
	else if (u->known6)
		return NULL; /* temporary addresses come and go: the last that was taken counts */
	return memcmp(address, prefix, sizeof(prefix)) ? NULL : address;
}

void user_forwards_learn(struct user *u, const uint8_t *frame, size_t len)
{
	const uint8_t *address = own_address(u, frame, len);
	char why[256];

	if (!address)
		return;
	u->known6 = true;
	if (!memcmp(&u->guest6, address, sizeof(u->guest6)))
		return;
	memcpy(&u->guest6, address, sizeof(u->guest6));
	for (unsigned i = 0; i < u->forwards; i++) {
		struct net_forward *f = &u->forward[i].what;

		if (*f->guest || !strchr(f->host, ':'))
			continue;
		close_one(u, &u->forward[i]);
		if (open_one(u, &u->forward[i], why, sizeof(why)))
			dev_log("user network", "%s", why);
	}
}

void user_forwards_inspect(const struct user *u, const struct inspector *to)
{
	for (unsigned i = 0; i < u->forwards; i++) {
		char name[24], text[TEXT];

		snprintf(name, sizeof(name), "forward%u", i);
		describe(&u->forward[i].what, text, sizeof(text));
		to->text(to->opaque, name, text);
	}
}
