/* How much a connection's kernel queues in front of what is more urgent. */
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "migration/link.h"
#include "check.h"

#ifndef SO_BUF_LOCK
#define SO_BUF_LOCK 72
#endif

static int option(const struct link *l, int name)
{
	int value = -1;
	socklen_t len = sizeof(value);

	return getsockopt(l->fd, SOL_SOCKET, name, &value, &len) ? -1 : value;
}

/* Over loopback: fd[0] has called fd[1]. */
static int connection(int fd[2])
{
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(to);
	int door = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), ret;

	fd[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	ret = bind(door, (struct sockaddr *)&to, len) || listen(door, 1) ||
	      getsockname(door, (struct sockaddr *)&to, &len) ||
	      connect(fd[0], (struct sockaddr *)&to, len);
	fd[1] = ret ? -1 : accept(door, NULL, NULL);
	close(door);
	return fd[1] < 0 ? -1 : 0;
}

int main(void)
{
	struct link *l = NULL;
	int fd[2], low, high;

	if (connection(fd)) {
		printf("no loopback\n");
		return 77;
	}
	CHECK(!link_open(&l, fd[0], 0, -1, NULL));
	/* 64 KiB; then what goes in 2 ms, and what the connection has carried in two round trips of
	 * loopback. */
	link_bound(l, 0);
	low = option(l, SO_SNDBUF);
	CHECK(low >= 64 << 10 && low < 80 << 10);
	link_bound(l, 50000000);
	high = option(l, SO_SNDBUF);
	CHECK(high >= low + 100000 && high < low + 116000);
	link_bound(l, 0);
	CHECK(option(l, SO_SNDBUF) < 80 << 10);
	/* More than a user may have is the kernel's business. */
	if (option(l, SO_BUF_LOCK) >= 0) {
		CHECK((option(l, SO_BUF_LOCK) & 1) == 1);
		link_bound(l, 1ull << 40);
		CHECK((option(l, SO_BUF_LOCK) & 1) == 0);
		link_bound(l, 0);
		CHECK(option(l, SO_SNDBUF) < 80 << 10);
	}
	link_close(l);
	close(fd[1]);
	return 0;
}
