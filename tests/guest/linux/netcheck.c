/*
 * Network checks inside of a guest:
 *   netcheck many ADDRESS PORT N     N connections at a time to an echo server, each with its own
 * bytes netcheck udp ADDRESS PORT        datagrams of many sizes to an echo server and back
 *   netcheck serve PORT              echoes TCP and UDP, IPv4 and IPv6, until it is killed
 * Prints what is wrong; 0: nothing.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { PIECE = 6000, CLIENTS_MAX = 256 };

static int fail(const char *what)
{
	printf("netcheck: %s: %s\n", what, strerror(errno));
	return 1;
}

static int open_to(const char *address, const char *port, int type)
{
	const uint16_t number = htons((uint16_t)atoi(port));
	struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_port = number};
	struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = number};
	const int v6 = inet_pton(AF_INET6, address, &in6.sin6_addr) == 1;
	const struct sockaddr *to = v6 ? (struct sockaddr *)&in6 : (struct sockaddr *)&in;
	int fd = socket(v6 ? AF_INET6 : AF_INET, type, 0);

	if (!v6 && inet_pton(AF_INET, address, &in.sin_addr) != 1)
		return -1;
	if (!connect(fd, to, v6 ? sizeof(in6) : sizeof(in)))
		return fd;
	close(fd);
	return -1;
}

static void fill(char *buf, size_t len, unsigned seed)
{
	for (size_t i = 0; i < len; i++) {
		seed = seed * 1103515245 + 12345;
		buf[i] = (char)(seed >> 16);
	}
}

static int read_all(int fd, char *buf, size_t len)
{
	for (size_t done = 0; done < len;) {
		ssize_t n = read(fd, buf + done, len - done);

		if (n <= 0)
			return -1;
		done += (size_t)n;
	}
	return 0;
}

static int many(const char *address, const char *port, int count)
{
	static int fd[CLIENTS_MAX];
	static char want[PIECE], got[PIECE];

	if (count > CLIENTS_MAX)
		return fail("too many");
	for (int i = 0; i < count; i++) {
		fd[i] = open_to(address, port, SOCK_STREAM);
		if (fd[i] < 0)
			return fail("connect");
	}
	/* All of them are open and have something under way. */
	for (int i = 0; i < count; i++) {
		fill(want, PIECE, (unsigned)i);
		if (write(fd[i], want, PIECE) != PIECE)
			return fail("write");
	}
	for (int i = 0; i < count; i++) {
		fill(want, PIECE, (unsigned)i);
		if (read_all(fd[i], got, PIECE))
			return fail("read");
		if (memcmp(want, got, PIECE)) {
			printf("netcheck: connection %d has the bytes of another\n", i);
			return 1;
		}
	}
	for (int i = 0; i < count; i++)
		close(fd[i]);
	printf("netcheck: %d connections at a time\n", count);
	return 0;
}

static int udp(const char *address, const char *port)
{
	static const size_t sizes[] = {1, 17, 512, 1400, 1472, 1473, 2000, 4096, 9000, 20000};
	static char want[20000], got[20001];
	int fd = open_to(address, port, SOCK_DGRAM);

	if (fd < 0)
		return fail("socket");
	for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		struct pollfd ready = {fd, POLLIN, 0};
		ssize_t n = -1;

		fill(want, sizes[i], i);
		/* Datagrams may be lost; not again and again. */
		for (int tries = 0; tries < 5 && n < 0; tries++) {
			if (send(fd, want, sizes[i], 0) < 0)
				return fail("send");
			if (poll(&ready, 1, 3000) == 1)
				n = recv(fd, got, sizeof(got), 0);
		}
		if (n != (ssize_t)sizes[i] || memcmp(want, got, sizes[i])) {
			printf("netcheck: %zu bytes came back as %zd\n", sizes[i], n);
			return 1;
		}
	}
	puts("netcheck: udp");
	return 0;
}

static int listener(const char *port, int type)
{
	struct sockaddr_in6 any = {.sin6_family = AF_INET6,
				   .sin6_port = htons((uint16_t)atoi(port))};
	int fd = socket(AF_INET6, type, 0), off = 0, on = 1;

	setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (bind(fd, (struct sockaddr *)&any, sizeof(any)) ||
	    (type == SOCK_STREAM && listen(fd, 128)))
		return -1;
	return fd;
}

static void echo_datagram(int fd)
{
	static char buf[65536];
	struct sockaddr_storage from;
	socklen_t len = sizeof(from);
	ssize_t n = recvfrom(fd, buf, sizeof(buf), 0, (struct sockaddr *)&from, &len);

	if (n >= 0)
		sendto(fd, buf, (size_t)n, 0, (struct sockaddr *)&from, len);
}

/* False: the other side has ended it. */
static int echo_stream(int fd)
{
	static char buf[65536];
	ssize_t n = read(fd, buf, sizeof(buf));

	for (ssize_t done = 0, m; done < n; done += m) {
		m = write(fd, buf + done, (size_t)(n - done));
		if (m <= 0)
			return 0;
	}
	return n > 0;
}

static int serve(const char *port)
{
	static struct pollfd fds[2 + CLIENTS_MAX];
	int count = 2;

	fds[0] = (struct pollfd){listener(port, SOCK_STREAM), POLLIN, 0};
	fds[1] = (struct pollfd){listener(port, SOCK_DGRAM), POLLIN, 0};
	if (fds[0].fd < 0 || fds[1].fd < 0)
		return fail("listen");
	puts("netcheck: serving");
	while (poll(fds, (nfds_t)count, -1) >= 0) {
		if (fds[1].revents)
			echo_datagram(fds[1].fd);
		for (int i = count - 1; i >= 2; i--) {
			if (!fds[i].revents || echo_stream(fds[i].fd))
				continue;
			close(fds[i].fd);
			fds[i] = fds[--count];
		}
		if (fds[0].revents && count < 2 + CLIENTS_MAX) {
			int fd = accept(fds[0].fd, NULL, NULL);

			if (fd >= 0)
				fds[count++] = (struct pollfd){fd, POLLIN, 0};
		}
	}
	return fail("poll");
}

int main(int argc, char **argv)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (argc == 5 && !strcmp(argv[1], "many"))
		return many(argv[2], argv[3], atoi(argv[4]));
	if (argc == 4 && !strcmp(argv[1], "udp"))
		return udp(argv[2], argv[3]);
	if (argc == 3 && !strcmp(argv[1], "serve"))
		return serve(argv[2]);
	fputs("usage: netcheck many ADDRESS PORT N | udp ADDRESS PORT | serve PORT\n", stderr);
	return 2;
}
