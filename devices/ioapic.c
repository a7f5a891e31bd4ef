/*
 * 82093AA IOAPIC (Intel data sheet, order 290566), 24 pins.
 *
 * irq_line levels are "asserted or not": the polarity bits are kept for the guest and change
 * nothing.
 */
#include "devices/pc.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "devices/util.h"

#define IOAPIC_BASE 0xfec00000ULL
#define IOAPIC_PINS 24

#define RTE_REMOTE_IRR (1ULL << 14)
#define RTE_LEVEL      (1ULL << 15)
#define RTE_MASKED     (1ULL << 16)
#define RTE_WRITABLE   0xff0000000001afffULL

enum { DM_FIXED = 0, DM_LOWEST = 1 };

struct ioapic {
	struct device dev;
	pthread_mutex_t lock;
	struct io_space *mmio;
	struct device *lapic;
	uint8_t strap_id;

	uint8_t id, select;
	uint32_t lines; /* asserted pins */
	uint64_t rte[IOAPIC_PINS];
};

/* Redirection entry -> message (SDM vol. 3A 11.11). True: an APIC took it. */
static bool ioapic_send(struct ioapic *io, uint64_t rte)
{
	uint64_t addr = 0xfee00000 | (rte >> 56) << 12 | (rte >> 11 & 1) << 2;
	uint32_t data = (uint32_t)(rte & 0x7ff) | (rte & RTE_LEVEL ? 3u << 14 : 0);

	return lapic_msi(io->lapic, addr, data) > 0;
}

/* A level pin is sent once; remote IRR holds the next one back until the EOI. */
static void ioapic_service_level(struct ioapic *io, unsigned n)
{
	uint64_t *rte = &io->rte[n];
	unsigned mode = *rte >> 8 & 7;

	if (!(io->lines >> n & 1) || (*rte & (RTE_MASKED | RTE_REMOTE_IRR)) || !(*rte & RTE_LEVEL))
		return;
	if (ioapic_send(io, *rte) && (mode == DM_FIXED || mode == DM_LOWEST))
		*rte |= RTE_REMOTE_IRR;
}

static void ioapic_set_line(void *opaque, unsigned n, bool level)
{
	struct ioapic *io = opaque;
	bool was;

	if (n >= IOAPIC_PINS)
		return;
	pthread_mutex_lock(&io->lock);
	was = io->lines >> n & 1;
	if (level)
		io->lines |= 1u << n;
	else
		io->lines &= ~(1u << n);
	if (io->rte[n] & RTE_LEVEL)
		ioapic_service_level(io, n);
	else if (level && !was && !(io->rte[n] & RTE_MASKED))
		ioapic_send(
			io,
			io->rte[n]); /* an edge at a masked pin is lost (3.2.4, "Interrupt Mask") */
	pthread_mutex_unlock(&io->lock);
}

struct irq_line ioapic_line(struct device *ioapic, unsigned n)
{
	return (struct irq_line){.set = ioapic_set_line, .opaque = ioapic, .n = n};
}

static void ioapic_eoi(void *opaque, uint8_t vector)
{
	struct ioapic *io = opaque;

	pthread_mutex_lock(&io->lock);
	for (unsigned n = 0; n < IOAPIC_PINS; n++) {
		if (!(io->rte[n] & RTE_REMOTE_IRR) || (uint8_t)io->rte[n] != vector)
			continue;
		io->rte[n] &= ~RTE_REMOTE_IRR;
		ioapic_service_level(io, n);
	}
	pthread_mutex_unlock(&io->lock);
}

/* ---- registers ----------------------------------------------------------------------------------
 */

static uint32_t ioapic_reg_read(struct ioapic *io)
{
	unsigned n = (io->select - 0x10u) / 2;

	switch (io->select) {
	case 0x00: return (uint32_t)io->id << 24;
	case 0x01: return 0x11 | (IOAPIC_PINS - 1) << 16;
	case 0x02: return (uint32_t)io->id << 24; /* arbitration id */
	default: break;
	}
	if (io->select < 0x10 || n >= IOAPIC_PINS)
		return 0;
	return (uint32_t)(io->rte[n] >> (io->select & 1 ? 32 : 0));
}

static void ioapic_rte_write(struct ioapic *io, unsigned n, uint64_t value)
{
	uint64_t *rte = &io->rte[n];

	*rte = (value & RTE_WRITABLE) | (*rte & RTE_REMOTE_IRR);
	/* Linux ends a level interrupt of this version by a detour over edge mode
	 * (__eoi_ioapic_pin). */
	if (!(*rte & RTE_LEVEL))
		*rte &= ~RTE_REMOTE_IRR;
	ioapic_service_level(io, n);
}

