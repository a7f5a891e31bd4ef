/*
 * Block back ends: where the sectors of a disk lie. A back end is made of open descriptors (whoever
 * makes it has opened, checked and locked them: devices/block/open.h) and knows no guest: requests
 * name host memory.
 *
 * Everything is the event loop's thread's and nothing blocks it: a request is submitted, started by
 * commit (one system call for many), and ends in its `done` on a later turn of the loop, never
 * within submit or commit.
 *
 * Order: none between requests in flight, as on a disk with a queue; a flush covers what was done
 * (not just submitted) before it was submitted.
 */
#ifndef DEVICES_BLOCK_BLOCK_H
#define DEVICES_BLOCK_BLOCK_H

#include <sys/uio.h>

#include "devices/device.h"

enum block_op {
	BLOCK_READ,
	BLOCK_WRITE,
	BLOCK_FLUSH,   /* what was written is on stable storage */
	BLOCK_DISCARD, /* the contents are not needed any more: gives space back */
	BLOCK_ZEROES,  /* reads as zeroes afterwards */
};

struct block_request {
	enum block_op op;
	bool may_unmap;		/* of ZEROES: a hole will do */
	uint64_t offset, bytes; /* of FLUSH: nothing */
	struct iovec *iov; /* of READ and WRITE, together `bytes`; the caller's until done; may be
			      changed by the back end */
	unsigned iovs;
	/* 0, or -errno of the host. The request is the caller's again. */
	void (*done)(struct block_request *request, int result);
	void *opaque;
	/* The back end's, while in flight. */
	struct block_request *next;
	uint64_t done_bytes;
	void *bounce;
	struct block *on;
	int result;
	uint32_t step; /* bytes of what is being done of it */
	uint8_t phase, tries;
};

struct block {
	const struct block_ops *ops;
	uint64_t size;	       /* bytes, a multiple of 512 */
	uint32_t block_size;   /* what it likes: physical block, 512..64 KiB, a power of two */
	uint32_t memory_align; /* of iov addresses and lengths, for speed: others are copied */
	bool read_only, can_discard, can_zero;
	/* For people: "io_uring, O_DIRECT", "threads (io_uring: Operation not permitted)", "nbd".
	 */
	char mechanism[96];
	uint64_t errors;     /* requests that the host failed */
	char last_error[96]; /* "write at 4096: No space left on device" */
	unsigned in_flight;
	char *path; /* file or address, for people; owned */

	/* The client's: called after a few calls of `done` in a row; submitting is fine there and
	 * in `done`. NULL: nobody wants to know. */
	void (*completed)(void *client);
	void *client;
};
struct block_ops {
	void (*submit)(struct block *b, struct block_request *request);
	void (*commit)(struct block *b);
	/* Hand-over: as in struct device_ops; drained by then. May be NULL. */
	int (*release)(
		struct block *b); /* image locks are given up; what was written can be seen */
	int (*acquire)(struct block *b); /* -EBUSY: another process has it; -EINVAL: another size */
	/* Nothing is in flight. Frees b. */
	void (*destroy)(struct block *b);
};

#endif
