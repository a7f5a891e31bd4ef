#include "migration/await.h"

#include <errno.h>
#include <poll.h>

int await_fd(int fd, short events, int timeout_ms, int wake_fd)
{
	struct pollfd pfd[2] = {{.fd = fd, .events = events}, {.fd = wake_fd, .events = POLLIN}};
	int n;

	do
		n = poll(pfd, 2, timeout_ms);
	while (n < 0 && errno == EINTR);
	if (n > 0 && pfd[1].revents)
		return -ECANCELED;
	if (n <= 0)
		return n ? -errno : -ETIMEDOUT;
	return 0;
}
