/*
 * A split virtqueue, the device's side (virtio 1.2, 2.7), with indirect descriptors and event
 * indexes. Everything in guest memory is hostile: each address and length is checked when it is
 * used, each loop is bounded, and an error is an answer, never the end.
 *
 * Knows no transport and no lock: one thread at a time works on a queue (the event loop's), in
 * turns (virtq_env.turn). The rings are looked up once in a turn, in guest memory as it is then,
 * and must lie in one piece of host memory each; what was written to them is told to whoever tracks
 * writes when the turn is over.
 */
#ifndef DEVICES_VIRTIO_QUEUE_H
#define DEVICES_VIRTIO_QUEUE_H

#include <sys/uio.h>

#include "devices/device.h"

enum {
	VIRTQ_SIZE_MAX = 256,
	/* With indirect descriptors drivers go beyond the queue's size: so far and no further. */
	VIRTQ_CHAIN_MAX = 1024,
	VIRTQ_NO_VECTOR = 0xffff,
};

struct virtq_rings {
	const uint8_t *desc, *avail;
	uint8_t *used;
	uint32_t turn; /* of which they are good */
	bool written;  /* used was */
};

struct virtq {
	/* Set by the driver before it starts. */
	uint16_t size, vector;
	bool enabled;
	uint64_t desc, driver, device; /* descriptors, available ring, used ring */
	/* Where the device is. */
	uint16_t next_avail, next_used;
	uint16_t signalled; /* next_used when the driver was last thought of */
	bool signalled_valid;
	/* Not state, the device's: what its requests point to is neither read nor written, and is
	 * not waited for. */
	bool unread;

	struct virtq_rings rings; /* not state */
};
extern const struct state_desc virtq_state;

/* What was negotiated; `turn` is another number in each turn, never 0. */
struct virtq_env {
	const struct dma_ops *dma;
	bool indirect, event_idx;
	uint32_t turn;
};

struct virtq_seg {
	uint64_t gpa;
	uint32_t len;
};
/* A request: `readable` segments of the driver's data, then `writable` ones for the device's. */
struct virtq_chain {
	uint16_t head;
	unsigned readable, writable;
	uint64_t readable_len, writable_len;
	struct virtq_seg seg[VIRTQ_CHAIN_MAX];
};

/* Size and addresses are possible (2.7: alignment, a power of two). */
bool virtq_valid(const struct virtq *q);

/* All others begin with it. 0; -EFAULT; -EAGAIN: not here yet. */
int virtq_turn(struct virtq *q, const struct virtq_env *env);
/* The turn is over. */
void virtq_turn_done(struct virtq *q, const struct virtq_env *env);
/* The next request. 1; 0: there is none; -EINVAL, -EFAULT: the driver is wrong, *why says how;
 * -EAGAIN: not all of its memory is here yet (it stays the next one). */
int virtq_pop(struct virtq *q, const struct virtq_env *env, struct virtq_chain *chain,
	      const char **why);
/* A request that was popped and not pushed, by its head: its descriptors once more; as pop. */
int virtq_repop(struct virtq *q, const struct virtq_env *env, uint16_t head,
		struct virtq_chain *chain, const char **why);
/* The last pop has not happened. */
void virtq_unpop(struct virtq *q);
/* Requests that are done, and how many bytes were written to each: the driver sees all of them at
 * once. 0, -EFAULT. */
struct virtq_used {
	uint16_t head;
	uint32_t len;
};
int virtq_push(struct virtq *q, const struct virtq_env *env, const struct virtq_used *used,
	       unsigned count);
/* After pushes: 1: interrupt the driver; 0: it does not want one; -EFAULT. */
int virtq_must_signal(struct virtq *q, const struct virtq_env *env);
/* The queue was found empty: ask for a notification. 1: no, there is something; 0; -EFAULT. */
int virtq_arm(struct virtq *q, const struct virtq_env *env);

/* Copy from the readable, to the writable part, from `off` in it: 0, -EFAULT (also: too short). */
int virtq_read(const struct virtq_env *env, const struct virtq_chain *chain, uint64_t off,
	       void *buf, size_t len);
int virtq_write(const struct virtq_env *env, const struct virtq_chain *chain, uint64_t off,
		const void *buf, size_t len);
/* [off, off + len) of the readable or writable part as pieces of host memory: how many; -EFAULT
 * (also: too short), -E2BIG: more than `max`. */
int virtq_iov(const struct virtq_env *env, const struct virtq_chain *chain, bool writable,
	      uint64_t off, uint64_t len, struct iovec *iov, unsigned max);
/* [off, off + len) of the writable part was written through such pieces. */
void virtq_written(const struct virtq_env *env, const struct virtq_chain *chain, uint64_t off,
		   uint64_t len);

#endif
