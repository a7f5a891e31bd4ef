/* virtio over PCI, the modern transport: virtio 1.2, 4.1. */
#include "devices/virtio/virtio.h"

#include <errno.h>
#include <string.h>

#include "devices/util.h"

/* 4.1.4: types of the vendor capability. */
enum { CAP_COMMON = 1, CAP_NOTIFY, CAP_ISR, CAP_DEVICE, CAP_PCI };
/* BAR 0. */
enum {
	BAR_COMMON = 0x0000,
	BAR_ISR = 0x1000,
	BAR_DEVICE = 0x2000,
	BAR_NOTIFY = 0x3000, /* four bytes for each queue */
	BAR_MSIX_TABLE = 0x4000,
	BAR_MSIX_PBA = 0x6000,
	BAR_SIZE = 0x8000,
	BAR_PART = 0x1000,
};
/* 4.1.4.3: struct virtio_pci_common_cfg */
enum {
	C_DEVICE_SELECT = 0x00,
	C_DEVICE_FEATURE = 0x04,
	C_DRIVER_SELECT = 0x08,
	C_DRIVER_FEATURE = 0x0c,
	C_CONFIG_VECTOR = 0x10,
	C_NUM_QUEUES = 0x12,
	C_STATUS = 0x14,
	C_GENERATION = 0x15,
	C_QUEUE_SELECT = 0x16,
	C_QUEUE_SIZE = 0x18,
	C_QUEUE_VECTOR = 0x1a,
	C_QUEUE_ENABLE = 0x1c,
	C_QUEUE_NOTIFY = 0x1e,
	C_QUEUE_DESC = 0x20,
	C_QUEUE_DRIVER = 0x28,
	C_QUEUE_DEVICE = 0x30,
	C_SIZE = 0x38,
};

static void put16(uint8_t *p, uint32_t value)
{
	p[0] = (uint8_t)value;
	p[1] = (uint8_t)(value >> 8);
}

static void put32(uint8_t *p, uint32_t value)
{
	put16(p, value);
	put16(p + 2, value >> 16);
}

static void put64(uint8_t *p, uint64_t value)
{
	put32(p, (uint32_t)value);
	put32(p + 4, (uint32_t)(value >> 32));
}

static struct virtq *selected(struct virtio *v)
{
	return v->queue_select < v->model->queues ? &v->queue[v->queue_select] : NULL;
}

static uint64_t common_read(struct virtio *v, uint64_t off, unsigned size)
{
	const struct virtq *q = selected(v);
	uint8_t image[C_SIZE] = {0};
	uint64_t value = 0;

	if (off + size > C_SIZE)
		return 0;
	put32(image + C_DEVICE_SELECT, v->device_select);
	if (v->device_select < 2)
		put32(image + C_DEVICE_FEATURE,
		      (uint32_t)(virtio_features(v) >> 32 * v->device_select));
	put32(image + C_DRIVER_SELECT, v->driver_select);
	if (v->driver_select < 2)
		put32(image + C_DRIVER_FEATURE,
		      (uint32_t)(v->driver_features >> 32 * v->driver_select));
	put16(image + C_CONFIG_VECTOR, v->config_vector);
	put16(image + C_NUM_QUEUES, v->model->queues);
	image[C_STATUS] = v->status;
	image[C_GENERATION] = v->generation;
	put16(image + C_QUEUE_SELECT, v->queue_select);
	if (q) {
		put16(image + C_QUEUE_SIZE, q->size);
		put16(image + C_QUEUE_VECTOR, q->vector);
		put16(image + C_QUEUE_ENABLE, q->enabled);
		put16(image + C_QUEUE_NOTIFY, v->queue_select);
		put64(image + C_QUEUE_DESC, q->desc);
		put64(image + C_QUEUE_DRIVER, q->driver);
		put64(image + C_QUEUE_DEVICE, q->device);
	}
	for (unsigned i = 0; i < size; i++)
		value |= (uint64_t)image[off + i] << 8 * i;
	return value;
}

/* 4.1.5.1.2.2: what cannot be mapped reads back as "no vector". */
static uint16_t vector(const struct virtio *v, uint32_t value)
{
	return value < v->fn.vectors ? (uint16_t)value : VIRTQ_NO_VECTOR;
}

static void set_half(uint64_t *addr, unsigned high, uint32_t value)
{
	if (high)
		*addr = (uint32_t)*addr | (uint64_t)value << 32;
	else
		*addr = (*addr & 0xffffffff00000000) | value;
}

