/*
 * 16550A UART: National Semiconductor PC16550D data sheet (section numbers below are its).
 *
 * There is no bit time: a byte leaves when the back end takes it. One that is not taken stays in
 * the transmit FIFO, THRE stays clear, and the guest's driver waits as for a slow line.
 */
#include "devices/serial8250.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The back end is called without the lock: it may ask can_receive() at once. */
static void serial_kick(struct serial *s)
{
	if (s->chr && s->chr->ops->kick_receive)
		s->chr->ops->kick_receive(s->chr);
}

static uint64_t serial_read(void *opaque, unsigned vcpu, uint64_t off, unsigned size)
{
	struct serial *s = opaque;
	uint64_t value = 0;
	bool room = false;

	(void)vcpu;
	pthread_mutex_lock(&s->lock);
	for (unsigned i = 0; i < size; i++)
		value |= (uint64_t)serial_read_reg(s, (unsigned)off + i, &room) << (8 * i);
	serial_update(s);
	pthread_mutex_unlock(&s->lock);
	if (room)
		serial_kick(s);
	return value;
}

static void serial_write(void *opaque, unsigned vcpu, uint64_t off, unsigned size, uint64_t value)
{
	struct serial *s = opaque;
	unsigned before, loop;
	bool room;

	(void)vcpu;
	pthread_mutex_lock(&s->lock);
	before = s->rx_count;
	loop = s->mcr & MCR_LOOP;
	for (unsigned i = 0; i < size; i++)
		serial_write_reg(s, (unsigned)off + i, (uint8_t)(value >> (8 * i)));
	room = !(s->mcr & MCR_LOOP) && (loop || s->rx_count < before);
	serial_update(s);
	pthread_mutex_unlock(&s->lock);
	if (room)
		serial_kick(s);
}

/* ---- the back end's calls ---- */

static size_t serial_can_receive(void *opaque)
{
	struct serial *s = opaque;
	size_t n = 0;

	pthread_mutex_lock(&s->lock);
	if (!s->quiesced && !(s->mcr & MCR_LOOP) && s->rx_count < serial_depth(s))
		n = serial_depth(s) - s->rx_count;
	pthread_mutex_unlock(&s->lock);
	return n;
}

static void serial_receive(void *opaque, const uint8_t *data, size_t len)
{
	struct serial *s = opaque;

	pthread_mutex_lock(&s->lock);
	/* The guest may have switched the FIFO off since can_receive(): what was promised room has
	 * it. */
	for (size_t i = 0; i < len && s->rx_count < FIFO_SIZE; i++)
		s->rx[s->rx_count++] = data[i];
	serial_update(s);
	pthread_mutex_unlock(&s->lock);
}

static void serial_writable(void *opaque)
{
	struct serial *s = opaque;

	pthread_mutex_lock(&s->lock);
	serial_tx_flush(s);
	serial_update(s);
	pthread_mutex_unlock(&s->lock);
}

/* ---- life ---------------------------------------------------------------------------------------
 */

static void serial_reset(struct device *dev)
{
	struct serial *s = (struct serial *)dev;

	pthread_mutex_lock(&s->lock);
	s->ier = s->fcr = s->lcr = s->mcr = s->scr = s->errors = 0;
	s->dll = 1; /* 115200: left undefined by the data sheet */
	s->dlm = 0;
	s->msr = MSR_CTS | MSR_DSR | MSR_DCD;
	s->thre_pending = false;
	s->rx_count = s->tx_count = 0;
	memset(s->rx, 0, sizeof(s->rx));
	memset(s->tx, 0, sizeof(s->tx));
	serial_update(s);
	pthread_mutex_unlock(&s->lock);
	serial_kick(s);
}

static int serial_prepare(struct device *dev)
{
	struct serial *s = (struct serial *)dev;

	pthread_mutex_lock(&s->lock);
	s->quiesced = true;
	pthread_mutex_unlock(&s->lock);
	return 0;
}

