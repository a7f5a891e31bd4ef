/*
 * Raw files and block devices of the host: what both mechanisms (file_uring.c, file_threads.c)
 * share. A request is carried out in steps, each one operation of the host on the descriptor: short
 * reads and writes go on where they ended, what O_DIRECT does not take is copied piece by piece,
 * zeroes are written where the file system cannot make them.
 *
 * Guest memory is never registered with the kernel nor pinned beyond a request.
 */
#ifndef DEVICES_BLOCK_FILE_H
#define DEVICES_BLOCK_FILE_H

#include <stdatomic.h>

#include "devices/block/backend.h"

enum file_op {
	FILE_NOTHING, /* succeeds */
	FILE_READ,
	FILE_WRITE,
	FILE_SYNC,     /* fdatasync */
	FILE_ALLOCATE, /* fallocate(mode) */
	FILE_FAIL,     /* cannot be begun: `error` is the step's result */
};
struct file_step {
	enum file_op op;
	/* Of READ and WRITE: iov, or one buffer if iov is NULL. They stay as they are until the
	 * step's end. */
	const struct iovec *iov;
	unsigned iovs;
	void *buf;
	uint64_t offset, len;
	int mode;
	int64_t error;
};

/* What opening has found out. fd is owned once a back end is made of it. */
struct file_params {
	const char *path;
	int fd;
	uint64_t size;
	uint32_t block_size, memory_align; /* memory_align: 1 through the page cache */
	bool read_only, direct, unsafe, locked;
	const char *note; /* for `mechanism`, behind its name; or "" */
};

struct file {
	struct block block;
	int fd;
	bool direct, unsafe, locked;
	bool remote; /* other hosts may have it, too: what they see is what was flushed */
	/* What the file system was found not to do; from any thread. */
	_Atomic bool no_punch, no_zero_range;
};

/* In common for both: takes over what opening has found out. 0, -ENOMEM. */
int file_init(struct file *f, const struct file_params *params, const struct block_ops *ops,
	      const char *mechanism);
void file_exit(struct file *f);

/* The request's next step; any thread that has the request. */
void file_next(struct file *f, struct block_request *r, struct file_step *step);
/* What the step returned, bytes or -errno. True: the request is over, r->result says how. */
bool file_stepped(struct file *f, struct block_request *r, int64_t ret);

/* The size now of a file or a block device; -EINVAL: it is neither. */
int file_size(int fd, uint64_t *size);

/* block_ops.release and .acquire of both. */
int file_release(struct block *b);
int file_acquire(struct block *b);

/* Each mechanism: 0 (params->fd is owned), or -errno with a reason for people. */
int file_uring_create(struct block **out, const struct file_params *params,
		      const struct backend_host *host, char *why, size_t why_len);
int file_threads_create(struct block **out, const struct file_params *params,
			const struct backend_host *host, char *why, size_t why_len);

#endif