/* A queue is set up before the driver starts, and then only a reset changes it. */
static void queue_write(struct virtio *v, uint64_t off, unsigned size, uint32_t value)
{
	struct virtq *q = selected(v);

	if (!q)
		return;
	if (off == C_QUEUE_VECTOR && size == 2)
		q->vector = vector(v, value);
	if (q->enabled || (v->status & VIRTIO_DRIVER_OK))
		return;
	if (size == 4 && off >= C_QUEUE_DESC) {
		uint64_t *addr[] = {&q->desc, &q->driver, &q->device};

		set_half(addr[(off - C_QUEUE_DESC) / 8], off & 4, value);
	} else if (size == 2 && off == C_QUEUE_SIZE) {
		if (value && value <= v->model->queue_size && !(value & (value - 1)))
			q->size = (uint16_t)value;
	} else if (size == 2 && off == C_QUEUE_ENABLE && value == 1) {
		q->enabled = virtq_valid(q);
		if (!q->enabled)
			dev_log(v->dev.name, "queue %u is misaligned: not enabled",
				v->queue_select);
	}
}

static void common_write(struct virtio *v, uint64_t off, unsigned size, uint64_t value)
{
	const uint32_t v32 = (uint32_t)value;

	if (size == 8) {
		common_write(v, off, 4, v32);
		common_write(v, off + 4, 4, value >> 32);
		return;
	}
	if (off % size || off + size > C_SIZE)
		return;
	if (off == C_STATUS && size == 1) {
		virtio_set_status(v, (uint8_t)v32);
		return;
	}
	/* A device that is being reset is not there for anything else. */
	if (v->resetting)
		return;
	switch (off << 4 | size) {
	case C_DEVICE_SELECT << 4 | 4: v->device_select = v32; break;
	case C_DRIVER_SELECT << 4 | 4: v->driver_select = v32; break;
	case C_DRIVER_FEATURE << 4 | 4:
		if (v->driver_select < 2 && !(v->status & VIRTIO_FEATURES_OK))
			set_half(&v->driver_features, v->driver_select, v32);
		break;
	case C_CONFIG_VECTOR << 4 | 2: v->config_vector = vector(v, v32); break;
	case C_QUEUE_SELECT << 4 | 2: v->queue_select = (uint16_t)v32; break;
	default: queue_write(v, off, size, v32); break;
	}
}

static uint64_t device_read(struct virtio *v, uint64_t off, unsigned size)
{
	const struct virtio_model *m = v->model;

	if (off + size > m->config_size || !m->ops->config_read)
		return 0;
	if (size == 8)
		return m->ops->config_read(v, (unsigned)off, 4) |
		       (uint64_t)m->ops->config_read(v, (unsigned)off + 4, 4) << 32;
	return m->ops->config_read(v, (unsigned)off, size);
}

static uint64_t bar_read(void *opaque, unsigned vcpu, uint64_t off, unsigned size)
{
	struct virtio *v = opaque;
	uint64_t value = 0;

	(void)vcpu;
	pthread_mutex_lock(&v->lock);
	switch (off & ~(BAR_PART - 1ULL)) {
	case BAR_COMMON: value = common_read(v, off, size); break;
	case BAR_DEVICE: value = device_read(v, off - BAR_DEVICE, size); break;
	case BAR_ISR: /* 4.1.4.5: reading acknowledges */
		if (off == BAR_ISR) {
			value = v->isr;
			v->isr = 0;
			pci_intx_set(&v->fn, false);
		}
		break;
	default: break;
	}
	pthread_mutex_unlock(&v->lock);
	return value;
}

static void bar_write(void *opaque, unsigned vcpu, uint64_t off, unsigned size, uint64_t value)
{
	struct virtio *v = opaque;
	const struct virtio_model *m = v->model;

	(void)vcpu;
	/* The hot one, and it needs no lock. */
	if (off >= BAR_NOTIFY && off < BAR_NOTIFY + BAR_PART) {
		virtio_kick(v, (unsigned)(off - BAR_NOTIFY) / 4);
		return;
	}
	pthread_mutex_lock(&v->lock);
	if (off < BAR_COMMON + BAR_PART)
		common_write(v, off, size, value);
	else if (off >= BAR_DEVICE && off < BAR_DEVICE + BAR_PART && size <= 4 &&
		 off - BAR_DEVICE + size <= m->config_size && m->ops->config_write)
		m->ops->config_write(v, (unsigned)off - BAR_DEVICE, size, (uint32_t)value);
	pthread_mutex_unlock(&v->lock);
}

