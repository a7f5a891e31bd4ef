#include "migration/resolve.h"

#include <errno.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "migration/await.h"
#include "migration/thread.h"

/* Of a resolver that hangs: each is a thread. */
enum { MOST_UNANSWERED = 8 };
static atomic_int unanswered;

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
	atomic_fetch_sub(&unanswered, 1);
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
	atomic_fetch_add(&unanswered, 1);
	if (q->host && q->port && q->answered >= 0 && !thread_start(&thread, ask, q)) {
		pthread_detach(thread);
		return q;
	}
	atomic_fetch_sub(&unanswered, 1);
	atomic_store(&q->owners, 1);
	let_go(q);
	return NULL;
}

int resolve_name(const char *host, const char *port, bool passive, int timeout_ms, int wake_fd,
		 struct addrinfo **out, struct stream_error *err)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM,
				 .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV |
					     (passive ? AI_PASSIVE : 0)};
	struct question *q;
	uint64_t count;
	int ret = getaddrinfo(host, port, &hints, out);

	if (!ret)
		return 0;
	hints.ai_flags &= ~AI_NUMERICHOST;
	if (atomic_load(&unanswered) >= MOST_UNANSWERED)
		return stream_fail(err, NULL, -EBUSY,
				   "%s: the resolver has not answered %d earlier questions yet",
				   host, MOST_UNANSWERED);
	q = question(host, port, &hints);
	if (!q)
		return stream_fail(err, NULL, -ENOMEM, "%s: no memory to ask for it", host);
	ret = await_fd(q->answered, POLLIN, timeout_ms, wake_fd);
	if (!ret && read(q->answered, &count, sizeof(count)) != sizeof(count))
		ret = -EIO;
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
