/* Registers of the 16550A: PC16550D data sheet; section numbers are its. */
#include "devices/serial8250.h"

#include <string.h>

unsigned serial_depth(const struct serial *s)
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
void serial_update(struct serial *s)
{
	irq_set(&s->line, serial_source(s) != IIR_NONE);
}

static void serial_pop(uint8_t *fifo, uint8_t *count, size_t n)
{
	*count = (uint8_t)(*count - n);
	memmove(fifo, fifo + n, *count);
}

/* ---- transmitting ---- */

void serial_rx_push(struct serial *s, uint8_t byte)
{
	if (s->rx_count >= serial_depth(s)) {
		s->errors |= LSR_OE; /* only in loopback: can_receive bounds the outside */
		return;
	}
	s->rx[s->rx_count++] = byte;
}

/* Hands over what the back end takes. The THR becoming empty is what raises the interrupt. */
void serial_tx_flush(struct serial *s)
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

void serial_write_reg(struct serial *s, unsigned reg, uint8_t value)
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

uint8_t serial_read_reg(struct serial *s, unsigned reg, bool *room)
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
