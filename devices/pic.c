/*
 * Two cascaded i8259A with the edge/level control registers of the EISA chip set: Intel 8259A data
 * sheet (order 231468); ELCR: 82371AB (PIIX4) data sheet, 4D0h/4D1h.
 */
#include "devices/pc.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define CASCADE_IRQ 2

struct pic_chip {
	uint8_t irr, imr, isr, lines, elcr;
	uint8_t lowest;	     /* the IRQ of the lowest priority (rotation) */
	uint8_t vector_base; /* ICW2 */
	uint8_t init_step;   /* 0: operating, else the ICW that is expected */
	bool icw4_needed, single;
	bool read_isr, poll, special_mask;
	bool auto_eoi, rotate_on_aeoi,
		fully_nested; /* fully_nested: the special fully nested mode */
};

struct pic {
	struct device dev;
	pthread_mutex_t lock;
	struct io_space *ports;
	struct irq_line output;

	struct pic_chip chip[2];
	bool out; /* level at the INT pin of the master */
};

/* ICW1 clears the edge sense, the mask and the modes (data sheet: "Initialization Command Words").
 */
static void chip_init(struct pic_chip *c)
{
	uint8_t lines = c->lines, elcr = c->elcr;

	*c = (struct pic_chip){.lines = lines, .elcr = elcr, .lowest = 7};
	c->irr = lines & elcr;
}

/* The rank (0: highest priority) of the best of the IRQs in mask, 8: none. */
static unsigned chip_best(const struct pic_chip *c, uint8_t mask)
{
	for (unsigned rank = 0; mask && rank < 8; rank++)
		if (mask >> ((c->lowest + 1 + rank) & 7) & 1)
			return rank;
	return 8;
}

/* The IRQ that this chip asks for, -1: none. */
static int chip_request(const struct pic_chip *c, bool master)
{
	unsigned want = chip_best(c, c->irr & (uint8_t)~c->imr);
	unsigned irq = (c->lowest + 1 + want) & 7;
	uint8_t served = c->isr;

	if (want == 8)
		return -1;
	if (c->special_mask)
		served &= (uint8_t)~c->imr;
	/* Special fully nested: a slave in service may ask again, for a higher one of its own. */
	if (c->fully_nested && master && irq == CASCADE_IRQ)
		served &= (uint8_t) ~(1u << CASCADE_IRQ);
	return want < chip_best(c, served) ? (int)irq : -1;
}

static void chip_set_line(struct pic_chip *c, unsigned irq, bool level)
{
	uint8_t bit = (uint8_t)(1u << irq);

	if (c->elcr & bit)
		c->irr = (uint8_t)(level ? c->irr | bit : c->irr & ~bit);
	else if (level && !(c->lines & bit))
		c->irr |= bit;
	/* A request whose line falls before INTA stays (the chip would report IRQ 7): pulses that
	 * are shorter than a vCPU's reaction must not get lost. */
	c->lines = (uint8_t)(level ? c->lines | bit : c->lines & ~bit);
}

static void pic_update(struct pic *p)
{
	bool out;

	chip_set_line(&p->chip[0], CASCADE_IRQ, chip_request(&p->chip[1], false) >= 0);
	out = chip_request(&p->chip[0], true) >= 0;
	if (out != p->out) {
		p->out = out;
		irq_set(&p->output, out);
	}
}

/* INTA, or the read that follows a poll command. */
static void chip_ack(struct pic_chip *c, unsigned irq)
{
	uint8_t bit = (uint8_t)(1u << irq);

	if (!(c->elcr & bit))
		c->irr &= (uint8_t)~bit;
	if (!c->auto_eoi)
		c->isr |= bit;
	else if (c->rotate_on_aeoi)
		c->lowest = (uint8_t)irq;
}

/* The slave's INT pin goes low when it was acknowledged and high when more is pending: an edge for
 * the master in either case. */
static void pic_slave_acked(struct pic *p)
{
	chip_set_line(&p->chip[0], CASCADE_IRQ, false);
}

