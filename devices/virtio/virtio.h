/*
 * A virtio device behind PCI (virtio 1.2; modern transport only: 4.1), and what is the same for
 * all of them. A device model brings struct virtio_ops and nothing of the transport.
 *
 * Threads: registers are the vCPUs' (under the lock); queues are worked on by the event loop's
 * thread alone, without the lock, between virtio_enter() and virtio_leave(): guest memory is never
 * touched with it held. What a queue is cannot change meanwhile: a reset that comes is put off
 * until virtio_leave() and the end of the last request in flight, and the driver sees status 0 only
 * then (4.1.4.3.2: it waits for it).
 */
#ifndef DEVICES_VIRTIO_VIRTIO_H
#define DEVICES_VIRTIO_VIRTIO_H

#include <pthread.h>
#include <sys/uio.h>

#include "devices/pci/pci.h"
#include "devices/virtio/queue.h"

/* As many as network queue pairs and their control queue need. */
enum { VIRTIO_QUEUES_MAX = 17 };
enum {
	VIRTIO_NET = 1,
	VIRTIO_BLK = 2,
	VIRTIO_CONSOLE = 3,
	VIRTIO_RNG = 4,
	VIRTIO_BALLOON = 5,
	VIRTIO_VSOCK = 19,
};
/* 2.1 */
enum {
	VIRTIO_ACKNOWLEDGE = 1,
	VIRTIO_DRIVER = 2,
	VIRTIO_DRIVER_OK = 4,
	VIRTIO_FEATURES_OK = 8,
	VIRTIO_NEEDS_RESET = 0x40,
	VIRTIO_FAILED = 0x80,
};
/* 6 */
#define VIRTIO_F_INDIRECT_DESC (1ULL << 28)
#define VIRTIO_F_EVENT_IDX     (1ULL << 29)
#define VIRTIO_F_VERSION_1     (1ULL << 32)

struct virtio;
struct virtio_ops {
	/* Work on queue n: the driver has notified, or the device goes on. Between enter and leave;
	 * not more than a queue's length of requests, then virtio_kick() for the rest. */
	void (*queue)(struct virtio *v, unsigned n);
	/* Device configuration, size 1, 2, 4, off + size <= config_size; with the lock held. May be
	 * NULL: reads as zero, ignored. */
	uint32_t (*config_read)(struct virtio *v, unsigned off, unsigned size);
	void (*config_write)(struct virtio *v, unsigned off, unsigned size, uint32_t value);
	/* Forget what belongs to the driver; with the lock held, not between enter and leave. May
	 * be NULL. */
	void (*reset)(struct virtio *v);
	/* The driver's reset waits for requests in flight: end them soon, by virtio_end() as
	 * always, now or later. The loop's thread, without the lock, once for each reset; may be
	 * NULL. */
	void (*cancel)(struct virtio *v);
	/* The state was loaded: check what is the device's own. May be NULL. */
	int (*post_load)(struct virtio *v, const char **why);
	/* struct device_ops, for what is the device's own (its back end); each may be NULL. prepare
	 * and abort: queue() is not called in between; drain: not asked while requests are in
	 * flight (virtio_begin); acquire that fails: the device stays prepared. */
	int (*prepare)(struct virtio *v);
	int (*drain)(struct virtio *v);
	int (*release)(struct virtio *v);
	int (*acquire)(struct virtio *v);
	int (*abort)(struct virtio *v);
	void (*inspect)(struct virtio *v, const struct inspector *to);
	/* Frees the device; virtio_exit() is its business. */
	void (*destroy)(struct device *dev);
};

struct virtio_config {
	const char *name; /* "rng0" */
	struct device *pci;
	unsigned slot;
	const struct work_source *works;
	const struct dma_ops *dma;
};
struct virtio_model {
	const char *state_name; /* "virtio-rng" */
	unsigned id;
	uint32_t class_code;
	uint64_t features; /* beyond those of all devices */
	unsigned queues, queue_size, config_size;
	const struct virtio_ops *ops;
	const struct state_desc *state; /* of the device's own fields in the object; or NULL */
	uint32_t object_size;
};

struct virtio {
	struct device dev;
	struct pci_function fn;
	pthread_mutex_t lock;
	const struct virtio_model *model;
	struct dma_ops dma;
	struct work_source works;
	struct work *work;
	struct dma_waiter waiter;
	_Atomic uint32_t kicked;  /* queues to look at */
	_Atomic uint32_t stalled; /* queues that wait for memory */
	unsigned busy;		  /* turns that are open, one in the other */
	unsigned in_flight;
	bool resetting, cancelled, quiesced, draining;
	unsigned cfg_cap;     /* of VIRTIO_PCI_CAP_PCI_CFG */
	struct virtq_env env; /* the loop thread's, since virtio_enter() */

