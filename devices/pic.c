/*
 * Two cascaded i8259A with the edge/level control registers of the EISA chip set: Intel 8259A data
 * sheet (order 231468); ELCR: 82371AB (PIIX4) data sheet, 4D0h/4D1h.
 */
#include "devices/pc.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "devices/i8259.h"

struct pic {
	struct device dev;
	pthread_mutex_t lock;
	struct io_space *ports;
	struct irq_line output;

	struct i8259 chip[2];
	bool out; /* level at the INT pin of the master */
};

static void pic_update(struct pic *p)
{
	bool out;

	i8259_set_line(&p->chip[0], CASCADE_IRQ, i8259_request(&p->chip[1], false) >= 0);
	out = i8259_request(&p->chip[0], true) >= 0;
	if (out != p->out) {
		p->out = out;
		irq_set(&p->output, out);
	}
}

/* The slave's INT pin goes low when it was acknowledged and high when more is pending: an edge for
 * the master in either case. */
static void pic_slave_acked(struct pic *p)
{
	i8259_set_line(&p->chip[0], CASCADE_IRQ, false);
}

int pic_ack(struct device *dev)
{
	struct pic *p = (struct pic *)dev;
	int irq, slave, vector;

	pthread_mutex_lock(&p->lock);
	irq = i8259_request(&p->chip[0], true);
	if (irq < 0) {
		vector = p->chip[0].vector_base + 7; /* spurious: no ISR bit is set */
	} else if (irq == CASCADE_IRQ) {
		slave = i8259_request(&p->chip[1], false);
		i8259_ack(&p->chip[0], CASCADE_IRQ);
		if (slave >= 0)
			i8259_ack(&p->chip[1], (unsigned)slave);
		pic_slave_acked(p);
		vector = p->chip[1].vector_base + (slave < 0 ? 7 : slave);
	} else {
		i8259_ack(&p->chip[0], (unsigned)irq);
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
	i8259_set_line(&p->chip[n / 8], n % 8, level);
	pic_update(p);
	pthread_mutex_unlock(&p->lock);
}

struct irq_line pic_line(struct device *pic, unsigned n)
{
	return (struct irq_line){.set = pic_set_line, .opaque = pic, .n = n};
}

/* ---- registers ---- */

/* Poll mode: the next read acts as INTA. Bit 7 says that there was an interrupt. */
static uint8_t pic_read_poll(struct pic *p, unsigned chip)
{
	struct i8259 *c = &p->chip[chip];
	int irq = i8259_request(c, chip == 0);

	c->poll = false;
	if (irq < 0)
		return 0;
	i8259_ack(c, (unsigned)irq);
	if (chip == 1)
		pic_slave_acked(p);
	return (uint8_t)(0x80 | irq);
}

static uint8_t pic_read_port(struct pic *p, unsigned chip, bool data)
{
	struct i8259 *c = &p->chip[chip];

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
	struct i8259 *c = &p->chip[chip];

	pthread_mutex_lock(&p->lock);
	for (unsigned i = 0; i < size; i++) {
		if (off + i)
			i8259_write_data(c, (uint8_t)(value >> (8 * i)));
		else
			i8259_write_command(c, (uint8_t)(value >> (8 * i)));
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
		struct i8259 *c = &p->chip[off + i];

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
		i8259_reset(&p->chip[i]);
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
		struct i8259 *c = &p->chip[i];

		if (c->lowest > 7 || c->init_step == 1 || c->init_step > 4)
			*why = "a priority or initialization step out of range";
		else if (c->elcr & ~elcr_mask[i] || c->vector_base & 7)
			*why = "reserved bits are set";
		else if ((c->irr ^ c->lines) & c->elcr)
			*why = "a level request without its line";
	}
	if (!*why) {
		p->out = i8259_request(&p->chip[0], true) >= 0;
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

static const struct field pic_fields[] = {
	FIELD_SUBS(struct pic, chip, &i8259_state, 1),
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
	p->dev = (struct device){.name = "pic", .ops = &pic_ops, .state = &pic_state};
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