int pic_ack(struct device *dev)
{
	struct pic *p = (struct pic *)dev;
	int irq, slave, vector;

	pthread_mutex_lock(&p->lock);
	irq = chip_request(&p->chip[0], true);
	if (irq < 0) {
		vector = p->chip[0].vector_base + 7; /* spurious: no ISR bit is set */
	} else if (irq == CASCADE_IRQ) {
		slave = chip_request(&p->chip[1], false);
		chip_ack(&p->chip[0], CASCADE_IRQ);
		if (slave >= 0)
			chip_ack(&p->chip[1], (unsigned)slave);
		pic_slave_acked(p);
		vector = p->chip[1].vector_base + (slave < 0 ? 7 : slave);
	} else {
		chip_ack(&p->chip[0], (unsigned)irq);
		vector = p->chip[0].vector_base + irq;
	}
	pic_update(p);
	pthread_mutex_unlock(&p->lock);
	return vector;
}

static void pic_set_line(void *opaque, unsigned n, bool level)
{
	struct pic *p = opaque;

	if (n >= 16 || n == CASCADE_IRQ)
		return;
	pthread_mutex_lock(&p->lock);
	chip_set_line(&p->chip[n / 8], n % 8, level);
	pic_update(p);
	pthread_mutex_unlock(&p->lock);
}

struct irq_line pic_line(struct device *pic, unsigned n)
{
	return (struct irq_line){.set = pic_set_line, .opaque = pic, .n = n};
}

/* ---- registers ------------------------------------------------------------------------------- */

static void chip_eoi(struct pic_chip *c, unsigned irq, bool rotate)
{
	c->isr &= (uint8_t) ~(1u << irq);
	if (rotate)
		c->lowest = (uint8_t)irq;
}

/* The in-service IRQ of the highest priority; special mask mode leaves masked ones out ("Fully
 * nested mode": a non-specific EOI does not clear an IS bit that is masked by an IMR bit then). */
static int chip_served(const struct pic_chip *c)
{
	uint8_t served = c->special_mask ? c->isr & (uint8_t)~c->imr : c->isr;
	unsigned rank = chip_best(c, served);

	return rank == 8 ? -1 : (int)((c->lowest + 1 + rank) & 7);
}

static void chip_write_ocw2(struct pic_chip *c, uint8_t value)
{
	int irq;

	switch (value >> 5) {
	case 0: c->rotate_on_aeoi = false; break;
	case 4: c->rotate_on_aeoi = true; break;
	case 1:
	case 5:
		irq = chip_served(c);
		if (irq >= 0)
			chip_eoi(c, (unsigned)irq, value >> 5 == 5);
		break;
	case 3:
	case 7: chip_eoi(c, value & 7, value >> 5 == 7); break;
	case 6: c->lowest = value & 7; break;
	default: break; /* 2: no operation */
	}
}

static void chip_write_ocw3(struct pic_chip *c, uint8_t value)
{
	if (value & 0x04)
		c->poll = true;
	if (value & 0x02)
		c->read_isr = value & 0x01;
	if (value & 0x40)
		c->special_mask = value & 0x20;
}

static void chip_write_command(struct pic_chip *c, uint8_t value)
{
	if (value & 0x10) {
		chip_init(c);
		c->init_step = 2;
		c->icw4_needed = value & 0x01;
		c->single = value & 0x02;
	} else if (value & 0x08) {
		chip_write_ocw3(c, value);
	} else {
		chip_write_ocw2(c, value);
	}
}

static void chip_write_data(struct pic_chip *c, uint8_t value)
{
	switch (c->init_step) {
	case 0: c->imr = value; break;
	case 2:
		c->vector_base = value & 0xf8;
		c->init_step = !c->single ? 3 : c->icw4_needed ? 4 : 0;
		break;
	case 3: c->init_step = c->icw4_needed ? 4 : 0; break; /* the wiring is fixed */
	default:
		c->fully_nested = value & 0x10;
		c->auto_eoi = value & 0x02;
		c->init_step = 0;
		break;
	}
}

/* Poll mode: the next read acts as INTA. Bit 7 says that there was an interrupt. */
static uint8_t pic_read_poll(struct pic *p, unsigned chip)
{
	struct pic_chip *c = &p->chip[chip];
	int irq = chip_request(c, chip == 0);

	c->poll = false;
	if (irq < 0)
		return 0;
	chip_ack(c, (unsigned)irq);
	if (chip == 1)
		pic_slave_acked(p);
	return (uint8_t)(0x80 | irq);
}

