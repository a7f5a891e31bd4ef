/* Who only says that he lives, without end, keeps nobody: neither over the time that was given nor
 * from the bell. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "migration/link.h"

static struct stream_error err;
#define CHECK_TEXT err.text
#include "check.h"

enum { FRAMES = 1 << 20 };

/* Made before it is said: that takes less time than hearing it. */
static struct {
	uint8_t bytes[(size_t)(FRAMES + 1) * STREAM_HEADER];
	size_t len;
	atomic_size_t at;
	int fd;
} said;

static int put(void *opaque, const struct iovec *iov, unsigned count)
{
	(void)opaque;
	for (unsigned i = 0; i < count; i++) {
		memcpy(said.bytes + said.len, iov[i].iov_base, iov[i].iov_len);
		said.len += iov[i].iov_len;
	}
	return 0;
}

static void *flood(void *arg)
{
	while (said.at < said.len) {
		const size_t at = said.at;
		ssize_t n = send(said.fd, said.bytes + at, said.len - at, MSG_NOSIGNAL);

		if (n <= 0)
			break;
		said.at = at + (size_t)n;
	}
	return arg;
}

int main(void)
{
	const uint64_t one = 1;
	struct stream_frame frame;
	struct stream_writer w;
	struct link *l = NULL;
	pthread_t thread;
	int fd[2], bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

	CHECK(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd));
	stream_writer_init(&w, 0, put, NULL);
	/* The first frame, whatever it says. */
	CHECK(!stream_write(&w, STREAM_HELLO, 0, NULL, 0));
	for (unsigned i = 0; i < FRAMES; i++)
		CHECK(!stream_write(&w, STREAM_ALIVE, 0, NULL, 0));
	CHECK(said.len == sizeof(said.bytes));
	CHECK(!link_open(&l, fd[0], 0, -1, NULL));
	said.fd = fd[1];
	CHECK(!pthread_create(&thread, NULL, flood, NULL));
	CHECK(link_receive(l, -1, &frame, &err) == 1);

	CHECK(!link_receive(l, 1, &frame, &err));
	/* Else it was the flood that ended. */
	CHECK(said.at < said.len);
	l->bell_fd = bell;
	CHECK(write(bell, &one, sizeof(one)) == sizeof(one));
	CHECK(!link_receive(l, -1, &frame, &err));
	CHECK(said.at < said.len);

	link_close(l);
	pthread_join(thread, NULL);
	close(fd[1]);
	close(bell);
	return 0;
}
