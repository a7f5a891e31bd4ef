/*
 * What a device is to the rest of ferry, and what the rest is to a device.
 *
 * A device knows no engine and no VM: it is given port/MMIO regions to answer, interrupt lines to
 * drive, a clock, timers and a character back end, all as small interfaces (below). Region
 * callbacks run on vCPU threads, timers and back ends on the event loop's thread: each device has
 * one lock and takes it itself. Order: device -> interrupt controller -> kick. Nobody waits for a
 * page, a disk or a peer with one held. The guest is hostile: no access may do more than log and go
 * on.
 */
#ifndef DEVICES_DEVICE_H
#define DEVICES_DEVICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "migration/field.h"

/* ---- regions: ports and MMIO ---- */

struct io_region;
struct io_region_ops {
	/* off: relative to the region; size: 1, 2, 4 (ports) or 1, 2, 4, 8 (MMIO), off + size
	 * within the region. Unhandled: return all ones / ignore. vcpu: index of the accessing
	 * vCPU. */
	uint64_t (*read)(void *opaque, unsigned vcpu, uint64_t off, unsigned size);
	void (*write)(void *opaque, unsigned vcpu, uint64_t off, unsigned size, uint64_t value);
};
struct io_region {
	uint64_t base, size;
	const struct io_region_ops *ops;
	void *opaque;
	const char *name;
};
/* An address space of regions (one for ports, one for MMIO). Adding and removing only while no vCPU
 * runs; lookups need no lock. */
struct io_space {
	struct io_region *regions; /* sorted by base */
	unsigned count, cap;
};
int io_space_add(struct io_space *space, const struct io_region *region); /* -EEXIST on overlap */
void io_space_remove(struct io_space *space, uint64_t base);
void io_space_free(struct io_space *space);
/* All ones where nothing answers; an access that straddles the end of a region is split by bytes.
 */
uint64_t io_space_read(const struct io_space *space, unsigned vcpu, uint64_t addr, unsigned size);
void io_space_write(const struct io_space *space, unsigned vcpu, uint64_t addr, unsigned size,
		    uint64_t value);

/* ---- interrupt lines ---- */

struct irq_line {
	void (*set)(void *opaque, unsigned n, bool level); /* level, not edge; any thread */
	void *opaque;
	unsigned n;
};
static inline void irq_set(const struct irq_line *line, bool level)
{
	if (line->set)
		line->set(line->opaque, line->n, level);
}

/* ---- time ---- */

/* Guest time in ns: monotonic, stands still while the VM is paused, part of the machine's state. */
struct clock_source {
	uint64_t (*now)(void *opaque);
	/* Wall-clock time in s since 1970 for the RTC (UTC). */
	int64_t (*wall)(void *opaque);
	void *opaque;
};

/* A one-shot timer on guest time. set: (re)arms for an absolute time in ns, 0 disarms; any thread;
 * never blocks; with the device's lock held is fine. fn runs on the event loop's thread without any
 * lock; it may run once more after a disarm that raced with it: devices check their own state. */
struct vtimer;
struct timer_source {
	struct vtimer *(*create)(void *opaque, void (*fn)(void *arg), void *arg, const char *name);
	void (*set)(struct vtimer *timer, uint64_t deadline_ns);
	void (*destroy)(struct vtimer *timer);
	void *opaque;
};

/* ---- work ---- */

/* Work for the event loop's thread: what a vCPU's access only asks for. post: any thread, with the
 * device's lock held is fine; posting twice runs fn once. destroy: on the loop's thread. */
struct work;
struct work_source {
	struct work *(*create)(void *opaque, void (*fn)(void *arg), void *arg);
	void (*post)(struct work *work);
	void (*destroy)(struct work *work);
	void *opaque;
};

/* ---- descriptors of the host ---- */

/* Back ends wait for descriptors on the event loop's thread; all of it is that thread's. events:
 * EPOLLIN, EPOLLOUT; fn gets those that happened, EPOLLHUP and EPOLLERR unasked. add: -EPERM: a
 * regular file is always ready. del from a callback is fine: fn is not called again; the caller
 * closes fd afterwards. */
struct watch;
struct watch_source {
	int (*add)(void *opaque, int fd, uint32_t events, void (*fn)(void *arg, uint32_t events),
		   void *arg, struct watch **out);
	int (*mod)(struct watch *watch, uint32_t events);
	void (*del)(struct watch *watch);
	void *opaque;
};

/* ---- guest memory ---- */

struct gpa_range {
	uint64_t gpa, len;
};

/* Whoever was told "not yet". */
struct dma_waiter {
	void (*ready)(struct dma_waiter *waiter); /* the loop's thread, no lock held */
	bool waiting;				  /* of whoever calls */
};
/* What a device reaches of guest memory; addresses are the guest's and never trusted. The event
 * loop's thread only, and with no lock held: a write may wait for vCPUs. */