static uint8_t pic_read_port(struct pic *p, unsigned chip, bool data)
{
	struct pic_chip *c = &p->chip[chip];

	if (c->poll)
		return pic_read_poll(p, chip);
	if (data)
		return c->imr;
	return c->read_isr ? c->isr : c->irr;
}

static uint64_t pic_read(struct pic *p, unsigned chip, uint64_t off, unsigned size)
{
	uint64_t value = 0;

	pthread_mutex_lock(&p->lock);
	for (unsigned i = 0; i < size; i++)
		value |= (uint64_t)pic_read_port(p, chip, off + i) << (8 * i);
	pic_update(p);
	pthread_mutex_unlock(&p->lock);
	return value;
}

static void pic_write(struct pic *p, unsigned chip, uint64_t off, unsigned size, uint64_t value)
{
	struct pic_chip *c = &p->chip[chip];

	pthread_mutex_lock(&p->lock);
	for (unsigned i = 0; i < size; i++) {
		if (off + i)
			chip_write_data(c, (uint8_t)(value >> (8 * i)));
		else
			chip_write_command(c, (uint8_t)(value >> (8 * i)));
	}
	pic_update(p);
	pthread_mutex_unlock(&p->lock);
}

static uint64_t pic_read_master(void *opaque, unsigned vcpu, uint64_t off, unsigned size)
{
	(void)vcpu;
	return pic_read(opaque, 0, off, size);
}

static uint64_t pic_read_slave(void *opaque, unsigned vcpu, uint64_t off, unsigned size)
{
	(void)vcpu;
	return pic_read(opaque, 1, off, size);
}

static void pic_write_master(void *opaque, unsigned vcpu, uint64_t off, unsigned size,
			     uint64_t value)
{
	(void)vcpu;
	pic_write(opaque, 0, off, size, value);
}

static void pic_write_slave(void *opaque, unsigned vcpu, uint64_t off, unsigned size,
			    uint64_t value)
{
	(void)vcpu;
	pic_write(opaque, 1, off, size, value);
}

static uint64_t elcr_read(void *opaque, unsigned vcpu, uint64_t off, unsigned size)
{
	struct pic *p = opaque;
	uint64_t value = 0;

	(void)vcpu;
	pthread_mutex_lock(&p->lock);
	for (unsigned i = 0; i < size; i++)
		value |= (uint64_t)p->chip[off + i].elcr << (8 * i);
	pthread_mutex_unlock(&p->lock);
	return value;
}

/* IRQ 0, 1, 2, 8 and 13 are edges for ever. */
static const uint8_t elcr_mask[2] = {0xf8, 0xde};

static void elcr_write(void *opaque, unsigned vcpu, uint64_t off, unsigned size, uint64_t value)
{
	struct pic *p = opaque;

	(void)vcpu;
	pthread_mutex_lock(&p->lock);
	for (unsigned i = 0; i < size; i++) {
		struct pic_chip *c = &p->chip[off + i];

		c->elcr = (uint8_t)(value >> (8 * i)) & elcr_mask[off + i];
		/* A level pin's request is its line. */
		c->irr = (uint8_t)((c->irr & ~c->elcr) | (c->lines & c->elcr));
	}
	pic_update(p);
	pthread_mutex_unlock(&p->lock);
}

/* ---- life -------------------------------------------------------------------------------------
 */

/* The lines belong to the devices, which drive them in their own reset. */
static void pic_reset(struct device *dev)
{
	struct pic *p = (struct pic *)dev;

	pthread_mutex_lock(&p->lock);
	for (unsigned i = 0; i < 2; i++) {
		p->chip[i].elcr = 0;
		chip_init(&p->chip[i]);
	}
	p->chip[0].lines &= (uint8_t) ~(1u << CASCADE_IRQ);
	pic_update(p);
	pthread_mutex_unlock(&p->lock);
}

