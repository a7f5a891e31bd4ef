/* A virtio device under test: a machine of memory, PCI and work that a test turns by hand, and a
 * small driver. */
#ifndef TESTS_UNIT_VIRTIO_UTIL_H
#define TESTS_UNIT_VIRTIO_UTIL_H

#include <errno.h>

#include "devices/virtio/devices.h"
#include "tests/unit/dev_util.h"

#define VT_RAM	    0x40000u /* one MiB less a hole: [0x20000, 0x21000) is not there */
#define VT_HOLE	    0x20000u
#define VT_QUEUES   5
#define VT_ECAM	    0xe0000000ULL
#define VT_BAR	    0xc1000000ULL /* slot 1, BAR 0 */
#define VT_DESC(q)  (0x1000u + (q)*0x4000u)
#define VT_AVAIL(q) (0x2000u + (q)*0x4000u)
#define VT_USED(q)  (0x3000u + (q)*0x4000u)

struct work {
	void (*fn)(void *arg);
	void *arg;
	bool posted;
};

struct vt {
	struct dev_world w;
	struct dev_wire wires[PCI_INTX_LINES];
	struct device *host, *dev;
	struct work work[4];
	unsigned works;
	uint8_t ram[VT_RAM];
	uint64_t dirty;	  /* bytes told to have been written */
	uint64_t missing; /* number of a page that has not come yet; 0: none */
	struct dma_waiter *waiter;
	bool long_pieces;
	unsigned drained; /* how often the device said so */
	unsigned msis;
	uint32_t msi_data;
	uint16_t avail[VT_QUEUES], used[VT_QUEUES], size;
};

static inline struct work *vt_work_create(void *opaque, void (*fn)(void *arg), void *arg)
{
	struct vt *t = opaque;

	t->work[t->works] = (struct work){fn, arg, false};
	return &t->work[t->works++];
}

static inline void vt_work_post(struct work *work)
{
	work->posted = true;
}

static inline void vt_work_destroy(struct work *work)
{
	*work = (struct work){0};
}

/* Runs what was posted, again and again: the number of turns, `max` at most. */
static inline unsigned vt_run(struct vt *t, unsigned max)
{
	unsigned turns = 0;

	for (unsigned i = 0; i < t->works && turns < max; i++) {
		if (!t->work[i].posted)
			continue;
		t->work[i].posted = false;
		t->work[i].fn(t->work[i].arg);
		turns++;
		i = UINT32_MAX;
	}
	return turns;
}

/* A piece is a page, or all up to the hole. */
static inline int vt_map(void *opaque, uint64_t gpa, size_t *len, bool write, void **out)
{
	struct vt *t = opaque;
	size_t rest = 4096 - (gpa & 4095);

	(void)write;
	if (gpa >= VT_RAM || (gpa >= VT_HOLE && gpa < VT_HOLE + 4096))
		return -EFAULT;
	if (t->missing && gpa >> 12 == t->missing)
		return -EAGAIN;
	if (t->long_pieces)
		rest = (gpa < VT_HOLE ? VT_HOLE : VT_RAM) - gpa;
	if (*len > rest)
		*len = rest;
	*out = t->ram + gpa;
	return 0;
}

static inline bool vt_here(void *opaque, uint64_t gpa, uint64_t len)
{
	const struct vt *t = opaque;
	const uint64_t at = t->missing << 12;

	return !t->missing || gpa + len <= at || gpa >= at + 4096;
}

static inline void vt_wait(void *opaque, struct dma_waiter *waiter)
{
	struct vt *t = opaque;

	t->waiter = waiter;
}

static inline void vt_wait_not(void *opaque, struct dma_waiter *waiter)
{
	struct vt *t = opaque;

	if (t->waiter == waiter)
		t->waiter = NULL;
}

/* The missing page comes. */
static inline void vt_arrive(struct vt *t)
{
	struct dma_waiter *waiter = t->waiter;

	t->missing = 0;
	t->waiter = NULL;
	if (waiter)
		waiter->ready(waiter);
}

static inline void vt_written(void *opaque, uint64_t gpa, size_t len)
{
	struct vt *t = opaque;

	CHECK(gpa < VT_RAM && len <= VT_RAM - gpa);
	t->dirty += len;
}

static inline void vt_msi(void *opaque, uint64_t addr, uint32_t data)
{
	struct vt *t = opaque;

	(void)addr;
	t->msis++;
	t->msi_data = data;
}

static inline void vt_drained(void *opaque)
{
	((struct vt *)opaque)->drained++;
}

/* The machine; the test makes the device with the configuration that comes back. */
static inline struct virtio_config vt_start(struct vt *t, const char *name)
{
	static struct work_source works;
	static struct dma_ops dma;
	struct pci_host_config config;

	*t = (struct vt){0};
	dev_world_init(&t->w);
	config = (struct pci_host_config){.ports = &t->w.ports,
					  .mmio = &t->w.mmio,
					  .ecam = VT_ECAM,
					  .mmio32 = {0xc0000000, 0x20000000},
					  .mmio64 = {0x20000000000, 0x10000000000},
					  .msi = {vt_msi, t}};
	for (unsigned i = 0; i < PCI_INTX_LINES; i++)
		config.line[i] = dev_wire_line(t->wires, i);
	CHECK_EQ(pci_host_create(&t->host, &config), 0);
	works = (struct work_source){vt_work_create, vt_work_post, vt_work_destroy, t};
	dma = (struct dma_ops){vt_map, vt_written, vt_here, vt_wait, vt_wait_not, t};
	return (struct virtio_config){name, t->host, 1, &works, &dma};
}