/* ---- 4.1.4.9: a BAR through configuration space, for firmware ---- */

enum { W_BAR = 4, W_OFFSET = 8, W_LENGTH = 12, W_DATA = 16 };

static bool window_target(struct virtio *v, unsigned size, unsigned *bar, uint32_t *off)
{
	const unsigned cap = v->cfg_cap;

	*bar = pci_config_get(&v->fn, cap + W_BAR, 1);
	*off = pci_config_get(&v->fn, cap + W_OFFSET, 4);
	return pci_config_get(&v->fn, cap + W_LENGTH, 4) == size && size != 3 && *off % size == 0;
}

static uint64_t window_read(void *opaque, unsigned vcpu, uint64_t where, unsigned size)
{
	struct virtio *v = opaque;
	unsigned bar;
	uint32_t off;

	if (where || !window_target(v, size, &bar, &off))
		return 0;
	return pci_bar_read(&v->fn, vcpu, bar, off, size);
}

static void window_write(void *opaque, unsigned vcpu, uint64_t where, unsigned size, uint64_t value)
{
	struct virtio *v = opaque;
	unsigned bar;
	uint32_t off;

	if (!where && window_target(v, size, &bar, &off))
		pci_bar_write(&v->fn, vcpu, bar, off, size, value);
}

/* ---- life ---- */

static const struct io_region_ops bar_ops = {bar_read, bar_write};
static const struct io_region_ops window_ops = {window_read, window_write};

/* struct virtio_pci_cap behind the two bytes that all capabilities have. */
static int add_cap(struct virtio *v, uint8_t type, uint32_t off, uint32_t len, unsigned extra)
{
	uint8_t body[18] = {(uint8_t)(16 + extra), type}, writable[18] = {0};

	put32(body + 6, off);
	put32(body + 10, len);
	if (type == CAP_NOTIFY)
		put32(body + 14, 4); /* bytes from queue to queue */
	if (type == CAP_PCI) {
		writable[W_BAR - 2] = 0xff;
		memset(writable + W_OFFSET - 2, 0xff, 8);
	}
	return pci_cap_add(&v->fn, PCI_CAP_VENDOR, body, writable, 14 + extra);
}

static int add_parts(struct virtio *v)
{
	const struct virtio_model *m = v->model;
	int ret = pci_bar_add(&v->fn, 0, 0, BAR_SIZE, &bar_ops, v);

	if (!ret)
		ret = pci_msix_add(&v->fn, 0, m->queues + 1, BAR_MSIX_TABLE, BAR_MSIX_PBA);
	if (ret >= 0)
		ret = add_cap(v, CAP_COMMON, BAR_COMMON, C_SIZE, 0);
	if (ret >= 0)
		ret = add_cap(v, CAP_NOTIFY, BAR_NOTIFY, 4 * m->queues, 4);
	if (ret >= 0)
		ret = add_cap(v, CAP_ISR, BAR_ISR, 1, 0);
	if (ret >= 0 && m->config_size)
		ret = add_cap(v, CAP_DEVICE, BAR_DEVICE, m->config_size, 0);
	if (ret >= 0)
		ret = add_cap(v, CAP_PCI, 0, 0, 4);
	if (ret < 0)
		return ret;
	v->cfg_cap = (unsigned)ret;
	pci_window_add(&v->fn, v->cfg_cap + W_DATA, &window_ops, v);
	return 0;
}

int virtio_pci_init(struct virtio *v, const struct virtio_config *config)
{
	/* 4.1.2: 1040h + the device's type; revision 1 and a subsystem from 40h: not transitional.
	 */
	const struct pci_ids ids = {.vendor = 0x1af4,
				    .device = (uint16_t)(0x1040 + v->model->id),
				    .subvendor = 0x1af4,
				    .subsystem = 0x1100,
				    .class_code = v->model->class_code,
				    .revision = 1,
				    .intx = true};
	int ret = pci_function_init(&v->fn, config->pci, config->slot, config->name, &ids);

	if (ret)
		return ret;
	ret = add_parts(v);
	if (ret)
		pci_function_exit(&v->fn);
	return ret;
}