	uint32_t device_select, driver_select;
	uint64_t driver_features;
	uint16_t queue_select, config_vector;
	uint8_t status, isr, generation;
	struct virtq queue[VIRTIO_QUEUES_MAX];

	struct field fields[5];
	struct state_desc desc;
};

/* v is the first member of the device's object. 0, -EEXIST (the slot), -EINVAL, -ENOMEM; on failure
 * nothing is left to undo. */
int virtio_init(struct virtio *v, const struct virtio_model *model,
		const struct virtio_config *config);
void virtio_exit(struct virtio *v);

/* ---- for device models, on the loop's thread without the lock ---- */

/* True: the driver runs, its queues may be worked on until virtio_leave(). */
bool virtio_enter(struct virtio *v);
void virtio_leave(struct virtio *v);
/* 1; 0: nothing there, or the driver was wrong and the device waits for its reset, or some of the
 * request's memory is not here yet (post-copy): then the queue is kicked when it is, and virtio_arm
 * says false. Reading and writing what was popped meets no missing page. */
int virtio_pop(struct virtio *v, unsigned n, struct virtq_chain *chain);
/* The same for one that was popped and not pushed: its head is all that a device has kept of it. */
int virtio_repop(struct virtio *v, unsigned n, uint16_t head, struct virtq_chain *chain);
bool virtio_push(struct virtio *v, unsigned n, uint16_t head, uint32_t len);
/* Several, which the driver sees at once. */
bool virtio_push_all(struct virtio *v, unsigned n, const struct virtq_used *used, unsigned count);
/* After pushes: the interrupt, if the driver wants it. */
void virtio_signal(struct virtio *v, unsigned n);
/* The queue is empty: true: it is not any more. */
bool virtio_arm(struct virtio *v, unsigned n);
bool virtio_read(struct virtio *v, const struct virtq_chain *chain, uint64_t off, void *buf,
		 size_t len);
bool virtio_write(struct virtio *v, const struct virtq_chain *chain, uint64_t off, const void *buf,
		  size_t len);
/* The driver is wrong: DEVICE_NEEDS_RESET and a line in the log. */
void virtio_fail(struct virtio *v, const char *why);
/* Any thread: ops->queue(n) will be called. */
void virtio_kick(struct virtio *v, unsigned n);
/* The device configuration has changed: a new generation, and an interrupt if a driver runs. With
 * v->lock held, as for the change itself; any thread. */
void virtio_config_changed(struct virtio *v);
/* What the driver and the device have agreed on; the loop's thread, in a turn. */
static inline bool virtio_has(const struct virtio *v, uint64_t feature)
{
	return (v->driver_features & feature) != 0;
}

/* A request that outlives the turn in which it was popped (a disk's): between begin and end its
 * chain's memory stays valid, a reset of the driver's is put off (ops->cancel may hurry it) and
 * drain is not over. end is called between virtio_enter_done() and virtio_leave(): also when the
 * driver is gone meanwhile (false: push nothing). A request that waits in the device (not popped,
 * or unpopped) is not in flight. */
void virtio_begin(struct virtio *v);
void virtio_end(struct virtio *v);
/* As virtio_enter, for what completes: also while quiesced, also in another turn. False: a reset
 * waits or the device waits for one; the request must be ended without touching the queue. Leave in
 * both cases; the device's ops->reset may come out of virtio_leave(), and device_drained(). */
bool virtio_enter_done(struct virtio *v);

/* The readable (writable: false) or writable part of a chain as host memory from byte `off` on, at
 * most `len` bytes: pieces that lie side by side are one. Returns how many iovecs, or -EFAULT,
 * -E2BIG (more than `max`), the device then waits for its reset. */
int virtio_iov(struct virtio *v, const struct virtq_chain *chain, bool writable, uint64_t off,
	       uint64_t len, struct iovec *iov, unsigned max);
/* `len` bytes from `off` of the writable part were written through such pointers. */
void virtio_written(struct virtio *v, const struct virtq_chain *chain, uint64_t off, uint64_t len);

/* ---- between the files of this folder ---- */

int virtio_pci_init(struct virtio *v, const struct virtio_config *config);
void virtio_work(void *arg); /* a turn of all queues that were kicked */
void virtio_memory_ready(struct dma_waiter *waiter);
/* With the lock held. */
bool virtio_occupied(const struct virtio *v); /* a turn is open, or requests are in flight */
void virtio_ask_reset(struct virtio *v);      /* now, or when it is not occupied any more */
void virtio_look(struct virtio *v);	      /* at all queues, in a turn to come */
void virtio_set_status(struct virtio *v, uint8_t value);
void virtio_interrupt(struct virtio *v, uint8_t isr, uint16_t vector);
uint64_t virtio_features(const struct virtio *v);

#endif