struct dma_ops {
	/* *out: a pointer to [gpa, gpa + *len), *len reduced to what lies in one piece of host
	 * memory (a page's rest at least; in general as far as RAM goes). 0; -EFAULT: not RAM, or
	 * `write` and read-only; -ENOMEM; -EAGAIN: the contents are not here yet (post-copy), they
	 * have been asked for. Good until the device is drained: a request in flight may keep it.
	 */
	int (*map)(void *opaque, uint64_t gpa, size_t *len, bool write, void **out);
	/* When data has been written through map(): marks it dirty, drops code made of it. */
	void (*written)(void *opaque, uint64_t gpa, size_t len);
	/* Whether map() says -EAGAIN nowhere in [gpa, gpa + len); what is not here is asked for.
	 * What is here stays. */
	bool (*here)(void *opaque, uint64_t gpa, uint64_t len);
	/* After a "not yet": ready() is called once, when some of what was asked for is here. */
	void (*wait)(void *opaque, struct dma_waiter *waiter);
	void (*wait_not)(void *opaque, struct dma_waiter *waiter); /* not any more, if it did */
	void *opaque;
};
/* 0, or -errno as map() says. */
int dma_read(const struct dma_ops *dma, uint64_t gpa, void *buf, size_t len);
int dma_write(const struct dma_ops *dma, uint64_t gpa, const void *buf, size_t len);

/* ---- character back ends (serial lines, consoles) ---------------------------------------------
 */

/* The device's side of a byte stream. The back end calls `receive` on the event loop's thread with
 * at most `can_receive()` bytes; the device calls chardev_* from any thread. */
struct chardev_client {
	size_t (*can_receive)(void *opaque);
	void (*receive)(void *opaque, const uint8_t *data, size_t len);
	void (*writable)(void *opaque); /* after a short write: there is room again */
	void *opaque;
};
struct chardev {
	const struct chardev_ops *ops;
	void *opaque; /* of the back end */
};
struct chardev_ops {
	void (*attach)(struct chardev *dev, const struct chardev_client *client);
	/* Bytes taken, 0..len; fewer: the reader is slow, `writable` follows. Never blocks. */
	size_t (*write)(struct chardev *dev, const uint8_t *data, size_t len);
	void (*kick_receive)(struct chardev *dev); /* the device can receive again */
};

/* ---- what a back end needs of the machine ---- */

struct backend_host {
	const struct watch_source *watches;
	const struct work_source *works;
	const struct timer_source *timers;
	const struct clock_source *clock;
};

/* ---- the device ---------------------------------------------------------------------------------
 */

struct device;
struct inspector;
struct device_ops {
	/* Power-on state. The loop's thread, vCPUs are stopped; prepared, and drain has said 0 (so
	 * that no request in flight writes into the next boot's memory); abort afterwards. A device
	 * that was just made is reset without that. */
	void (*reset)(struct device *dev);
	/* For a pause, a reset or a hand-over; may be NULL. The loop's thread, vCPUs are stopped.
	 * prepare: begin nothing new. drain: 0: nothing of the guest's is in flight, the state can
	 * be saved; -EINPROGRESS: not yet; the device calls device_drained() from the loop,
	 * never from within drain, and is asked again. release: give up what another process must
	 * have to go on (locks, addresses), after drain. acquire: take it back, or take it here for
	 * the first time, before the guest runs; the device goes on. abort: after prepare, drain or
	 * acquire: go on as if nothing had been asked. A machine that is to receive a state is
	 * prepared before it is loaded, so that nothing begins before acquire. Both may come twice.
	 */
	int (*prepare)(struct device *dev);
	int (*drain)(struct device *dev);
	int (*release)(struct device *dev);
	int (*acquire)(struct device *dev);
	int (*abort)(struct device *dev);
	void (*destroy)(struct device *dev); /* frees dev; drained, as for reset */
	/* What `ferry info` and `ferry stats` say of it; the loop's thread. May be NULL. */
	void (*inspect)(struct device *dev, const struct inspector *to);
};
struct device {
	const char *name; /* unique in the machine, stable: "serial0" */
	const struct device_ops *ops;
	const struct state_desc *state; /* of the object `dev` itself */
	/* The machine's, once the device is made; the device only calls device_drained(). */
	void (*drain_notify)(void *opaque);
	void *drain_opaque;
};
/* What drain said was in flight is over. Needless calls do no harm. */
static inline void device_drained(struct device *dev)
{
	if (dev->drain_notify)
		dev->drain_notify(dev->drain_opaque);
}

/* Receives a device's description of itself, in order. Names are stable: scripts see them. */
struct inspector {
	void (*counter)(void *opaque, const char *name, uint64_t value);
	void (*text)(void *opaque, const char *name, const char *value);
	void *opaque;
};

/* Messages about a guest that misbehaves: rate-limited, to the sink that the VMM sets (default
 * stderr). */
void dev_log(const char *device, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void dev_log_set_sink(void (*sink)(void *opaque, const char *line), void *opaque);

#endif
