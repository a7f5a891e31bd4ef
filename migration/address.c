#include "migration/address.h"

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "migration/await.h"
#include "migration/resolve.h"
#include "migration/unix_socket.h"

struct parts {
	bool unix_path;
	char host[256], port[16];
	const char *path;
};

static int malformed(const char *address, struct stream_error *err)
{
	return stream_fail(err, NULL, -EINVAL, "%s is no address: it is tcp:HOST:PORT or unix:PATH",
			   address);
}

static int split(const char *address, struct parts *p, struct stream_error *err)
{
	const char *host = address + 4, *colon = strrchr(address, ':');
	size_t len;
	char *end;

	*p = (struct parts){0};
	if (!strncmp(address, "unix:", 5)) {
		p->unix_path = true;
		p->path = address + 5;
		if (!*p->path)
			return malformed(address, err);
		return 0;
	}
	if (strncmp(address, "tcp:", 4) != 0 || colon < host)
		return malformed(address, err);
	len = (size_t)(colon - host);
	if (len > 1 && host[0] == '[' && host[len - 1] == ']') {
		host++;
		len -= 2;
	}
	if (!len || len >= sizeof(p->host) || strlen(colon + 1) >= sizeof(p->port))
		return malformed(address, err);
	memcpy(p->host, host, len);
	snprintf(p->port, sizeof(p->port), "%s", colon + 1);
	if (!*p->port || strtoul(p->port, &end, 10) > 65535 || *end)
		return malformed(address, err);
	return 0;
}

int address_check(const char *address, struct stream_error *err)
{
	struct parts parts;

	return split(address, &parts, err);
}

void address_host(const char *address, char *host, size_t len)
{
	struct parts parts;

	snprintf(host, len, "%s", split(address, &parts, NULL) ? "" : parts.host);
}

/* 0 or -errno. */
static int finish_connect(int fd, int timeout_ms, int wake_fd)
{
	socklen_t len = sizeof(int);
	int code = 0, ret = await_fd(fd, POLLOUT, timeout_ms, wake_fd);

	if (ret)
		return ret;
	return getsockopt(fd, SOL_SOCKET, SO_ERROR, &code, &len) ? -errno : -code;
}

static int try_connect(int family, const struct sockaddr *address, socklen_t len, int timeout_ms,
		       int wake_fd)
{
	int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), ret = 0;

	if (fd < 0)
		return -errno;
	if (connect(fd, address, len))
		ret = errno == EINPROGRESS ? finish_connect(fd, timeout_ms, wake_fd) : -errno;
	if (ret) {
		close(fd);
		return ret;
	}
	return fd;
}

static int connect_unix(const char *path, int timeout_ms, int wake_fd)
{
	struct sockaddr_un sun;
	const char *name;
	int dir = socket_folder(path, &name, NULL), ret;

	if (dir < 0)
		return dir;
	ret = socket_address(&sun, dir, name, NULL);
	if (!ret)
		ret = try_connect(AF_UNIX, (struct sockaddr *)&sun, sizeof(sun), timeout_ms,
				  wake_fd);
	close(dir);
	return ret;
}

int address_connect(const char *address, int timeout_ms, int wake_fd, struct stream_error *err)
{
	struct addrinfo *all = NULL;
	struct parts parts;
	int ret = split(address, &parts, err), fd = -1;

	if (ret)
		return ret;
	if (parts.unix_path) {
		fd = connect_unix(parts.path, timeout_ms, wake_fd);
	} else {
		ret = resolve_name(parts.host, parts.port, false, timeout_ms, wake_fd, &all, err);
		if (ret)
			return ret;
		for (struct addrinfo *a = all; a && fd < 0; a = a->ai_next)
			fd = try_connect(a->ai_family, a->ai_addr, a->ai_addrlen, timeout_ms,
					 wake_fd);
		freeaddrinfo(all);
	}
	return fd < 0 ? stream_fail(err, NULL, fd, "%s: %s", address, strerror(-fd)) : fd;
}

/* ---- listening -------------------------------------------------------------------------- */

static bool is_loopback(const struct sockaddr *address)
{
	const struct sockaddr_in *in = (const struct sockaddr_in *)address;
	const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)address;

	return address->sa_family == AF_INET ? ntohl(in->sin_addr.s_addr) >> 24 == 127
					     : IN6_IS_ADDR_LOOPBACK(&in6->sin6_addr);
}

static int listen_unix(const char *address, const struct parts *p, struct stream_error *err)
{
	struct stream_error why;
	const char *name;
	int dir = socket_folder(p->path, &name, &why), fd;

	if (dir < 0)
		return stream_fail(err, NULL, dir, "%s: %s", address, why.text);
	fd = socket_listen(dir, name, 16, &why);
	close(dir);
	return fd < 0 ? stream_fail(err, NULL, fd, "%s: %s", address, why.text) : fd;
}

static int listen_tcp(const char *address, const struct parts *p, bool open,
		      struct stream_error *err)
{
	struct addrinfo *all = NULL;
	int ret = resolve_name(p->host, p->port, true, -1, -1, &all, err), fd, one = 1;

	if (ret)
		return ret;
	if (!open && !is_loopback(all->ai_addr)) {
		freeaddrinfo(all);
		return stream_fail(err, NULL, -EPERM,
				   "%s can be reached by other hosts, and whoever reaches it can "
				   "send a guest: say --tls-psk FILE or --tls-certs DIR, listen at "
				   "127.0.0.1 or a unix socket (behind ssh), or say --insecure",
				   address);
	}
	fd = socket(all->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	ret = fd < 0 ? -errno : 0;
	if (!ret) {
		(void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
		if (bind(fd, all->ai_addr, all->ai_addrlen) || listen(fd, 16))
			ret = -errno;
	}
	freeaddrinfo(all);
	if (!ret)
		return fd;
	if (fd >= 0)
		close(fd);
	return stream_fail(err, NULL, ret, "%s: %s", address, strerror(-ret));
}

static void say_bound(const char *address, const struct parts *p, int fd, char *bound, size_t len)
{
	struct sockaddr_storage at;
	socklen_t at_len = sizeof(at);
	char port[16] = "";

	if (p->unix_path || getsockname(fd, (struct sockaddr *)&at, &at_len) ||
	    getnameinfo((struct sockaddr *)&at, at_len, NULL, 0, port, sizeof(port),
			NI_NUMERICSERV))
		snprintf(bound, len, "%s", address);
	else
		snprintf(bound, len, strchr(p->host, ':') ? "tcp:[%s]:%s" : "tcp:%s:%s", p->host,
			 port);
}

int address_listen(const char *address, bool open, char *bound, size_t len,
		   struct stream_error *err)
{
	struct parts parts;
	int ret = split(address, &parts, err), fd;

	if (ret)
		return ret;
	fd = parts.unix_path ? listen_unix(address, &parts, err)
			     : listen_tcp(address, &parts, open, err);
	if (fd < 0)
		return fd;
	say_bound(address, &parts, fd, bound, len);
	return fd;
}

void address_unlisten(const char *address, int fd)
{
	if (fd < 0)
		return;
	if (!strncmp(address, "unix:", 5))
		(void)unlink(address + 5);
	close(fd);
}