/* A byte that waited on the old side is offered to the new side's back end. */
static int serial_acquire(struct device *dev)
{
	struct serial *s = (struct serial *)dev;

	pthread_mutex_lock(&s->lock);
	s->quiesced = false;
	serial_tx_flush(s);
	serial_update(s);
	pthread_mutex_unlock(&s->lock);
	serial_kick(s);
	return 0;
}

static void serial_destroy(struct device *dev)
{
	struct serial *s = (struct serial *)dev;

	io_space_remove(s->ports, s->base);
	pthread_mutex_destroy(&s->lock);
	free(s);
}

static int serial_post_load(void *object, const char **why)
{
	struct serial *s = object;

	pthread_mutex_lock(&s->lock);
	if (s->ier & ~IER_MASK || s->fcr & ~FCR_MASK || (s->fcr && !(s->fcr & FCR_ON)) ||
	    s->mcr & ~MCR_MASK || s->errors & ~0x1e)
		*why = "reserved bits are set";
	else if (s->rx_count > FIFO_SIZE || s->tx_count > serial_depth(s))
		*why = "more bytes than the FIFO holds";
	if (*why)
		s->rx_count = s->tx_count = 0; /* the back end may still call */
	else
		serial_update(s);
	pthread_mutex_unlock(&s->lock);
	return *why ? -EINVAL : 0;
}

static const struct io_region_ops serial_io = {serial_read, serial_write};
static const struct device_ops serial_ops = {
	.reset = serial_reset,
	.prepare = serial_prepare,
	.acquire = serial_acquire,
	.abort = serial_acquire,
	.destroy = serial_destroy,
};
static const struct field serial_fields[] = {
	FIELD_SCALAR(struct serial, ier, FIELD_U8, 1),
	FIELD_SCALAR(struct serial, fcr, FIELD_U8, 1),
	FIELD_SCALAR(struct serial, lcr, FIELD_U8, 1),
	FIELD_SCALAR(struct serial, mcr, FIELD_U8, 1),
	FIELD_SCALAR(struct serial, scr, FIELD_U8, 1),
	FIELD_SCALAR(struct serial, dll, FIELD_U8, 1),
	FIELD_SCALAR(struct serial, dlm, FIELD_U8, 1),
	FIELD_SCALAR(struct serial, errors, FIELD_U8, 1),
	FIELD_SCALAR(struct serial, msr, FIELD_U8, 1),
	FIELD_SCALAR(struct serial, thre_pending, FIELD_BOOL, 1),
	FIELD_BLOB(struct serial, rx, 1),
	FIELD_BLOB(struct serial, tx, 1),
	FIELD_SCALAR(struct serial, rx_count, FIELD_U8, 1),
	FIELD_SCALAR(struct serial, tx_count, FIELD_U8, 1),
	FIELD_END,
};
static const struct state_desc serial_state = {
	.name = "serial8250", .version = 1, .fields = serial_fields, .post_load = serial_post_load};

int serial8250_create(struct device **out, const char *name, struct io_space *ports, uint16_t base,
		      struct irq_line line, struct chardev *chr)
{
	struct serial *s = calloc(1, sizeof(*s));
	struct io_region region = {.base = base, .size = 8, .ops = &serial_io, .opaque = s};
	const struct chardev_client client = {
		.can_receive = serial_can_receive,
		.receive = serial_receive,
		.writable = serial_writable,
		.opaque = s,
	};
	int ret;

	if (!s)
		return -ENOMEM;
	snprintf(s->name, sizeof(s->name), "%s", name);
	s->dev = (struct device){.name = s->name, .ops = &serial_ops, .state = &serial_state};
	s->ports = ports;
	s->base = base;
	s->line = line;
	pthread_mutex_init(&s->lock, NULL);
	region.name = s->name;
	ret = io_space_add(ports, &region);
	if (ret) {
		pthread_mutex_destroy(&s->lock);
		free(s);
		return ret;
	}
	serial_reset(&s->dev);
	s->chr = chr;
	if (chr)
		chr->ops->attach(chr, &client);
	*out = &s->dev;
	return 0;
}
