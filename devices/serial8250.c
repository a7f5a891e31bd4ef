/*
 * 16550A UART: National Semiconductor PC16550D data sheet (section numbers below are its).
 *
 * There is no bit time: a byte leaves when the back end takes it. One that is not taken stays in
 * the transmit FIFO, THRE stays clear, and the guest's driver waits as for a slow line.
 */
#include "devices/pc.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FIFO_SIZE 16

#define IER_RDI	  0x01
#define IER_THRI  0x02
#define IER_RLSI  0x04
#define IER_MSI	  0x08
#define IER_MASK  0x0f
#define IIR_NONE  0x01
#define IIR_MSI	  0x00
#define IIR_THRI  0x02
#define IIR_RDI	  0x04
#define IIR_RLSI  0x06
#define IIR_CTI	  0x0c
#define IIR_FIFO  0xc0
#define FCR_ON	  0x01
#define FCR_RX	  0x02
#define FCR_TX	  0x04
#define FCR_MASK  0xc9 /* what sticks: enable, DMA mode, trigger level */
#define LCR_BREAK 0x40
#define LCR_DLAB  0x80
#define MCR_DTR	  0x01
#define MCR_RTS	  0x02
#define MCR_OUT1  0x04
#define MCR_OUT2  0x08
#define MCR_LOOP  0x10
#define MCR_MASK  0x1f
#define LSR_DR	  0x01
#define LSR_OE	  0x02
#define LSR_BI	  0x10
#define LSR_THRE  0x20
#define LSR_TEMT  0x40
#define MSR_CTS	  0x10
#define MSR_DSR	  0x20
#define MSR_RI	  0x40
#define MSR_DCD	  0x80

struct serial {
	struct device dev;
	pthread_mutex_t lock;
	struct io_space *ports;
	uint16_t base;
	struct irq_line line;
	struct chardev *chr;
	char name[32];
	bool quiesced; /* between prepare and acquire/abort: the outside is not touched */

	uint8_t ier, fcr, lcr, mcr, scr, dll, dlm;
	uint8_t errors; /* LSR 4:1, until the LSR is read */
	uint8_t msr;
	bool thre_pending; /* the THR-empty interrupt waits to be seen (8.6.4) */
	uint8_t rx[FIFO_SIZE], tx[FIFO_SIZE];
	uint8_t rx_count, tx_count; /* element 0 is the oldest */
};

static unsigned serial_depth(const struct serial *s)
{
	return s->fcr & FCR_ON ? FIFO_SIZE : 1;
}

static unsigned serial_trigger(const struct serial *s)
{
	static const uint8_t level[4] = {1, 4, 8, 14};

	return s->fcr & FCR_ON ? level[s->fcr >> 6] : 1;
}

/* The highest pending source (table III). A byte below the trigger level is reported as a character
 * timeout at once: no more can come while the guest does not look. */
static uint8_t serial_source(const struct serial *s)
{
	if ((s->ier & IER_RLSI) && s->errors)
		return IIR_RLSI;
	if ((s->ier & IER_RDI) && s->rx_count >= serial_trigger(s))
		return IIR_RDI;
	if ((s->ier & IER_RDI) && s->rx_count)
		return IIR_CTI;
	if ((s->ier & IER_THRI) && s->thre_pending)
		return IIR_THRI;
	if ((s->ier & IER_MSI) && (s->msr & 0x0f))
		return IIR_MSI;
	return IIR_NONE;
}

/* MCR OUT2 gates the line on a PC board. It is not honoured: small kernels that were only ever run
 * in emulators never set it, and nobody relies on the gate. */
static void serial_update(struct serial *s)
{
	irq_set(&s->line, serial_source(s) != IIR_NONE);
}

static void serial_pop(uint8_t *fifo, uint8_t *count, size_t n)
{
	*count = (uint8_t)(*count - n);
	memmove(fifo, fifo + n, *count);
}

/* ---- transmitting ---------------------------------------------------------------------------- */

static void serial_rx_push(struct serial *s, uint8_t byte)
{
	if (s->rx_count >= serial_depth(s)) {
		s->errors |= LSR_OE; /* only in loopback: can_receive bounds the outside */
		return;
	}
	s->rx[s->rx_count++] = byte;
}

/* Hands over what the back end takes. The THR becoming empty is what raises the interrupt. */
static void serial_tx_flush(struct serial *s)
{
	size_t n;

	if (!s->tx_count || s->quiesced)
		return;
	if (s->mcr & MCR_LOOP) {
		for (unsigned i = 0; i < s->tx_count; i++)
			serial_rx_push(s, s->tx[i]);
		n = s->tx_count;
	} else {
		n = s->chr ? s->chr->ops->write(s->chr, s->tx, s->tx_count) : s->tx_count;
		if (n > s->tx_count)
			n = s->tx_count;
	}
	serial_pop(s->tx, &s->tx_count, n);
	if (!s->tx_count)
		s->thre_pending = true;
}

