/* Requests through io_uring: one ring per disk, one system call for the requests of a turn. The
 * ring's descriptor itself says when something is over. */
#include <errno.h>
#include <liburing.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include "devices/block/file.h"

enum { ENTRIES = 128, LARGE = 1 << 20 /* a request of Linux, hardly a millisecond */ };

struct uring {
	struct file file;
	const struct backend_host *host;
	struct io_uring ring;
	struct watch *watch;
	struct work *again;	   /* the kernel had no memory: try once more */
	struct block_list waiting; /* for an entry of the ring */
	unsigned in_ring;
};

static void prepare(const struct uring *u, const struct block_request *r,
		    const struct file_step *step, struct io_uring_sqe *sqe)
{
	const int fd = u->file.fd;

	switch (step->op) {
	case FILE_READ:
		if (step->iov)
			io_uring_prep_readv(sqe, fd, step->iov, step->iovs, step->offset);
		else
			io_uring_prep_read(sqe, fd, step->buf, (unsigned)step->len, step->offset);
		break;
	case FILE_WRITE:
		if (step->iov)
			io_uring_prep_writev(sqe, fd, step->iov, step->iovs, step->offset);
		else
			io_uring_prep_write(sqe, fd, step->buf, (unsigned)step->len, step->offset);
		break;
	case FILE_SYNC: io_uring_prep_fsync(sqe, fd, IORING_FSYNC_DATASYNC); break;
	case FILE_ALLOCATE:
		io_uring_prep_fallocate(sqe, fd, step->mode, (off_t)step->offset, (off_t)step->len);
		break;
	default: io_uring_prep_nop(sqe); break;
	}
	/* What is long or was refused once is not tried on this thread. */
	if (step->op != FILE_NOTHING && (step->len > LARGE || r->tries))
		sqe->flags |= IOSQE_ASYNC;
	io_uring_sqe_set_data(sqe, (void *)(uintptr_t)r);
}

static void uring_start(struct uring *u, struct block_request *r)
{
	struct io_uring_sqe *sqe = NULL;
	struct file_step step;

	/* No more than the completion queue holds. */
	if (u->in_ring < ENTRIES)
		sqe = io_uring_get_sqe(&u->ring);
	if (!sqe) {
		block_list_add(&u->waiting, r);
		return;
	}
	file_next(&u->file, r, &step);
	if (step.op == FILE_FAIL) {
		/* The entry is taken; its request ends when it comes back. */
		step.op = FILE_NOTHING;
		r->result = (int)step.error;
	}
	prepare(u, r, &step, sqe);
	u->in_ring++;
}

static void uring_commit(struct block *b)
{
	struct uring *u = (struct uring *)b;
	int ret;

	if (!io_uring_sq_ready(&u->ring))
		return;
	ret = io_uring_submit(&u->ring);
	/* Without memory, or interrupted: what is in flight or the loop comes back to it. */
	if (ret < 0 || io_uring_sq_ready(&u->ring))
		u->host->works->post(u->again);
}

static void uring_again(void *arg)
{
	uring_commit(arg);
}

static void uring_submit(struct block *b, struct block_request *r)
{
	r->done_bytes = 0;
	r->bounce = NULL;
	r->phase = r->tries = 0;
	r->result = 0;
	b->in_flight++;
	uring_start((struct uring *)b, r);
}

static void uring_done(void *arg, uint32_t events)
{
	struct uring *u = arg;
	struct io_uring_cqe *cqe[ENTRIES];
	struct block_list over;
	struct block_request *r;
	unsigned n;

	(void)events;
	block_list_init(&over);
	n = io_uring_peek_batch_cqe(&u->ring, cqe, ENTRIES);
	u->in_ring -= n;
	for (unsigned i = 0; i < n; i++) {
		const int64_t ret = cqe[i]->res;

		r = io_uring_cqe_get_data(cqe[i]);
		if (file_stepped(&u->file, r, r->result ? r->result : ret))
			block_list_add(&over, r);
		else
			block_list_add(&u->waiting, r);
	}
	io_uring_cq_advance(&u->ring, n);
	while (u->in_ring < ENTRIES && (r = block_list_take(&u->waiting)))
		uring_start(u, r);
	block_finish(&u->file.block, &over);
	uring_commit(&u->file.block);
}

static void uring_free(struct uring *u)
{
	if (u->watch)
		u->host->watches->del(u->watch);
	if (u->again)
		u->host->works->destroy(u->again);
	io_uring_queue_exit(&u->ring);
	free(u);
}

static void uring_destroy(struct block *b)
{
	struct uring *u = (struct uring *)b;
	struct file file = u->file;

	uring_free(u);
	file_exit(&file);
}

/* Kernels up to 5.5 have the ring and not all that is done with it here. */
static bool has_all(struct io_uring *ring)
{
	static const int needed[] = {IORING_OP_READ,   IORING_OP_WRITE, IORING_OP_READV,
				     IORING_OP_WRITEV, IORING_OP_FSYNC, IORING_OP_FALLOCATE,
				     IORING_OP_NOP};
	struct io_uring_probe *probe = io_uring_get_probe_ring(ring);
	bool ok = probe;

	for (unsigned i = 0; ok && i < sizeof(needed) / sizeof(needed[0]); i++)
		ok = io_uring_opcode_supported(probe, needed[i]);
	io_uring_free_probe(probe);
	return ok;
}

static int open_ring(struct uring *u)
{
	/* Nobody waits in the kernel for the ring: no interruption of a thread that runs. */
	int ret = io_uring_queue_init(ENTRIES, &u->ring, IORING_SETUP_COOP_TASKRUN);

	if (ret == -EINVAL)
		ret = io_uring_queue_init(ENTRIES, &u->ring, 0);
	if (ret)
		return ret;
	if (has_all(&u->ring))
		return 0;
	io_uring_queue_exit(&u->ring);
	return -ENOSYS;
}

int file_uring_create(struct block **out, const struct file_params *params,
		      const struct backend_host *host, char *why, size_t why_len)
{
	static const struct block_ops ops = {.submit = uring_submit,
					     .commit = uring_commit,
					     .release = file_release,
					     .acquire = file_acquire,
					     .destroy = uring_destroy};
	struct uring *u = calloc(1, sizeof(*u));
	int ret = u ? open_ring(u) : -ENOMEM;

	if (ret) {
		free(u);
		snprintf(why, why_len, "%s", strerror(-ret));
		return ret;
	}
	u->host = host;
	block_list_init(&u->waiting);
	ret = host->watches->add(host->watches->opaque, u->ring.ring_fd, EPOLLIN, uring_done, u,
				 &u->watch);
	if (!ret) {
		u->again = host->works->create(host->works->opaque, uring_again, u);
		ret = u->again ? 0 : -ENOMEM;
	}
	if (!ret)
		ret = file_init(&u->file, params, &ops, "io_uring");
	if (ret) {
		snprintf(why, why_len, "%s", strerror(-ret));
		uring_free(u);
		return ret;
	}
	*out = &u->file.block;
	return 0;
}
