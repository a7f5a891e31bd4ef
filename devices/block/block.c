/* What the block back ends share: lists of requests, their end, what is said of errors. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "devices/block/backend.h"

/* The kernel backs it with its page of zeroes. */
char block_zeroes[BLOCK_PIECE] __attribute__((aligned(4096)));

void block_list_add(struct block_list *list, struct block_request *r)
{
	r->next = NULL;
	*list->end = r;
	list->end = &r->next;
}

struct block_request *block_list_take(struct block_list *list)
{
	struct block_request *r = list->first;

	if (!r)
		return NULL;
	list->first = r->next;
	if (!list->first)
		list->end = &list->first;
	return r;
}

void block_list_move(struct block_list *to, struct block_list *from)
{
	if (!from->first)
		return;
	*to->end = from->first;
	to->end = from->end;
	block_list_init(from);
}

void block_iov_advance(struct block_request *r, size_t len)
{
	while (r->iovs && len >= r->iov->iov_len) {
		len -= r->iov->iov_len;
		r->iov++;
		r->iovs--;
	}
	if (!r->iovs)
		return;
	r->iov->iov_base = (char *)r->iov->iov_base + len;
	r->iov->iov_len -= len;
}

void block_iov_copy(const struct block_request *r, char *buf, size_t len, bool to_buf)
{
	for (const struct iovec *iov = r->iov; len; iov++) {
		size_t n = block_smaller(iov->iov_len, len);

		if (to_buf)
			memcpy(buf, iov->iov_base, n);
		else
			memcpy(iov->iov_base, buf, n);
		buf += n;
		len -= n;
	}
}

static void note_error(struct block *b, const struct block_request *r)
{
	static const char *const what[] = {[BLOCK_READ] = "read",
					   [BLOCK_WRITE] = "write",
					   [BLOCK_FLUSH] = "flush",
					   [BLOCK_DISCARD] = "discard",
					   [BLOCK_ZEROES] = "writing of zeroes"};
	const char *why =
		r->result == -ENODATA ? "the file has become shorter" : strerror(-r->result);

	b->errors++;
	if (r->op == BLOCK_FLUSH)
		snprintf(b->last_error, sizeof(b->last_error), "flush: %s", why);
	else
		snprintf(b->last_error, sizeof(b->last_error), "%s at %llu: %s", what[r->op],
			 (unsigned long long)r->offset, why);
}

void block_finish(struct block *b, struct block_list *list)
{
	struct block_request *r;
	bool any = false;

	while ((r = block_list_take(list))) {
		if (r->result)
			note_error(b, r);
		b->in_flight--;
		any = true;
		r->done(r, r->result);
	}
	if (any && b->completed)
		b->completed(b->client);
}