static void serial_tx(struct serial *s, uint8_t byte)
{
	s->thre_pending = false;
	if (s->tx_count < serial_depth(s))
		s->tx[s->tx_count++] = byte;
	else if (!(s->fcr & FCR_ON))
		s->tx[0] = byte; /* the holding register is overwritten (8.4) */
	serial_tx_flush(s);
}

/* ---- registers ---------------------------------------------------------------------------------
 */

/* In loopback the modem outputs are the inputs (8.7). Without it: a peer that is always ready. */
static void serial_modem_update(struct serial *s)
{
	uint8_t now = MSR_CTS | MSR_DSR | MSR_DCD, changed;

	if (s->mcr & MCR_LOOP)
		now = (uint8_t)((s->mcr & MCR_RTS ? MSR_CTS : 0) |
				(s->mcr & MCR_DTR ? MSR_DSR : 0) |
				(s->mcr & MCR_OUT1 ? MSR_RI : 0) |
				(s->mcr & MCR_OUT2 ? MSR_DCD : 0));
	changed = (now ^ s->msr) & 0xf0;
	if (now & MSR_RI)
		changed &= (uint8_t)~MSR_RI; /* TERI: the trailing edge only */
	s->msr = (uint8_t)(now | (s->msr & 0x0f) | changed >> 4);
}

static void serial_write_ier(struct serial *s, uint8_t value)
{
	/* Enabling THRI while the THR is empty raises it again; drivers start transmission that
	 * way. */
	if ((value & ~s->ier & IER_THRI) && !s->tx_count)
		s->thre_pending = true;
	s->ier = value & IER_MASK;
}

static void serial_write_fcr(struct serial *s, uint8_t value)
{
	uint8_t changed = (value ^ s->fcr) & FCR_ON;

	if (!(value & FCR_ON))
		value = 0; /* the other bits are not programmed then (8.5) */
	if (changed || (value & FCR_RX))
		s->rx_count = 0;
	if ((changed || (value & FCR_TX)) && s->tx_count) {
		s->tx_count = 0;
		s->thre_pending = true;
	}
	s->fcr = value & FCR_MASK;
}

static void serial_write_mcr(struct serial *s, uint8_t value)
{
	s->mcr = value & MCR_MASK;
	serial_modem_update(s);
	serial_tx_flush(s); /* bytes that waited for the back end go where the switch points now */
}

static void serial_write_reg(struct serial *s, unsigned reg, uint8_t value)
{
	bool dlab = s->lcr & LCR_DLAB;

	switch (reg) {
	case 0:
		if (dlab)
			s->dll = value;
		else
			serial_tx(s, value);
		break;
	case 1:
		if (dlab)
			s->dlm = value;
		else
			serial_write_ier(s, value);
		break;
	case 2: serial_write_fcr(s, value); break;
	case 3:
		/* A break looped back arrives as a zero byte with BI; outside nobody can see one.
		 */
		if ((value & ~s->lcr & LCR_BREAK) && (s->mcr & MCR_LOOP)) {
			serial_rx_push(s, 0);
			s->errors |= LSR_BI;
		}
		s->lcr = value;
		break;
	case 4: serial_write_mcr(s, value); break;
	case 7: s->scr = value; break;
	default: break; /* LSR and MSR: factory tests only */
	}
}

static uint8_t serial_read_iir(struct serial *s)
{
	uint8_t source = serial_source(s);

	if (source == IIR_THRI)
		s->thre_pending = false;
	return source | (s->fcr & FCR_ON ? IIR_FIFO : 0);
}

static uint8_t serial_read_lsr(struct serial *s)
{
	uint8_t value = s->errors;

	s->errors = 0;
	if (s->rx_count)
		value |= LSR_DR;
	if (!s->tx_count)
		value |= LSR_THRE | LSR_TEMT;
	return value;
}

static uint8_t serial_read_reg(struct serial *s, unsigned reg, bool *room)
{
	bool dlab = s->lcr & LCR_DLAB;
	uint8_t value = 0;

	switch (reg) {
	case 0:
		if (dlab)
			return s->dll;
		if (s->rx_count) {
			value = s->rx[0];
			serial_pop(s->rx, &s->rx_count, 1);
			/* Not for each byte: the back end's wake-up costs a system call. */
			*room = !s->rx_count && !(s->mcr & MCR_LOOP);
		}
		return value;
	case 1: return dlab ? s->dlm : s->ier;
	case 2: return serial_read_iir(s);
	case 3: return s->lcr;
	case 4: return s->mcr;
	case 5: return serial_read_lsr(s);
	case 6:
		value = s->msr;
		s->msr &= 0xf0;
		return value;
	default: return s->scr;
	}
}

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

/* ---- the back end's calls -------------------------------------------------------------------- */

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
	for (size_t i = 0; i < len; i++)
		serial_rx_push(s, data[i]);
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
	else if (s->rx_count > serial_depth(s) || s->tx_count > serial_depth(s))
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
	s->dev = (struct device){s->name, &serial_ops, &serial_state};
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
