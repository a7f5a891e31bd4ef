/*
 * NBD commands. libnbd sends from and receives into one buffer: what lies in pieces is copied. Its
 * callbacks come out of its own functions and may not call it again: what they end or let go on is
 * put into lists for afterwards.
 */
#include <errno.h>
#include <stdlib.h>

#include "devices/block/nbd_internal.h"

enum phase { PHASE_PLAIN, PHASE_BOUNCE, PHASE_WRITE_ZEROES };

static void end_request(struct nbd *n, struct block_request *r, int result)
{
	free(r->bounce);
	r->bounce = NULL;
	r->result = result;
	block_list_add(&n->over, r);
}

/* In a callback: nothing of libnbd's may be called. */
static int command_done(void *opaque, int *error)
{
	struct block_request *r = opaque;
	struct nbd *n = (struct nbd *)r->on;

	n->sent--;
	if (*error) {
		end_request(n, r, -*error);
		return 1;
	}
	if (r->op == BLOCK_READ && r->phase == PHASE_BOUNCE)
		block_iov_copy(r, r->bounce, r->step, false);
	if (r->op == BLOCK_READ || r->op == BLOCK_WRITE)
		block_iov_advance(r, r->step);
	r->done_bytes += r->step;
	if (r->op == BLOCK_FLUSH || r->done_bytes >= r->bytes)
		end_request(n, r, 0);
	else
		block_list_add(&n->todo, r);
	return 1;
}

/* The buffer of the next `step` bytes; NULL: no memory. */
static void *next_buffer(struct block_request *r)
{
	r->step = (uint32_t)block_smaller(r->bytes - r->done_bytes, BLOCK_PIECE);
	block_iov_advance(r, 0); /* past empty pieces */
	r->phase = r->iov->iov_len >= r->step ? PHASE_PLAIN : PHASE_BOUNCE;
	if (r->phase == PHASE_PLAIN)
		return r->iov->iov_base;
	/* No piece is longer than the first. */
	if (!r->bounce)
		r->bounce = malloc(r->step);
	if (r->bounce && r->op == BLOCK_WRITE)
		block_iov_copy(r, r->bounce, r->step, true);
	return r->bounce;
}

static int64_t send_transfer(struct nbd *n, struct block_request *r, nbd_completion_callback done)
{
	const uint64_t at = r->offset + r->done_bytes;
	void *buf = next_buffer(r);

	if (!buf) {
		errno = ENOMEM;
		return -1;
	}
	return r->op == BLOCK_READ ? nbd_aio_pread(n->handle, buf, r->step, at, done, 0)
				   : nbd_aio_pwrite(n->handle, buf, r->step, at, done, 0);
}

static int64_t send_zeroes(struct nbd *n, struct block_request *r, nbd_completion_callback done)
{
	const uint32_t flags = r->may_unmap ? 0 : LIBNBD_CMD_FLAG_NO_HOLE;

	r->step = (uint32_t)r->bytes;
	if (n->block.can_zero)
		return nbd_aio_zero(n->handle, r->bytes, r->offset, done, flags);
	r->step = (uint32_t)block_smaller(r->bytes - r->done_bytes, BLOCK_PIECE);
	return nbd_aio_pwrite(n->handle, block_zeroes, r->step, r->offset + r->done_bytes, done, 0);
}

/* The cookie of the command that was sent, 0: nothing to do, -1. */
static int64_t send_command(struct nbd *n, struct block_request *r)
{
	const nbd_completion_callback done = {.callback = command_done, .user_data = r};

	r->step = 0;
	switch (r->op) {
	case BLOCK_READ:
	case BLOCK_WRITE: return r->bytes ? send_transfer(n, r, done) : 0;
	case BLOCK_FLUSH: return n->can_flush ? nbd_aio_flush(n->handle, done, 0) : 0;
	case BLOCK_ZEROES: return r->bytes ? send_zeroes(n, r, done) : 0;
	case BLOCK_DISCARD:
		r->step = (uint32_t)r->bytes;
		return r->bytes && n->block.can_discard
			       ? nbd_aio_trim(n->handle, r->bytes, r->offset, done, 0)
			       : 0;
	}
	return 0;
}

static void start_request(struct nbd *n, struct block_request *r)
{
	int64_t cookie;

	if (n->dead || !n->handle) {
		end_request(n, r, -EIO);
		return;
	}
	errno = 0;
	/* Before it: the callback may come out of it. */
	n->sent++;
	cookie = send_command(n, r);
	if (cookie > 0)
		return;
	n->sent--;
	end_request(n, r, cookie ? -(nbd_get_errno() ? nbd_get_errno() : EIO) : 0);
}

void nbd_send_todo(struct nbd *n)
{
	struct block_request *r;

	while (n->sent < NBD_IN_FLIGHT_MAX && (r = block_list_take(&n->todo)))
		start_request(n, r);
}