static inline void vt_stop(struct vt *t)
{
	t->dev->ops->destroy(t->dev);
	t->host->ops->destroy(t->host);
	CHECK_EQ(t->w.mmio.count + t->w.ports.count, 0);
	dev_world_free(&t->w);
}

/* ---- registers ---- */

static inline uint64_t vt_get(struct vt *t, uint64_t off, unsigned size)
{
	return io_space_read(&t->w.mmio, 0, VT_BAR + off, size);
}

static inline void vt_put(struct vt *t, uint64_t off, unsigned size, uint64_t value)
{
	io_space_write(&t->w.mmio, 0, VT_BAR + off, size, value);
}

static inline uint64_t vt_cfg(struct vt *t, unsigned off, unsigned size)
{
	return io_space_read(&t->w.mmio, 0, VT_ECAM + 0x8000 + off, size);
}

static inline void vt_cfg_put(struct vt *t, unsigned off, unsigned size, uint64_t value)
{
	io_space_write(&t->w.mmio, 0, VT_ECAM + 0x8000 + off, size, value);
}

/* ---- memory ---- */

static inline void vt_mem(struct vt *t, uint64_t gpa, unsigned size, uint64_t value)
{
	for (unsigned i = 0; i < size; i++)
		t->ram[gpa + i] = (uint8_t)(value >> 8 * i);
}

static inline uint64_t vt_peek(const struct vt *t, uint64_t gpa, unsigned size)
{
	uint64_t value = 0;

	for (unsigned i = 0; i < size; i++)
		value |= (uint64_t)t->ram[gpa + i] << 8 * i;
	return value;
}

static inline void vt_desc(struct vt *t, uint64_t table, unsigned n, uint64_t addr, uint32_t len,
			   unsigned flags, unsigned next)
{
	vt_mem(t, table + 16 * n, 8, addr);
	vt_mem(t, table + 16 * n + 8, 4, len);
	vt_mem(t, table + 16 * n + 12, 2, flags);
	vt_mem(t, table + 16 * n + 14, 2, next);
}

/* Makes descriptor `head` available; no notification. */
static inline void vt_offer(struct vt *t, unsigned q, unsigned head)
{
	vt_mem(t, VT_AVAIL(q) + 4 + 2 * (t->avail[q] % t->size), 2, head);
	t->avail[q]++;
	vt_mem(t, VT_AVAIL(q) + 2, 2, t->avail[q]);
}

static inline void vt_notify(struct vt *t, unsigned q)
{
	vt_put(t, 0x3000 + 4 * q, 2, q);
	vt_run(t, 100);
}

/* The next used element: its length, or -1. */
static inline int64_t vt_used(struct vt *t, unsigned q, unsigned *head)
{
	uint64_t at = VT_USED(q) + 4 + 8 * (t->used[q] % t->size);

	if ((uint16_t)vt_peek(t, VT_USED(q) + 2, 2) == t->used[q])
		return -1;
	t->used[q]++;
	if (head)
		*head = (unsigned)vt_peek(t, at, 4);
	return (int64_t)vt_peek(t, at + 4, 4);
}

/* ---- the driver's start: 3.1.1 ---- */

static inline void vt_queue(struct vt *t, unsigned q, unsigned size, unsigned vector)
{
	vt_put(t, 0x16, 2, q);
	vt_put(t, 0x18, 2, size);
	vt_put(t, 0x1a, 2, vector);
	vt_put(t, 0x20, 4, VT_DESC(q));
	vt_put(t, 0x24, 4, 0);
	vt_put(t, 0x28, 8, VT_AVAIL(q));
	vt_put(t, 0x30, 8, VT_USED(q));
	vt_put(t, 0x1c, 2, 1);
	t->size = (uint16_t)size;
	t->avail[q] = t->used[q] = 0;
	memset(t->ram + VT_DESC(q), 0, 0x3000);
}

static inline void vt_drive(struct vt *t, unsigned queues, uint64_t features, bool msix)
{
	vt_cfg_put(t, 4, 2, 6);
	if (msix) {
		vt_cfg_put(t, 0x42, 2, 0x8000); /* the first capability: MSI-X */
		for (unsigned i = 0; i <= queues; i++) {
			vt_put(t, 0x4000 + 16 * i, 8, 0xfee00000);
			vt_put(t, 0x4008 + 16 * i, 8, 0x40 + i);
		}
	}
	vt_put(t, 0x14, 1, 0);
	CHECK_EQ(vt_get(t, 0x14, 1), 0);
	vt_put(t, 0x14, 1, 1);
	vt_put(t, 0x14, 1, 3);
	vt_put(t, 0x08, 4, 0);
	vt_put(t, 0x0c, 4, features & 0xffffffff);
	vt_put(t, 0x08, 4, 1);
	vt_put(t, 0x0c, 4, features >> 32);
	vt_put(t, 0x14, 1, 11);
	CHECK_EQ(vt_get(t, 0x14, 1), 11);
	for (unsigned q = 0; q < queues; q++)
		vt_queue(t, q, 16, msix ? q + 1 : 0xffff);
	vt_put(t, 0x10, 2, msix ? 0 : 0xffff);
	vt_put(t, 0x14, 1, 15);
	CHECK_EQ(vt_get(t, 0x14, 1), 15);
	vt_run(t, 100);
}

#endif