static void ioapic_reg_write(struct ioapic *io, uint32_t value)
{
	unsigned n = (io->select - 0x10u) / 2;

	if (io->select == 0)
		io->id = value >> 24 & 15;
	if (io->select < 0x10 || n >= IOAPIC_PINS)
		return;
	if (io->select & 1)
		ioapic_rte_write(io, n, (uint32_t)io->rte[n] | (uint64_t)value << 32);
	else
		ioapic_rte_write(io, n, (io->rte[n] & 0xffffffff00000000) | value);
}

static uint64_t ioapic_read(void *opaque, unsigned vcpu, uint64_t off, unsigned size)
{
	struct ioapic *io = opaque;
	uint32_t value = 0;

	(void)vcpu;
	pthread_mutex_lock(&io->lock);
	if ((off & ~3ULL) == 0x00)
		value = io->select;
	else if ((off & ~3ULL) == 0x10)
		value = ioapic_reg_read(io);
	pthread_mutex_unlock(&io->lock);
	return ((uint64_t)value >> (8 * (off & 3))) & all_ones(size);
}

static void ioapic_write(void *opaque, unsigned vcpu, uint64_t off, unsigned size, uint64_t value)
{
	struct ioapic *io = opaque;

	(void)vcpu;
	pthread_mutex_lock(&io->lock);
	if (off == 0x00)
		io->select = (uint8_t)value;
	else if (off == 0x10 && size >= 4)
		ioapic_reg_write(io, (uint32_t)value);
	pthread_mutex_unlock(&io->lock);
}

/* ---- life --------------------------------------------------------------------------------------
 */

static void ioapic_reset(struct device *dev)
{
	struct ioapic *io = (struct ioapic *)dev;

	pthread_mutex_lock(&io->lock);
	io->id = io->strap_id & 15;
	io->select = 0;
	for (unsigned n = 0; n < IOAPIC_PINS; n++)
		io->rte[n] = RTE_MASKED;
	pthread_mutex_unlock(&io->lock);
}

static int ioapic_post_load(void *object, const char **why)
{
	struct ioapic *io = object;

	if (io->id > 15 || io->lines >> IOAPIC_PINS)
		*why = "reserved bits are set";
	for (unsigned n = 0; n < IOAPIC_PINS; n++) {
		uint64_t rte = io->rte[n];

		if (rte & ~(RTE_WRITABLE | RTE_REMOTE_IRR) ||
		    ((rte & RTE_REMOTE_IRR) && !(rte & RTE_LEVEL)))
			*why = "an impossible redirection entry";
	}
	return *why ? -EINVAL : 0;
}

static void ioapic_destroy(struct device *dev)
{
	struct ioapic *io = (struct ioapic *)dev;

	io_space_remove(io->mmio, IOAPIC_BASE);
	pthread_mutex_destroy(&io->lock);
	free(io);
}

static const struct io_region_ops ioapic_io = {ioapic_read, ioapic_write};
static const struct device_ops ioapic_ops = {.reset = ioapic_reset, .destroy = ioapic_destroy};
static const struct field ioapic_fields[] = {
	FIELD_SCALAR(struct ioapic, id, FIELD_U8, 1),
	FIELD_SCALAR(struct ioapic, select, FIELD_U8, 1),
	FIELD_SCALAR(struct ioapic, lines, FIELD_U32, 1),
	FIELD_ARRAY(struct ioapic, rte, FIELD_U64, 1),
	FIELD_END,
};
static const struct state_desc ioapic_state = {
	.name = "ioapic", .version = 1, .fields = ioapic_fields, .post_load = ioapic_post_load};

int ioapic_create(struct device **out, struct io_space *mmio, struct device *lapic, uint8_t id)
{
	struct ioapic *io = calloc(1, sizeof(*io));
	const struct io_region region = {.base = IOAPIC_BASE,
					 .size = 4096,
					 .ops = &ioapic_io,
					 .opaque = io,
					 .name = "ioapic"};
	int ret;

	if (!io)
		return -ENOMEM;
	io->dev = (struct device){.name = "ioapic", .ops = &ioapic_ops, .state = &ioapic_state};
	io->mmio = mmio;
	io->lapic = lapic;
	io->strap_id = id;
	pthread_mutex_init(&io->lock, NULL);
	ret = io_space_add(mmio, &region);
	if (ret) {
		pthread_mutex_destroy(&io->lock);
		free(io);
		return ret;
	}
	ioapic_reset(&io->dev);
	lapic_set_eoi(lapic, ioapic_eoi, io);
	*out = &io->dev;
	return 0;
}
