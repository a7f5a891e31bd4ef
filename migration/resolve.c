#include "migration/resolve.h"

#include <errno.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "migration/thread.h"

/* getaddrinfo() cannot be interrupted: who asks may go before who answers. The last one frees it.
 */
struct question {
	char *host, *port;
	struct addrinfo hints, *answer;
	int code;
	int answered; /* eventfd */
	atomic_int owners;
};

static void let_go(struct question *q)
{
	if (atomic_fetch_sub(&q->owners, 1) > 1)
		return;
	if (q->answer)
		freeaddrinfo(q->answer);
	if (q->answered >= 0)
		close(q->answered);
	free(q->host);
	free(q->port);
	free(q);
}

static void *ask(void *arg)
{
	const uint64_t one = 1;
	struct question *q = arg;

	pthread_setname_np(pthread_self(), "resolver");
	q->code = getaddrinfo(q->host, q->port, &q->hints, &q->answer);
	(void)!write(q->answered, &one, sizeof(one));
	let_go(q);
	return NULL;
}

static struct question *question(const char *host, const char *port, const struct addrinfo *hints)
{
	struct question *q = calloc(1, sizeof(*q));
	pthread_t thread;

	if (!q)
		return NULL;
	atomic_init(&q->owners, 2);
	q->hints = *hints;
	q->host = strdup(host);
	q->port = strdup(port);
	q->answered = eventfd(0, EFD_CLOEXEC);
	if (q->host && q->port && q->answered >= 0 && !thread_start(&thread, ask, q)) {
		pthread_detach(thread);
		return q;
	}
	atomic_store(&q->owners, 1);
	let_go(q);
	return NULL;
}

/* 0, or -ECANCELED, -ETIMEDOUT. */
static int await(struct question *q, int timeout_ms, int wake_fd)
{
	struct pollfd pfd[2] = {{.fd = q->answered, .events = POLLIN},
				{.fd = wake_fd, .events = POLLIN}};
	uint64_t count;
	int n;

	do
		n = poll(pfd, 2, timeout_ms);
	while (n < 0 && errno == EINTR);
	if (n > 0 && pfd[1].revents)
		return -ECANCELED;
	if (n <= 0)
		return n ? -errno : -ETIMEDOUT;
	return read(q->answered, &count, sizeof(count)) == sizeof(count) ? 0 : -EIO;
}

int resolve_name(const char *host, const char *port, bool passive, int timeout_ms, int wake_fd,
		 struct addrinfo **out, struct stream_error *err)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM,
				 .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV |
					     (passive ? AI_PASSIVE : 0)};
	struct question *q;
	int ret = getaddrinfo(host, port, &hints, out);

	if (!ret)
		return 0;
	hints.ai_flags &= ~AI_NUMERICHOST;
	q = question(host, port, &hints);
	if (!q)
		return stream_fail(err, NULL, -ENOMEM, "%s: no memory to ask for it", host);
	ret = await(q, timeout_ms, wake_fd);
	if (ret == -ETIMEDOUT)
		stream_fail(err, NULL, ret, "%s: the resolver does not answer", host);
	else if (ret)
		stream_fail(err, NULL, ret, "%s: %s", host,
			    ret == -ECANCELED ? "called off" : strerror(-ret));
	else if (q->code)
		ret = stream_fail(err, NULL, -ENOENT, "%s: %s", host, gai_strerror(q->code));
	if (!ret) {
		*out = q->answer;
		q->answer = NULL;
	}
	let_go(q);
	return ret;
}
