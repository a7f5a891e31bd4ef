/* AF_VSOCK for scripts.
 *
 *     vsock listen PORT COMMAND...   serves in the background: COMMAND for each connection, which
 *                                    is its input and its output
 *     vsock connect PORT             to the host: its input to the connection, the connection to
 *                                    its output, each to its end. 1: refused, 3: broken
 */
#include <errno.h>
#include <linux/vm_sockets.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static int failed(const char *what)
{
	fprintf(stderr, "vsock: %s: %s\n", what, strerror(errno));
	return 1;
}

static int serve(int fd, struct sockaddr_vm *addr, char **command)
{
	addr->svm_cid = VMADDR_CID_ANY;
	if (bind(fd, (struct sockaddr *)addr, sizeof(*addr)) || listen(fd, 128))
		return failed("listen");
	if (fork())
		return 0;
	signal(SIGCHLD, SIG_IGN);
	for (;;) {
		int one = accept(fd, NULL, NULL);

		if (one >= 0 && fork() == 0) {
			dup2(one, 0);
			dup2(one, 1);
			close(one);
			close(fd);
			execvp(command[0], command);
			_exit(127);
		}
		close(one);
	}
}

/* False: it has ended, or is broken. */
static int copy(int from, int to)
{
	static char buf[65536];
	ssize_t n = read(from, buf, sizeof(buf));

	for (ssize_t done = 0, m; done < n; done += m) {
		m = write(to, buf + done, (size_t)(n - done));
		if (m < 0)
			return -1;
	}
	return n < 0 ? -1 : n > 0;
}

static int talk(int fd)
{
	struct pollfd polls[2] = {{.fd = fd, .events = POLLIN}, {.fd = 0, .events = POLLIN}};
	int more = 1;

	while (more > 0) {
		poll(polls, 2, -1);
		if (polls[1].revents) {
			int ret = copy(0, fd);

			if (ret < 0)
				return 3;
			if (!ret) {
				shutdown(fd, SHUT_WR);
				polls[1].fd = -1;
			}
		}
		if (polls[0].revents)
			more = copy(fd, 1);
	}
	return more ? 3 : 0;
}

int main(int argc, char **argv)
{
	struct sockaddr_vm addr = {.svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_HOST};
	const struct timeval patience = {.tv_sec = 60};
	int fd = socket(AF_VSOCK, SOCK_STREAM, 0);

	if (fd < 0)
		return failed("socket");
	if (argc < 3)
		return 2;
	addr.svm_port = (unsigned)atoi(argv[2]);
	if (!strcmp(argv[1], "listen") && argc > 3)
		return serve(fd, &addr, argv + 3);
	/* Two seconds are little for a host that has other things to do. */
	if (setsockopt(fd, AF_VSOCK, SO_VM_SOCKETS_CONNECT_TIMEOUT, &patience, sizeof(patience)))
		return failed("setsockopt");
	if (connect(fd, (struct sockaddr *)&addr, sizeof(addr)))
		return failed("connect");
	return talk(fd);
}
