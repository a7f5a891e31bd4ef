#include "virtio.h"

enum {
	ECAM = 0xe0000000,
	VENDOR = 0x1af4,
	MEMORY_AND_MASTER = 6,
	FIRST_CAP = 0x34,
	CAP_VENDOR = 9
};
enum { CAP_COMMON = 1, CAP_NOTIFY = 2, CAP_DEVICE = 4 };
/* 4.1.4.3 */
enum { DRIVER_SELECT = 0x08, DRIVER_FEATURE = 0x0c, STATUS = 0x14, SELECT = 0x16, SIZE = 0x18 };
enum { ENABLE = 0x1c, NOTIFY_OFF = 0x1e, DESC = 0x20, DRIVER = 0x28, DEVICE = 0x30 };
enum { ACKNOWLEDGE = 1, DRIVES = 2, RUNS = 4, FEATURES_OK = 8 };

static volatile u32 *reg32(volatile u8 *at, u32 off)
{
	return (volatile u32 *)(at + off);
}

static volatile u16 *reg16(volatile u8 *at, u32 off)
{
	return (volatile u16 *)(at + off);
}

static void put64(volatile u8 *at, u32 off, u64 value)
{
	*reg32(at, off) = (u32)value;
	*reg32(at, off + 4) = (u32)(value >> 32);
}

static volatile u8 *find(volatile u8 *config, u8 type, u32 *more)
{
	for (u8 at = config[FIRST_CAP]; at; at = config[at + 1]) {
		if (config[at] != CAP_VENDOR || config[at + 3] != type)
			continue;
		*more = *reg32(config, at + 16);
		return (volatile u8 *)(u64)(*reg32(config, 0x10 + 4 * config[at + 4]) & ~15u) +
		       *reg32(config, at + 8);
	}
	if (type != CAP_DEVICE)
		panic("a virtio device without part %u", type);
	return NULL;
}

bool virtio_find(struct vdev *v, u32 slot)
{
	volatile u8 *config = (volatile u8 *)(u64)(ECAM + (slot << 15));
	u32 unused;

	if (*reg16(config, 0) != VENDOR)
		return false;
	*reg16(config, 4) = MEMORY_AND_MASTER;
	v->common = find(config, CAP_COMMON, &unused);
	v->notify = find(config, CAP_NOTIFY, &v->multiplier);
	v->device = find(config, CAP_DEVICE, &unused);
	v->common[STATUS] = 0;
	v->common[STATUS] = ACKNOWLEDGE | DRIVES;
	*reg32(v->common, DRIVER_SELECT) = 1;
	*reg32(v->common, DRIVER_FEATURE) = 1; /* VERSION_1 */
	v->common[STATUS] = ACKNOWLEDGE | DRIVES | FEATURES_OK;
	if (!(v->common[STATUS] & FEATURES_OK))
		panic("virtio device %u does not want to run", slot);
	return true;
}

void virtio_queue(struct vdev *v, struct vq *q, u16 number, volatile struct vq_rings *rings)
{
	*reg16(v->common, SELECT) = number;
	q->size = *reg16(v->common, SIZE);
	if (q->size > VQ_MAX)
		q->size = VQ_MAX;
	*reg16(v->common, SIZE) = (u16)q->size;
	q->rings = rings;
	q->number = number;
	q->added = q->seen = 0;
	rings->avail.flags = 1; /* no interrupts */
	put64(v->common, DESC, (u64)rings->desc);
	put64(v->common, DRIVER, (u64)&rings->avail);
	put64(v->common, DEVICE, (u64)&rings->used);
	q->notify = reg32(v->notify, *reg16(v->common, NOTIFY_OFF) * v->multiplier);
	*reg16(v->common, ENABLE) = 1;
}

void virtio_run(struct vdev *v)
{
	v->common[STATUS] = ACKNOWLEDGE | DRIVES | FEATURES_OK | RUNS;
}

void vq_describe(struct vq *q, u32 n, const volatile void *data, u32 len, u16 flags)
{
	volatile struct vq_desc *d = &q->rings->desc[n];

	d->addr = (u64)data;
	d->len = len;
	d->flags = flags;
	d->next = (u16)(n + 1);
}

void vq_add(struct vq *q, u32 head)
{
	q->rings->avail.ring[q->added++ % q->size] = (u16)head;
	__atomic_store_n(&q->rings->avail.idx, q->added, __ATOMIC_SEQ_CST);
}

void vq_kick(struct vq *q)
{
	*q->notify = q->number;
}

bool vq_done(struct vq *q, u32 *head, u32 *len)
{
	const u32 at = q->seen % q->size;

	if (__atomic_load_n(&q->rings->used.idx, __ATOMIC_ACQUIRE) == q->seen)
		return false;
	*head = q->rings->used.ring[at].id;
	*len = q->rings->used.ring[at].len;
	q->seen++;
	return true;
}

u32 vq_wait(struct vq *q, u32 *len, const char *whose)
{
	const u64 since = rdtsc();
	u32 head;

	while (!vq_done(q, &head, len)) {
		cpu_relax();
		if (rdtsc() - since > tsc_hz() * 60)
			wrong("the %s does not answer: %u requests, %u answers", whose, q->added,
			      q->seen);
	}
	return head;
}
