/* Guest memory that comes after the guest: which pages are not here, and who wants them. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "vmm/incoming_internal.h"

/* Until a guest that has just come has found its pace, or has been sent on. */
enum { GATHER_MS = 10000 };

/* By a vCPU or a device that has met a missing page: once for each. */
static void want(void *opaque, struct s2_thread *t, uint64_t gpa)
{
	struct incoming *in = opaque;
	const uint64_t one = 1;

	(void)t;
	pthread_mutex_lock(&in->wanted.lock);
	in->wanted.page[in->wanted.tail++] = gpa / STREAM_PAGE;
	pthread_mutex_unlock(&in->wanted.lock);
	(void)!write(in->wanted.fd, &one, sizeof(one));
}

static int begin(struct incoming *in, struct stream_error *err)
{
	const struct s2_missing_ops ops = {.opaque = in, .request = want};
	int ret;

	pthread_mutex_init(&in->wanted.lock, NULL);
	in->wanted.made = true;
	in->wanted.page = calloc(in->vm->memory.size / STREAM_PAGE, sizeof(*in->wanted.page));
	in->wanted.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (!in->wanted.page || in->wanted.fd < 0)
		return stream_fail(err, NULL, -ENOMEM, "no memory");
	ret = s2_thread_init(&in->s2, in->vm->memory.s2, "arriving pages");
	if (!ret)
		ret = memory_missing_start(&in->vm->memory, &ops);
	/* Out of a file many come at once, in order. */
	if (!ret && !in->fresh)
		memory_allow_huge(&in->vm->memory, false);
	return ret ? stream_fail(err, NULL, ret, "pages cannot be missing here: %s", strerror(-ret))
		   : 0;
}

int incoming_miss(struct incoming *in, uint64_t first, uint64_t pages, const uint64_t *bitmap,
		  struct stream_error *err)
{
	int64_t n;
	int ret = in->wanted.made ? 0 : begin(in, err);

	if (ret)
		return ret;
	n = s2_missing_mark(in->vm->memory.vmm, first * STREAM_PAGE, pages, bitmap);
	return n < 0 ? stream_fail(err, NULL, (int)n, "cannot mark missing pages") : 0;
}

int64_t incoming_bring(struct incoming *in, uint64_t first, uint32_t count, const void *data)
{
	if (!data && in->fresh)
		return memory_bring_untouched(&in->vm->memory, in->s2, first * STREAM_PAGE,
					      (uint64_t)count * STREAM_PAGE);
	return memory_bring(&in->vm->memory, in->s2, first * STREAM_PAGE, data,
			    (uint64_t)count * STREAM_PAGE);
}

bool incoming_wanted(struct incoming *in, uint64_t *page)
{
	uint64_t rung;
	bool any;

	do {
		pthread_mutex_lock(&in->wanted.lock);
		any = in->wanted.head < in->wanted.tail;
		if (any)
			*page = in->wanted.page[in->wanted.head++];
		else /* who comes later rings again */
			(void)!read(in->wanted.fd, &rung, sizeof(rung));
		pthread_mutex_unlock(&in->wanted.lock);
		/* Of those that are named again some have come. */
	} while (any && s2_page_state(in->s2, *page * STREAM_PAGE) != S2_PAGE_REQUESTED);
	return any;
}

void incoming_want_again(struct incoming *in)
{
	pthread_mutex_lock(&in->wanted.lock);
	in->wanted.head = 0;
	pthread_mutex_unlock(&in->wanted.lock);
}

uint64_t incoming_awaited(struct incoming *in, uint64_t page)
{
	uint64_t gpa = s2_missing_next(in->s2, page * STREAM_PAGE, S2_PAGES_AWAITED);

	return gpa == UINT64_MAX ? gpa : gpa / STREAM_PAGE;
}

int incoming_complete(struct incoming *in, struct stream_error *err)
{
	int ret = memory_missing_stop(&in->vm->memory);

	if (!ret && !in->fresh) {
		memory_allow_huge(&in->vm->memory, true);
		memory_gather(&in->vm->memory, GATHER_MS);
	}
	return ret ? stream_fail(err, NULL, ret, "pages are missing: %s", strerror(-ret)) : 0;
}

void incoming_missing_exit(struct incoming *in)
{
	if (!in->wanted.made)
		return;
	if (in->s2)
		s2_thread_exit(in->s2);
	close(in->wanted.fd);
	free(in->wanted.page);
	pthread_mutex_destroy(&in->wanted.lock);
	in->wanted.made = false;
}