static int pic_post_load(void *object, const char **why)
{
	struct pic *p = object;

	pthread_mutex_lock(&p->lock);
	for (unsigned i = 0; i < 2; i++) {
		struct pic_chip *c = &p->chip[i];

		if (c->lowest > 7 || c->init_step == 1 || c->init_step > 4)
			*why = "a priority or initialization step out of range";
		else if (c->elcr & ~elcr_mask[i] || c->vector_base & 7)
			*why = "reserved bits are set";
		else if ((c->irr ^ c->lines) & c->elcr)
			*why = "a level request without its line";
	}
	if (!*why) {
		p->out = chip_request(&p->chip[0], true) >= 0;
		pic_update(p);
		irq_set(&p->output, p->out);
	}
	pthread_mutex_unlock(&p->lock);
	return *why ? -EINVAL : 0;
}

static void pic_destroy(struct device *dev)
{
	struct pic *p = (struct pic *)dev;

	io_space_remove(p->ports, 0x20);
	io_space_remove(p->ports, 0xa0);
	io_space_remove(p->ports, 0x4d0);
	pthread_mutex_destroy(&p->lock);
	free(p);
}

static const struct io_region_ops pic_master_io = {pic_read_master, pic_write_master};
static const struct io_region_ops pic_slave_io = {pic_read_slave, pic_write_slave};
static const struct io_region_ops elcr_io = {elcr_read, elcr_write};
static const struct device_ops pic_ops = {.reset = pic_reset, .destroy = pic_destroy};

static const struct field chip_fields[] = {
	FIELD_SCALAR(struct pic_chip, irr, FIELD_U8, 1),
	FIELD_SCALAR(struct pic_chip, imr, FIELD_U8, 1),
	FIELD_SCALAR(struct pic_chip, isr, FIELD_U8, 1),
	FIELD_SCALAR(struct pic_chip, lines, FIELD_U8, 1),
	FIELD_SCALAR(struct pic_chip, elcr, FIELD_U8, 1),
	FIELD_SCALAR(struct pic_chip, lowest, FIELD_U8, 1),
	FIELD_SCALAR(struct pic_chip, vector_base, FIELD_U8, 1),
	FIELD_SCALAR(struct pic_chip, init_step, FIELD_U8, 1),
	FIELD_SCALAR(struct pic_chip, icw4_needed, FIELD_BOOL, 1),
	FIELD_SCALAR(struct pic_chip, single, FIELD_BOOL, 1),
	FIELD_SCALAR(struct pic_chip, read_isr, FIELD_BOOL, 1),
	FIELD_SCALAR(struct pic_chip, poll, FIELD_BOOL, 1),
	FIELD_SCALAR(struct pic_chip, special_mask, FIELD_BOOL, 1),
	FIELD_SCALAR(struct pic_chip, auto_eoi, FIELD_BOOL, 1),
	FIELD_SCALAR(struct pic_chip, rotate_on_aeoi, FIELD_BOOL, 1),
	FIELD_SCALAR(struct pic_chip, fully_nested, FIELD_BOOL, 1),
	FIELD_END,
};
static const struct state_desc chip_state = {.name = "i8259", .version = 1, .fields = chip_fields};
static const struct field pic_fields[] = {
	FIELD_SUBS(struct pic, chip, &chip_state, 1),
	FIELD_END,
};
static const struct state_desc pic_state = {
	.name = "pic", .version = 1, .fields = pic_fields, .post_load = pic_post_load};

int pic_create(struct device **out, struct io_space *ports, struct irq_line output)
{
	struct pic *p = calloc(1, sizeof(*p));
	const struct io_region regions[] = {
		{.base = 0x20, .size = 2, .ops = &pic_master_io, .opaque = p, .name = "pic0"},
		{.base = 0xa0, .size = 2, .ops = &pic_slave_io, .opaque = p, .name = "pic1"},
		{.base = 0x4d0, .size = 2, .ops = &elcr_io, .opaque = p, .name = "elcr"},
	};
	int ret;

	if (!p)
		return -ENOMEM;
	p->dev = (struct device){"pic", &pic_ops, &pic_state};
	p->ports = ports;
	p->output = output;
	pthread_mutex_init(&p->lock, NULL);
	for (unsigned i = 0; i < 3; i++) {
		ret = io_space_add(ports, &regions[i]);
		if (ret) {
			while (i--)
				io_space_remove(ports, regions[i].base);
			pthread_mutex_destroy(&p->lock);
			free(p);
			return ret;
		}
	}
	pic_reset(&p->dev);
	*out = &p->dev;
	return 0;
}
