/* The block device's two halves: its requests (blk_request.c) and the device itself (blk.c). */
#ifndef DEVICES_VIRTIO_BLK_H
#define DEVICES_VIRTIO_BLK_H

#include "devices/virtio/devices.h"

enum {
	BLK_QUEUE_SIZE = 256,
	BLK_QUEUES_MAX = 8,
	/* Of a request, as the driver is told: with its header and status it fits a queue that has
	 * no indirect descriptors. */
	BLK_SEG_MAX = BLK_QUEUE_SIZE - 2,
	BLK_SIZE_MAX = 1 << 20,
	/* A segment may come in two pieces where guest memory does. */
	BLK_IOVS = BLK_SEG_MAX + 18,
	/* Requests of all queues in flight, kept ones included. */
	BLK_REQUESTS = 256,
	BLK_SECTOR = 512,
	/* Of one discard, one writing of zeroes: 1 GiB. */
	BLK_RANGE_SECTORS = 1 << 21,
	BLK_ID_LEN = 20,
};
/* 5.2.3 */
#define BLK_F_SIZE_MAX	   (1ULL << 1)
#define BLK_F_SEG_MAX	   (1ULL << 2)
#define BLK_F_RO	   (1ULL << 5)
#define BLK_F_BLK_SIZE	   (1ULL << 6)
#define BLK_F_FLUSH	   (1ULL << 9)
#define BLK_F_TOPOLOGY	   (1ULL << 10)
#define BLK_F_CONFIG_WCE   (1ULL << 11)
#define BLK_F_MQ	   (1ULL << 12)
#define BLK_F_DISCARD	   (1ULL << 13)
#define BLK_F_WRITE_ZEROES (1ULL << 14)

struct blk_request {
	struct block_request block;
	struct blk *blk;
	struct blk_request *next; /* free, or over */
	uint16_t queue;
	bool flushing; /* the write is done, its flush is not */
	struct iovec iov[BLK_IOVS];
	struct virtq_chain chain;
};

struct blk {
	struct virtio v;
	struct virtio_model model;
	struct virtio_blk_config config;
	char serial[BLK_ID_LEN];

	/* The loop's thread's. */
	struct blk_request *requests, *free, *over, **over_end;
	unsigned free_count;
	uint32_t starved; /* queues that found no request free */
	uint32_t pushed;  /* queues to signal */
	bool full;	  /* config.full was called: kept requests wait for virtio_blk_retry() */
	uint64_t reads, read_bytes, writes, written_bytes, flushes, discards, zeroes, errors;

	/* State. Requests that the host had no space for, in order: popped, not in flight. The loop
	 * thread's; a reset comes between its turns. */
	uint32_t kept;
	uint16_t kept_queue[BLK_REQUESTS], kept_head[BLK_REQUESTS];
	bool write_cache; /* the driver's wish; with the lock */
};

/* virtio_ops.queue */
void blk_queue(struct virtio *v, unsigned n);
/* 0 or -ENOMEM. */
int blk_requests_init(struct blk *b);

#endif
